#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: restart a deployed system over SSH, with nothing but its shell."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_process import Failure, Watch, guarded, one_line
from ansible.module_utils.piseduce_ssh import ARGUMENT, run_on_node

DOCUMENTATION = r"""
module: system_reboot
short_description: Restarts a system over SSH without waiting for it
description:
  - Asks a system to restart, by SSH from the manager, and ends. The system needs nothing but a
    shell, cat and sleep.
  - The restart begins a second later, so that the session can end well.
  - That the node has really restarted is for M(wait_for_system) to prove, by the boot id that is
    returned here.
options:
  node:
    description: How to reach the system.
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
        description: The name under which the system's key is known.
        type: str
        required: true
  command:
    description: The shell command that restarts the system.
    type: str
    default: reboot
  timeout:
    description: Seconds after which the attempt is given up.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: The system is not restarted.
  diff_mode:
    support: none
    description: There is nothing to compare.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Restart the node
  system_reboot:
    node:
      address: 10.77.0.101
      user: tc
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: node-1
    command: sudo -n reboot
    timeout: 30
  delegate_to: localhost
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

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# In the background with its streams elsewhere, or the session would not end. Not every busybox has
# nohup(1) or setsid(1).
_LATER = "(trap '' HUP; sleep 1; {}) < /dev/null > /dev/null 2>&1 &"


def _work(node, command, timeout, check_mode):
    question = "cat /proc/sys/kernel/random/boot_id"
    if not check_mode:
        question += " && { " + _LATER.format(command) + " }"
    with Watch(timeout, "asking for the restart"):
        said = run_on_node(node, question, what="asking for the restart")[1].strip()
    if not _BOOT_ID.fullmatch(said):
        raise Failure(f"the node gave no boot id, but {one_line(said, 100)!r}")
    return {"changed": True, "boot_id": said, "remember": {"boot_id": said}}


def main():
    module = AnsibleModule(
        argument_spec={
            "node": {**ARGUMENT, "required": True},
            "command": {"type": "str", "default": "reboot"},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(**module.params, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
