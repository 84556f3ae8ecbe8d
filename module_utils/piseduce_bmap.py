# SPDX-License-Identifier: MIT
"""Reader of block maps as ``bmaptool create`` writes them (bmap format 2.x, sha256).

A block map says which blocks of an image hold data, and the digest of each such range. The reader
believes nothing: document types and entities are refused, so is any number that does not fit the
others. Format: bmaptool's ``BmapCreate.py`` and the comment that it puts on top of every map.
"""

from __future__ import annotations

import hashlib
import re
from collections import namedtuple
from xml.parsers import expat

from ansible.module_utils.piseduce_process import Failure

LARGEST_MAP = 64 * 1024 * 1024
"""Bytes. A map takes about 110 bytes per range, so this is far beyond any card."""

Range = namedtuple("Range", "start end digest")
"""start, end: bytes in the image, end not included; digest: sha256 as 64 hex digits."""

BlockMap = namedtuple("BlockMap", "image_bytes block_bytes mapped_bytes ranges")
"""Sizes in bytes; ranges: tuple of :class:`Range`, ascending, not overlapping."""

_SINGLE = (
    "ImageSize",
    "BlockSize",
    "BlocksCount",
    "MappedBlocksCount",
    "ChecksumType",
    "BmapFileChecksum",
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,15}")
_RANGE = re.compile(r"([0-9]{1,15})(?:-([0-9]{1,15}))?")
_BLOCK_SIZES = tuple(1 << bits for bits in range(9, 21))


class BadMap(Failure):
    """The block map cannot be trusted; the message says why."""


class _Document:
    """The parts of a map's XML, as text: ``single`` fields and ``ranges`` as (digest, text)."""

    def __init__(self, data):
        self.version = None
        self.single = {}
        self.ranges = []
        self._path = []
        self._text = []
        self._digest = None
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise BadMap(f"the block map is not XML: {error}") from error
        except (LookupError, ValueError) as error:  # an encoding that Python does not know
            raise BadMap(f"the block map cannot be read: {error}") from error

    @staticmethod
    def _refuse(*_declaration):
        raise BadMap("the block map declares a document type or an entity, a real one never does")

    def _start(self, name, attributes):
        self._path.append(name)
        self._text.clear()
        if self._path == ["bmap"]:
            self.version = attributes.get("version")
        elif self._path == ["bmap", "BlockMap", "Range"]:
            self._digest = attributes.get("chksum", "")

    def _end(self, name):
        text = "".join(self._text).strip()
        self._text.clear()
        if self._path == ["bmap", "BlockMap", "Range"]:
            self.ranges.append((self._digest, text))
        elif len(self._path) == 2 and name in _SINGLE:
            if name in self.single:
                raise BadMap(f"the block map has {name} twice")
            self.single[name] = text
        self._path.pop()


def parse(data):
    """Read a block map.

    :param data: the file's bytes
    :raises BadMap: it is no map of version 2 with sha256 digests, or contradicts itself
    """
    if len(data) > LARGEST_MAP:
        raise BadMap(f"the block map has more than {LARGEST_MAP} bytes")
    document = _Document(data)
    if document.version is None:
        raise BadMap("the file is not a block map: it has no <bmap version=...>")
    if not re.fullmatch(r"2\.[0-9]+", document.version):
        raise BadMap(f"the block map's version is {document.version!r}, only 2.x is understood")
    missing = [name for name in _SINGLE if name not in document.single]
    if missing:
        raise BadMap(f"the block map lacks {', '.join(missing)}")
    if document.single["ChecksumType"] != "sha256":
        raise BadMap(f"the block map's digests are {document.single['ChecksumType']!r}, not sha256")
    _check_own_digest(data, document.single["BmapFileChecksum"])

    image = _number(document, "ImageSize")
    block = _number(document, "BlockSize")
    blocks = _number(document, "BlocksCount")
    if block not in _BLOCK_SIZES:
        raise BadMap(f"the block map's block size {block} is not a power of two from 512 to 1 MiB")
    if image < 1 or blocks != -(-image // block):
        raise BadMap(f"{blocks} blocks of {block} bytes do not make an image of {image} bytes")
    ranges = tuple(_ranges(document.ranges, block, blocks, image))
    mapped = sum(-(-(part.end - part.start) // block) for part in ranges)
    if mapped != _number(document, "MappedBlocksCount"):
        raise BadMap(
            f"the block map says {document.single['MappedBlocksCount']} mapped blocks "
            f"and lists {mapped}"
        )
    return BlockMap(image, block, sum(part.end - part.start for part in ranges), ranges)


def _check_own_digest(data, digest):
    """The map carries its own sha256, computed with zeros in the digest's place."""
    if not _DIGEST.fullmatch(digest):
        raise BadMap("the block map's own digest is not a sha256")
    if hashlib.sha256(data.replace(digest.encode(), b"0" * 64)).hexdigest() != digest:
        raise BadMap("the block map is damaged: it does not match its own digest")


def _number(document, name):
    if not _NUMBER.fullmatch(document.single[name]):
        raise BadMap(f"the block map's {name} is not a number: {document.single[name][:20]!r}")
    return int(document.single[name])


def _ranges(listed, block, blocks, image):
    """Turn the listed ranges of blocks into ranges of bytes."""
    next_free = 0
    for digest, text in listed:
        match = _RANGE.fullmatch(text)
        if not match:
            raise BadMap(f"the block map has a range that is none: {text[:40]!r}")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if not next_free <= first <= last < blocks:
            raise BadMap(
                f"the block map's range {text} is out of order, "
                f"or beyond the image's {blocks} blocks"
            )
        if not _DIGEST.fullmatch(digest):
            raise BadMap(f"the block map's range {text} has no sha256 digest")
        next_free = last + 1
        yield Range(first * block, min((last + 1) * block, image), digest)
