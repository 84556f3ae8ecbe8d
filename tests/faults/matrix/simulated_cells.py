"""The simulated cells: each kind of failure in each state, and the course that must follow.

What the process table and the planner's rules mean for each state is written out here by hand.
"""

from enum import Enum
from typing import NamedTuple

from matrix.ends import End
from matrix.states import LABELS, POSITION


class Kind(Enum):
    """What goes wrong in a state, as far as the driver can see."""

    FAILS = "fails once"
    FAILS_TWICE = "fails twice"
    KEEPS_FAILING = "keeps failing"
    HOPELESS = "fails, hopeless"
    HANGS = "hangs once"
    LATE = "proof comes late"
    CRASH = "the run crashes"
    KILLED = "the driver is killed"
    POWER_CUT = "no power until cycled"
    CANCELLED = "is cancelled"
    SETTLED_HANGS = "settled, then hangs"
    SETTLED_KILLED = "settled, driver killed"


REASON = {
    Kind.FAILS: r"Do it: it broke",
    Kind.FAILS_TWICE: r"Do it: it broke",
    Kind.KEEPS_FAILING: r"Do it: it broke",
    Kind.HOPELESS: r"Do it: it broke",
    Kind.HANGS: r"not done within [\d.]+ s \(in task: Wait for ever, at 43 %\)",
    Kind.LATE: r"ended after its deadline of [\d.]+ s",
    Kind.CRASH: r"ansible-playbook ended with status 250",
    Kind.KILLED: r"",
    Kind.POWER_CUT: r"Do it: it broke",
    Kind.CANCELLED: r"cancelled by alice, in task: Wait for ever",
    Kind.SETTLED_HANGS: r"not done within [\d.]+ s \(in task: Wait for ever\)",
    Kind.SETTLED_KILLED: r"",
}

_ON_NFS = ["boot_conf", "turn_off", "turn_on", "ssh_test"]
_POWER = ["turn_off", "turn_on"]


class Course(NamedTuple):
    """What the states go through again, up to and with `state`.

    `again`: another try; empty where there is none. `resumed`: after a power cycle; `cycles`: the
    driver does that by itself, else only `reboot` of a node that was lost there.
    """

    state: str
    again: list[str]
    cycles: bool
    resumed: list[str]


COURSES = {
    course.state: course
    for course in (
        Course("boot_conf", ["boot_conf"], False, ["boot_conf"]),
        Course("turn_off", ["turn_off"], False, ["boot_conf", "turn_off"]),
        Course("turn_on", _POWER, False, ["boot_conf", *_POWER]),
        Course("ssh_test", [], True, _ON_NFS),
        Course("env_copy", ["env_copy"], True, [*_ON_NFS, "env_copy"]),
        Course("env_check", ["env_copy", "env_check"], True, [*_ON_NFS, "env_check"]),
        Course("delete_partition", ["delete_partition"], True, [*_ON_NFS, "delete_partition"]),
        Course("create_partition", ["create_partition"], True, [*_ON_NFS, "create_partition"]),
        Course(
            "mount_partition",
            ["env_copy", "env_check", "delete_partition", "create_partition", "mount_partition"],
            True,
            [*_ON_NFS, "mount_partition"],
        ),
        Course(
            "resize_partition",
            ["resize_partition"],
            True,
            [*_ON_NFS, "mount_partition", "resize_partition"],
        ),
        Course(
            "wait_resizing",
            ["resize_partition", "wait_resizing"],
            True,
            [*_ON_NFS, "mount_partition", "wait_resizing"],
        ),
        Course("system_conf", ["system_conf"], True, [*_ON_NFS, "mount_partition", "system_conf"]),
        Course("boot_files", ["boot_files"], True, [*_ON_NFS, "mount_partition", "boot_files"]),
        Course("ssh_test 2", [], True, [*_POWER, "ssh_test 2"]),
        Course("system_update", ["system_update"], False, [*_POWER, "ssh_test 2", "system_update"]),
        Course("boot_update", ["boot_update"], True, [*_POWER, "ssh_test 2", "boot_update"]),
        Course("ssh_test 3", [], True, [*_POWER, "ssh_test 3"]),
        Course("user_conf", ["user_conf"], True, [*_POWER, "ssh_test 3", "user_conf"]),
    )
}
RESTARTS = ("boot_files", "boot_update")
# They work on the manager and the switch: a node without power is nothing to them.
_WITHOUT_NODE = ("boot_conf", "turn_off", "turn_on")


class Expected(NamedTuple):
    """How a cell ends, and the states that the node goes through, by label.

    `by_hand`: those after `reboot`, or after the next driver took over.
    """

    end: End
    states: list[str]
    by_hand: list[str]


def expected(kind: Kind, state: str) -> Expected:
    """What must become of a node in whose `state` things go wrong so."""
    course = COURSES[state]
    before, rest = LABELS[: POSITION[state] + 1], LABELS[POSITION[state] + 1 :]
    again, resumed = course.again, course.resumed
    lost_then = resumed + rest
    match kind:
        case Kind.KILLED:
            entered = resumed if state in RESTARTS else [state]
            return Expected(End.TAKEN_OVER, before, entered + rest)
        case Kind.SETTLED_HANGS:
            return Expected(End.CYCLED, before + _POWER + rest, [])
        case Kind.SETTLED_KILLED:
            return Expected(End.TAKEN_OVER, before, _POWER + rest)
        case Kind.HOPELESS:
            return Expected(End.LOST, before, lost_then)
        case Kind.CANCELLED:
            return Expected(End.CANCELLED, before, lost_then)
        case Kind.POWER_CUT:
            return _without_power(course, before, rest)
        case Kind.KEEPS_FAILING:
            tries = before + again
            if course.cycles:
                tries = tries + resumed + again
            return Expected(End.LOST, tries, lost_then)
        case Kind.FAILS_TWICE if again and course.cycles:
            return Expected(End.CYCLED, before + again + resumed + rest, [])
        case Kind.FAILS_TWICE if course.cycles:
            return Expected(End.LOST, before + resumed, lost_then)
        case Kind.FAILS_TWICE:
            return Expected(End.LOST, before + again, lost_then)
        case _ if again:
            return Expected(End.RETRIED, before + again + rest, [])
        case _:
            return Expected(End.CYCLED, before + resumed + rest, [])


def _without_power(course: Course, before: list[str], rest: list[str]) -> Expected:
    """The node answers to nothing until its power has been cut and given again."""
    if not course.again:
        return Expected(End.CYCLED, before + course.resumed + rest, [])
    if not course.cycles:
        return Expected(End.LOST, before + course.again, course.resumed + rest)
    first = course.again[0]
    if first == course.state:
        return Expected(End.CYCLED, before + course.again + course.resumed + rest, [])
    # Its tries begin in an earlier state, which has no luck either, and is what it resumes with.
    earlier = COURSES[first]
    following = LABELS[POSITION[first] + 1 :]
    return Expected(End.CYCLED, [*before, first, first, *earlier.resumed, *following], [])


def cells() -> list[tuple[str, Kind]]:
    """Every state, and every kind of failure that it can meet."""
    return [(state, kind) for state in LABELS for kind in Kind if _can_meet(state, kind)]


def _can_meet(state: str, kind: Kind) -> bool:
    if kind in (Kind.SETTLED_HANGS, Kind.SETTLED_KILLED):
        return state in RESTARTS
    return kind is not Kind.POWER_CUT or state not in _WITHOUT_NODE
