"""The sample image: a small Debian with the layout and the first boot of Raspberry Pi OS.

Nothing is mounted: mkfs.vfat, mtools and `mke2fs -d` write straight into the (sparse) image.
"""

import tempfile
from pathlib import Path

from piseduce_runner.lab.build_apt import INSTALLED, build_package
from piseduce_runner.lab.build_boot_files import write_boot_files
from piseduce_runner.lab.build_tree import add_recipe, busybox_init, run, run_in

SECTOR = 512
MIB = 1024 * 1024
DISK_ID = 0xC0FFEE01
BOOT_START = 4 * MIB
BOOT_BYTES = 64 * MIB
ROOT_START = BOOT_START + BOOT_BYTES
BLOCK = 4096
JOURNAL_MIB = 16
ROOT_UUID = "0c0ffee0-0000-4000-8000-000000000001"
HASH_SEED = "0c0ffee0-0000-4000-8000-000000000002"
# The last words are those of an image fresh from the Raspberry Pi Imager.
CMDLINE = (
    f"console=serial0,115200 console=tty1 root=PARTUUID={DISK_ID:08x}-02 rootfstype=ext4 "
    "fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh"
)
FSTAB = f"""\
proc                  /proc           proc    defaults          0       0
PARTUUID={DISK_ID:08x}-01  /boot/firmware  vfat    defaults          0       2
PARTUUID={DISK_ID:08x}-02  /               ext4    defaults,noatime  0       1
"""
WANTED = "etc/systemd/system/multi-user.target.wants"


def build_image(image: Path, base: Path) -> None:
    """Build the raw image from a Debian tree; `image`'s folder takes the scratch files."""
    tree = image.with_name("image-root")
    boot = image.with_name("image-boot")
    run("cp", "--archive", "--reflink=auto", base, tree)
    _configure(tree)
    (tree / "boot/firmware").rename(boot)
    (tree / "boot/firmware").mkdir()
    write_image(image, boot, tree)


def _configure(tree: Path) -> None:
    add_recipe(tree, "common")
    add_recipe(tree, "image")
    busybox_init(tree)
    (tree / "etc/fstab").write_text(FSTAB, encoding="ascii")
    (tree / "etc/sudoers.d/010_pi-nopasswd").chmod(0o440)
    # sshd waits for the flag file, host keys are made on the first boot, and so is the room.
    for name in ("ssh.service", "sshd.service"):
        for link in (tree / "etc/systemd/system").rglob(name):
            link.unlink()
    (tree / WANTED).mkdir(parents=True, exist_ok=True)
    for name in ("regenerate_ssh_host_keys.service", "sshswitch.service"):
        (tree / WANTED / name).symlink_to(f"/lib/systemd/system/{name}")
    (tree / "etc/rc3.d/S01resize2fs_once").symlink_to("../init.d/resize2fs_once")
    run_in(tree, "useradd", "--create-home", "--uid=1000", "--shell=/bin/bash", "pi")
    run_in(tree, "usermod", "--append", "--groups=sudo,video,plugdev", "pi")
    (tree / "boot/firmware").mkdir()
    write_boot_files(tree / "boot/firmware", CMDLINE, "card")
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as scratch:
        deb = build_package(INSTALLED, Path(scratch))
        run_in(tree, "dpkg", "--install", f"/{deb.relative_to(tree)}")


def write_image(image: Path, boot: Path, root: Path) -> None:
    """Write a disk image: MBR, FAT32 with the files of `boot`, ext4 with the tree `root`."""
    root_bytes = _root_bytes(root)
    with image.open("wb") as file:
        file.truncate(ROOT_START + root_bytes)
    table = (
        f"label: dos\nlabel-id: {DISK_ID:#x}\n"
        f"start={BOOT_START // SECTOR}, size={BOOT_BYTES // SECTOR}, type=c, bootable\n"
        f"start={ROOT_START // SECTOR}, size={root_bytes // SECTOR}, type=83\n"
    )
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", image, stdin=table)
    _write_boot(image, boot)
    _write_root(image, root, root_bytes)


def _write_boot(image: Path, boot: Path) -> None:
    sector = BOOT_START // SECTOR
    run(
        *("mkfs.vfat", "-F", "32", "-s", "1", "-n", "bootfs", "-h", str(sector)),
        *(f"--offset={sector}", "--invariant", image, str(BOOT_BYTES // 1024)),
    )
    run("mcopy", "-s", "-m", "-i", f"{image}@@{BOOT_START}", *sorted(boot.iterdir()), "::")


def _write_root(image: Path, root: Path, size: int) -> None:
    options = f"offset={ROOT_START},hash_seed={HASH_SEED},lazy_itable_init=1,nodiscard"
    run(
        *("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-i", "16384", "-L", "rootfs"),
        *("-U", ROOT_UUID, "-J", f"size={JOURNAL_MIB}", "-E", options, "-d", root),
        *(image, f"{size // 1024}k"),
    )


def _root_bytes(root: Path) -> int:
    """Room for the tree, the journal, metadata and about as much again for work, in whole 4 MiB."""
    used = int(run("du", "-s", "--block-size=1", root).split()[0])
    unit = 4 * MIB
    return (used * 3 // 2 + 128 * MIB + unit - 1) // unit * unit
