"""Finds and ends the processes of a run, whatever session or parent they have moved to.

Ansible's workers leave their process group, and SSH masters become daemons which overwrite their
environment with a title. So a process belongs to a run when its environment names the run, or when
its command line names the run's folder (the SSH control socket lies in it).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_GRACE_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0


def find_processes(run: str, folder: str, assignment: str | None = None) -> list[int]:
    """Process ids of the run, other than our own.

    `run` is the run's id as it stands in the environment of its processes. With `assignment`
    (`NAME=value`), only those that have it in their environment, or give it to a shell, here or
    through SSH, in their command line.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile, or is another user's
        if run.encode() not in environment and folder not in command:
            continue
        words = command.replace("'", " ").split()
        entries = environment.decode(errors="replace").split("\0")
        if assignment is None or assignment in words or assignment in entries:
            found.append(int(entry.name))
    return found


def end_run(run: str, folder: str, assignment: str | None = None) -> set[int]:
    """End what `find_processes` finds, and what that has started meanwhile, until nothing is found.

    Gives what the kernel would not let go of within five seconds.
    """
    stuck: set[int] = set()
    limit = time.monotonic() + _PATIENCE_SECONDS
    while found := set(find_processes(run, folder, assignment)) - stuck:
        stuck |= end_processes(found)
        if time.monotonic() > limit:
            return stuck | found
    return stuck


def end_processes(pids: Iterable[int]) -> set[int]:
    """End these processes and wait until they are gone: SIGTERM, then SIGKILL after two seconds.

    Gives those that are still there five seconds later: the kernel holds them, and lets them go
    when their disk or network answers. Nobody is to wait for that.
    """
    alive = set(pids)
    _send(alive, signal.SIGTERM)
    limit = time.monotonic() + _GRACE_SECONDS
    killed = False
    while alive := {pid for pid in alive if not is_gone(pid)}:
        if not killed and time.monotonic() > limit:
            _send(alive, signal.SIGKILL)
            killed = True
        if time.monotonic() > limit + _PATIENCE_SECONDS:
            break
        time.sleep(0.02)
    return alive


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_gone(pid: int) -> bool:
    """Whether the process has ended. A zombie has: whoever started it collects it."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
