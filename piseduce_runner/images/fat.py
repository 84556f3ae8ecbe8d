"""FAT file systems: which bytes of one are in use.

Sources: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03; the type of a file
system is told as the kernel does it (fs/fat/inode.c), by which it will be mounted.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from piseduce_runner.errors import UserError
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import Partition

_BOOT_SECTOR = struct.Struct("<3s8sHBHBHHBHHHIIIH")
_FAT12_MOST_CLUSTERS = 4084
_CHUNK = 1 << 20  # bytes of the table that are looked at together
_NO_MIRROR = 0x80  # only one of the tables counts


@dataclass(frozen=True)
class Fat:
    """A FAT file system; offsets and sizes in bytes, from the start of its partition."""

    bits: int  # of an entry: 12, 16, 32
    size: int
    table: int  # where the first table begins
    clusters_at: int  # where the first cluster begins; all before it is in use
    cluster_bytes: int
    clusters: int
    mirrored: bool

    @property
    def title(self) -> str:
        return f"FAT{self.bits}"


def read_fat(image: ImageFile, partition: Partition) -> Fat | None:
    """The FAT file system in a partition; None if there is none that fits into it."""
    sector = image.read(partition.first_byte, 512)
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return None
    (_, _, unit, per_cluster, reserved, tables, root_entries, few, media, short_table) = (
        _BOOT_SECTOR.unpack_from(sector)[:10]
    )
    many, long_table, flags = _BOOT_SECTOR.unpack_from(sector)[13:]
    sensible = (
        unit in (512, 1024, 2048, 4096)
        and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
        and reserved
        and tables in (1, 2)
        and media >= 0xF0
        and (few or many)
        and (short_table or long_table)
    )
    if not sensible:
        return None
    table_bytes = (short_table or long_table) * unit
    clusters_at = reserved * unit + tables * table_bytes + -(-root_entries * 32 // unit) * unit
    size = (few or many) * unit
    clusters = (size - clusters_at) // (per_cluster * unit)
    bits = 32 if not short_table else 16 if clusters > _FAT12_MOST_CLUSTERS else 12
    if clusters < 1 or size > partition.end_byte - partition.first_byte:
        return None
    if table_bytes * 8 < (clusters + 2) * bits:
        return None
    return Fat(
        bits,
        size,
        reserved * unit,
        clusters_at,
        per_cluster * unit,
        clusters,
        mirrored=bits != 32 or not flags & _NO_MIRROR,
    )


def used_of_fat(image: ImageFile, partition: Partition, fat: Fat) -> Iterator[tuple[int, int]]:
    """(first, behind) of what is in use: bytes in the image, ascending.

    A small FAT12 is taken whole, as is one that does not keep two tables alike.
    """
    base = partition.first_byte
    if fat.bits == 12 or not fat.mirrored:
        yield base, base + fat.size
        return
    yield base, base + fat.clusters_at
    first_cluster = base + fat.clusters_at
    for first, behind in _used_clusters(image, base + fat.table, fat):
        yield (
            first_cluster + first * fat.cluster_bytes,
            first_cluster + behind * fat.cluster_bytes,
        )


def _used_clusters(image: ImageFile, table: int, fat: Fat) -> Iterator[tuple[int, int]]:
    """(first, behind) of runs of clusters that the table says are taken, counted from 0."""
    width = fat.bits // 8
    start = None
    done, end = 2 * width, (fat.clusters + 2) * width  # two entries are of no cluster
    while done < end:
        part = image.read(table + done, min(_CHUNK, end - done))
        if not part:
            raise UserError(f"{image.name}: ends while it is read")
        number = done // width - 2
        if start is None and part.count(0) == len(part):
            done += len(part)
            continue
        for value in _entries(part, width):
            if bool(value) != (start is not None):
                if start is None:
                    start = number
                else:
                    yield start, number
                    start = None
            number += 1
        done += len(part)
    if start is not None:
        yield start, fat.clusters


def _entries(part: bytes, width: int) -> Iterator[int]:
    values = struct.unpack(f"<{len(part) // width}{'H' if width == 2 else 'I'}", part)
    # The four highest bits of a long entry are reserved and say nothing.
    return iter(values) if width == 2 else (value & 0x0FFFFFFF for value in values)
