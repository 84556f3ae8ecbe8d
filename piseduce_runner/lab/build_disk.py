"""Writing a disk image: partition table, FAT, ext4.

Nothing is mounted: mkfs.vfat, mtools and `mke2fs -d` write straight into the (sparse) image.
"""

from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.lab.build_tree import run

SECTOR = 512
MIB = 1024 * 1024
BOOT_START = 4 * MIB
BOOT_BYTES = 64 * MIB
ROOT_START = BOOT_START + BOOT_BYTES
BLOCK = 4096
HASH_SEED = "0c0ffee0-0000-4000-8000-000000000002"


@dataclass(frozen=True)
class Layout:
    """What tells one image's partitions from another's; `root_bytes` 0 means: as the tree needs."""

    disk_id: int
    boot_label: str
    root_label: str
    root_uuid: str
    root_bytes: int = 0
    journal_mib: int = 16


def write_image(image: Path, boot: Path, root: Path, layout: Layout) -> None:
    """Write a disk image: MBR, FAT32 with the files of `boot`, ext4 with the tree `root`."""
    root_bytes = layout.root_bytes or _root_bytes(root)
    with image.open("wb") as file:
        file.truncate(ROOT_START + root_bytes)
    table = (
        f"label: dos\nlabel-id: {layout.disk_id:#x}\n"
        f"start={BOOT_START // SECTOR}, size={BOOT_BYTES // SECTOR}, type=c, bootable\n"
        f"start={ROOT_START // SECTOR}, size={root_bytes // SECTOR}, type=83\n"
    )
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, stdin=table)
    _write_boot(image, boot, layout)
    _write_root(image, root, root_bytes, layout)


def _write_boot(image: Path, boot: Path, layout: Layout) -> None:
    sector = BOOT_START // SECTOR
    run(
        *("mkfs.vfat", "-F", "32", "-s", "1", "-n", layout.boot_label, "-h", str(sector)),
        *(f"--offset={sector}", "--invariant", image, str(BOOT_BYTES // 1024)),
    )
    run("mcopy", "-s", "-m", "-i", f"{image}@@{BOOT_START}", *sorted(boot.iterdir()), "::")


def _write_root(image: Path, root: Path, size: int, layout: Layout) -> None:
    options = f"offset={ROOT_START},hash_seed={HASH_SEED},lazy_itable_init=1,nodiscard"
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-i", "16384"),
        *("-L", layout.root_label, "-U", layout.root_uuid, "-J", f"size={layout.journal_mib}"),
        *("-E", options, "-d", root, image, f"{size // 1024}k"),
    )


def _root_bytes(root: Path) -> int:
    """Room for the tree, the journal, metadata and about as much again for work, in whole 4 MiB."""
    used = int(run("du", "-s", "--block-size=1", root).split()[0])
    unit = 4 * MIB
    return (used * 3 // 2 + 128 * MIB + unit - 1) // unit * unit
