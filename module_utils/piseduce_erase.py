# SPDX-License-Identifier: MIT
"""Erasing a card: what was in use, overwriting it, and proving by reading that it has gone."""

from __future__ import annotations

import json
import mmap
import os
import random
import re
from collections import namedtuple

from ansible.module_utils.piseduce_device import size_of, zero
from ansible.module_utils.piseduce_ext4 import check, read_superblock
from ansible.module_utils.piseduce_process import Failure, Hopeless, run

MIB = 1 << 20
_BEFORE = 4 * MIB
"""Bytes at the card's start: partition table, GPT, and boot code between them and partition 1."""
_GROUP = 128 * MIB
"""Bytes of an ext4 block group with blocks of 4 KiB; copies of the superblock begin some."""
_STEP = 8 * MIB
"""Bytes that are overwritten at once. A slow card takes two seconds for them."""
SAMPLE = 64 * 1024
_SAMPLES = 256
_FREE = re.compile(r"^  Free blocks: (.*)$", re.M)

Former = namedtuple("Former", "index start end")
"""A partition that the card has, or had: its number, first byte, and the byte after its last."""

Plan = namedtuple("Plan", "extents proof")
"""extents: (start, end) in bytes, to be overwritten in this order; proof: what to read back."""


def former_partitions(card):
    """The partitions by the table on the card, an MBR or a GPT.

    :returns: list of :class:`Former`; None if there is no table: nobody knows what was where
    """
    status, answer = run(
        ["sfdisk", "--json", card.path],
        accept=(0, 1),
        what=f"reading the table of {card.path}",
    )
    if status:
        return None
    table = json.loads(answer)["partitiontable"]
    sector = table.get("sectorsize", 512)
    return [
        Former(
            int(part["node"][len(table["device"]) :].lstrip("p")),
            part["start"] * sector,
            (part["start"] + part["size"]) * sector,
        )
        for part in table.get("partitions", [])
    ]


def joined(extents, gap=MIB):
    """Sort ``(start, end)`` pairs, and join those that overlap or are less than `gap` apart."""
    found = []
    for start, end in sorted(extents):
        if found and start - found[-1][1] < gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def used_extents(dump, length):
    """What a file system uses, by what dumpe2fs(8) says of its free blocks.

    :param dump: its output
    :param length: of the partition in bytes; what the file system does not cover counts as used
    :returns: list of ``(start, end)`` in bytes from the partition's start
    :raises Failure: the output contradicts itself
    """
    header = dict(re.findall(r"^(Block size|Block count|Free blocks): +(\d+)$", dump, re.M))
    try:
        block, count = int(header["Block size"]), int(header["Block count"])
        promised = int(header["Free blocks"])
    except KeyError as error:
        raise Failure(f"dumpe2fs does not say the file system's {error}") from error
    used, position, free = [], 0, 0
    for line in _FREE.findall(dump):
        for text in filter(None, line.split(", ")):
            first, _dash, last = text.partition("-")
            first, last = int(first), int(last or first)
            if not position <= first <= last < count:
                raise Failure("dumpe2fs lists free blocks out of order")
            used.append((position * block, first * block))
            position = last + 1
            free += last + 1 - first
    if free != promised:
        raise Failure(f"dumpe2fs lists {free} free blocks, the file system says {promised}")
    used.append((position * block, length))
    return [(start, end) for start, end in used if start < end]


def _of_partition(card, former):
    """What of a partition has to be overwritten: ``(start, end)`` in bytes from the card's start.

    All of it, unless its file system is an ext4 that can tell what it uses.
    """
    whole = [(former.start, former.end)]
    extent = card.kernel_extent(former.index)
    if extent is None or (extent[0] * 512, (extent[0] + extent[1]) * 512) != whole[0]:
        return whole
    try:
        device = card.partition(former.index)
        read_superblock(device)
        # A node that was switched off has used blocks of which only its journal knows.
        check(device, force=False)
        dump = run(["dumpe2fs", device], what=f"looking for what is used on {device}")[1]
        used = used_extents(dump, former.end - former.start)
    except Failure:
        # No file system that we know, or a damaged one: nothing of it is to be believed.
        return whole
    return [(former.start + start, former.start + end) for start, end in used]


def plan_used(card, formers, card_bytes):
    """Overwrite what the partitions' file systems use, and everything that describes them.

    Each partition's first MiB goes first: after an interruption nothing is left there that would
    tell, half erased, what is used; so the whole partition is overwritten then. The table goes
    last, since without it nobody knows where the partitions were.
    """
    heads, bodies = [], []
    for former in formers:
        first = min(former.start + MIB, former.end)
        heads.append((former.start, first))
        bodies += _of_partition(card, former)
        bodies.append((max(former.end - MIB, former.start), former.end))
    start = min([former.start for former in formers if former.start], default=_BEFORE)
    table = (0, min(max(start, SAMPLE), _BEFORE, card_bytes))
    bodies = [(max(first, table[1]), end) for first, end in bodies if end > table[1]]
    tail = (max(card_bytes - MIB, table[1]), card_bytes)
    extents = [*heads, *joined(bodies), tail, table]
    return Plan(extents, _proof([*joined(bodies), tail, table]))


def plan_all(formers, card_bytes):
    """Overwrite the whole card, its beginning with the table last."""
    return Plan([(_BEFORE, card_bytes), (0, _BEFORE)], proof_of_all(formers, card_bytes))


def proof_of_all(formers, card_bytes):
    """What to read of a card on which nothing may be left: list of ``(start, end)``.

    The beginning and the end of the card and of each partition, where each block group of a file
    system begins, and samples across all of it.
    """
    places = [(0, min(_BEFORE, card_bytes)), (max(0, card_bytes - MIB), card_bytes)]
    for start, end in [(0, card_bytes), *((former.start, former.end) for former in formers or [])]:
        places += [(start, min(start + MIB, end)), (max(start, end - MIB), end)]
        places += [(group, min(group + SAMPLE, end)) for group in range(start, end, _GROUP)]
    return joined([*places, *_samples([(0, card_bytes)])], gap=1)


def _proof(extents):
    """The first and the last MiB of each extent, and samples of all of them."""
    places = []
    for start, end in extents:
        places += [(start, min(start + MIB, end)), (max(start, end - MIB), end)]
    return joined([*places, *_samples(extents)], gap=1)


def _samples(extents):
    """Places of :data:`SAMPLE` bytes, evenly across the extents, each at random in its part."""
    total = sum(end - start for start, end in extents)
    part = max(total // _SAMPLES, SAMPLE)
    for start, end in extents:
        for place in range(start, end, part):
            room = max(0, min(part, end - place) - SAMPLE)
            first = place + random.randrange(0, room + 1, 4096)  # noqa: S311 (no secret)
            yield first, min(first + SAMPLE, end)


def overwrite(descriptor, extents, progress):
    """Write zeros."""
    for start, end in extents:
        for first in range(start, end, _STEP):
            length = min(_STEP, end - first)
            try:
                zero(descriptor, first, length)
            except OSError as error:
                raise Failure(
                    f"overwriting the card failed at byte {first}: {error.strerror}"
                ) from error
            progress.done += length
    os.fsync(descriptor)


def first_leftover(card, places, progress):
    """The byte near which something is left; None if all that is read is erased.

    An erased card reads as zeros or, by the chip's nature, as ones.

    :param card: :class:`DirectFile` of the card, its cache dropped
    """
    buffer = memoryview(mmap.mmap(-1, MIB))
    blanks = bytes(MIB), b"\xff" * MIB
    for start, end in places:
        for first in range(start, end, MIB):
            length = min(MIB, end - first)
            card.read(buffer[:length], first)
            data = bytes(buffer[:length])
            if all(data != blank[:length] for blank in blanks):
                return first
            progress.done += length
    return None


def length_of(extents):
    """Bytes in a list of ``(start, end)``."""
    return sum(end - start for start, end in extents)


def card_bytes(descriptor):
    """Size of the card; refuses one that is too small to be one."""
    size = size_of(descriptor)
    if size < 2 * _BEFORE:
        raise Hopeless(f"the card has only {size} bytes: this is no card")
    return size
