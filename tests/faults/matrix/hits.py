"""What hits a node: the lab's faults, and what else people and machines do to a deployment."""

import contextlib
import fcntl
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from simulated_lab import SimulatedLab

from piseduce_runner.lab.faults.table import FAULTS, Target


class Hit(Protocol):
    """Something that goes wrong. `name` is the column of the matrix, `detail` its parameters."""

    name: str
    detail: str

    def set(self, lab: SimulatedLab, index: int) -> None:
        """It goes wrong for this node from now on."""

    def clear(self, lab: SimulatedLab, index: int) -> None:
        """It does not any more. What it has broken stays broken."""


@dataclass(frozen=True)
class LabFault:
    """A fault of the lab; `detail` are its parameters. On the node, if it can be set on one."""

    name: str
    detail: str = ""

    def set(self, lab: SimulatedLab, index: int) -> None:
        parameters = dict(word.split("=") for word in self.detail.split())
        lab.fault(self.name, self._node(index), **parameters)

    def clear(self, lab: SimulatedLab, index: int) -> None:
        lab.clear_faults(self.name, self._node(index))

    def _node(self, index: int) -> int | None:
        return index if FAULTS[self.name].target in (Target.NODE, Target.PORT) else None


@dataclass(frozen=True)
class Crowd:
    """Two other boards start just before, and the switch feeds no more than two at once."""

    name: str = "boot-crowd"
    detail: str = "most=2 seconds=60"
    others: tuple[int, ...] = (2, 3)

    def set(self, lab: SimulatedLab, index: int) -> None:
        for other in self.others:
            lab.power(other, False)
            lab.wait_booted(other, "off")
        lab.fault(self.name, most=2, seconds=60)
        for other in self.others:
            lab.power(other, True)
        for other in self.others:
            lab.wait_booted(other, "card")

    def clear(self, lab: SimulatedLab, index: int) -> None:
        lab.clear_faults(self.name)


@dataclass(frozen=True)
class PlugPulled:
    """Somebody switches the node's port off by hand."""

    name: str = "power-cut"
    detail: str = ""

    def set(self, lab: SimulatedLab, index: int) -> None:
        lab.power(index, False)

    def clear(self, lab: SimulatedLab, index: int) -> None:
        """It is the deployment that gives power again."""


@dataclass(frozen=True)
class RunKilled:
    """The Ansible that this process has started is killed, as by the kernel when memory is short.

    For waves of one node: it takes all nodes of its run with it.
    """

    name: str = "run-killed"
    detail: str = ""

    def set(self, lab: SimulatedLab, index: int) -> None:
        killed = 0
        for task in Path("/proc/self/task").iterdir():
            for child in (task / "children").read_text("ascii").split():
                if b"ansible-playbook" in Path("/proc", child, "cmdline").read_bytes():
                    os.kill(int(child), signal.SIGKILL)
                    killed += 1
        assert killed == 1, f"{killed} runs of Ansible"

    def clear(self, lab: SimulatedLab, index: int) -> None:
        """It is over."""


@dataclass(frozen=True)
class FolderLocked:
    """Another process works on the node's TFTP folder, and does not end."""

    name: str = "folder-locked"
    detail: str = ""
    _held: dict[Path, int] = field(default_factory=dict, compare=False, repr=False)

    def set(self, lab: SimulatedLab, index: int) -> None:
        lock = lab.tftp / f".{lab.node(index).serial}.lock"
        self._held[lock] = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held[lock], fcntl.LOCK_EX)

    def clear(self, lab: SimulatedLab, index: int) -> None:
        descriptor = self._held.pop(lab.tftp / f".{lab.node(index).serial}.lock", None)
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True)
class FolderImmutable:
    """Where the node's TFTP folder belongs stands one that nobody can change (chattr +i)."""

    name: str = "folder-immutable"
    detail: str = ""

    def set(self, lab: SimulatedLab, index: int) -> None:
        folder = lab.node_tftp(index)
        folder.unlink(missing_ok=True)
        folder.mkdir()
        subprocess.run(["chattr", "+i", folder], check=True)

    def clear(self, lab: SimulatedLab, index: int) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # a link has no such flag
            subprocess.run(
                ["chattr", "-i", lab.node_tftp(index)], check=True, stderr=subprocess.DEVNULL
            )
