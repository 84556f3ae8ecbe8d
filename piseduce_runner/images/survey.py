"""What an image is: its partitions, which of them boots, where the system is, of what family."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from piseduce_runner.errors import UserError
from piseduce_runner.families import Family
from piseduce_runner.images.content import Volume, mounted_boot_directory, os_release
from piseduce_runner.images.ext4 import Ext4, read_ext4
from piseduce_runner.images.families import recognise
from piseduce_runner.images.fat import Fat, read_fat
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import Kind, Partition, Table, read_table

# What the deploy states work with: they mount partition 1, and make partition 2 anew.
_BOOT, _ROOT = 1, 2
_SYSTEM_FILES = ("usr/lib/os-release", "etc/os-release", "sbin/init", "tce")
_BOOT_FILES = ("cmdline.txt", "config.txt", "bootcode.bin", "start.elf", "start4.elf")
_EXTENDED = ("05", "0f", "85")  # MBR types of a partition that holds others
_NOT_PRINTABLE = re.compile(r"[^ -~]+")


@dataclass(frozen=True)
class Part:
    """A partition and the file system in it; None if we know none."""

    partition: Partition
    system: Fat | Ext4 | None

    @property
    def title(self) -> str:
        """A word for people."""
        if self.system is None:
            known = {"82": "swap", **dict.fromkeys(_EXTENDED, "extended")}
            return known.get(self.partition.type, "unknown")
        return self.system.title


@dataclass(frozen=True)
class Survey:
    """All that is found in an image that can be deployed."""

    table: Table
    parts: tuple[Part, ...]
    boot: Volume
    root: Volume
    system: str  # its own name: "Debian GNU/Linux 12 (bookworm)"; may be empty
    family: Family | None
    mounts_boot_at: str | None

    @property
    def layout(self) -> dict[str, str | int]:
        """The layout keys of environment.yml."""
        values: dict[str, str | int] = {"disk_id": self.table.disk_id}
        for role, volume in (("boot", self.boot), ("root", self.root)):
            values[f"{role}_partition"] = volume.partition.number
            values[f"{role}_start_sector"] = volume.partition.start
            values[f"{role}_sectors"] = volume.partition.sectors
        return values

    @property
    def boot_directory(self) -> str:
        """Where the system mounts its boot partition."""
        if self.family is not None and self.family.boot_directory is not None:
            return self.family.boot_directory
        if self.mounts_boot_at is not None:
            return self.mounts_boot_at
        return "/boot/firmware" if self.root.has("boot/firmware") else "/boot"


def survey(image: ImageFile, families: Iterable[Family]) -> Survey:
    """Look into an image, which may be of one of the families.

    Raises UserError if it is none, or none that the states can deploy.
    """
    table = read_table(image)
    parts = tuple(Part(p, read_fat(image, p) or read_ext4(image, p)) for p in table.partitions)
    if table.kind is Kind.GPT:
        found = ", ".join(f"{part.partition.number} {part.title}" for part in parts)
        raise UserError(
            f"{image.name}: its partition table is GPT ({found or 'empty'}): the states that make "
            "partition 2 anew only know MBR (DOS) tables, which images for the Raspberry Pi have"
        )
    if len(parts) < 2:
        raise UserError(
            f"{image.name}: expected a FAT boot partition and an ext4 root partition, "
            f"found {len(parts)} partition ({parts[0].title})"
        )
    boot, root = _boot(image, parts), _root(image, parts)
    _check_order(image, table, boot, root)
    release = os_release(root)
    name = release.get("PRETTY_NAME") or release.get("NAME", "")
    return Survey(
        table,
        parts,
        boot,
        root,
        _NOT_PRINTABLE.sub("", name)[:80].strip(),
        recognise(families, boot, root, release.get("ID", "")),
        mounted_boot_directory(root),
    )


def _boot(image: ImageFile, parts: tuple[Part, ...]) -> Volume:
    volumes = [Volume(image, p.partition, p.system) for p in parts if isinstance(p.system, Fat)]
    return _the_one(image, volumes, "boot", "FAT", _BOOT_FILES)


def _root(image: ImageFile, parts: tuple[Part, ...]) -> Volume:
    volumes = [Volume(image, p.partition, p.system) for p in parts if isinstance(p.system, Ext4)]
    root = _the_one(image, volumes, "root", "ext4", _SYSTEM_FILES)
    if root.system.size > root.partition.end_byte - root.partition.first_byte:
        raise UserError(f"{image.name}: its root file system is larger than its partition")
    return root


def _the_one(
    image: ImageFile, volumes: list[Volume], role: str, kind: str, files: tuple[str, ...]
) -> Volume:
    """The only one of the volumes, or the only one that has any of the files."""
    if len(volumes) > 1:
        volumes = [one for one in volumes if any(map(one.has, files))] or volumes
    if not volumes:
        raise UserError(f"{image.name}: no {role} partition: none holds a {kind} file system")
    if len(volumes) > 1:
        numbers = ", ".join(str(one.partition.number) for one in volumes)
        raise UserError(
            f"{image.name}: cannot tell which is the {role} partition: "
            f"{numbers} hold {kind} file systems"
        )
    return volumes[0]


def _check_order(image: ImageFile, table: Table, boot: Volume, root: Volume) -> None:
    numbers = boot.partition.number, root.partition.number
    if numbers != (_BOOT, _ROOT):
        raise UserError(
            f"{image.name}: boots from partition {numbers[0]} and has its root in {numbers[1]}; "
            f"only {_BOOT} and {_ROOT} can be deployed"
        )
    if table.partitions[-1] != root.partition:
        last = table.partitions[-1].number
        raise UserError(
            f"{image.name}: partition {last} lies behind the root partition, which could not grow"
        )
