#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: make a node's folder below the TFTP root exactly what it should be, at once."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_node_folder import NodeFolder, locked
from ansible.module_utils.piseduce_process import (
    Failure,
    Hopeless,
    Watch,
    guarded,
    kill,
    one_line,
    spawn,
)
from ansible.module_utils.piseduce_ssh import (
    ARGUMENT,
    LONGEST_COMPLAINT,
    SSH_FAILED,
    explain,
    ssh_command,
)
from ansible.module_utils.piseduce_tree import (
    Limit,
    Truncated,
    copy_tree,
    digest,
    listing_command,
    parse_listing,
    printable,
    read_tree,
    unpack_tree,
)

DOCUMENTATION = r"""
module: tftp_folder
short_description: Fills or removes the folder that a node boots from
description:
  - Gives a node's TFTP folder exactly the contents of another folder, on the manager or on a node.
  - The contents are copied aside, read back and compared by sha256, brought to the disk, and
    swapped in by one rename(2). At every instant the folder is the old one or the new one, whole.
  - C(root/serial) becomes a symbolic link to C(root/.serial-XXXXXXXX). Older versions and what a
    crash left behind are removed, and with O(state=absent) it is proven that nothing is left but
    the lock. A real folder that is in the way is exchanged by renameat2(2).
  - Refused, with the old folder kept, are files that are neither files nor folders, links that lead
    out of the folder, names that could lead elsewhere, and more data than a boot partition has.
  - Runs on the manager. One at a time works on a serial, by a lock on C(root/.serial.lock).
options:
  root:
    description: The TFTP server's root folder.
    type: path
    required: true
  serial:
    description: The node's serial number, 8 lower-case hexadecimal digits. The folder's name.
    type: str
    required: true
  state:
    description: Whether the folder has the contents of O(source_folder), or does not exist.
    type: str
    choices: [present, absent]
    default: present
  source_folder:
    description: The folder with the boot files. Required if O(state=present).
    type: path
  source_node:
    description:
      - The node on which O(source_folder) is, reached by SSH. Without it, it is on the manager.
      - The node needs find, sha256sum and tar, those of busybox suffice.
    type: dict
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
  source_mounted:
    description:
      - Insist that O(source_folder) is a mount point. An empty folder that waits
        for a partition is no source of boot files.
    type: bool
    default: false
  source_mount:
    description:
      - A shell command that mounts O(source_folder) on O(source_node), for a system that does not
        keep it mounted. Used if nothing is mounted there, and undone afterwards.
    type: str
    default: ""
  source_unmount:
    description: A shell command that undoes O(source_mount).
    type: str
    default: ""
  settles:
    description:
      - The source is the running system's own, so that the node needs nothing but a restart once
        the folder has its contents. That is then remembered. Only with O(state=present).
    type: bool
    default: false
  required_files:
    description: Refuse a source without these files.
    type: list
    elements: str
    default: []
  max_files:
    description: Refuse a source with more files and folders.
    type: int
    default: 5000
  max_bytes:
    description: Refuse a source with more data.
    type: int
    default: 1073741824
  timeout:
    description: Seconds after which the work is given up, and the old folder kept.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Compares source and folder, and changes nothing.
  diff_mode:
    support: full
    description: Shows the digests and names of the files before and after.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Give the node the boot files of the deploy OS
  tftp_folder:
    root: /srv/piseduce/tftp
    serial: 1760325b
    source_folder: /srv/piseduce/nfs-boot
    timeout: 30

- name: Give the node the boot files of its own card
  tftp_folder:
    root: /srv/piseduce/tftp
    serial: 1760325b
    source_folder: /mnt/boot
    source_mounted: true
    source_node:
      address: 10.77.0.101
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: nfspi
    timeout: 120
"""

RETURN = r"""
files:
  description: Paths of the files in the folder, sorted.
  returned: success
  type: list
  elements: str
digest:
  description: sha256 over the paths and contents of all files, read back from the folder.
  returned: success and O(state=present)
  type: str
folder:
  description: The node's folder.
  returned: success
  type: str
remember:
  description: That nothing is left but the restart, C(settled).
  returned: success, with O(settles), not in check mode
  type: dict
  sample: {"settled": true}
"""

# Exit statuses of the node's shell.
_NOT_MOUNTED, _NO_FOLDER = 90, 91
_REASONS = {_NOT_MOUNTED: "nothing is mounted there", _NO_FOLDER: "there is no such folder"}


class LocalSource:
    """A folder on the manager."""

    def __init__(self, folder, mounted, limit):
        self.name, self._folder, self._mounted, self._limit = folder, folder, mounted, limit

    def tree(self):
        if self._mounted and not os.path.ismount(self._folder):
            raise Failure(_REASONS[_NOT_MOUNTED])
        return read_tree(self._folder, self._limit())

    def copy(self, target):
        copy_tree(self._folder, target, self._limit())


class NodeSource:
    """A folder on a node, through SSH: the node lists and digests, tar brings the contents."""

    def __init__(self, parameters, limit):
        folder, node = parameters["source_folder"], parameters["source_node"]
        self.name = f"{folder} on {node['host_key_alias']}"
        self._node, self._limit = node, limit
        # mounts(5) as every Linux has it; not every busybox has mountpoint(1).
        self._enter = f"m() {{ grep -qs {shlex.quote(f' {folder} ')} /proc/mounts; }}; "
        if parameters["source_mount"]:
            undo = shlex.quote(f"cd / && {parameters['source_unmount']}")
            self._enter += f"m || {{ {parameters['source_mount']} && trap {undo} 0; }} >&2; "
        self._enter += f"cd {shlex.quote(folder)} || exit {_NO_FOLDER}; "
        if parameters["source_mounted"]:
            self._enter += f"m || exit {_NOT_MOUNTED}; "

    def tree(self):
        return self._ask(listing_command(), lambda stream: parse_listing(stream, self._limit()))

    def copy(self, target):
        self._ask("tar -cf - .", lambda stream: unpack_tree(stream, target, self._limit()))

    def _ask(self, command, read):
        with tempfile.TemporaryFile() as complaint:
            child = spawn(
                ssh_command(self._node, self._enter + command),
                stdout=subprocess.PIPE,
                stderr=complaint,
                largest_file=LONGEST_COMPLAINT,
            )
            try:
                try:
                    result = read(child.stdout)
                except Truncated:
                    # Why the node stopped in the middle tells more than that it did.
                    self._check(child.wait(), complaint)
                    raise
                self._check(child.wait(), complaint)
            finally:
                kill(child)
                child.stdout.close()
        return result

    def _check(self, status, complaint):
        if status == 0:
            return
        complaint.seek(max(0, complaint.seek(0, os.SEEK_END) - 4096))
        said = complaint.read().decode("utf-8", "replace")
        if status == SSH_FAILED:
            raise Failure(explain(said))
        raise Failure(_REASONS.get(status) or one_line(said) or f"the node ended with {status}")


def _source(parameters, limit):
    folder, mounted = parameters["source_folder"], parameters["source_mounted"]
    if parameters["source_node"]:
        return NodeSource(parameters, limit)
    return LocalSource(folder, mounted, limit)


def _wanted(source, required):
    """The source's tree, if a node can boot from it."""
    tree = source.tree()
    missing = [path for path in required if not tree.get(path)]
    if missing:
        raise Failure(f"there is no {missing[0]}, so these are not a node's boot files")
    if not any(tree.values()):
        raise Failure("there are no files")
    return tree


def _fill(module, folder, limit):
    """Bring the folder to what the source holds; returns the module's result."""
    source = _source(module.params, limit)
    try:
        wanted = _wanted(source, module.params["required_files"])
        current = folder.tree(limit())
        changed = current != wanted
        if changed and not module.check_mode:
            folder.fill(source.copy, wanted, limit())
        if not module.check_mode:
            folder.clean()
    except Failure as failure:
        raise Failure(f"{source.name}: {failure}") from failure
    return {
        "changed": changed,
        "digest": digest(wanted),
        "files": _files(wanted),
        "diff": _diff(folder, current, wanted),
    }


def _remove(module, folder, limit):
    current = folder.tree(limit())
    there = folder.exists()
    changed = there or bool(folder.leftovers())
    if not module.check_mode:
        if there:
            folder.remove()
        folder.clean()
        if folder.exists() or folder.leftovers():
            raise Failure(f"{folder.path} is still there after it was removed")
    return {"changed": changed, "files": [], "diff": _diff(folder, current, {})}


def _files(tree):
    return [printable(path) for path, content in sorted(tree.items()) if content]


def _diff(folder, before, after):
    def text(tree):
        lines = (f"{content or '(folder)':64}  {path}" for path, content in sorted(tree.items()))
        return "".join(f"{printable(line)}\n" for line in lines)

    return {
        "before_header": str(folder.path),
        "after_header": str(folder.path),
        "before": text(before or {}),
        "after": text(after),
    }


def _work(module):
    root, serial = Path(module.params["root"]), module.params["serial"]
    if not re.fullmatch("[0-9a-f]{8}", serial):
        raise Hopeless(f"serial {serial!r} is not 8 lower-case hexadecimal digits")
    if not root.is_dir():
        raise Hopeless(f"{root}: the TFTP root does not exist")

    def limit():
        return Limit(module.params["max_files"], module.params["max_bytes"])

    os.umask(0o022)
    folder = NodeFolder(root, serial)
    act = _fill if module.params["state"] == "present" else _remove
    with Watch(module.params["timeout"], "the work on the TFTP folder") as watch:
        if module.check_mode:
            result = act(module, folder, limit)
        else:
            with locked(root / f".{serial}.lock", watch):
                result = act(module, folder, limit)
    if not module._diff:
        del result["diff"]
    if module.params["settles"] and act is _fill and not module.check_mode:
        result["remember"] = {"settled": True}
    return {"folder": str(folder.path), **result}


def main():
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "serial": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "source_folder": {"type": "path"},
            "source_node": ARGUMENT,
            "source_mounted": {"type": "bool", "default": False},
            "source_mount": {"type": "str", "default": ""},
            "source_unmount": {"type": "str", "default": ""},
            "settles": {"type": "bool", "default": False},
            "required_files": {"type": "list", "elements": "str", "default": []},
            "max_files": {"type": "int", "default": 5000},
            "max_bytes": {"type": "int", "default": 1 << 30},
            "timeout": {"type": "int", "required": True},
        },
        required_if=[("state", "present", ["source_folder"])],
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(module))


if __name__ == "__main__":
    main()
