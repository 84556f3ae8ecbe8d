"""Small disk images of every sort, made without root and without mounting anything."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

SECTOR = 512
MIB = 1 << 20
DISK_ID = "0x5eed0001"
BOOT_START, BOOT_SECTORS = 8192, 8192
ROOT_START = BOOT_START + BOOT_SECTORS

FSTAB = "PARTUUID=5eed0001-01 /boot/firmware vfat defaults 0 2\nPARTUUID=5eed0001-02 / ext4 x 0 1\n"
RASPBIAN = {
    "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "etc/fstab": FSTAB,
    "boot/firmware/": "",
    "home/pi/.profile": "# a profile\n",
}
UBUNTU = {
    "usr/lib/os-release": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nID=ubuntu\nID_LIKE=debian\n',
    "etc/fstab": "LABEL=writable / ext4 defaults 0 1\nLABEL=system-boot /boot/firmware vfat x\n",
}
PI_FIRMWARE = {"config.txt": "arm_64bit=1\n", "cmdline.txt": "root=PARTUUID=5eed0001-02\n"}


@dataclass(frozen=True)
class Recipe:
    """What an image is made of."""

    root: Mapping[str, str] = None
    boot: Mapping[str, str] = None
    mke2fs: tuple[str, ...] = ("-t", "ext4", "-b", "4096")
    fat_bits: int = 16
    per_cluster: int = 1  # sectors
    boot_start: int = BOOT_START
    boot_sectors: int = BOOT_SECTORS
    root_start: int = ROOT_START
    root_sectors: int = 16 * MIB // SECTOR
    behind: int = 0  # sectors behind the last partition
    table: str = (
        "label: dos\nlabel-id: {disk_id}\nstart={boot_start}, size={boot_sectors}, type=c\n"
        "start={root_start}, size={root_sectors}, type=83\n"
    )

    @property
    def sectors(self) -> int:
        return self.root_start + self.root_sectors + self.behind


SMALL = Recipe(
    fat_bits=12, per_cluster=4, boot_sectors=7600, root_start=16384, root_sectors=8 * MIB // SECTOR
)
"""As quick to pack and unpack as an image can be that has it all."""


def make(image: Path, recipe: Recipe = None, **changes) -> Path:
    """A sparse image with a FAT and an ext4 partition, both with files of all sorts of sizes."""
    recipe = replace(recipe or Recipe(), **changes)
    partition(image, recipe)
    work = image.with_name(image.name + ".work")
    for name, files in (
        ("boot", {**PI_FIRMWARE, **(recipe.boot or {})}),
        ("root", RASPBIAN if recipe.root is None else recipe.root),
    ):
        write_files(work / name, files)
        for number, size in enumerate((1, 4096, 70_000, MIB)):
            (work / name / f"data{number}").write_bytes(os.urandom(size))
    make_fat(image, work / "boot", recipe)
    make_ext4(image, work / "root", recipe)
    shutil.rmtree(work)
    return image


def partition(image: Path, recipe: Recipe) -> None:
    with image.open("wb") as file:
        file.truncate(recipe.sectors * SECTOR)
    values = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    call("sfdisk", "--quiet", image, text=recipe.table.format(disk_id=DISK_ID, **values))


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_fat(image: Path, files: Path, recipe: Recipe) -> None:
    call(
        *(
            "mkfs.vfat",
            "-F",
            recipe.fat_bits,
            "-s",
            recipe.per_cluster,
            f"--offset={recipe.boot_start}",
        ),
        *("-h", recipe.boot_start, image, recipe.boot_sectors // 2),
    )
    place = f"{image}@@{recipe.boot_start * SECTOR}"
    call("mcopy", "-s", "-i", place, *sorted(files.iterdir()), "::")
    call("mdel", "-i", place, "::data2")  # a hole in the midst


def make_ext4(image: Path, files: Path, recipe: Recipe) -> None:
    offset = recipe.root_start * SECTOR
    options = f"offset={offset},lazy_itable_init=1"
    size = f"{recipe.root_sectors // 2}k"
    call("mke2fs", "-q", "-F", *recipe.mke2fs, "-E", options, "-d", files, image, size)
    call("debugfs", "-w", "-R", "rm /data2", f"{image}?offset={offset}")


def call(*command: object, text: str | None = None) -> str:
    """Run a tool; its failure is the test's."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=text,
        capture_output=True,
        text=True,
        env=os.environ | {"MTOOLS_SKIP_CHECK": "1", "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
