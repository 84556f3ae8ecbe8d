#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: the card's file systems, mounted on the deploy OS or safely released."""

from __future__ import annotations

from ansible.module_utils import piseduce_card
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_deployed import (
    BOOT,
    ROOT,
    SYSTEM_FILES,
    is_mounted,
    mount,
    point_of,
    release,
)
from ansible.module_utils.piseduce_ext4 import read_superblock
from ansible.module_utils.piseduce_process import Failure, Watch, guarded

DOCUMENTATION = r"""
module: card_mount
short_description: Mounts or releases the card's file systems
description:
  - With O(state=mounted), partition 1 of the card is mounted at C(boot) and partition 2 at C(root),
    both below O(mount_directory). The root file system is checked with C(e2fsck -p) before.
  - It is proven that these are mounts of the card's own partitions, for writing, and that a system
    is in them (C(cmdline.txt), C(etc/os-release)).
  - With O(state=unmounted), neither is mounted, everything is on the card, its caches are dropped,
    and the root file system is marked clean.
  - Nothing of the image can be run or used as a device through these mounts.
options:
  device:
    description: Device file of the whole card.
    type: path
    required: true
  mount_directory:
    description: Folder of the mount points.
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
  state:
    description: Whether the file systems are to be mounted.
    type: str
    choices: [mounted, unmounted]
    required: true
  root_has:
    description: Paths of which one must be on the second partition, which proves what it is.
    type: list
    elements: str
    default: [etc/os-release, usr/lib/os-release]
  settles:
    description:
      - The TFTP folder holds this card's boot files already, so that with the card released the
        node needs nothing but a restart. That is then remembered. Only with O(state=unmounted).
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Mount the new system
  card_mount:
    device: /dev/mmcblk0
    state: mounted
    timeout: 60

- name: Release it before the reboot
  card_mount:
    device: /dev/mmcblk0
    state: unmounted
    timeout: 60
"""

RETURN = r"""
boot:
  description: Mount point of the boot file system.
  returned: success
  type: str
root:
  description: Mount point of the root file system.
  returned: success
  type: str
remember:
  description: That nothing is left but the restart, C(settled).
  returned: success, with O(settles), not in check mode
  type: dict
  sample: {"settled": true}
"""


def work(options, check_mode):
    """Do the module's work; returns its result."""
    doing = "mounting the card" if options["state"] == "mounted" else "releasing the card"
    with (
        Watch(options["timeout"], doing),
        card_of(options, "card_mount") as card,
    ):
        result = {place.name: point_of(card, place) for place in (BOOT, ROOT)}
        if check_mode:
            wanted = options["state"] == "mounted"
            result["changed"] = any(is_mounted(card, place) != wanted for place in (BOOT, ROOT))
        elif options["state"] == "mounted":
            fresh = [mount(card, place, options["root_has"]) for place in (ROOT, BOOT)]
            result["changed"] = any(fresh)
        else:
            result["changed"] = bool(release(card, BOOT, ROOT))
            if ROOT.index in card.partitions():
                _prove_clean(card.partition(ROOT.index))
            if options["settles"]:
                result["remember"] = {"settled": True}
        return result


def _prove_clean(device):
    superblock = read_superblock(device)
    if not superblock.clean or superblock.errors or superblock.replay:
        raise Failure(f"the root file system on {device} is not clean after it was unmounted")


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            "state": {"type": "str", "choices": ["mounted", "unmounted"], "required": True},
            "settles": {"type": "bool", "default": False},
            "root_has": {"type": "list", "elements": "str", "default": list(SYSTEM_FILES)},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
