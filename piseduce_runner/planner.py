"""Decides what is next for each node. Pure: no I/O, no clock of its own.

A node's `Record` and an event give the next `Record`. Every rule about the order of states, about
deadlines, tries, power cycles and loss stands here, so that it can be tested with thousands of
generated histories and no Ansible at all.

Three ideas carry the rules:

* The *plan* is the list of states that the node has still to go through.
* A *proof* lasts until something undoes it. Whoever enters a state undoes what was built upon it:
  the later states' proofs, but for durable ones, and those too when the state itself is durable.
  A state is entered only when all before it are proven.
* A proven state that `reboots` the node into its own system closes a *stage*. What came before it
  has done its work: a power cycle leads back to the beginning of the stage that the node is in,
  never further.

Times are seconds of one monotonic clock, which the caller reads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from piseduce_runner.processes import Ends, Phase, Power, Process, State

# A driver that dies each time a node is in the same state is a defect; somebody has to look. It is
# counted by state: one that reboots leads back to others, which may go well in between.
MOST_INTERRUPTIONS = 5


class Status(Enum):
    """Where a node's process stands."""

    IN_PROGRESS = "in_progress"
    DEPLOYED = "deployed"  # every state was proven: the node runs its environment
    BOOTED = "booted"  # every state was proven: the node runs the deploy OS
    DESTROYED = "destroyed"  # every state was proven: the node is off, and free
    LOST = "lost"  # a state failed for good; nothing more happens by itself
    CANCELLED = "cancelled"  # somebody has stopped it


_STATUS_AT_END = {
    Ends.DEPLOYED: Status.DEPLOYED,
    Ends.BOOTED: Status.BOOTED,
    Ends.DESTROYED: Status.DESTROYED,
}


@dataclass(frozen=True)
class Record:
    """What the planner knows of one node.

    `conditions` are what the user asked for (see `processes.CONDITIONS`). `plan` are the positions
    of the states that are left; the first is the one that the node is in, or waits to enter, or
    was lost in. `entered` is the time at which it began, `timeout` the seconds that it may last;
    None while the node waits. `proven` are the positions whose proof stands. `settled`: of the
    state the node is in only the restart is left. `failures` and `entries` count, by position,
    failed tries since the last power cycle, and how often the state was entered at all. `cycled`
    are the positions for which the node was power-cycled; `booting` is that of the state that gave
    it power, until the state after it is proven. `interruptions` count, by position, the drivers
    that died.
    """

    node: str
    process: Process
    conditions: frozenset[str]
    status: Status
    plan: tuple[int, ...]
    entered: float | None = None
    timeout: float | None = None
    proven: frozenset[int] = frozenset()
    settled: bool = False
    failures: Mapping[int, int] = field(default_factory=dict)
    entries: Mapping[int, int] = field(default_factory=dict)
    cycled: frozenset[int] = frozenset()
    booting: int | None = None
    interruptions: Mapping[int, int] = field(default_factory=dict)
    reason: str = ""

    @property
    def state(self) -> State:
        """The state that the node is in, waits to enter, or ended in."""
        return self.process.states[self.plan[0] if self.plan else -1]

    @property
    def attempt(self) -> int:
        """How often the node has entered its state, counted from 1."""
        return max(1, self.entries.get(self.state.position, 0))


@dataclass(frozen=True)
class Entered:
    """The state at `position` begins on the node, and may last `timeout` seconds."""

    position: int
    timeout: float


@dataclass(frozen=True)
class Settled:
    """Of the state at `position`, which reboots the node, only the restart is left."""

    position: int


@dataclass(frozen=True)
class Proven:
    """The effect of the state at `position` was proven."""

    position: int


@dataclass(frozen=True)
class Failed:
    """The state at `position` cannot be proven. `hopeless`: trying again cannot help."""

    position: int
    reason: str
    hopeless: bool = False


@dataclass(frozen=True)
class Overdue:
    """The deadline of the state at `position` has passed; `detail` says what was going on."""

    position: int
    detail: str = ""


@dataclass(frozen=True)
class Cancelled:
    """Somebody wants the node to go no further."""

    reason: str


Event = Entered | Settled | Proven | Failed | Overdue | Cancelled


class ImpossibleEvent(Exception):
    """An event does not belong to the state that the node is in.

    It comes from a run that was given up, or from a mistake in the driver; the record stands.
    """


def begin(process: Process, node: str, conditions: frozenset[str]) -> Record:
    """The record of a node that waits to enter the first state of `process`."""
    plan = tuple(state.position for state in process.states if applies(state, conditions))
    return _arrive(Record(node, process, conditions, Status.IN_PROGRESS, plan))


def applies(state: State, conditions: frozenset[str]) -> bool:
    """Whether a node with these conditions goes through `state`, or passes it over."""
    return state.only_if is None or state.only_if in conditions


def deadline(record: Record) -> float | None:
    """The time at which the node's state is overdue; None while the node waits or has ended."""
    if record.status is not Status.IN_PROGRESS or record.entered is None:
        return None
    return record.entered + record.timeout


def next_stretch(record: Record) -> tuple[State, ...]:
    """The states that the node can go through in one run, from where it waits.

    A run never crosses from one system to another, since each has its own host key: it ends with
    a state that reboots the node, or before a state of another phase. States that switch power
    touch no system. Empty when the node does not wait for a run.
    """
    if record.status is not Status.IN_PROGRESS or record.entered is not None:
        return ()
    stretch: list[State] = []
    phase = None
    for state in (record.process.states[position] for position in record.plan):
        if state.power is None:
            phase = phase or state.phase
            if state.phase is not phase:
                break
        stretch.append(state)
        if state.reboots:
            break
    return tuple(stretch)


def phase_of(stretch: Iterable[State]) -> Phase:
    """Where the nodes of a stretch run, as far as its states touch them."""
    stretch = tuple(stretch)
    return next((state.phase for state in stretch if state.power is None), stretch[0].phase)


def holds_place(record: Record, position: int) -> bool:
    """Whether the node counts in the window of the state at `position`.

    A state that gives power is a boot that has begun: the place is held until the state after it
    is proven too.
    """
    if record.status is not Status.IN_PROGRESS:
        return False
    is_in_it = record.entered is not None and record.state.position == position
    return is_in_it or record.booting == position


def can_power_cycle(record: Record) -> bool:
    """Whether the node's process cuts its power and gives it again."""
    return _power_states(record) is not None


def apply(record: Record, event: Event, now: float) -> Record:
    """The node's record after `event`, which happened at `now`.

    Raises `ImpossibleEvent` when the event does not belong to the state that the node is in.
    """
    if record.status is not Status.IN_PROGRESS:
        raise ImpossibleEvent(f"{event} does not fit {record}")
    if isinstance(event, Cancelled):
        return _end(record, Status.CANCELLED, event.reason)
    waits = record.entered is None
    if event.position != record.state.position or waits is not isinstance(event, Entered):
        raise ImpossibleEvent(f"{event} does not fit {record}")
    state = record.state
    match event:
        case Entered():
            return _enter(record, event, now)
        case Settled() if state.reboots:
            return replace(record, settled=True)
        case Settled():
            raise ImpossibleEvent(f"{state.name} does not reboot {record.node}")
        case Proven() if now > record.entered + record.timeout:
            # Proven, but too late: a deadline that gives way is none.
            reason = f"{state.name} ended after its deadline of {record.timeout:g} s"
            return _fail(record, reason)
        case Proven():
            return _prove(record)
        case Failed(reason=reason, hopeless=hopeless):
            return _fail(record, f"{state.name}: {reason}", hopeless)
        case Overdue(detail=detail):
            if now < record.entered + record.timeout:
                raise ImpossibleEvent(f"{state.name} on {record.node} is not overdue yet")
            reason = f"{state.name}: not done within {record.timeout:g} s"
            return _fail(record, f"{reason} ({detail})" if detail else reason)


def resume(record: Record) -> Record:
    """A lost or cancelled node, to be power-cycled and taken on from where that is safe.

    Where the process switches no power, the state is entered again. Tries are counted anew; the
    power cycle is the one of the state that the node was lost in. Raises `ImpossibleEvent` for a
    node that is under way or has ended well.
    """
    if record.status not in (Status.LOST, Status.CANCELLED):
        raise ImpossibleEvent(f"{record} cannot be resumed")
    record = replace(record, status=Status.IN_PROGRESS, reason="", interruptions={}, failures={})
    return _power_cycle(record) if can_power_cycle(record) else _leave(record, record.plan)


def interrupted(record: Record) -> Record:
    """The record of a node whose driver has died.

    The state is entered again: roles are made for it. But from a state that reboots the node it
    may have gone to another system, so it is power-cycled to know which one it runs.
    """
    if record.status is not Status.IN_PROGRESS or record.entered is None:
        return record
    position = record.state.position
    record = replace(record, interruptions=_counted(record.interruptions, position))
    if record.interruptions[position] > MOST_INTERRUPTIONS:
        reason = f"{record.state.name}: interrupted {record.interruptions[position]} times"
        return _end(record, Status.LOST, reason)
    if record.state.reboots and can_power_cycle(record):
        return _power_cycle(record)
    return _leave(record, record.plan)


# the rules


def _enter(record: Record, event: Entered, now: float) -> Record:
    states, position = record.process.states, event.position
    missing = [
        state.name
        for state in states[:position]
        if applies(state, record.conditions) and state.position not in record.proven
    ]
    if record.state.power is Power.ON and position in record.proven:
        missing.append("its power cut")
    if missing:
        raise ImpossibleEvent(f"{record.state.name} needs {', '.join(missing)} on {record.node}")
    return replace(
        record,
        entered=now,
        timeout=event.timeout,
        settled=False,
        proven=record.proven - _undone(record),
        entries=_counted(record.entries, position),
    )


def _undone(record: Record) -> set[int]:
    """The positions whose proofs the node's state undoes when it begins."""
    state, first = record.state, _stage_start(record)
    if state.power is not None and state.position < first:
        # Only the power is cycled: what the earlier stages have done stays done.
        power = {p for p in _power_states(record) if p >= state.position}
        return power | {s.position for s in record.process.states[first:] if not s.durable}
    later = record.process.states[state.position + 1 :]
    return {state.position} | {s.position for s in later if state.durable or not s.durable}


def _prove(record: Record) -> Record:
    state = record.state
    record = replace(
        record,
        proven=record.proven | {state.position},
        booting=state.position if state.power is Power.ON else None,
        reason="",
    )
    return _arrive(_leave(record, record.plan[1:]))


def _fail(record: Record, reason: str, hopeless: bool = False) -> Record:
    """A try has failed: try again, else power-cycle once, else lost."""
    state = record.state
    record = replace(record, reason=reason, failures=_counted(record.failures, state.position))
    may_cycle = state.position not in record.cycled and can_power_cycle(record)
    if hopeless:
        return _end(record, Status.LOST, reason)
    if record.settled:
        # The state has done its work but for the restart, and a power cycle is one.
        return _power_cycle(record) if may_cycle else _end(record, Status.LOST, reason)
    if record.failures[state.position] <= state.retries:
        return _leave(record, _again(record))
    if state.power_cycle and may_cycle:
        return _power_cycle(record)
    return _end(record, Status.LOST, reason)


def _again(record: Record) -> tuple[int, ...]:
    """The plan of another try: from the state at which its tries begin."""
    state = record.state
    if state.again_from is None:
        return record.plan
    start, power = state.again_from, _power_states(record)
    if state.position < _stage_start(record):
        # Only the power is cycled; what lies before and between has done its work.
        return power + tuple(p for p in record.plan if p not in power)
    if power and power[0] < start <= power[1] < state.position:
        start = power[0]  # power is given only after it was seen off
    return _way(record, start, through=state.position)


def _power_cycle(record: Record) -> Record:
    """The plan from a power cycle on, back to the state that the node was in.

    From the beginning of the stage. Where that does not switch the power, the process's own power
    states come first.
    """
    position = record.state.position
    if record.settled:
        record = replace(record, proven=record.proven | {position})
    left = _way(record, _stage_start(record))
    off, on = _power_states(record)
    if off not in left or on not in left:
        left = (off, on, *(p for p in left if p not in (off, on)))
    cycled = record.cycled | {position}
    return _leave(replace(record, cycled=cycled, failures={}, booting=None), left)


def _way(record: Record, start: int, through: int = -1) -> tuple[int, ...]:
    """The positions from `start` on that the node has to go through.

    Durable states whose proof stands are passed over, but for those up to `through`. It stands no
    more once an earlier durable state is entered again.
    """
    way: list[int] = []
    undone = False
    for state in record.process.states[start:]:
        stands = state.durable and state.position in record.proven and not undone
        if applies(state, record.conditions) and not (stands and state.position > through):
            way.append(state.position)
            undone = undone or state.durable
    return tuple(way)


def _stage_start(record: Record) -> int:
    """The position at which the stage begins: behind the last proven restart into the own system.

    Another restart on the deploy OS closes none: the way back there leads through its boot files.
    """
    start = 0
    states = [s for s in record.process.states if applies(s, record.conditions)]
    for state, following in zip(states, states[1:] + states[-1:], strict=True):
        is_over = state.reboots and state.position in record.proven
        if is_over and following.phase is Phase.DEPLOYED:
            start = state.position + 1
    return start


def _power_states(record: Record) -> tuple[int, int] | None:
    """The positions of the states that cut the node's power and give it again."""
    states = [s for s in record.process.states if applies(s, record.conditions)]
    off = next((s.position for s in states if s.power is Power.OFF), None)
    on = next((s.position for s in states if s.power is Power.ON), None)
    return (off, on) if off is not None and on is not None and off < on else None


def _leave(record: Record, plan: tuple[int, ...]) -> Record:
    """Wait for the first state of `plan`."""
    return replace(record, plan=plan, entered=None, timeout=None, settled=False)


def _arrive(record: Record) -> Record:
    """The process has ended well when nothing is left."""
    if record.plan:
        return record
    return _end(record, _STATUS_AT_END[record.process.ends], "")


def _end(record: Record, status: Status, reason: str) -> Record:
    # `settled` and the plan stay: resume needs them.
    return replace(record, status=status, entered=None, timeout=None, reason=reason)


def _counted(counts: Mapping[int, int], position: int) -> Mapping[int, int]:
    return {**counts, position: counts.get(position, 0) + 1}
