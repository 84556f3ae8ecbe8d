#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: see that a node will boot over the network, before its power is cut."""

from __future__ import annotations

import re
import shlex

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_process import Failure, Watch, guarded, one_line
from ansible.module_utils.piseduce_ssh import ARGUMENT, Answer, run_on_node

DOCUMENTATION = r"""
module: network_boot
short_description: Lets a node boot over the network again
description:
  - Removes the files with which a board boots from its card whatever the TFTP server says, which
    is C(bootcode.bin) for a Raspberry Pi 3. An update of the system may have brought it back.
  - Asks a Raspberry Pi 4 or 5 in which order its EEPROM tries to boot, where the system has
    C(rpi-eeprom-config) or C(vcgencmd). Nothing is changed there.
  - Never fails for what it finds, nor for a node that does not answer. A node whose system is
    broken has to be given back all the same. What was found is a note for the journal.
  - Works over SSH from the manager, on the deployed system or, if that is what runs, on the deploy
    OS.
options:
  node:
    description: How to reach the deployed system.
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
  nfs_host_key_alias:
    description: The name under which the deploy OS's key is known.
    type: str
    required: true
  directory:
    description: Where the deployed system mounts its boot partition; empty if that is not known.
    type: str
    default: ""
  device:
    description: Device file of the card, as the deploy OS has it.
    type: path
    required: true
  files:
    description: Files that must not be on the boot partition.
    type: list
    elements: str
    default: [bootcode.bin]
  timeout:
    description: Seconds after which each of the two systems is given up.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Nothing is removed.
  diff_mode:
    support: none
    description: The note says what there was.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Let the node boot over the network again
  network_boot:
    node:
      address: 10.77.0.101
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: node-1
    nfs_host_key_alias: nfspi
    directory: /boot/firmware
    device: /dev/mmcblk0
    timeout: 20
  delegate_to: localhost
"""

RETURN = r"""
removed:
  description: Files that were there.
  returned: success
  type: list
  elements: str
boot_order:
  description: The EEPROM's C(BOOT_ORDER), empty if it could not be asked.
  returned: success
  type: str
  sample: "0xf12"
remember:
  description: A C(note) for the journal, if there is anything to say.
  returned: success
  type: dict
"""

# rpi-eeprom-config without arguments shows the configuration; so does the firmware itself.
_ASK = """
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin:/opt/vc/bin
{ rpi-eeprom-config || vcgencmd bootloader_config; } 2> /dev/null | grep -m 1 '^BOOT_ORDER=' || true
"""
_REMOVE = """
cd {folder} 2> /dev/null && for file in {files}; do
    [ ! -e "$file" ] && continue
    {remove} && {{ sync -f . || sync; }} 2> /dev/null && echo "removed $file"
done
"""
# The deploy OS may have mounted the card already, or not.
_MOUNT = """
place=/mnt/piseduce/boot
if ! grep -qs " $place " /proc/mounts; then
    place=$(mktemp -d) && trap 'cd /; umount "$place"; rmdir "$place"' 0
    mount -t vfat {partition} "$place" || exit 1
fi
"""
_ANOTHER_SYSTEM = (Answer.OTHER_KEY, Answer.UNKNOWN_KEY)
_ORDER = re.compile(r"BOOT_ORDER=(0x[0-9a-fA-F]{1,8})")
# The lowest digit is tried first. Source: raspberrypi.com, Raspberry Pi bootloader configuration.
_MODES = {"1": "the SD card", "2": "the network", "4": "USB", "6": "NVMe", "7": "HTTP"}


def _look(options, check_mode):
    """What a system says of its boot partition and EEPROM; raises Failure if none answers."""
    remove = "true" if check_mode else 'rm -f -- "$file"'
    files = " ".join(map(shlex.quote, options["files"]))
    script = _ASK
    if options["directory"]:
        folder = shlex.quote(options["directory"])
        script = _REMOVE.format(folder=folder, files=files, remove=remove) + _ASK
    try:
        return _run(options["node"], script, options["timeout"])
    except Failure as failure:
        if not any(answer.value in str(failure) for answer in _ANOTHER_SYSTEM):
            raise
        node = {**options["node"], "user": "root", "host_key_alias": options["nfs_host_key_alias"]}
        device = options["device"]
        partition = f"{device}p1" if device[-1].isdigit() else f"{device}1"
        script = _MOUNT.format(partition=shlex.quote(partition))
        script += _REMOVE.format(folder='"$place"', files=files, remove=remove)
        try:
            return _run(node, script + _ASK, options["timeout"])
        except Failure:
            raise failure from None


def _run(node, script, timeout):
    with Watch(timeout, "looking at how the node boots"):
        return run_on_node(node, script, what="looking at how the node boots")[1]


def _note(removed, order):
    notes = [f"removed {', '.join(removed)} from its boot partition"] if removed else []
    if order and order[-1] != "2":
        first = _MODES.get(order[-1], f"mode {order[-1]}")
        notes.append(
            f"its EEPROM tries {first} before the network (BOOT_ORDER={order}); set 0xf12 with"
            " rpi-eeprom-config"
        )
    return "; ".join(notes)


def _work(options, check_mode):
    try:
        said = _look(options, check_mode)
    except Failure as failure:
        note = one_line(f"how it boots was not looked at: {failure}", 190)
        return {"changed": False, "removed": [], "boot_order": "", "remember": {"note": note}}
    removed = [name for name in options["files"] if f"removed {name}" in said.splitlines()]
    found = _ORDER.search(said)
    order = found[1].lower() if found else ""
    note = _note(removed, order)
    return {
        "changed": bool(removed),
        "removed": removed,
        "boot_order": order,
        "remember": {"note": note[:190]} if note else {},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "node": {**ARGUMENT, "required": True},
            "nfs_host_key_alias": {"type": "str", "required": True, "no_log": False},
            "directory": {"type": "str", "default": ""},
            "device": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "str", "default": ["bootcode.bin"]},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
