#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: leave nothing of a node's card for its next user to read."""

from __future__ import annotations

from collections import namedtuple

from ansible.module_utils import piseduce_card, piseduce_progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_device import discard, flush, logical_block
from ansible.module_utils.piseduce_erase import (
    card_bytes,
    first_leftover,
    former_partitions,
    length_of,
    overwrite,
    plan_all,
    plan_used,
    proof_of_all,
)
from ansible.module_utils.piseduce_process import Failure, Stopwatch, Watch, guarded
from ansible.module_utils.piseduce_progress import Progress
from ansible.module_utils.piseduce_transfer import DirectFile

DOCUMENTATION = r"""
module: card_erase
short_description: Erases a node's card, and proves it by reading
description:
  - Tells the card that nothing on it is needed (discard). That it obeyed is not believed but read.
    The card's partition table, the beginning and the end of the card and of each former partition,
    the beginning of each block group of a file system, and samples across the card must read as
    zeros or as ones.
  - A card that does not discard is overwritten with zeros, as much of it as O(mode) says. The same
    places of what was overwritten are then read back.
  - A card whose discard was accepted and left something, and a card without a partition table that
    is not blank, are overwritten whatever O(mode) says. Nobody knows what is where on them.
  - The partition table goes last. An erasure that was cut off is simply done again, and does not
    believe what a half-erased file system says about itself.
  - Holds the card's lock, and opens the card so that nothing of it can be mounted or used
    meanwhile. What earlier attempts left mounted below O(mount_directory) is unmounted first.
options:
  device:
    description: Device file of the whole card.
    type: path
    required: true
  mount_directory:
    description: What is mounted of the card below this folder may be unmounted, nothing else.
    type: path
    default: /mnt/piseduce
  other_media:
    description: Also accept a disk that is not on an SD/MMC host, such as a USB disk or an SSD.
    type: bool
    default: false
  timeout:
    description: Seconds after which the work is given up.
    type: int
    required: true
  mode:
    description:
      - What is overwritten where discarding does not help.
      - V(quick) is what the file systems use, their own structures included, and the partition
        table. Partitions without an ext4 file system in order are overwritten as a whole. What was
        deleted before, or lies between partitions, stays on the card and can be found with tools
        for that.
      - V(full) is the whole card.
    type: str
    choices: [quick, full]
    default: quick
  discard:
    description: Whether to discard first. Without it the card is overwritten at once.
    type: bool
    default: true
  progress:
    description: Where to send percent and rate about once per second, as JSON by UDP.
    type: dict
    suboptions:
      address:
        description: The manager's address.
        type: str
        required: true
      port:
        description: The manager's UDP port.
        type: int
        required: true
      token:
        description: Sent along, so that the manager knows the datagram.
        type: str
        required: true
      node:
        description: The node's name, sent along.
        type: str
        required: true
attributes:
  check_mode:
    support: full
    description: Reads the card, and tells whether it would be erased.
  diff_mode:
    support: none
    description: A card's contents make no readable difference.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Leave nothing of the card for the next user
  card_erase:
    device: /dev/mmcblk0
    timeout: 1800

- name: Overwrite every byte, also where nothing was in use
  card_erase:
    device: /dev/mmcblk0
    mode: full
    discard: false
    timeout: 7200
"""

RETURN = r"""
method:
  description:
    - How the card was erased. V(discard), V(used) for what was in use being overwritten, V(all) for
      the whole card, V(none) if it was blank already.
  returned: success, not in check mode
  type: str
discarded:
  description: An empty string if the card discarded its contents, else why not.
  returned: success, not in check mode
  type: str
overwritten_bytes:
  description: Bytes overwritten.
  returned: success, not in check mode
  type: int
checked_bytes:
  description: Bytes read back at the end. All of them were zeros or ones.
  returned: success, not in check mode
  type: int
seconds:
  description: How long it took.
  returned: success, not in check mode
  type: float
unmounted:
  description: Mount points that earlier attempts had left.
  returned: success, not in check mode
  type: list
  elements: str
"""


Undiscarded = namedtuple("Undiscarded", "why untouched")
"""why: the card's contents were not discarded; untouched: whether all of them are still there."""


def work(options, check_mode):
    """Do the module's work; returns its result."""
    took = Stopwatch()
    with (
        Watch(options["timeout"], "erasing the card") as watch,
        card_of(options, "card_erase") as card,
    ):
        unmounted = [] if check_mode else card.release_mounts()
        formers = former_partitions(card)
        if formers is None and _is_blank(options, card, watch):
            return {"changed": False, "method": "none", "unmounted": unmounted}
        if check_mode:
            return {"changed": True}
        result, why = _discard(options, card, formers, watch)
        if not result:
            result = _overwrite(options, card, formers, watch, why)
        if card.partitions():
            raise Failure(f"the kernel still has partitions of {card.path}")
        return {"changed": True, "unmounted": unmounted, "seconds": took.seconds(), **result}


def _is_blank(options, card, watch):
    with card.opened() as descriptor:
        places = proof_of_all([], card_bytes(descriptor))
        progress = _progress(options, watch, length_of(places))
        return _leftover(descriptor, places, progress) is None


def _discard(options, card, formers, watch):
    """Discard, and prove it: ``(result, Undiscarded)``, one of them None."""
    if not options["discard"]:
        return None, Undiscarded("not asked for", untouched=True)
    with card.opened(write=True) as descriptor:
        size = card_bytes(descriptor)
        places = proof_of_all(formers, size)
        progress = _progress(options, watch, size + length_of(places))
        refusal = discard(descriptor, size, progress)
        if refusal:
            return None, Undiscarded(refusal, untouched=progress.done == 0)
        _forget_partitions(card)
        left = _leftover(descriptor, places, progress)
    if left is not None:
        why = f"it was accepted, and old data is left at byte {left}"
        return None, Undiscarded(why, untouched=False)
    return _result("discard", "", 0, places), None


def _overwrite(options, card, formers, watch, undiscarded):
    """Overwrite, and prove it; returns the result."""
    with card.opened() as descriptor:
        size = card_bytes(descriptor)
    if options["mode"] == "quick" and formers is not None and undiscarded.untouched:
        # Before the card is opened for us alone: e2fsck needs the same of a partition of it.
        method, plan = "used", plan_used(card, formers, size)
    else:
        method, plan = "all", plan_all(formers, size)
    amount = length_of(plan.extents)
    with card.opened(write=True) as descriptor:
        _forget_partitions(card)
        progress = _progress(options, watch, amount + length_of(plan.proof))
        overwrite(descriptor, plan.extents, progress)
        left = _leftover(descriptor, plan.proof, progress)
    if left is not None:
        raise Failure(
            f"the card {card.path} was overwritten, and old data is left at byte {left}: "
            "it does not keep what is written to it"
        )
    return _result(method, undiscarded.why, amount, plan.proof)


def _leftover(descriptor, places, progress):
    flush(descriptor)
    card = DirectFile(descriptor, logical_block(descriptor))
    return first_leftover(card, places, progress)


def _forget_partitions(card):
    for index in sorted(card.partitions()):
        card.drop_partition(index)


def _progress(options, watch, total):
    watch.progress = Progress(options["progress"], total)
    watch.progress.tell()
    return watch.progress


def _result(method, undiscarded, overwritten, places):
    return {
        "method": method,
        "discarded": undiscarded,
        "overwritten_bytes": overwritten,
        "checked_bytes": length_of(places),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            "mode": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
            "discard": {"type": "bool", "default": True},
            "progress": piseduce_progress.ARGUMENT,
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
