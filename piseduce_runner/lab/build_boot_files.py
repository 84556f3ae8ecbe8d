"""Boot files as a Raspberry Pi's firmware wants them. Their contents only have to be there, be of a
plausible size, and differ from each other: nothing in the lab executes them.
"""

import random
from pathlib import Path

# Sizes in bytes; the kernel's and bootcode.bin's are near the real ones.
SIZES = {
    "kernel8.img": 8_000_000,
    "start4.elf": 200_000,
    "fixup4.dat": 5_448,
    "start.elf": 200_000,
    "fixup.dat": 7_274,
    "bcm2710-rpi-3-b-plus.dtb": 34_228,
    "bcm2711-rpi-4-b.dtb": 56_373,
    "overlays/README": 2_000,
    "overlays/disable-bt.dtbo": 1_073,
    "overlays/miniuart-bt.dtbo": 1_566,
    "overlays/vc4-kms-v3d.dtbo": 2_760,
}
BOOTCODE_BYTES = 52_296
CONFIG = """\
# Options of the Raspberry Pi's firmware
[all]
arm_64bit=1
enable_uart=1
dtoverlay=disable-bt
"""
NFS_CMDLINE = (
    "console=serial0,115200 root=/dev/nfs nfsroot=pimaster:/nfs/raspi,vers=4.1 ro ip=dhcp rootwait"
)


def deterministic_bytes(name: str, size: int) -> bytes:
    """`size` bytes that do not compress and depend on `name` only."""
    return random.Random(name).randbytes(size)  # noqa: S311 (not a secret)


def write_boot_files(folder: Path, cmdline: str, system: str) -> None:
    """Fill `folder` with config.txt, cmdline.txt and firmware; the kernel depends on `system`."""
    for name, size in SIZES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        seed = f"{system}/{name}" if name == "kernel8.img" else name
        file.write_bytes(deterministic_bytes(seed, size))
    (folder / "config.txt").write_text(CONFIG, encoding="ascii")
    (folder / "cmdline.txt").write_text(cmdline + "\n", encoding="ascii")


def build_nfs_boot_files(target: Path) -> None:
    """The template of a node's TFTP folder while it runs the deploy OS."""
    write_boot_files(target, NFS_CMDLINE, "nfs")
