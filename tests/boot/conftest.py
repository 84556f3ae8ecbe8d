"""What the tests of the boot modules share: modules run as Ansible runs them, and a real sshd."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import system as systems

PROJECT = Path(__file__).parents[2]

# Ansible packs a module with its module_utils into one archive; this finds them where they are.
LAUNCHER = """
import json, runpy, sys
import ansible.module_utils
from ansible.module_utils.testing import patch_module_args
ansible.module_utils.__path__.append(sys.argv[1])
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[2], run_name="__main__")
"""


class ModuleFailed(Exception):
    """The module ended with fail_json; the message is its own."""


def start_module(name, arguments, *, check=False, diff=False, inside=()):
    """Starts a module of library/ in a process of its own; its result comes from `finish`.

    `inside`: a command that runs another one, such as nsenter(1) with its options.
    """
    parameters = arguments | {"_ansible_check_mode": check, "_ansible_diff": diff}
    module = PROJECT / "library" / f"{name}.py"
    child = subprocess.Popen(
        [*inside, sys.executable, "-c", LAUNCHER, PROJECT / "module_utils", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdin.write(json.dumps(parameters))
    child.stdin.close()
    child.stdin = None
    return child


def finish(child, timeout=60):
    """The module's result; ModuleFailed with its message if it failed."""
    output, errors = child.communicate(timeout=timeout)
    assert output, f"the module printed no result: {errors}"
    result = json.loads(output)
    if result.get("failed"):
        raise ModuleFailed(result["msg"])
    assert child.returncode == 0, errors
    return result


@pytest.fixture
def module():
    """module(name, check=..., diff=..., **arguments) -> the result of one run."""

    def run(name, *, check=False, diff=False, inside=(), **arguments):
        return finish(start_module(name, arguments, check=check, diff=diff, inside=inside))

    return run


def processes_with(*words):
    """The ids of the processes of this machine whose arguments include these, side by side."""
    wanted = b"\0" + b"\0".join(word.encode() for word in words) + b"\0"
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in b"\0" + (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_key(path):
    """A new ed25519 key pair; returns the public part as "type base64"."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path]
    subprocess.run(command, check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@dataclass
class Sshd:
    """A real SSH server on the loopback that lets root in with one key."""

    folder: Path
    port: int
    host_key: str
    process: subprocess.Popen

    def reach(self, **changes):
        """The option by which modules reach it, as the system `node`."""
        return {
            "address": "127.0.0.1",
            "port": self.port,
            "key_file": str(self.folder / "manager"),
            "known_hosts_file": str(self.folder / "known_hosts"),
            "host_key_alias": "node",
        } | changes

    def stop(self):
        """Ends the server and every session of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_sshd(tmp_path_factory):
    """start_sshd(*options) -> Sshd: a server with host and user keys of its own."""
    servers = []

    def start(*options):
        folder = tmp_path_factory.mktemp("sshd")
        host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(make_key(folder / "manager") + "\n")
        (folder / "known_hosts").write_text(f"node {host_key}\n")
        port = free_port()
        lines = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder}/host_key",
            f"AuthorizedKeysFile {folder}/authorized_keys",
            f"PidFile {folder}/pid",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            *options,
        ]
        (folder / "config").write_text("\n".join(lines) + "\n")
        Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation directory
        process = subprocess.Popen(
            [shutil.which("sshd"), "-D", "-e", "-f", folder / "config"],
            stdin=subprocess.DEVNULL,
            stderr=(folder / "log").open("w"),
            start_new_session=True,
        )
        server = Sshd(folder, port, host_key, process)
        servers.append(server)
        while (  # until it says so itself, or ends
            "Server listening" not in (folder / "log").read_text() and process.poll() is None
        ):
            pass
        assert process.poll() is None, (folder / "log").read_text()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def sshd(start_sshd):
    return start_sshd()


@pytest.fixture
def system(tmp_path):
    """A Debian-like system that may be changed at will: see system.py."""
    folder = tmp_path / "system"
    folder.mkdir()
    running = systems.start(folder)
    yield running
    systems.stop(running)
