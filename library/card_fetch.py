#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: a copy of what is in use on a node's card, as files on the manager."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ansible.module_utils import piseduce_progress
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_fetch import check_room, fetch
from ansible.module_utils.piseduce_process import Hopeless, Stopwatch, Watch, guarded
from ansible.module_utils.piseduce_progress import Progress
from ansible.module_utils.piseduce_ssh import ARGUMENT

DOCUMENTATION = r"""
module: card_fetch
short_description: Copies what is in use on a node's card to the manager
description:
  - Runs on the manager. The node reads the given parts of its card, compresses them (zstd) and
    sends them through SSH. Each is written to a sparse file of its own.
  - The node makes a digest of what it reads, the manager of what it writes. They must be the same.
  - That there is room is seen before, and while it is written. 64 MiB always stay free.
options:
  device:
    description: Device file of the whole card, on the node.
    type: path
    required: true
  node:
    description: How to reach the node.
    type: dict
    required: true
    suboptions:
      address:
        description: The node's address.
        type: str
        required: true
      port:
        description: Its SSH port.
        type: int
        default: 22
      user:
        description: Whom to log in as.
        type: str
        default: root
      key_file:
        description: The manager's private key.
        type: path
        required: true
      known_hosts_file:
        description: The host keys that are known. Any other is refused.
        type: path
        required: true
      host_key_alias:
        description: The name under which the node's key is known.
        type: str
        required: true
  parts:
    description:
      - What to copy, by M(card_used). Of each part the byte of the card that becomes its file's
        first C(start), the byte behind its last C(end), and C(extents), which are copied.
    type: list
    elements: dict
    required: true
  folder:
    description: Where the files are written. It must exist.
    type: path
    required: true
  files:
    description: Their names, one for each part. What is there is replaced.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds after which the work is given up.
    type: int
    required: true
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
    support: none
  diff_mode:
    support: none
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Copy what is in use on the card
  card_fetch:
    device: /dev/mmcblk0
    node:
      address: 10.77.0.101
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: nfspi
    parts: "{{ used.parts }}"
    folder: /srv/piseduce/copies
    files: [head, root]
    timeout: 3600
  delegate_to: localhost
"""

RETURN = r"""
digest:
  description: sha256 of what was copied, as the node and the manager have seen it.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
rate:
  description: Bytes per second.
  returned: success
  type: int
"""


def work(options):
    """Do the module's work; returns its result."""
    parts, folder = options["parts"], Path(options["folder"])
    total = sum(end - start for part in parts for start, end in part["extents"])
    if not folder.is_dir():
        raise Hopeless(f"{folder} does not exist: nobody waits for this copy any more")
    took = Stopwatch()
    with (
        Watch(options["timeout"], "copying the card") as watch,
        contextlib.ExitStack() as opened,
    ):
        targets = []
        for part, name in zip(parts, options["files"], strict=True):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            target = os.open(folder / name, flags, 0o600)
            opened.callback(os.close, target)
            os.ftruncate(target, part["end"] - part["start"])
            targets.append(target)
        check_room(folder, total)
        watch.progress = Progress(options["progress"], total)
        digest = fetch(options["node"], options["device"], parts, targets, folder, watch.progress)
        for target in targets:
            os.fsync(target)
        watch.progress.finish(took.rate(total))
    return {
        "changed": True,
        "digest": digest,
        "seconds": took.seconds(),
        "rate": took.rate(total),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path", "required": True},
            "node": {**ARGUMENT, "required": True},
            "parts": {"type": "list", "elements": "dict", "required": True},
            "folder": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "str", "required": True},
            "timeout": {"type": "int", "required": True},
            "progress": piseduce_progress.ARGUMENT,
        },
    )
    guarded(module, lambda: work(module.params))


if __name__ == "__main__":
    main()
