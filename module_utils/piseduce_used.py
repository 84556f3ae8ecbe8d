# SPDX-License-Identifier: MIT
"""What of a card has to be copied: all but what its root file system does not use."""

from __future__ import annotations

from ansible.module_utils.piseduce_erase import joined, used_extents
from ansible.module_utils.piseduce_ext4 import check, read_superblock
from ansible.module_utils.piseduce_process import Hopeless, run
from ansible.module_utils.piseduce_sectors import SECTOR
from ansible.module_utils.piseduce_table import read_table

_BOOT, _ROOT = 1, 2
_FAT_TYPES = ("1", "4", "6", "b", "c", "e")
_MOST = 4000
"""Extents. They travel in a task's result."""


def layout_of(card):
    """The boot and the root partition of a card that a deployment has made.

    :returns: their entries in the partition table
    :raises Failure: the card is laid out in another way
    """
    entries = read_table(card.path).entries
    if sorted(entries) != [_BOOT, _ROOT]:
        numbers = ", ".join(map(str, sorted(entries))) or "none"
        raise Hopeless(
            f"{card.path} has the partitions {numbers}; only a card with a boot partition 1 and a "
            "root partition 2 can be captured"
        )
    boot, root = entries[_BOOT], entries[_ROOT]
    if boot.type not in _FAT_TYPES or root.type != "83":
        raise Hopeless(
            f"{card.path} has partitions of the types {boot.type} and {root.type}; only a FAT boot "
            "partition 1 and a Linux root partition 2 can be captured"
        )
    if boot.start + boot.size > root.start:
        raise Hopeless(f"partition 2 of {card.path} does not lie behind partition 1")
    return boot, root


def parts_of(card):
    """The two parts of a card that a copy consists of, as :mod:`piseduce_fetch` takes them.

    The first reaches from the partition table to the end of the boot partition, the second is the
    root partition. Its file system is checked before, the journal replayed: what only the journal
    knows of would not be copied.

    :raises Failure: another layout, no ext4, or damaged beyond what e2fsck repairs by itself
    """
    boot, root = layout_of(card)
    device = card.partition(_ROOT)
    read_superblock(device)
    check(device, force=True)
    dump = run(["dumpe2fs", device], what=f"looking for what is used on {device}")[1]
    start, length = root.start * SECTOR, root.size * SECTOR
    used = [(start + first, start + behind) for first, behind in used_extents(dump, length)]
    gap = 1 << 16
    extents = joined(used, gap)
    while len(extents) > _MOST:
        gap *= 2
        extents = joined(used, gap)
    head = (boot.start + boot.size) * SECTOR
    return [
        {"start": 0, "end": head, "extents": [[0, head]]},
        {"start": start, "end": start + length, "extents": [list(one) for one in extents]},
    ]
