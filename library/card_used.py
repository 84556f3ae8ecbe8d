#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: what of a node's card is in use, so that only this is copied."""

from __future__ import annotations

from ansible.module_utils import piseduce_card
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_device import flush_path
from ansible.module_utils.piseduce_process import Watch, guarded
from ansible.module_utils.piseduce_used import parts_of

DOCUMENTATION = r"""
module: card_used
short_description: Says what of a node's card is in use
description:
  - Unmounts what earlier attempts left mounted, checks the root file system with C(e2fsck -fp), and
    lists what a copy of the card needs. This is the partition table, the boot partition as a whole,
    and what the root file system uses.
  - A card on which there is not a FAT partition 1 and an ext4 partition 2, and nothing else, is
    refused.
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
attributes:
  check_mode:
    support: none
    description: A file system has to be checked before it is believed.
  diff_mode:
    support: none
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: See what of the card is in use
  card_used:
    device: /dev/mmcblk0
    timeout: 600
"""

RETURN = r"""
parts:
  description:
    - What a copy consists of. First the partition table with the boot partition, then the root
      partition. Of each the first byte on the card C(start), the byte behind its last C(end), and
      C(extents), pairs of the first byte and the byte behind the last of what is in use.
  returned: success
  type: list
  elements: dict
used_bytes:
  description: Bytes in all extents.
  returned: success
  type: int
"""


def work(options):
    """Do the module's work; returns its result."""
    with (
        Watch(options["timeout"], "looking for what is in use on the card"),
        card_of(options, "card_used") as card,
    ):
        card.release_mounts()
        parts = parts_of(card)
        # The whole card has a cache of its own, and is what will be read.
        flush_path(card.path)
        used = sum(behind - first for part in parts for first, behind in part["extents"])
        return {"changed": False, "parts": parts, "used_bytes": used}


def main():
    module = AnsibleModule(argument_spec=piseduce_card.ARGUMENTS)
    guarded(module, lambda: work(module.params))


if __name__ == "__main__":
    main()
