"""Partition tables, read from the image itself: MBR, and GPT to be told what it is.

Sources: UEFI specification 2.10, chapter 5 (MBR, GPT).
"""

import struct
import zlib
from dataclasses import dataclass
from enum import Enum

from piseduce_runner.errors import UserError
from piseduce_runner.images.image_file import SECTOR, ImageFile

_MBR_ENTRIES, _MBR_ENTRY = 446, struct.Struct("<B3sB3sII")
_SIGNATURE = b"\x55\xaa"
_PROTECTIVE = 0xEE  # the type of the MBR entry that stands for a GPT
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_GPT_MOST_ENTRIES = 1024  # 128 everywhere; bounds what is read
_GPT_ENTRY_SIZES = (128, 256, 512, 1024, 2048, 4096)


class Kind(Enum):
    """How the table is written."""

    MBR = "MBR"
    GPT = "GPT"


@dataclass(frozen=True)
class Partition:
    """One partition. `start` and `sectors` count sectors of 512 bytes."""

    number: int  # from 1
    start: int
    sectors: int
    type: str  # MBR: two hex digits; GPT: the type's GUID as it is stored, 32 hex digits

    @property
    def first_byte(self) -> int:
        return self.start * SECTOR

    @property
    def end_byte(self) -> int:
        """The first byte behind it."""
        return (self.start + self.sectors) * SECTOR


@dataclass(frozen=True)
class Table:
    """A partition table. `partitions` are in the order in which they lie on the disk."""

    kind: Kind
    disk_id: str  # MBR: "0x" and 8 hex digits; GPT: 32 hex digits
    partitions: tuple[Partition, ...]


def is_disk(sector: bytes) -> bool:
    """Whether a file that begins with these bytes (512 of them) may be a partitioned disk.

    The first sector of a FAT file system has the same signature, but code or nothing where the
    entries are.
    """
    if len(sector) < SECTOR or sector[510:512] != _SIGNATURE:
        return False
    entries = _mbr_entries(sector)
    return all(e[0] in (0, 0x80) for e in entries) and any(e[2] and e[5] for e in entries)


def read_table(image: ImageFile) -> Table:
    """The partition table of an image, its partitions within the image and apart from each other.

    Raises UserError for what is no disk image, is damaged, or is cut off.
    """
    sector = image.read(0, SECTOR)
    if len(sector) < SECTOR or sector[510:512] != _SIGNATURE:
        raise UserError(f"{image.name}: not a disk image: it has no partition table")
    entries = _mbr_entries(sector)
    if any(entry[2] == _PROTECTIVE for entry in entries):
        table = _gpt(image)
    elif not is_disk(sector):
        raise UserError(f"{image.name}: not a disk image: its partition table is empty or none")
    else:
        table = mbr(sector)
    _check(image, table)
    return table


def mbr(sector: bytes) -> Table:
    """The table in a disk's first sector, 512 bytes, as it stands there."""
    (disk_id,) = struct.unpack_from("<I", sector, 440)
    partitions = [
        Partition(number, start, sectors, f"{kind:02x}")
        for number, (_, _, kind, _, start, sectors) in enumerate(_mbr_entries(sector), 1)
        if kind and sectors
    ]
    return Table(Kind.MBR, f"0x{disk_id:08x}", _in_order(partitions))


def _mbr_entries(sector: bytes) -> list[tuple]:
    return [_MBR_ENTRY.unpack_from(sector, _MBR_ENTRIES + 16 * index) for index in range(4)]


def _gpt(image: ImageFile) -> Table:
    header = image.read(SECTOR, SECTOR)
    if len(header) < SECTOR or header[:8] != b"EFI PART":
        raise UserError(f"{image.name}: its MBR announces a GPT, and there is none")
    fields = _GPT_HEADER.unpack_from(header)
    size, crc, own_lba = fields[2], fields[3], fields[5]
    disk, entries_lba, count, entry_size, entries_crc = fields[9:]
    blank = header[:16] + bytes(4) + header[20:size]
    if not 92 <= size <= SECTOR or zlib.crc32(blank) != crc or own_lba != 1:
        raise UserError(f"{image.name}: its GPT is damaged: the header does not match its CRC")
    if not 0 < count <= _GPT_MOST_ENTRIES or entry_size not in _GPT_ENTRY_SIZES:
        raise UserError(f"{image.name}: its GPT has {count} entries of {entry_size} bytes")
    entries = image.read(entries_lba * SECTOR, count * entry_size) if entries_lba < 2**40 else b""
    if zlib.crc32(entries) != entries_crc or len(entries) != count * entry_size:
        raise UserError(f"{image.name}: its GPT is damaged: the entries do not match their CRC")
    partitions = []
    for index in range(count):
        kind, _, first, last, _, _ = _GPT_ENTRY.unpack_from(entries, index * entry_size)
        if any(kind):
            partitions.append(Partition(index + 1, first, last - first + 1, kind.hex()))
    return Table(Kind.GPT, disk.hex(), _in_order(partitions))


def _in_order(partitions: list[Partition]) -> tuple[Partition, ...]:
    return tuple(sorted(partitions, key=lambda partition: (partition.start, partition.number)))


def _check(image: ImageFile, table: Table) -> None:
    behind = 0
    for partition in table.partitions:
        if partition.start < 1 or partition.sectors < 1:
            raise UserError(f"{image.name}: its partition {partition.number} covers the table")
        if partition.first_byte < behind:
            raise UserError(f"{image.name}: its partitions overlap")
        behind = partition.end_byte
    if image.size % SECTOR:
        raise UserError(
            f"{image.name}: truncated: {image.size} bytes are no whole number of sectors"
        )
    if behind > image.size:
        raise UserError(
            f"{image.name}: truncated: its partitions end at {behind} bytes, "
            f"the image has only {image.size}"
        )
