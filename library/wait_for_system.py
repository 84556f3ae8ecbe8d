#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: wait until a node answers SSH as the system that is expected."""

from __future__ import annotations

import errno
import os
import re
import selectors
import socket
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.piseduce_process import Failure, Watch, guarded, kill, one_line, spawn
from ansible.module_utils.piseduce_ssh import (
    ARGUMENT,
    SSH_FAILED,
    Answer,
    answer_of,
    explain,
    ssh_command,
)

DOCUMENTATION = r"""
module: wait_for_system
short_description: Waits until the expected system answers on a node
description:
  - Waits until a node answers SSH as the expected system, having the expected host key and host
    name, and having been started anew if an earlier start is known.
  - A port that is open proves nothing, since a node that is about to restart still answers.
    So the boot id is compared, which the kernel draws at every start (random(4)).
  - Every attempt is a connection of its own. One that hangs is given up after some seconds.
  - Runs on the manager. The node needs nothing but a shell and cat.
options:
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
        description: The host keys that are known. A system with any other key is not believed.
        type: path
        required: true
      host_key_alias:
        description: The name under which the expected system's key is known.
        type: str
        required: true
  hostname:
    description: The host name that the expected system has in C(/etc/hostname).
    type: str
    required: true
  ready:
    description:
      - A shell command that fails as long as the system is not ready, such as during its first
        start. Empty if the system is ready once it answers.
    type: str
    default: ""
  previous_boot_id:
    description: Boot id of an earlier start. A system that still runs since then is not accepted.
    type: str
    default: ""
  timeout:
    description: Seconds to wait. The message of a failure says what answered last.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Waits as well, it changes nothing.
  diff_mode:
    support: none
    description: Nothing is changed.
author: PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Wait for the deploy OS
  wait_for_system:
    node:
      address: 10.77.0.101
      key_file: /etc/piseduce/keys/manager_ed25519
      known_hosts_file: /etc/piseduce/known_hosts
      host_key_alias: nfspi
    hostname: nfspi
    previous_boot_id: 6d8a1e21-0a40-4b0e-a3c8-2b0f6a0d4c7e
    timeout: 300
"""

RETURN = r"""
hostname:
  description: The system's host name.
  returned: success
  type: str
boot_id:
  description: The system's boot id.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
remember:
  description: The boot id, for the state that waits for the next start.
  returned: success
  type: dict
"""

_CONNECT = 1.0  # seconds for one attempt to connect
_LOGIN = 10.0  # seconds for one attempt to log in and read two files; a busy Pi 3 takes about 2
_LONGEST = 64 << 10  # bytes of an answer; a host name and a boot id are some hundred at most
_INTERVAL = 0.3  # seconds from the start of one attempt to the next
# sshd(8) locks out who fails to log in too often (PerSourcePenalties, OpenSSH 9.8).
_DENIED_INTERVAL = 2.0

_NOT_READY = 90  # exit status of the node's shell
_QUESTION = "cat /etc/hostname /proc/sys/kernel/random/boot_id"
_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _port_answer(node):
    """Whether something listens on the node's SSH port; None if so, else the Answer."""
    try:
        socket.create_connection((node["address"], node["port"]), timeout=_CONNECT).close()
    except ConnectionRefusedError:
        return Answer.REFUSED
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EAFNOSUPPORT:
            raise Failure(f"{node['address']} is not an address that can be reached") from error
        return Answer.UNREACHABLE
    return None


class _TooMuch(Exception):
    """What the node says is longer than any answer."""


def _ask(node, ready, patience):
    """Log in and ask; returns (exit status, what the node said, what ssh said).

    With the shell command `ready`, the status is 0 only if that succeeds, and else `_NOT_READY`.

    :raises subprocess.TimeoutExpired: it took longer than `patience` seconds
    :raises _TooMuch: the two were longer than `_LONGEST` bytes
    """
    question = f"{_QUESTION} && {{ {ready}; }} >&2 || exit {_NOT_READY}" if ready else _QUESTION
    command = ssh_command(node, question, connect_timeout=2)
    with spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            output, complaint = _hear(child, patience)
        finally:
            kill(child)
    return child.returncode, output, complaint


def _hear(child, patience):
    """Read what a child says until it ends; as `communicate` of subprocess, but bounded."""
    end = time.monotonic() + patience
    said = {child.stdout: b"", child.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired(child.args, patience)
            for key, _events in ready:
                data = os.read(key.fd, _LONGEST)
                if not data:
                    selector.unregister(key.fileobj)
                said[key.fileobj] += data
            if sum(map(len, said.values())) > _LONGEST:
                raise _TooMuch
    child.wait(max(0.0, end - time.monotonic()))
    return [text.decode("utf-8", "replace") for text in said.values()]


class Waiting:
    """Attempts to find the expected system; `seen` says what the last complete one met."""

    def __init__(self, node, hostname, previous_boot_id, ready=""):
        self._node, self._hostname, self._previous = node, hostname, previous_boot_id
        self._ready = ready
        self.seen = ""
        self.interval = _INTERVAL

    def attempt(self, left):
        """One attempt; returns the boot id of the expected system, or an empty string.

        :param left: seconds until the deadline
        """
        self.interval = _INTERVAL
        answer = _port_answer(self._node)
        if answer:
            self.seen = answer.value
            return ""
        patience = min(_LOGIN, left)
        try:
            status, output, complaint = _ask(self._node, self._ready, patience)
        except subprocess.TimeoutExpired:
            if patience == _LOGIN or not self.seen:
                self.seen = Answer.HANGS.value
            return ""
        except _TooMuch:
            self.seen = f"it said more than {_LONGEST} bytes instead of its host name and boot id"
            return ""
        if status == 0 or (status == _NOT_READY and self._ready):
            boot_id = self._accepted(output.split())
            if boot_id and status == _NOT_READY:
                self.seen = f"it answers, and is not ready yet ({self._ready})"
                return ""
            return boot_id
        if status == SSH_FAILED:
            self.seen = explain(complaint)
            if answer_of(complaint) is Answer.DENIED:
                self.interval = _DENIED_INTERVAL
        else:
            self.seen = f"logged in, but {_QUESTION!r} failed: {one_line(complaint)}"
        return ""

    def _accepted(self, words):
        if len(words) != 2 or not _BOOT_ID.fullmatch(words[1]):
            self.seen = f"logged in, but {_QUESTION!r} said {one_line(' '.join(words), 100)!r}"
            return ""
        hostname, boot_id = words
        if hostname != self._hostname:
            self.seen = f"hostname {one_line(hostname, 100)!r} instead of {self._hostname!r}"
        elif boot_id == self._previous:
            self.seen = "the same boot as before (the node has not restarted)"
        else:
            return boot_id
        return ""


def _work(node, hostname, ready, previous_boot_id, timeout):
    waiting = Waiting(node, hostname, previous_boot_id, ready)
    start = time.monotonic()
    end = start + timeout
    # Every wait below ends by itself; the watch is for what we did not think of, and notices when
    # nobody waits for the result any more.
    with Watch(timeout + 5, f"waiting for {hostname!r} on {node['address']}"):
        # The last second is left unused: it is too short to learn anything new.
        while (left := end - time.monotonic()) > (_CONNECT if waiting.seen else 0):
            next_attempt = time.monotonic()
            boot_id = waiting.attempt(left)
            if boot_id:
                return {
                    "changed": False,
                    "hostname": hostname,
                    "boot_id": boot_id,
                    "seconds": round(time.monotonic() - start, 1),
                    "remember": {"boot_id": boot_id},
                }
            next_attempt = min(next_attempt + waiting.interval, end)
            time.sleep(max(0.0, next_attempt - time.monotonic()))
    raise Failure(
        f"{node['address']} did not answer as {hostname!r} within {timeout} s;"
        f" last seen: {waiting.seen or 'nothing'}"
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "node": {**ARGUMENT, "required": True},
            "hostname": {"type": "str", "required": True},
            "ready": {"type": "str", "default": ""},
            "previous_boot_id": {"type": "str", "default": ""},
            "timeout": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    guarded(module, lambda: _work(**module.params))


if __name__ == "__main__":
    main()
