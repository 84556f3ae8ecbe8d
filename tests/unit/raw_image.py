"""Small disk images for tests: a FAT and an ext4 partition, made without root."""

import subprocess
from pathlib import Path

DISK_ID = "0x5eed0001"
BOOT_START, BOOT_SECTORS = 2048, 16384
ROOT_START, ROOT_SECTORS = 18432, 32768
SECTORS = ROOT_START + ROOT_SECTORS
TABLE = f"""label: dos
label-id: {DISK_ID}
start={BOOT_START}, size={BOOT_SECTORS}, type=c
start={ROOT_START}, size={ROOT_SECTORS}, type=83
"""


def partition(image: Path, table: str, sectors: int = SECTORS) -> Path:
    """A new sparse image with this partition table (sfdisk's input), and nothing else."""
    with image.open("wb") as file:
        file.truncate(sectors * 512)
    call("sfdisk", "--quiet", image, text=table)
    return image


def make_raw_image(image: Path) -> Path:
    """An image with file systems in both partitions."""
    partition(image, TABLE)
    content = image.with_name("content")
    content.mkdir()
    (content / "random").write_bytes(bytes(range(256)) * 4096)
    call("mkfs.vfat", f"--offset={BOOT_START}", image, str(BOOT_SECTORS // 2))
    offset = f"offset={ROOT_START * 512}"
    call("mke2fs", "-q", "-F", "-b", "4096", "-E", offset, "-d", content, image, "16m")
    return image


def call(*command: object, text: str | None = None) -> str:
    """Run a tool; its failure is the test's."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
