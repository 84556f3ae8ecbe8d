"""ext2, ext3 and ext4: which bytes of a file system are in use, by its own block bitmaps.

Sources: the kernel's Documentation/filesystems/ext4 (super.rst); dumpe2fs(8), whose library fills
in the bitmaps that are not on the disk (BLOCK_UNINIT).
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import Partition

_MAGIC = 0xEF53
_CLEAN, _ERRORS = 1, 2  # bits of the state
_HAS_JOURNAL = 0x4  # of the compatible features
_RECOVER, _JOURNAL_DEVICE, _EXTENTS, _64BIT = 0x4, 0x8, 0x40, 0x80  # of the incompatible ones
_BIGALLOC = 0x200  # of those that forbid writing
_GROUP = re.compile(rb"Group \d+: \(Blocks (\d+)-(\d+)\)")
_FREE = re.compile(rb"  Free blocks: ([0-9, -]*)")
_LONGEST_LINE = 4 << 20  # bytes; a group has 512 Ki blocks at most


@dataclass(frozen=True)
class Ext4:
    """One of the family, as its superblock describes it."""

    title: str
    blocks: int
    block_bytes: int
    settled: bool  # cleanly unmounted: bitmaps and files are what they seem
    bigalloc: bool

    @property
    def size(self) -> int:
        return self.blocks * self.block_bytes


def read_ext4(image: ImageFile, partition: Partition) -> Ext4 | None:
    """The file system in a partition; None if there is none of this family."""
    data = image.read(partition.first_byte + 1024, 1024)
    if len(data) < 1024 or struct.unpack_from("<H", data, 0x38)[0] != _MAGIC:
        return None
    (blocks,) = struct.unpack_from("<I", data, 0x04)
    (log_block,) = struct.unpack_from("<I", data, 0x18)
    (state,) = struct.unpack_from("<H", data, 0x3A)
    compatible, incompatible, read_only = struct.unpack_from("<III", data, 0x5C)
    if incompatible & _64BIT:
        blocks |= struct.unpack_from("<I", data, 0x150)[0] << 32
    if log_block > 6 or not blocks or incompatible & _JOURNAL_DEVICE:
        return None
    journal = "ext3" if compatible & _HAS_JOURNAL else "ext2"
    return Ext4(
        title="ext4" if incompatible & (_EXTENTS | _64BIT) else journal,
        blocks=blocks,
        block_bytes=1024 << log_block,
        settled=bool(state & _CLEAN) and not state & _ERRORS and not incompatible & _RECOVER,
        bigalloc=bool(read_only & _BIGALLOC),
    )


def used_of_ext4(image: ImageFile, partition: Partition, ext4: Ext4) -> Iterator[tuple[int, int]]:
    """(first, behind) of what is in use: bytes in the image, ascending.

    The whole partition, if the file system was not cleanly unmounted or its bitmaps cannot be read.
    Raises UserError for one whose bitmaps do not count blocks (bigalloc).
    """
    base = partition.first_byte
    if ext4.bigalloc:
        raise UserError(
            f"{image.name}: the file system in partition {partition.number} has the feature "
            "bigalloc, which cannot be deployed; make it without"
        )
    free = _free_blocks(image, partition, ext4) if ext4.settled else None
    if free is None:
        yield base, partition.end_byte
        return
    behind = 0
    for first, last in free:
        if first > behind:
            yield base + behind * ext4.block_bytes, base + first * ext4.block_bytes
        behind = last + 1
    if behind < ext4.blocks:
        yield base + behind * ext4.block_bytes, base + ext4.size


def _free_blocks(
    image: ImageFile, partition: Partition, ext4: Ext4
) -> list[tuple[int, int]] | None:
    """(first, last) of the free blocks, ascending; None if dumpe2fs is not sure of all groups."""
    command = ["dumpe2fs", f"{image.path}?offset={partition.first_byte}"]
    free: list[tuple[int, int]] = []
    expected = 0 if ext4.block_bytes > 1024 else 1  # the first group's first block
    described = expected  # blocks before this are in groups whose free blocks have been told
    with tools.running(command, keep=image.descriptor) as process:
        group = None
        while line := process.stdout.readline(_LONGEST_LINE):
            if match := _GROUP.match(line):
                group = int(match[1]), int(match[2])
            elif (match := _FREE.match(line)) and group is not None:
                if group[0] != described:
                    return None
                for word in match[1].split(b","):
                    first, _, last = word.strip().partition(b"-")
                    if first:
                        free.append((int(first), int(last or first)))
                described, group = group[1] + 1, None
        complete = process.wait() == 0
    if not complete or described != ext4.blocks or not _ascending(free, expected, ext4.blocks):
        return None
    return free


def _ascending(free: list[tuple[int, int]], first: int, blocks: int) -> bool:
    behind = first
    for start, last in free:
        if not behind <= start <= last < blocks:
            return False
        behind = last + 1
    return True
