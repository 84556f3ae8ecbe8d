#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: bring all packages of a Debian-like system up to date, and prove it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_process import Failure, guarded, one_line

DOCUMENTATION = r"""
module: system_upgrade
short_description: Upgrades all packages of a Debian-like system
description:
  - Refreshes the package lists and upgrades all packages, as C(apt-get dist-upgrade) does, without
    ever asking. Configuration files that were changed on the system are kept.
  - Finishes first what an interrupted upgrade left half done.
  - Succeeds when a simulation afterwards finds nothing left to do. Packages on hold stay as they
    are.
  - Waits for other users of the package database, such as the daily jobs after a first start.
  - Every command is bounded by timeout(1) on the node, so none is left behind if the connection
    or this module goes away.
options:
  remove:
    description: Files that packages may have put back and that must not exist afterwards.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds after which the work is given up.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Tells what would be upgraded by the package lists that the system has.
  diff_mode:
    support: full
    description: Shows names and versions before and after.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Upgrade the system
  system_upgrade:
    remove: [/boot/firmware/bootcode.bin]
    timeout: 3000
"""

RETURN = r"""
upgraded:
  description: What was installed, upgraded or removed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The package.
      type: str
    before:
      description: Its version before; empty if it was not installed.
      type: str
    after:
      description: Its version now; empty if it was removed.
      type: str
removed_files:
  description: Files of O(remove) that existed.
  returned: success
  type: list
  elements: str
"""

_LIBC = ctypes.CDLL(None, use_errno=True)
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
}
_KEEP_CONFIGURATION = ("--force-confdef", "--force-confold")
# apt.conf(5). Without a terminal of its own dpkg stays in the group of processes that timeout(1)
# ends.
_OPTIONS = (
    "Dpkg::Use-Pty=0",
    "DPkg::Lock::Timeout=0",  # the waiting is done here, where it can be told
    "APT::Update::Error-Mode=any",
    "APT::Get::Assume-Yes=true",
    "APT::Get::Fix-Broken=true",
    "Acquire::Retries=2",
    "Acquire::http::Timeout=20",
    *(f"Dpkg::Options::={option}" for option in _KEEP_CONFIGURATION),
)
_LOCKED = re.compile(r"could not get lock|unable to lock|locked by another process", re.I)
_LOCK_INTERVAL = 1.0  # seconds
_GRACE = 10  # seconds between SIGTERM and SIGKILL
_TIMED_OUT = (124, 137)  # timeout(1): ended by SIGTERM, by SIGKILL

# `Inst base-files [12.4] (12.5 Debian:12.5/stable [amd64])`, `Remv old [1.0]`; both versions of a
# new or removed package are not there.
_STEP = re.compile(r"^(Inst|Remv) (\S+)(?: \[([^\]]*)\])?(?: \((\S+))?", re.M)


class Apt:
    """The system's package tools, until a deadline.

    :param seconds: how long all commands together may take
    """

    def __init__(self, seconds):
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def update(self):
        """Refresh the package lists; a list that cannot be fetched is an error."""
        said = self._get("update")
        if "Failed to fetch" in said:  # apt before 2.1.16 does not know Error-Mode
            raise Failure(f"apt-get update failed: {one_line(said)}")

    def repair(self):
        """Finish what an interrupted upgrade left unconfigured."""
        self._run("dpkg", *_KEEP_CONFIGURATION, "--pending", "--configure")

    def upgrade(self):
        self._get("dist-upgrade")

    def steps(self):
        """What an upgrade would do now: a list of dicts as in RETURN."""
        return [
            {
                "name": name,
                "before": before,
                "after": "" if action == "Remv" else after,
            }
            for action, name, before, after in _STEP.findall(self._get("-s", "dist-upgrade"))
        ]

    def _get(self, *arguments):
        options = [word for option in _OPTIONS for word in ("-o", option)]
        return self._run("apt-get", *options, *arguments)

    def _run(self, *command):
        """Run a command to its end, again while somebody else holds a lock; returns all it said.

        It is not tied to this process's life: an upgrade that is cut off does more harm than one
        that ends by itself, at the latest when its time is over.
        """
        name = f"{command[0]} {command[-1]}"
        while (left := self._end - time.monotonic()) >= 1:
            status, said = _bounded(command, int(left))
            if status == 0:
                return said
            if status in _TIMED_OUT:
                break
            if not _LOCKED.search(said):
                raise Failure(f"{name} failed: {_complaint(said)}")
            name = f"{command[0]} {command[-1]}: waiting for the lock of another process"
            time.sleep(_LOCK_INTERVAL)
        raise Failure(f"the upgrade took longer than {self._seconds} s, at: {name}")


def _bounded(command, seconds):
    """Run a command with timeout(1); returns (exit status, all that it said).

    What it says goes to a file, not to a pipe: a service that a package starts may keep the pipe
    open for good.
    """
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            ["timeout", "-k", str(_GRACE), str(seconds), *command],
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        status = child.wait()
        if status in _TIMED_OUT:
            _end_group(child.pid)
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


def _end_group(group):
    """See a group of processes end: timeout(1) has told all of them to, and awaited only one."""
    for _attempt in range(_GRACE * 10):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _complaint(said):
    """The errors among all that was said, in one line; all of it if nothing is marked as such."""
    errors = [line for line in said.splitlines() if line.startswith(("E:", "dpkg: error"))]
    return one_line("\n".join(errors) or said) or "it said nothing"


def _remove(paths):
    for path in paths:
        Path(path).unlink()
        folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        if os.path.lexists(path):
            raise Failure(f"{path} is still there after it was removed")


def _flush(folder):
    """Bring a folder's file system to the card: a power cycle may follow, and dpkg leaves much of
    what maintainer scripts write, such as a kernel's copy on the boot partition, to the kernel."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # a system without that boot directory
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "cannot bring it to the card", folder)
    finally:
        os.close(descriptor)


def _diff(steps):
    def text(key):
        return "".join(f"{step['name']} {step[key]}\n" for step in steps if step[key])

    return {"before": text("before"), "after": text("after")}


def _work(module):
    apt = Apt(module.params["timeout"])
    if not module.check_mode:
        apt.repair()
        apt.update()
    steps = apt.steps()
    if steps and not module.check_mode:
        apt.upgrade()
        left = [step["name"] for step in apt.steps()]
        if left:
            raise Failure(f"still to be upgraded after the upgrade: {', '.join(left[:10])}")
    surplus = [path for path in module.params["remove"] if os.path.lexists(path)]
    if not module.check_mode:
        _remove(surplus)
        for folder in {"/", *(str(Path(path).parent) for path in module.params["remove"])}:
            _flush(folder)
    result = {
        "changed": bool(steps or surplus),
        "upgraded": steps,
        "removed_files": surplus,
    }
    if module._diff:
        result["diff"] = _diff(steps)
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "remove": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(module))


if __name__ == "__main__":
    main()
