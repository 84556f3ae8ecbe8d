#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: the card's root file system, grown until it fills its partition."""

from __future__ import annotations

from ansible.module_utils import piseduce_card, piseduce_deployed, piseduce_resize
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_deployed import BOOT, ROOT, SYSTEM_FILES, is_mounted, release
from ansible.module_utils.piseduce_device import size_of_path
from ansible.module_utils.piseduce_ext4 import check, fills, read_superblock
from ansible.module_utils.piseduce_process import Failure, Watch, guarded

DOCUMENTATION = r"""
module: card_resize
short_description: Grows the card's root file system to the size of its partition
description:
  - With O(state=started) the file system is unmounted and checked with C(e2fsck -f -p), and
    C(resize2fs) is started in the background. It goes on when the SSH session ends, holds the
    card's lock, and is killed after O(limit).
  - With O(state=finished) its end is waited for, and it must have ended well. The file system must
    be as large as its partition, to within one block, and free of errors. Then it is mounted again.
  - It is grown while it is not mounted, on purpose. That works with every kernel, and a power cut
    meets no half-grown mounted file system.
  - After a crash, O(state=started) can simply be run again. O(state=finished) fails with a message
    that says so where nothing was started, or where it was cut off.
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
    description: Seconds after which the module's own work, or its waiting, is given up.
    type: int
    required: true
  state:
    description: Whether to start growing, or to wait for its end.
    type: str
    choices: [started, finished]
    required: true
  limit:
    description: Seconds that C(resize2fs) may take, with O(state=started).
    type: int
    default: 600
  root_has:
    description: Paths of which one must be on the second partition, which proves what it is.
    type: list
    elements: str
    default: [etc/os-release, usr/lib/os-release]
  outcome:
    description: File on the node, in memory, by which the two states talk to each other.
    type: path
    default: /run/piseduce/resize.json
attributes:
  check_mode:
    support: full
    description: Tells whether the file system is smaller than its partition.
  diff_mode:
    support: full
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Start growing the root file system
  card_resize:
    device: /dev/mmcblk0
    state: started
    timeout: 120

- name: Wait until it has grown
  card_resize:
    device: /dev/mmcblk0
    state: finished
    timeout: 600
"""

RETURN = r"""
filesystem_bytes:
  description: Size of the file system, before it grows or after it has grown.
  returned: success
  type: int
partition_bytes:
  description: Size of its partition.
  returned: success
  type: int
repaired:
  description: Whether the check repaired something.
  returned: with O(state=started)
  type: bool
seconds:
  description: How long C(resize2fs) took; 0 if it is not known, after a reboot.
  returned: with O(state=finished)
  type: float
"""


def facts(device):
    """Superblock and sizes of the root file system: ``(superblock, result)``."""
    superblock = read_superblock(device)
    return superblock, {
        "filesystem_bytes": superblock.blocks * superblock.block_bytes,
        "partition_bytes": size_of_path(device),
    }


def start(card, options, check_mode):
    """State started: see the module's description."""
    device = card.partition(ROOT.index)
    superblock, result = facts(device)
    grown = fills(superblock, result["partition_bytes"])
    result["changed"] = not grown
    result["diff"] = {
        "before": f"file system: {result['filesystem_bytes']} bytes\n",
        "after": f"file system: {result['partition_bytes']} bytes\n",
    }
    if check_mode:
        return result
    if result["filesystem_bytes"] > result["partition_bytes"]:
        raise Failure(
            f"the file system on {device} is larger than its partition "
            f"({result['filesystem_bytes']} and {result['partition_bytes']} bytes): "
            "create_partition must run again"
        )
    piseduce_resize.forget_outcome(options["outcome"])
    release(card, ROOT)
    result["repaired"] = check(device, force=True)
    if grown:
        done = piseduce_resize.Outcome("done", result["partition_bytes"], 0.0, "")
        piseduce_resize.write_outcome(options["outcome"], done)
    else:
        piseduce_resize.start(
            device, result["partition_bytes"], options["limit"], card.lock, options["outcome"]
        )
    return result


def finish(card, options, check_mode):
    """State finished: see the module's description."""
    device = card.partition(ROOT.index)
    partition_bytes = size_of_path(device)
    outcome = piseduce_resize.read_outcome(options["outcome"])
    if outcome and outcome.partition_bytes != partition_bytes:
        outcome = None  # it was another partition's
    if outcome and outcome.state == "failed":
        raise Failure(f"{outcome.message}; resize_partition must run again")
    if outcome and outcome.state == "running":
        raise Failure("resize2fs was cut off before its end; resize_partition must run again")
    superblock, result = facts(device)
    if not fills(superblock, partition_bytes):
        why = "" if outcome else ", and no resizing was started since this system was booted"
        raise Failure(
            f"the file system on {device} has {result['filesystem_bytes']} bytes, its partition "
            f"{partition_bytes}{why}; resize_partition must run again"
        )
    mounted = is_mounted(card, ROOT)
    # The journal of a mounted file system always says that it must be replayed.
    if superblock.errors or not superblock.clean or (superblock.replay and not mounted):
        raise Failure(f"the file system on {device} is not clean; resize_partition must run again")
    result["seconds"] = outcome.seconds if outcome else 0.0
    result["changed"] = not all(is_mounted(card, place) for place in (ROOT, BOOT))
    if not check_mode:
        for place in (ROOT, BOOT):
            piseduce_deployed.mount(card, place, options["root_has"])
    return result


def work(options, check_mode):
    """Do the module's work; returns its result."""
    starting = options["state"] == "started"
    doing = "starting resize2fs" if starting else "waiting for resize2fs"
    # Who waits for the end waits for the lock; the deadline is the watch's. So does who starts it,
    # but is told who holds the lock: it may be the resize2fs of an attempt that was interrupted.
    wait = options["timeout"] - 5 if starting else float("inf")
    with Watch(options["timeout"], doing), card_of(options, "card_resize", wait) as card:
        return (start if starting else finish)(card, options, check_mode)


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            "state": {"type": "str", "choices": ["started", "finished"], "required": True},
            "limit": {"type": "int", "default": 600},
            "root_has": {"type": "list", "elements": "str", "default": list(SYSTEM_FILES)},
            "outcome": {"type": "path", "default": "/run/piseduce/resize.json"},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
