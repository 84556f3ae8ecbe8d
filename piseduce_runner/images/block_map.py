"""Block maps: which blocks of an image must be on a card, by what its file systems use.

Holes of the image file say nothing here: a file system may count on zeros in a hole, and what is
written may be of no use to it. The format is version 2.0 of bmaptool's, see `module_utils`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.images.ext4 import Ext4, used_of_ext4
from piseduce_runner.images.fat import Fat, used_of_fat
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.survey import Survey

BLOCK = 4096  # bytes
_MOST_RANGES = 100_000  # an entry takes 110 bytes in the map, and nodes read it whole


@dataclass(frozen=True)
class Range:
    """Bytes of an image that must be on a card; whole blocks, but for the image's end."""

    start: int
    end: int  # the first byte behind it


class Cutter:
    """Cuts ascending ranges at the ends of windows, which come one after the other.

    `ranges` have a `start` and an `end`, like `Range`.
    """

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges, self._next = ranges, 0

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """(first, behind, whether its range ends with it) of each piece in this window."""
        while self._next < len(self._ranges) and self._ranges[self._next].start < end:
            part = self._ranges[self._next]
            yield max(part.start, start), min(part.end, end), part.end <= end
            if part.end > end:
                return
            self._next += 1


def mapped_ranges(image: ImageFile, survey: Survey) -> list[Range]:
    """The ranges of an image that must be on a card, ascending and apart from each other."""
    joined = _join(_rounded(_used(image, survey)), 0)
    apart = BLOCK
    while len(joined) > _MOST_RANGES:
        apart *= 2
        joined = _join(joined, apart)
    return [Range(start, min(end, image.size)) for start, end in joined]


def _used(image: ImageFile, survey: Survey) -> Iterator[tuple[int, int]]:
    """(first, behind) in bytes of all that is in use; ascending, may overlap once rounded."""
    behind = 0
    for part in survey.parts:
        start, end = part.partition.first_byte, part.partition.end_byte
        if behind == 0:
            # With its zeros: an old card may have had something there that programs look for.
            yield 0, start
        else:
            yield from _not_zero(image, behind, start)
        if isinstance(part.system, Fat):
            yield from used_of_fat(image, part.partition, part.system)
            yield from _not_zero(image, start + part.system.size, end)
        elif isinstance(part.system, Ext4) and part.system.size <= end - start:
            yield from used_of_ext4(image, part.partition, part.system)
            yield from _not_zero(image, start + part.system.size, end)
        else:
            yield start, end
        behind = end
    yield from _not_zero(image, behind, image.size)


def _not_zero(image: ImageFile, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Blocks between two offsets, outside of all file systems, that are not all zeros."""
    for offset, data in image.data(start, end):
        if data.count(0) == len(data):
            continue
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            if block.count(0) != len(block):
                yield offset + at, offset + at + len(block)


def _rounded(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in extents:
        if start < end:
            yield start // BLOCK * BLOCK, -(-end // BLOCK) * BLOCK


def _join(extents: Iterable[tuple[int, int]], apart: int) -> list[tuple[int, int]]:
    """Ascending extents; those that overlap or are at most `apart` bytes apart made one."""
    joined: list[tuple[int, int]] = []
    for start, end in extents:
        if joined and start - joined[-1][1] <= apart:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def write_block_map(file: Path, image_bytes: int, ranges: list[Range], digests: list[str]) -> None:
    """Write the map, with the sha256 of each range and its own."""
    mapped = sum(-(-(part.end - part.start) // BLOCK) for part in ranges)
    fields = {
        "ImageSize": image_bytes,
        "BlockSize": BLOCK,
        "BlocksCount": -(-image_bytes // BLOCK),
        "MappedBlocksCount": mapped,
        "ChecksumType": "sha256",
        # Of this file, with zeros in the place of the checksum.
        "BmapFileChecksum": "0" * 64,
    }
    lines = ['<?xml version="1.0" ?>', '<bmap version="2.0">']
    lines += [f"    <{name}> {value} </{name}>" for name, value in fields.items()]
    lines += ["    <BlockMap>"]
    for part, digest in zip(ranges, digests, strict=True):
        first, last = part.start // BLOCK, (part.end - 1) // BLOCK
        blocks = f"{first}-{last}" if last > first else f"{first}"
        lines.append(f'        <Range chksum="{digest}"> {blocks} </Range>')
    lines += ["    </BlockMap>", "</bmap>", ""]
    text = "\n".join(lines)
    own = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(text.replace("0" * 64, own, 1), encoding="ascii")
