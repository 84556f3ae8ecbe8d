#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: write an image's mapped blocks from the manager's web server to a node's card."""

from __future__ import annotations

from ansible.module_utils import piseduce_card, piseduce_image, piseduce_progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_device import discard, flush, logical_block, size_of
from ansible.module_utils.piseduce_image import ImageStream, fetch_block_map, join
from ansible.module_utils.piseduce_process import Hopeless, Stopwatch, Watch, guarded
from ansible.module_utils.piseduce_progress import Progress
from ansible.module_utils.piseduce_transfer import write_image

DOCUMENTATION = r"""
module: card_write
short_description: Writes an image to a node's card
description:
  - Fetches a block map and a zstd image over HTTP, and writes the mapped blocks to the card.
  - Each range's digest is compared while it is written. The card's first 4096 bytes, which hold
    the partition table, are erased first and written last, after everything else is safe on the
    card; so a card that was not completely written has no partitions, and cannot be taken for a
    good one.
  - Holds the card's lock, and opens the card so that nothing of it can be mounted or used
    meanwhile. What earlier attempts left mounted below O(mount_directory) is unmounted first.
  - Ends itself with all its children at O(timeout), or when the manager hangs up.
  - It is not idempotent, on purpose. It never trusts what is on the card, and writes it again.
    M(card_verify) reads back what was written.
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
  image:
    description: The image's file name in that folder. It is compressed with zstd.
    type: str
    default: image.img.zst
  block_map:
    description: The block map's file name in that folder, in bmaptool's format 2.x with sha256.
    type: str
    default: image.bmap
  block_map_sha256:
    description:
      - Digest of the block map. It comes from the manager by SSH, the map by HTTP. The map holds
        the digests of all that is written, so nothing else on the way needs to be trusted.
    type: str
    required: true
  image_bytes:
    description: Size of the decompressed image in bytes.
    type: int
    required: true
  minimum_bytes:
    description: Refuse a card with less room, for partitions that will be larger than the image.
    type: int
    default: 0
  discard:
    description:
      - Tell the card first that its old contents are not needed. Old data goes and writing gets
        faster. A card that cannot do it is written all the same.
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
    description: Checks the card and the block map, and writes nothing.
  diff_mode:
    support: none
    description: A card's contents make no readable difference.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Write the image to the card
  card_write:
    device: /dev/mmcblk0
    url: http://192.168.8.1:8000/environments/raspios-12
    block_map_sha256: 3a5f0b3f1a39c0dd4b7c9b7e0a1f7f6f4a0f6d2f2b8d59a5d9f1c1c6c2f0a8b1
    image_bytes: 2791309312
    timeout: 900
"""

RETURN = r"""
mapped_bytes:
  description: Bytes of the image that hold data, as the block map says. Each was compared.
  returned: success
  type: int
written_bytes:
  description: Bytes written to the card, with the small holes that were not worth a second write.
  returned: success
  type: int
seconds:
  description: Time from the first byte to the last one being safe on the card.
  returned: success
  type: float
rate:
  description: Bytes written per second.
  returned: success
  type: int
direct:
  description: Whether the card took direct transfers to the end.
  returned: success
  type: bool
discarded:
  description: An empty string if the old contents were discarded first, else why not.
  returned: success
  type: str
unmounted:
  description: Mount points that earlier attempts had left.
  returned: success
  type: list
  elements: str
"""


def check_room(path, card_bytes, image_bytes, minimum_bytes):
    """Refuse a card that is too small, before anything is done to it."""
    needed = max(image_bytes, minimum_bytes)
    if card_bytes < needed:
        what = "the image needs" if needed == image_bytes else "the partitions asked for need"
        raise Hopeless(f"the card {path} has {card_bytes} bytes, {what} {needed}")


def write(options, check_mode):
    """Do the module's work; returns its result."""
    with Watch(options["timeout"], "writing the card") as watch:
        block_map = fetch_block_map(options)
        device = options["device"]
        with card_of(options, "card_write") as card:
            unmounted = [] if check_mode else card.release_mounts()
            with card.opened(write=not check_mode) as descriptor:
                card_bytes = size_of(descriptor)
                check_room(device, card_bytes, block_map.image_bytes, options["minimum_bytes"])
                if check_mode:
                    return {"changed": True}
                result = _write(options, card, descriptor, block_map, watch)
            result["unmounted"] = unmounted
            return result


def _write(options, card, descriptor, block_map, watch):
    took = Stopwatch()
    holes = block_map.image_bytes - block_map.mapped_bytes
    progress = Progress(options["progress"], block_map.mapped_bytes, holes)
    watch.progress = progress
    progress.tell()
    for index in sorted(card.partitions()):
        card.drop_partition(index)
    discarded = "not asked for"
    if options["discard"]:
        discarded = discard(descriptor, size_of(descriptor)) or ""
    with ImageStream(join(options["url"], options["image"])) as stream:
        written, direct = write_image(
            stream, block_map, descriptor, logical_block(descriptor), progress
        )
    flush(descriptor)
    card.update_partitions()
    progress.finish(took.rate(written))
    return {
        "changed": True,
        "mapped_bytes": block_map.mapped_bytes,
        "written_bytes": written,
        "seconds": took.seconds(),
        "rate": took.rate(written),
        "direct": direct,
        "discarded": discarded,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            **piseduce_image.ARGUMENTS,
            "image": {"type": "str", "default": "image.img.zst"},
            "minimum_bytes": {"type": "int", "default": 0},
            "discard": {"type": "bool", "default": True},
            "progress": piseduce_progress.ARGUMENT,
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: write(module.params, module.check_mode))


if __name__ == "__main__":
    main()
