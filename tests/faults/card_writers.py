"""Looks who has the nodes' cards open for writing, all the time that nodes are deployed."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from simulated_lab import SimulatedLab

from piseduce_runner.lab import procfs

POLL_SECONDS = 0.1


class CardWriters:
    """From `start` to `stop`: which processes write to a card, or to a partition of it.

    `written` are the nodes at which somebody was seen writing. `crowds` are the moments at which
    there were two that wrote to the same device; a process and those that it has started count as
    one: a module and its programs.
    """

    def __init__(self, lab: SimulatedLab, indexes: list[int]) -> None:
        self._cards = {lab.loop_device(index): lab.node(index).name for index in indexes}
        names = {index: lab.folder.namespace(index) for index in indexes}
        self._namespaces = {procfs.namespace_id(name) for name in names.values()}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.written: set[str] = set()
        self.crowds: list[dict[int, str]] = []

    def start(self) -> "CardWriters":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            devices = dict(self._devices())
            writers: dict[int, set[int]] = {}
            for pid in procfs.processes_in(self._namespaces):
                for device in _written_by(pid):
                    writers.setdefault(device, set()).add(pid)
            for device in writers.keys() & devices.keys():
                self.written.add(devices[device])
                if len(_heads(writers[device])) > 1:
                    # One may have ended while it was looked at; then it says nothing of its parent.
                    still = {pid for pid in writers[device] if device in _written_by(pid)}
                    if len(heads := _heads(still)) > 1:
                        self.crowds.append({pid: procfs.name_of(pid) for pid in heads})

    def _devices(self) -> Iterator[tuple[int, str]]:
        """The numbers of the cards and of their partitions, and whose they are."""
        for card, node in self._cards.items():
            for path in (Path(card), *Path("/dev").glob(f"{Path(card).name}p*")):
                try:
                    yield path.stat().st_rdev, node
                except FileNotFoundError:
                    continue  # the partition has just gone


def _written_by(pid: int) -> set[int]:
    """The devices that a process has open for writing."""
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            number = link.stat().st_rdev
            info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text("ascii")
            flags = int(info.partition("flags:")[2].split()[0], 8)
            if number and flags & os.O_ACCMODE != os.O_RDONLY:
                found.add(number)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return found  # it has ended meanwhile
    return found


def _heads(pids: set[int]) -> set[int]:
    """Those of which no other one is an ancestor."""
    return {pid for pid in pids if not _descends(pid, pids)}


def _descends(pid: int, others: set[int]) -> bool:
    while pid := _parent(pid):
        if pid in others:
            return True
    return False


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.rpartition(")")[2].split()[1])
