#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: prove that an image is on a node's card, bit by bit."""

from __future__ import annotations

import random
import struct

from ansible.module_utils import piseduce_card, piseduce_image, piseduce_progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_device import flush, logical_block, size_of
from ansible.module_utils.piseduce_image import fetch_block_map
from ansible.module_utils.piseduce_process import Failure, Hopeless, Stopwatch, Watch, guarded
from ansible.module_utils.piseduce_progress import Progress
from ansible.module_utils.piseduce_transfer import DirectFile, compare_card

DOCUMENTATION = r"""
module: card_verify
short_description: Proves that an image is on a node's card
description:
  - Reads every mapped block of the image back from the card, past all caches, and compares the
    digest of each range with the block map.
  - Demands that the card carries the image's MBR disk id, by which the system finds its root.
  - Changes nothing on the card. What earlier attempts left mounted below O(mount_directory) is
    unmounted first, because a mounted file system may still be written to.
  - With O(mode=sample) only some ranges are read, and with O(mode=off) none at all. Then what
    M(card_write) compared while it wrote is all that is known of the others.
  - The proof holds for a card as M(card_write) leaves it. Once its partitions are changed, the
    first range differs.
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
  url:
    description: Address of the environment's folder on the web server.
    type: str
    required: true
  block_map:
    description: The block map's file name in that folder, in bmaptool's format 2.x with sha256.
    type: str
    default: image.bmap
  block_map_sha256:
    description: Digest of the block map.
    type: str
    required: true
  image_bytes:
    description: Size of the decompressed image in bytes.
    type: int
    required: true
  disk_id:
    description: The image's MBR disk id, such as V(0xc0ffee01).
    type: str
    required: true
  mode:
    description:
      - V(full) reads every range.
      - V(sample) reads the ranges with the partition table and the beginning of each partition,
        where its file system is described, and a tenth of all ranges, drawn by lot each time.
      - V(off) does nothing, and says that it was skipped.
    type: str
    choices: [full, sample, "off"]
    default: full
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
    description: The module never changes anything on the card; in check mode it unmounts nothing.
  diff_mode:
    support: none
    description: It changes nothing.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Prove that the image is on the card
  card_verify:
    device: /dev/mmcblk0
    url: http://192.168.8.1:8000/environments/raspios-12
    block_map_sha256: 3a5f0b3f1a39c0dd4b7c9b7e0a1f7f6f4a0f6d2f2b8d59a5d9f1c1c6c2f0a8b1
    image_bytes: 2791309312
    disk_id: "0x4e639091"
    timeout: 600
"""

RETURN = r"""
verified_bytes:
  description: Bytes read back and compared.
  returned: success
  type: int
ranges:
  description: Number of ranges compared.
  returned: success
  type: int
sampled_ranges:
  description: Which ones, by their number in the block map, from 1.
  returned: success, with O(mode=sample)
  type: list
  elements: int
seconds:
  description: How long it took.
  returned: success
  type: float
rate:
  description: Bytes compared per second.
  returned: success
  type: int
unmounted:
  description: Mount points that earlier attempts had left.
  returned: success
  type: list
  elements: str
"""


STRUCTURES = 1 << 20
"""Bytes at a partition's beginning that a sample always has: they describe its file system."""


def disk_id(sector):
    """MBR disk id in a card's first sector: the 32-bit number at byte 440, as ``0x0123abcd``.

    :raises Failure: the sector has no MBR signature
    """
    if sector[510:512] != b"\x55\xaa":
        raise Failure("the card has no partition table: its first sector lacks the MBR signature")
    return f"0x{struct.unpack_from('<I', sector, 440)[0]:08x}"


def chosen_ranges(block_map, head):
    """Numbers, from 0, of the ranges that a sample consists of: see the module's description.

    :param head: the card's first sector, with an MBR
    """
    places = [0, *(struct.unpack_from("<I", head, 446 + 16 * i + 8)[0] * 512 for i in range(4))]
    chosen = {
        index
        for index, part in enumerate(block_map.ranges)
        if any(part.start < place + STRUCTURES and place < part.end for place in places)
    }
    count = len(block_map.ranges)
    return chosen | set(random.SystemRandom().sample(range(count), -(-count // 10)))


def verify(options, check_mode):
    """Do the module's work; returns its result."""
    if options["mode"] == "off":
        return {
            "changed": False,
            "skipped": True,
            "msg": "the card was not read back, as this site wishes (env_check_mode is off)",
        }
    with Watch(options["timeout"], "reading the card back") as watch:
        block_map = fetch_block_map(options)
        device = options["device"]
        with card_of(options, "card_verify") as card:
            unmounted = [] if check_mode else card.release_mounts()
            with card.opened() as descriptor:
                card_bytes = size_of(descriptor)
                if card_bytes < block_map.image_bytes:
                    raise Hopeless(
                        f"the card {device} has {card_bytes} bytes, "
                        f"the image has {block_map.image_bytes}"
                    )
                result = _compare(options, descriptor, block_map, watch)
        return {"changed": bool(unmounted), "unmounted": unmounted, **result}


def _compare(options, descriptor, block_map, watch):
    took = Stopwatch()
    flush(descriptor)
    chosen, result = None, {}
    if options["mode"] == "sample":
        head = DirectFile(descriptor, logical_block(descriptor)).head()
        chosen = chosen_ranges(block_map, head)
        result["sampled_ranges"] = sorted(index + 1 for index in chosen)
    ranges = [
        part for index, part in enumerate(block_map.ranges) if chosen is None or index in chosen
    ]
    amount = sum(part.end - part.start for part in ranges)
    progress = Progress(options["progress"], amount)
    watch.progress = progress
    progress.tell()
    compare_card(block_map, descriptor, logical_block(descriptor), progress, chosen)
    found = disk_id(DirectFile(descriptor, logical_block(descriptor)).head())
    if found != options["disk_id"].lower():
        raise Failure(f"the card's disk id is {found}, the image's is {options['disk_id']}")
    progress.finish(took.rate(amount))
    return {
        "verified_bytes": amount,
        "ranges": len(ranges),
        "seconds": took.seconds(),
        "rate": took.rate(amount),
        **result,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            **piseduce_image.ARGUMENTS,
            "disk_id": {"type": "str", "required": True},
            "mode": {"type": "str", "choices": ["full", "sample", "off"], "default": "full"},
            "progress": piseduce_progress.ARGUMENT,
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: verify(module.params, module.check_mode))


if __name__ == "__main__":
    main()
