"""Histories of a node: processes, faults, and a deployment that goes through them on the model."""

import json
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path

from hypothesis import strategies as st
from node_model import Board, Depth

from piseduce_runner import planner
from piseduce_runner.planner import (
    Cancelled,
    Entered,
    Event,
    Failed,
    Overdue,
    Proven,
    Record,
    Settled,
    Status,
)
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import CONDITIONS, Ends, Phase, Power, Process, State
from piseduce_runner.records import from_values, to_values

PROJECT = Path(__file__).parents[2]
REAL = load_processes(PROJECT / "playbooks" / "processes.yml", [PROJECT / "roles"])
STOPPED = (Status.LOST, Status.CANCELLED)


class Kind(Enum):
    """What goes wrong while a node is in a state."""

    NOTHING = auto()
    FAILS = auto()
    HOPELESS = auto()
    OVERDUE = auto()
    LATE = auto()  # it is done, but after its deadline
    BADLY = auto()  # it is content with what is wrong
    PLUG = auto()  # the power is gone for a moment before
    CANCELLED = auto()
    KILLED_BEFORE = auto()  # the driver dies before it writes that the state begins
    KILLED = auto()  # the driver dies in the middle, at some depth
    KILLED_DEAF = auto()  # the same, and it has not heard how far the state was
    KILLED_AFTER = auto()  # the driver dies after it has written that the state is proven


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and how far the state's work got before."""

    kind: Kind
    depth: Depth = Depth.DONE


FINE = Fault(Kind.NOTHING)
faults = st.builds(Fault, st.sampled_from(Kind), st.sampled_from(Depth))


@dataclass
class Deployment:
    """A node that goes through its process on the model, by the planner's word.

    It does what a driver does, and keeps in `stored` what a driver would have in the store.
    """

    process: Process
    conditions: frozenset[str] = frozenset()
    fragile: bool = False
    entered: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = Board(self.process, self.conditions, fragile=self.fragile)
        self.record = planner.begin(self.process, "node-1", self.conditions)
        self.store()
        self.now = 0.0

    def go(self, *history: Fault, until: int | None = None, most: int = 10_000) -> "Deployment":
        """Take the node through its process until it has ended, or waits for `until`.

        The faults strike one state after the other, and then there are no more.
        """
        left = list(history)
        for _ in range(most):
            waits = self.record.status is Status.IN_PROGRESS
            if not waits or self.record.state.position == until:
                return self
            self.step(left.pop(0) if left else FINE)
        raise AssertionError(f"no end after {most} states: {self.record}")

    def step(self, fault: Fault = FINE) -> None:
        """The node goes through the state that it waits for, or part of it."""
        state = self.record.state
        if fault.kind is Kind.PLUG:
            if planner.can_power_cycle(self.record):
                self.board.pull_plug()
            fault = FINE
        self._apply(Entered(state.position, 10.0))
        if fault.kind is Kind.KILLED_BEFORE:
            self.crash()
            return
        self.store()
        self.entered.append(state.position)
        self._carry_out(state, fault)
        if self.record.status not in (Status.IN_PROGRESS, *STOPPED):
            assert not self.board.not_reached(), self.board.not_reached()

    def crash(self) -> None:
        """The driver dies, and another one takes the node over."""
        self.record = planner.interrupted(self._read())
        if self.record.status is not Status.IN_PROGRESS:
            self.store()
        self.now = 0.0

    def resume(self) -> "Deployment":
        """Somebody has the lost node go on."""
        self.record = planner.resume(self._read())
        self.store()
        return self

    def store(self) -> None:
        """Write the record."""
        self.stored = json.dumps(to_values(self.record))
        self.stored_status = self.record.status
        back = self._read()
        assert replace(back, entered=self.record.entered, timeout=self.record.timeout) == (
            self.record
        )

    # the inside

    def _read(self) -> Record:
        values = json.loads(self.stored)
        return from_values("node-1", self.process, self.stored_status, self.record.reason, values)

    def _apply(self, event: Event) -> None:
        self.record = planner.apply(self.record, event, self.now)

    def _carry_out(self, state: State, fault: Fault) -> None:
        kind = fault.kind
        depth = fault.depth
        if kind in (Kind.NOTHING, Kind.LATE, Kind.BADLY, Kind.KILLED_AFTER):
            depth = Depth.DONE
        unmet = self.board.unmet(state)
        # A state whose preconditions are gone fails. It may meet that only after a pulled plug,
        # of which nobody can know: else the planner should not have begun it.
        assert self.board.disturbed or not unmet, f"{state.name} begins without {unmet}"
        if unmet or self.board.sees_wrong(state):
            depth = Depth.NOTHING
            kind = Kind.FAILS if kind in (Kind.NOTHING, Kind.BADLY, Kind.KILLED_AFTER) else kind
        self.board.work(state, depth, badly=kind is Kind.BADLY)
        if state.reboots and depth >= Depth.READY and kind is not Kind.KILLED_DEAF:
            self._apply(Settled(state.position))
            self.store()
        if kind in (Kind.KILLED, Kind.KILLED_DEAF):
            self.crash()
            return
        self._apply(self._event(kind, depth, state.position))
        if kind in (Kind.NOTHING, Kind.BADLY, Kind.KILLED_AFTER):
            self.board.note_proof(state)
        self.store()
        if kind is Kind.KILLED_AFTER and self.record.status is Status.IN_PROGRESS:
            self.crash()

    def _event(self, kind: Kind, depth: Depth, position: int) -> Event:
        match kind:
            case Kind.NOTHING | Kind.BADLY | Kind.KILLED_AFTER:
                return Proven(position)
            case Kind.FAILS | Kind.HOPELESS:
                return Failed(position, "it broke", hopeless=kind is Kind.HOPELESS)
            case Kind.CANCELLED:
                return Cancelled("by alice")
            case Kind.OVERDUE:
                self.now += 10.0
                return Overdue(position)
            case Kind.LATE:
                self.now += 10.5
                return Proven(position) if depth is Depth.DONE else Overdue(position)


# processes


def most_steps(process: Process) -> int:
    """No deployment enters more states than this, whatever happens."""
    states = len(process.states)
    tries = sum(1 + state.retries for state in process.states)
    failures = (1 + states) * tries
    kills = states * (1 + planner.MOST_INTERRUPTIONS)
    return (states + 2) * (1 + failures + kills)


def _flags(draw: st.DrawFn, earlier: list[State], phase: Phase, *, work: bool) -> dict:
    """Policy of a state, as the table would accept it."""
    stage = max((s.position + 1 for s in earlier if s.reboots), default=0)
    before = [s.position for s in earlier[stage:] if s.phase is phase and s.only_if is None]
    again = draw(st.none() | st.sampled_from(before)) if before else None
    return {
        "retries": draw(st.integers(0, 2)),
        "again_from": again,
        "power_cycle": draw(st.booleans()),
        "durable": work and draw(st.booleans()),
    }


@st.composite
def processes(draw: st.DrawFn) -> Process:
    """Processes that make sense on a machine: each state meets what it needs when all goes well."""
    states: list[State] = []
    phases = draw(st.sampled_from([(Phase.NFS,), (Phase.NFS, Phase.DEPLOYED), (Phase.DEPLOYED,)]))

    def add(name: str, phase: Phase, *, work: bool = False, **more: object) -> None:
        flags = _flags(draw, states, phase, work=work)
        states.append(State(len(states), name, phase, 10.0, **flags | more))

    for phase in phases:
        if phase is Phase.NFS:
            add("boot_conf", phase)
        if phase is phases[0]:
            add("power_off", phase, power=Power.OFF)
            for _ in range(draw(st.integers(0, 1))):
                add("on_manager", phase)
            add("power_on", phase, power=Power.ON)
        add("answers", phase, work=True)
        for _ in range(draw(st.integers(0, 5))):
            only_if = draw(st.sampled_from([None, None, *CONDITIONS]))
            if draw(st.integers(0, 5)) == 0:
                add("restart", phase, reboots=True, only_if=only_if)
            else:
                add("work", phase, work=True, only_if=only_if)
        if phase is Phase.NFS and phase is not phases[-1]:
            add("boot_files", phase, reboots=True)
    ends = Ends.BOOTED if phases[-1] is Phase.NFS else Ends.DEPLOYED
    return Process("random", "", tuple(states), ends)


conditions = st.frozensets(st.sampled_from(CONDITIONS))
deployments = st.builds(Deployment, processes(), conditions, st.booleans())
real_deployments = st.builds(
    Deployment, st.sampled_from(list(REAL.values())), conditions, st.booleans()
)


@st.composite
def any_processes(draw: st.DrawFn) -> Process:
    """Processes as the table would accept them, whether they make sense or not."""
    states: list[State] = []
    powers = draw(st.sampled_from([(), (Power.OFF, Power.ON), (Power.OFF,)]))
    places = sorted(draw(st.tuples(st.integers(0, 5), st.integers(0, 5))))
    turn = draw(st.integers(0, 6))
    for position in range(draw(st.integers(1, 7))):
        phase = Phase.NFS if position < turn else Phase.DEPLOYED
        power = next(
            (p for p, place in zip(powers, places, strict=False) if place == position), None
        )
        if power is Power.ON and not any(s.power for s in states):
            power = None
        flags = _flags(draw, states, phase, work=power is None)
        reboots = draw(st.integers(0, 3)) == 0
        only_if = draw(st.sampled_from([None, None, *CONDITIONS]))
        states.append(
            State(position, "any", phase, 10.0, **flags, power=power, reboots=reboots,
                  only_if=only_if)
        )  # fmt: skip
    return Process("any", "", tuple(states), draw(st.sampled_from(Ends)))
