"""A lab of the tests' own, and the hands that a test needs: power, SSH, cards, status."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.lab.faults import control
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.settings import Settings

ADMIN = "1.3.6.1.2.1.105.1.1.1.3.1"  # pethPsePortAdminEnable, group 1
DETECTION = "1.3.6.1.2.1.105.1.1.1.6.1"  # pethPsePortDetectionStatus, group 1
CLI = "from piseduce_runner.cli import main; main()"


@dataclass(frozen=True)
class SimulatedNode:
    """What a test wants to know of a node. `card_file` is None where there is no card."""

    index: int
    name: str
    address: str
    mac: str
    serial: str
    port: int
    card_file: Path | None


class SimulatedLab:
    """A lab under its own root and on its own network; it may be up or not."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.folder = LabFolder(root / name)

    # The command line

    def run(self, *arguments: str, check: bool = True, timeout: float = 900):
        """`piseduce-run ARGUMENTS` among the labs of this root; the completed process."""
        done = subprocess.run(
            [sys.executable, "-c", CLI, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def environment(self) -> dict[str, str]:
        """Environment for commands about this lab: nothing of a person's own labs or sites."""
        kept = {key: value for key, value in os.environ.items() if key != "PISEDUCE_SITE"}
        return kept | {"PISEDUCE_LAB_ROOT": str(self.root)}

    def up(self, *options: str, check: bool = True):
        return self.run("lab", "up", "--name", self.name, *options, check=check)

    def down(self, check: bool = True):
        return self.run("lab", "down", "--name", self.name, check=check)

    def status(self) -> dict:
        """What `piseduce-run --json lab status` prints."""
        return json.loads(self.run("--json", "lab", "status", "--name", self.name).stdout)

    # What it consists of

    @property
    def settings(self) -> Settings:
        return self.folder.settings()

    @property
    def site(self) -> Path:
        return self.folder.site

    @property
    def tftp(self) -> Path:
        return self.folder.tftp

    def node(self, index: int) -> SimulatedNode:
        node = self.settings.node(index)
        card = self.folder.card(node.name)
        return SimulatedNode(**vars(node), card_file=card if card.exists() else None)

    def node_tftp(self, index: int) -> Path:
        """The folder that the node's firmware asks for."""
        return self.tftp / self.node(index).serial

    def loop_device(self, index: int) -> str:
        """The device behind a node's card, for looking at it (and writing) while power is off."""
        listing = ["losetup", "--noheadings", "--output", "NAME", "--associated"]
        card = str(self.node(index).card_file)
        done = subprocess.run([*listing, card], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    # Faults

    def fault(self, name: str, node: str | int | None = None, **parameters: object) -> None:
        """Sets a fault on a node (its name or index), the switch (its name), or the manager.

        It is effective on return. UserError: the lab has no such fault, node or parameter.
        """
        words = [f"node-{node}" if isinstance(node, int) else node] if node else []
        words += [f"{key}={value}" for key, value in parameters.items()]
        control.ask(self.folder, {"do": "set", "fault": name, "words": words})

    def clear_faults(self, name: str | None = None, node: str | int | None = None) -> list[dict]:
        """Clears all faults, or those of a name and of a place; returns what was cleared."""
        target = f"node-{node}" if isinstance(node, int) else node
        return control.ask(self.folder, {"do": "clear", "fault": name, "target": target})

    # Power

    def power(self, index: int, on: bool) -> None:
        """One SET of net-snmp's snmpset, with the read-write community."""
        name = f"{ADMIN}.{self.node(index).port}"
        self.snmp("snmpset", "private", name, "i", "1" if on else "2")

    def snmp(self, tool: str, community: str, *arguments: str) -> str:
        """Output of snmpset, snmpget... by v2c; CalledProcessError when the switch refuses."""
        command = [tool, "-v2c", "-c", community, "-Oqvn", self.settings.switch_address]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def detection(self, index: int) -> int:
        """pethPsePortDetectionStatus: 1 disabled, 2 searching, 3 delivering power."""
        return int(self.snmp("snmpget", "public", f"{DETECTION}.{self.node(index).port}"))

    def power_off_everything(self) -> None:
        for node in self.settings.all_nodes():
            self.power(node.index, False)
        for node in self.settings.all_nodes():
            if node.name not in self.settings.stuck_on:
                self.wait_booted(node.index, "off")

    # What nodes do

    def booted(self, index: int) -> tuple[str, str]:
        """(booted, reason) of a node, from the supervisor's status."""
        facts = self.folder.status()["nodes"][index - 1]
        return facts["booted"], facts["reason"]

    def wait_booted(self, index: int, what: str, timeout: float = 60) -> str:
        """Waits until the node has booted `what` (off, booting, nfs, card, dead).

        Returns the reason. AssertionError: not within `timeout` seconds.
        """
        limit = time.monotonic() + timeout
        while True:
            booted, reason = self.booted(index)
            if booted == what:
                return reason
            assert time.monotonic() < limit, f"node-{index} is {booted} ({reason}), not {what}"
            time.sleep(0.05)

    def ssh(
        self,
        index: int,
        command: str,
        *,
        user: str = "root",
        key: Path | None = None,
        check: bool = True,
        connect_timeout: int = 3,
    ):
        """Runs a shell command on a node, whatever system answers; the completed process."""
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(key or self.site / "keys" / "manager_ed25519"),
            "ConnectTimeout": str(connect_timeout),
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        target = f"{user}@{self.node(index).address}"
        return subprocess.run(
            ["ssh", *given, target, command],
            capture_output=True,
            text=True,
            check=check,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def hostname_over_ssh(self, index: int) -> str | None:
        """The host name that the node gives over SSH, or None when it does not answer."""
        done = self.ssh(index, "cat /etc/hostname", check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def wait_ssh(self, index: int, timeout: float = 60) -> str:
        """Waits until the node answers SSH; returns its host name."""
        limit = time.monotonic() + timeout
        while True:
            name = self.hostname_over_ssh(index)
            if name is not None:
                return name
            assert time.monotonic() < limit, f"node-{index} does not answer: {self.booted(index)}"
            time.sleep(0.1)

    def boot_id(self, index: int) -> str:
        """The boot id of the system that answers."""
        return self.ssh(index, "cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def wait_rebooted(self, index: int, before: str, timeout: float = 60) -> None:
        """Waits until a system with another boot id than `before` answers."""
        limit = time.monotonic() + timeout
        while True:
            done = self.ssh(index, "cat /proc/sys/kernel/random/boot_id", check=False)
            if done.returncode == 0 and done.stdout.strip() != before:
                return
            assert time.monotonic() < limit, f"node-{index} did not come back: {self.booted(index)}"
            time.sleep(0.1)
