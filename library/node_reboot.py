#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: restart a node, detached, so that the task itself ends well."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_process import Failure, guarded

DOCUMENTATION = r"""
module: node_reboot
short_description: Restarts a node without waiting for it
description:
  - Asks the node to restart after O(delay) seconds, from a process of its own, and ends.
  - That the node has really restarted is for M(wait_for_system) to prove, by the boot id that is
    returned here.
options:
  delay:
    description: Seconds until the restart, so that the result still reaches the manager.
    type: float
    default: 1
attributes:
  check_mode:
    support: full
    description: The node is not restarted.
  diff_mode:
    support: none
    description: There is nothing to compare.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Restart the node
  node_reboot:
"""

RETURN = r"""
boot_id:
  description: Boot id of the start that is about to end.
  returned: success
  type: str
remember:
  description: The boot id, for the state that waits for the next start.
  returned: success
  type: dict
"""

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _detach(program, delay):
    """Run a program after some seconds, as a child of init that holds nothing of ours.

    daemon(7): two forks and a session of its own, so that the end of the SSH session does not end
    it, and standard streams of its own, so that the session can end.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, 256)
    os.chdir("/")
    time.sleep(delay)
    os.execv(program, [program])  # noqa: S606 (no shell is wanted)


def _work(module):
    program = shutil.which("reboot", path=_PATH)
    if not program:
        raise Failure("reboot is not installed on this node")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not module.check_mode:
        _detach(program, module.params["delay"])
    return {"changed": True, "boot_id": boot_id, "remember": {"boot_id": boot_id}}


def main():
    module = AnsibleModule(
        argument_spec={"delay": {"type": "float", "default": 1}},
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(module))


if __name__ == "__main__":
    main()
