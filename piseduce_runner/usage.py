"""What a deployment costs the manager: CPU seconds and memory of the driver and all it starts."""

import contextlib
import ctypes
import os
import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), linux/prctl.h
_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Usage:
    """What was used since the meter was started.

    `wall` and `cpu` are seconds; `peak_memory` is bytes: the largest sum, at any sample, of the
    proportional set sizes (proc(5), smaps_rollup) of this process and its descendants.
    """

    wall: float
    cpu: float
    peak_memory: int


class UsageMeter:
    """Measures from `start` to `stop`.

    This process becomes the reaper of its orphaned descendants (prctl(2)), so that SSH masters and
    Ansible's workers, which leave their parents, are counted when they end.
    """

    def __init__(self) -> None:
        self._done = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._sample, name="usage", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self._wall, self._cpu = time.monotonic(), _cpu_seconds()
        self._thread.start()

    def stop(self) -> Usage:
        """End the measurement. No child may be running any more that others wait for."""
        self._done.set()
        self._thread.join()
        _reap_orphans()
        return Usage(time.monotonic() - self._wall, _cpu_seconds() - self._cpu, self._peak)

    def _sample(self) -> None:
        while True:
            self._peak = max(self._peak, _memory_of_tree())
            if self._done.wait(_SAMPLE_SECONDS):
                return


def _cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _reap_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass


def _memory_of_tree() -> int:
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = Path("/proc", str(waiting.pop()))
        # A process may end while it is looked at.
        with contextlib.suppress(OSError, ValueError):
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total
