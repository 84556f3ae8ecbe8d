"""Decides what is next for each node. Pure: no I/O, no clock of its own.

A node's `Record` and an event give the next `Record`. Every rule about the order of states, about
deadlines and about when a node is lost stands here, so that it can be tested with thousands of
generated histories and no Ansible at all.

Times are seconds of one monotonic clock, which the caller reads.
"""

from dataclasses import dataclass, replace
from enum import Enum

from piseduce_runner.processes import Process, State


class Status(Enum):
    """Where a node's process stands."""

    IN_PROGRESS = "in_progress"
    DEPLOYED = "deployed"  # every state was proven
    BOOTED = "booted"  # every state was proven: the node runs from the network
    DESTROYED = "destroyed"  # every state was proven: the node is off, and free
    LOST = "lost"  # a state failed or missed its deadline; nothing more happens by itself
    CANCELLED = "cancelled"  # somebody asked for it; nothing more happens by itself


@dataclass(frozen=True)
class Record:
    """What the planner knows of one node.

    `position` is the state that the node is in, or waits to enter; `entered` is the time at
    which that state began on the node, None while it waits. `conditions` are what the user asked
    for (see `processes.CONDITIONS`).
    """

    node: str
    conditions: frozenset[str]
    status: Status
    position: int
    entered: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Entered:
    """The state at `position` begins on the node."""

    position: int


@dataclass(frozen=True)
class Proven:
    """The effect of the state at `position` was proven."""

    position: int


@dataclass(frozen=True)
class Failed:
    """The state at `position` cannot be proven, for this reason."""

    position: int
    reason: str


@dataclass(frozen=True)
class Overdue:
    """The deadline of the state at `position` has passed; `detail` says what was going on."""

    position: int
    detail: str = ""


Event = Entered | Proven | Failed | Overdue


class ImpossibleEvent(Exception):
    """An event does not belong to the state that the node is in.

    It comes from a run that was given up, or from a mistake in the driver; the record stands.
    """


def begin(process: Process, node: str, conditions: frozenset[str]) -> Record:
    """The record of a node that waits to enter the first state of `process`."""
    record = Record(node, conditions, Status.IN_PROGRESS, position=-1)
    return _advance(process, record)


def applies(state: State, conditions: frozenset[str]) -> bool:
    """Whether a node with these conditions goes through `state`, or passes it over."""
    return state.only_if is None or state.only_if in conditions


def deadline(process: Process, record: Record) -> float | None:
    """The time at which the node's state is overdue; None while the node waits or has ended."""
    if record.status is not Status.IN_PROGRESS or record.entered is None:
        return None
    return record.entered + process.states[record.position].timeout


def next_stretch(process: Process, record: Record) -> tuple[State, ...]:
    """The states that the node can go through in one run, from where it waits.

    A run never crosses from one phase to the next, and ends with a state that reboots the node:
    what answers afterwards is another system, with another host key. Empty when the node does not
    wait for a run.
    """
    if record.status is not Status.IN_PROGRESS or record.entered is not None:
        return ()
    first = process.states[record.position]
    stretch: list[State] = []
    for state in process.states[record.position :]:
        if state.phase is not first.phase:
            break
        if applies(state, record.conditions):
            stretch.append(state)
            if state.reboots:
                break
    return tuple(stretch)


def apply(process: Process, record: Record, event: Event, now: float) -> Record:
    """The node's record after `event`, which happened at `now`.

    Raises `ImpossibleEvent` when the event does not belong to the state that the node is in.
    """
    waits = record.entered is None
    if (
        record.status is not Status.IN_PROGRESS
        or event.position != record.position
        or waits is not isinstance(event, Entered)
    ):
        raise ImpossibleEvent(f"{event} does not fit {record}")
    state = process.states[record.position]
    match event:
        case Entered():
            return replace(record, entered=now)
        case Proven() if now > record.entered + state.timeout:
            # Proven, but too late: a deadline that gives way is none.
            return _lost(record, f"{state.name} ended after its deadline of {state.timeout:g} s")
        case Proven():
            return _advance(process, record)
        case Failed(reason=reason):
            return _lost(record, f"{state.name}: {reason}")
        case Overdue(detail=detail):
            if now < record.entered + state.timeout:
                raise ImpossibleEvent(f"{state.name} on {record.node} is not overdue yet")
            reason = f"{state.name}: not done within {state.timeout:g} s"
            return _lost(record, f"{reason} ({detail})" if detail else reason)


def _advance(process: Process, record: Record) -> Record:
    """Wait for the next state that applies, or be deployed when none is left."""
    for state in process.states[record.position + 1 :]:
        if applies(state, record.conditions):
            return replace(record, position=state.position, entered=None)
    return replace(record, status=Status.DEPLOYED, entered=None)


def _lost(record: Record, reason: str) -> Record:
    return replace(record, status=Status.LOST, entered=None, reason=reason)
