"""Makes the lab's cards as slow as real ones: at most so many bytes per second are written.

The kernel's block throttle does it (cgroup v1: blkio, cgroup v2: io); without a limit on the dirty
page cache, writers would not notice before they flush.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.card import Card
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.loop_device import set_direct_io

V1_LIMIT = "blkio.throttle.write_bps_device"
CGROUPS = Path("/sys/fs/cgroup")  # cgroup v2, where it is used
GROUP_PREFIX = "piseduce-lab-"
HINT = "a limited card rate needs the blkio (cgroup v1) or io (cgroup v2) controller"


class CardRate:
    """The throttle of one lab's cards. UserError: this machine has none."""

    def __init__(self, lab: LabFolder) -> None:
        self._group_v2 = CGROUPS / f"{GROUP_PREFIX}{lab.tag}"
        self._v1 = _v1_groups()
        self._is_v2 = not self._v1 and _has_v2_io()
        if not self._v1 and not self._is_v2:
            raise UserError(HINT)

    def enter(self) -> None:
        """Puts this process, and so all it starts, where cards are slow (cgroup v2 only)."""
        if not self._is_v2:
            return
        # Without the memory controller, written-back pages would not be counted as the group's.
        (self._group_v2.parent / "cgroup.subtree_control").write_text("+io +memory")
        self._group_v2.mkdir(exist_ok=True)
        (self._group_v2 / "cgroup.procs").write_text(str(os.getpid()))

    def enter_others(self, pids: Iterable[int]) -> None:
        """Puts processes that run already where cards are slow (cgroup v2 only)."""
        if not self._is_v2:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                (self._group_v2 / "cgroup.procs").write_text(str(pid))

    def limit(self, card: Card, rate: int) -> None:
        """At most `rate` bytes/s are written to the card. UserError: the kernel did not take it."""
        set_direct_io(card.device, True)  # a write is counted when it reaches the card's file
        number = (Path("/sys/block") / card.name / "dev").read_text("ascii").strip()
        if self._is_v2:
            file, line = self._group_v2 / "io.max", f"{number} wbps={rate}"
            files, shown = [file], f"wbps={rate}"
        else:
            files, line, shown = [group / V1_LIMIT for group in self._v1], f"{number} {rate}", ""
        for file in files:
            file.write_text(line)
            if not any(
                entry.startswith(f"{number} ") and (shown in entry) and str(rate) in entry
                for entry in file.read_text("ascii").splitlines()
            ):
                raise UserError(f"{HINT}; {file} did not take {line!r}")
        _limit_dirty_pages(number, rate)


def lift_limit(card: Card) -> None:
    """Takes the limit away: the kernel keeps it for the next user of the loop device."""
    number = (Path("/sys/block") / card.name / "dev").read_text("ascii").strip()
    for group in _v1_groups():
        limits = (group / V1_LIMIT).read_text("ascii").splitlines()
        if any(limit.startswith(f"{number} ") for limit in limits):
            (group / V1_LIMIT).write_text(f"{number} 0")
    for file in CGROUPS.glob(f"{GROUP_PREFIX}*/io.max"):
        if any(limit.startswith(f"{number} ") for limit in file.read_text("ascii").splitlines()):
            file.write_text(f"{number} wbps=max")
    queue = Path("/sys/class/bdi") / number
    if (queue / "max_bytes").exists() and (queue / "strict_limit").exists():
        (queue / "strict_limit").write_text("0")
        (queue / "max_ratio").write_text("100")


def _v1_groups() -> list[Path]:
    """The root of the blkio hierarchy, where write-back is counted, and this process' group."""
    root = next(
        (
            Path(fields[1])
            for fields in map(str.split, Path("/proc/mounts").read_text().splitlines())
            if fields[2] == "cgroup" and "blkio" in fields[3].split(",")
        ),
        None,
    )
    if root is None or not (root / V1_LIMIT).exists():
        return []
    own = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if "blkio" in line.split(":", 2)[1].split(",")
    )
    return list(dict.fromkeys([root, root / own.lstrip("/")]))


def _has_v2_io() -> bool:
    try:
        return "io" in (CGROUPS / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        return False


def _limit_dirty_pages(number: str, rate: int) -> None:
    """Lets at most half a second's worth of writes wait in memory, on kernels that can (6.2)."""
    queue = Path("/sys/class/bdi") / number
    if (queue / "max_bytes").exists() and (queue / "strict_limit").exists():
        (queue / "strict_limit").write_text("1")
        (queue / "max_bytes").write_text(str(max(rate // 2, 4 << 20)))
