#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: makes the system on a node's card that node's own, before it first boots."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from ansible.module_utils import piseduce_card
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_card import card_of
from ansible.module_utils.piseduce_card_tree import Tree
from ansible.module_utils.piseduce_deployed import BOOT, ROOT, SYSTEM_FILES, point_of, prove
from ansible.module_utils.piseduce_plan import System
from ansible.module_utils.piseduce_process import Failure, Watch, guarded, run
from ansible.module_utils.piseduce_steps import parse_steps, plan
from ansible.module_utils.piseduce_wanted import describe

DOCUMENTATION = r"""
module: system_conf
short_description: Configures the system on a node's card before it first boots
description:
  - Works on the file systems that M(card_mount) has mounted. Nothing of the image is run. Links in
    it cannot lead out of it.
  - What is done is a list of named steps, which the family of the image brings (docs/families.md).
    They set the host name, the manager's key, a new SSH host key of type ed25519, and what the
    first boot may and may not do.
  - The public host key is returned in C(remember), so that the manager expects exactly this system
    from now on. If the card already has the key given as O(known_host_key), it stays.
  - Everything is read back afterwards, and written to the card.
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
  steps:
    description:
      - What is done, in this order. Each is a name, or a mapping of one name to its argument.
    type: list
    elements: raw
    required: true
  never_on_boot:
    description: Files that must not be on the boot partition; with C(bootcode.bin) a Pi 3 boots
      from its card.
    type: list
    elements: str
    default: [bootcode.bin]
  root_has:
    description: Paths of which one must be on the second partition, which proves what it is.
    type: list
    elements: str
    default: [etc/os-release, usr/lib/os-release]
  login:
    description: The system's default user.
    type: str
    required: true
  hostname:
    description: The node's name, a host name label (RFC 1123).
    type: str
    required: true
  manager_key:
    description: The manager's public SSH key, one line.
    type: str
    required: true
  known_host_key:
    description: The host key that the manager expects of this system, if it already expects one.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Tells what would change; a new host key counts as a change.
  diff_mode:
    support: full
    description: Private keys are left out.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Make the system on the card this node's own
  system_conf:
    device: /dev/mmcblk0
    steps: [hostname, root_key, openssh, root_on_card, {kernel_arguments: {remove: [quiet]}}]
    login: pi
    hostname: node-1
    manager_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEo1L1pJd2FzZXhhbXBsZWtleW9mdGhlbWFuYWdlcjEy
    timeout: 60
"""

RETURN = r"""
remember:
  description: What the driver is to remember of the node. Its C(host_key) is the public host key.
  returned: success
  type: dict
changed_paths:
  description: What was changed, relative to the file system's root.
  returned: success
  type: list
  elements: str
"""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\r\n]*)?")


def check_options(options):
    """Refuse names and keys that would spoil the files they are written to."""
    if not _LABEL.fullmatch(options["hostname"]):
        raise Failure(f"{options['hostname']!r} is not a host name (letters, digits, hyphens)")
    options["manager_key"] = options["manager_key"].strip()
    if not _PUBLIC_KEY.fullmatch(options["manager_key"]):
        raise Failure("manager_key is not a public SSH key on one line")


def host_key(private, known):
    """The host key to be used: the card's own if it is the known one, else a new one.

    :param private: the card's private key, bytes or None
    :returns: ``(private key, public key)`` as bytes and as ``ssh-ed25519 AAAA...``
    """
    with tempfile.TemporaryDirectory(prefix="piseduce-", dir="/run") as folder:
        file = Path(folder) / "key"
        if known and private is not None:
            file.touch(mode=0o600)
            file.write_bytes(private)
            status, public = run(["ssh-keygen", "-y", "-P", "", "-f", str(file)], accept=range(256))
            if status == 0 and _bare(public) == _bare(known):
                return private, _bare(public)
            file.unlink()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(file)]
        run(command, what="making the SSH host key")
        return file.read_bytes(), _bare(file.with_suffix(".pub").read_text())


def _bare(public_key):
    """A public key without its comment."""
    return " ".join(public_key.split()[:2])


def apply(tree, items, check_mode):
    """Make what is wanted and not yet met; returns the paths, and Ansible's list of differences."""
    unmet = [item for item in items if not item.is_met(tree)]
    differences = [
        {
            "before_header": f"{tree.folder}/{item.path}",
            "after_header": f"{tree.folder}/{item.path}",
            "before": describe(tree, item),
            "after": item.text(),
        }
        for item in unmet
    ]
    if not check_mode:
        for item in unmet:
            item.make(tree)
        tree.sync()
        for item in items:
            if not item.is_met(tree):
                raise Failure(f"{item.path} on the card is not what was written to it")
    return [item.path for item in unmet], differences


def configure(options, check_mode):
    """Do the module's work; returns its result."""
    check_options(options)
    parse_steps(options["steps"])
    with (
        Watch(options["timeout"], "configuring the system on the card"),
        card_of(options, "system_conf") as card,
    ):
        for place in (ROOT, BOOT):
            prove(card, place, options["root_has"])
        with Tree(point_of(card, ROOT)) as root, Tree(point_of(card, BOOT), in_place=True) as boot:
            system = System(
                root,
                boot,
                hostname=options["hostname"],
                login=options["login"],
                manager_key=options["manager_key"],
                make_host_key=lambda found: host_key(found, options["known_host_key"]),
            )
            plan(system, options["steps"], options["never_on_boot"])
            paths, differences = apply(root, system.root.items, check_mode)
            boot_paths, boot_differences = apply(boot, system.boot.items, check_mode)
    return {
        "changed": bool(paths or boot_paths),
        "changed_paths": paths + boot_paths,
        "diff": differences + boot_differences,
        # In check mode the new key is thrown away: nobody may expect it.
        "remember": {} if check_mode else {"host_key": system.host_key},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            **piseduce_card.ARGUMENTS,
            "steps": {"type": "list", "elements": "raw", "required": True},
            "never_on_boot": {"type": "list", "elements": "str", "default": ["bootcode.bin"]},
            "root_has": {"type": "list", "elements": "str", "default": list(SYSTEM_FILES)},
            "login": {"type": "str", "required": True},
            "hostname": {"type": "str", "required": True},
            # Public keys: nothing in them is to be hidden.
            "manager_key": {"type": "str", "required": True, "no_log": False},
            "known_host_key": {"type": "str", "default": "", "no_log": False},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: configure(module.params, module.check_mode))


if __name__ == "__main__":
    main()
