# SPDX-License-Identifier: MIT
"""SSH from the manager to a node, by modules that run on the manager: known host keys only.

A connection of its own each time, never one that Ansible keeps open: what is asked here is which
system answers now.
"""

from __future__ import annotations

import enum
import subprocess

from ansible.module_utils.piseduce_process import Failure, ending, kill, one_line, spawn

LONGEST_COMPLAINT = 1 << 20
"""Bytes that ssh(1) may write on its standard error where that is a file: the node's words too."""
SSH_FAILED = 255
"""ssh(1), EXIT STATUS: an error of ssh itself, not of the remote command."""

ARGUMENT = {
    "type": "dict",
    "options": {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "default": 22},
        "user": {"type": "str", "default": "root"},
        "key_file": {"type": "path", "required": True, "no_log": False},
        "known_hosts_file": {"type": "path", "required": True},
        "host_key_alias": {"type": "str", "required": True, "no_log": False},
    },
}
"""Option that says how to reach a node."""


class Answer(enum.Enum):
    """What came of an attempt to talk to a node; the value says it to an admin."""

    UNREACHABLE = "no answer (host unreachable)"
    REFUSED = "connection refused (the node is up, its SSH server is not)"
    HANGS = "its SSH port accepts connections and then says nothing"
    OTHER_KEY = "its host key differs (another system answers)"
    UNKNOWN_KEY = "the manager knows no host key for it (another system answers, or known_hosts \
lacks it)"
    DENIED = "permission denied (the manager's key is not accepted)"
    BROKEN = "the connection broke off"


# What ssh(1) writes, looked for in this order. Its messages are not translated.
_SAYINGS = (
    ("host key is known for", Answer.UNKNOWN_KEY),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Answer.OTHER_KEY),
    ("Host key verification failed", Answer.OTHER_KEY),
    ("Permission denied", Answer.DENIED),
    ("Too many authentication failures", Answer.DENIED),
    ("Connection refused", Answer.REFUSED),
    ("No route to host", Answer.UNREACHABLE),
    ("Network is unreachable", Answer.UNREACHABLE),
    ("Connection timed out during banner exchange", Answer.HANGS),
    ("timed out", Answer.UNREACHABLE),
)


def ssh_command(node, remote, connect_timeout=5):
    """The arguments of ssh(1) that run a command on a node.

    :param node: dict with the options of :data:`ARGUMENT`
    :param remote: the command, a string for the node's shell
    :param connect_timeout: seconds for the connection and the banner
    """
    known_hosts = node["known_hosts_file"].replace("%", "%%")
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": f'"{known_hosts}"',
        "GlobalKnownHostsFile": "none",
        "HostKeyAlias": node["host_key_alias"],
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "PreferredAuthentications": "publickey",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ConnectTimeout": connect_timeout,
        "ServerAliveInterval": 5,
        "ServerAliveCountMax": 3,
        "LogLevel": "ERROR",
    }
    command = ["ssh", "-F", "none", "-T", "-i", node["key_file"], "-p", str(node["port"])]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    return [*command, "-l", node["user"], "--", node["address"], remote]


def answer_of(complaint):
    """Classify what ssh(1) said on its standard error when it ended with :data:`SSH_FAILED`."""
    for saying, answer in _SAYINGS:
        if saying in complaint:
            return answer
    return Answer.BROKEN


def explain(complaint):
    """Say in one line why ssh(1) failed: our words, and its own where they add something."""
    answer = answer_of(complaint)
    if answer is Answer.BROKEN:
        return f"{answer.value}: {one_line(complaint) or 'ssh said nothing'}"
    return answer.value


def run_on_node(node, command, text="", what="the command", accept=(0,)):
    """Run a shell command on a node to its end; returns (exit status, what it said).

    :param node: dict with the options of :data:`ARGUMENT`
    :param text: for its standard input: what nobody may see in a list of processes
    :param what: what it does, for the error message
    :raises Failure: the node cannot be reached, or the command ends with another status
    """
    child = spawn(
        ssh_command(node, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, complaint = child.communicate(text)
    finally:
        kill(child)
    if child.returncode == SSH_FAILED:
        raise Failure(f"{node['host_key_alias']}: {explain(complaint)}")
    if child.returncode not in accept:
        said = one_line(complaint) or one_line(output) or "it said nothing"
        raise Failure(f"{what} failed ({ending(child.returncode)}): {said}")
    return child.returncode, output
