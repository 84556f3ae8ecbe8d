"""Finds whatever is left of a lab on this machine, removes it, and proves that it is gone.

Nothing here trusts a record: processes are known by their environment, their network namespace or
the manager's files that they write; namespaces and interfaces by name, loop devices by the file
behind them, mounts by their place.
"""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

from piseduce_runner.lab import procfs
from piseduce_runner.lab.card import Card
from piseduce_runner.lab.card_rate import CGROUPS, GROUP_PREFIX, lift_limit
from piseduce_runner.lab.folder import MARKER, LabFolder
from piseduce_runner.lab.loop_device import set_immutable, set_read_only
from piseduce_runner.lab.network import run


def find(lab: LabFolder) -> list[str]:
    """Everything of the lab that exists on the machine, one line each; not its folder."""
    found = [f"process {pid}" for pid in sorted(_processes(lab))]
    found += [f"mount {point}" for point in _mounts(lab)]
    found += [f"loop device {card.device} ({card.file})" for card in _cards(lab)]
    found += [f"network namespace {name}" for name in _namespaces(lab)]
    found += [f"interface {name}" for name in _interfaces(lab)]
    found += [f"control group {folder}" for folder in _groups(lab)]
    return found


def remove(lab: LabFolder, timeout: float = 20.0) -> list[str]:
    """Removes what `find` finds, and returns what is left after `timeout` seconds (mostly [])."""
    limit = time.monotonic() + timeout
    complaints: list[str] = []
    while found := find(lab):
        if time.monotonic() > limit:
            return found + [f"({complaint})" for complaint in complaints]
        complaints = _remove_once(lab)
        time.sleep(0.02)
    return []


def _remove_once(lab: LabFolder) -> list[str]:
    """One pass over everything. A refusal may only mean that something else has to go first."""
    for pid in _processes(lab):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    steps = [("umount", "--lazy", point) for point in _mounts(lab)]
    for card in _cards(lab):
        lift_limit(card)
        _lift_faults(card)
        # Partitions outlive the file behind a loop device otherwise.
        steps += [
            ("delpart", card.device, partition.removeprefix(f"{card.device}p"))
            for partition in card.partitions()
        ]
        steps.append(("losetup", "--detach", card.device))
    steps += [("ip", "netns", "delete", name) for name in _namespaces(lab)]
    complaints = []
    for step in steps:
        try:
            run(*step)
        except RuntimeError as error:
            complaints.append(str(error))
    for name in _interfaces(lab):  # again: those of a namespace have gone with it
        try:
            run("ip", "link", "delete", name)
        except RuntimeError as error:
            complaints.append(str(error))
    for folder in _groups(lab):
        try:
            folder.rmdir()
        except OSError as error:
            complaints.append(str(error))
    return complaints


def _lift_faults(card: Card) -> None:
    """What the next user of the loop device, or whoever deletes the file, must not meet."""
    with contextlib.suppress(FileNotFoundError):  # deleted by hand
        set_immutable(card.file, False)
    descriptor = os.open(card.device, os.O_RDONLY)
    try:
        set_read_only(descriptor, False)
    finally:
        os.close(descriptor)


def _processes(lab: LabFolder) -> set[int]:
    identities = {procfs.namespace_id(name) for name in _namespaces(lab)} - {None}
    found = procfs.processes_marked(f"{MARKER}={lab.path}")
    # nginx wipes its environment, but it has its logs open.
    found |= procfs.processes_writing_below(lab.manager)
    if identities:
        found |= procfs.processes_in(identities)
    return {pid for pid in found if pid != os.getpid() and not procfs.is_zombie(pid)}


def _mounts(lab: LabFolder) -> list[str]:
    """Mounts below the lab's folder or of its cards, the innermost first."""
    numbers: set[str] = set()
    for card in _cards(lab):
        numbers |= card.numbers()
    below = f"{lab.path}/"
    points = [
        point
        for number, point, _ in procfs.mounts_of(os.getpid())
        if point.startswith(below) or number in numbers
    ]
    return points[::-1]


def _cards(lab: LabFolder) -> list[Card]:
    listing = run("losetup", "--list", "--json", "--output", "NAME,BACK-FILE")
    devices = json.loads(listing)["loopdevices"] if listing.strip() else []
    return [
        Card(Path(device["back-file"]), device["name"])
        for device in devices
        if (device["back-file"] or "").startswith(f"{lab.path}/")
    ]


def _namespaces(lab: LabFolder) -> list[str]:
    try:
        names = [path.name for path in procfs.NETNS_FOLDER.iterdir()]
    except FileNotFoundError:  # nobody has ever made one
        return []
    return sorted(name for name in names if lab.owns(name))


def _interfaces(lab: LabFolder) -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if lab.owns(path.name))


def _groups(lab: LabFolder) -> list[Path]:
    folder = CGROUPS / f"{GROUP_PREFIX}{lab.tag}"
    return [folder] if folder.is_dir() else []
