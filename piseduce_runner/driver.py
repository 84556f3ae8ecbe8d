"""The loop that takes nodes through their processes.

It asks the planner what is next, has the runner do it, and writes to the store before and after.
It holds no rule of its own on what a failure means: that is the planner's. One thread runs the
loop; runs report into its queue.
"""

import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from piseduce_runner import planner
from piseduce_runner.gathering import Gathering, MakeBatch, make_batch_of_able
from piseduce_runner.ledger import Ledger
from piseduce_runner.planner import (
    Cancelled,
    Entered,
    Failed,
    ImpossibleEvent,
    Overdue,
    Proven,
    Record,
    Settled,
    Status,
)
from piseduce_runner.records import places
from piseduce_runner.runs import (
    Progressed,
    Remembered,
    Run,
    RunEnded,
    RunEvent,
    Runner,
    StateFailed,
    StateProven,
)
from piseduce_runner.store import NodeTaken, Store
from piseduce_runner.windows import Windows

# The fact by which a state that reboots the node says that only the restart is left.
SETTLED = "settled"


@dataclass(frozen=True)
class DriverSettings:
    """How the driver gathers nodes into runs. Times are seconds.

    `gather` is how long a node waits for others that are about to enter the same state;
    `claim` how long its nodes stay ours after the driver has died; `look` how often it asks
    whether somebody has cancelled a node, or has more to do.
    """

    gather: float = 1.0
    largest_batch: int = 48
    most_runs: int = 4
    claim: float = 30.0
    look: float = 1.0


@dataclass(frozen=True)
class NodeView:
    """What people see of a node while the driver works. `since` is seconds since the epoch."""

    node: str
    status: Status
    state: str
    attempt: int
    percent: int | None
    rate: int | None
    since: float
    reason: str


@dataclass(frozen=True)
class _Detach:
    """Somebody wants the driver to leave its nodes to the next one."""

    reason: str


@dataclass
class _Node:
    """What the driver knows of one of its nodes, beside the planner's record."""

    record: Record
    waiting_since: float
    since: float
    run: Run | None = None
    percent: int | None = None
    rate: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    look_again: float = 0.0  # when to ask for a place in a window of several drivers again


Observe = Callable[[NodeView], None]
Look = Callable[[], Iterable[Record] | None]


class Driver:
    """Takes nodes to the end of their processes.

    `claim` is the name under which this driver holds its nodes in the store; `make_batch` gives
    the variables with which nodes go through states, and raises `UserError` for a node that cannot
    go on; runs, and whoever else knows something of the nodes, put their events into `events`;
    `observe` is told of every change; `switch_of` gives each node's switch, for windows.
    """

    def __init__(
        self,
        store: Store,
        runner: Runner,
        make_batch: MakeBatch,
        events: "queue.SimpleQueue[RunEvent]",
        *,
        claim: str,
        observe: Observe = lambda view: None,
        switch_of: Mapping[str, str] | None = None,
        settings: DriverSettings | None = None,
    ) -> None:
        self._store = store
        self._ledger = Ledger(store, claim)
        self._runner = runner
        self._make_batch = make_batch
        self._claim = claim
        self._observe = observe
        self._settings = settings or DriverSettings()
        self._events: queue.SimpleQueue[RunEvent | _Detach] = events
        self._nodes: dict[str, _Node] = {}
        self._runs: list[Run] = []
        self._windows = Windows(switch_of or {})
        self._gathering = Gathering(self._settings.gather, self._settings.largest_batch)
        self._next_renewal = 0.0
        self._next_look = 0.0
        self._clock = time.time() - time.monotonic()
        self._expecting = False
        self._detaching = False
        self._runs_started = 0

    @property
    def runs_started(self) -> int:
        """How many runs were started so far."""
        return self._runs_started

    def detach(self, reason: str) -> None:
        """End every run, and leave the nodes that are under way to the next driver.

        May be called from another thread or from a signal handler.
        """
        self._events.put(_Detach(reason))

    def run(self, records: Iterable[Record], look: Look | None = None) -> dict[str, Record]:
        """Drive these nodes, which are ours in the store, until each has ended or was left.

        `look` is asked again and again for more records to drive, which are ours in the store too,
        also when nothing is under way, until it gives None: nothing more is to come.
        """
        self._expecting = look is not None
        for record in records:
            self._add(record)
        try:
            while self._runs or self._under_way() or self._expecting:
                steps = (self._start_batches, self._open_gates, self._take_events)
                for step in (*steps, self._end_overdue, lambda: self._look_around(look)):
                    self._guarded(step)
        finally:
            for run in self._runs:
                run.end()
        return {name: node.record for name, node in self._nodes.items()}

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except NodeTaken as error:
            self._give_up(error.node, str(error))

    # the nodes

    def _add(self, record: Record) -> None:
        self._nodes[record.node] = _Node(record, time.monotonic(), time.time())
        self._show(record.node)

    def _under_way(self) -> list[Record]:
        records = (node.record for node in self._nodes.values())
        return [record for record in records if record.status is Status.IN_PROGRESS]

    def _waiting(self) -> list[Record]:
        """The nodes that wait for a run, and may have one.

        A node that boots holds a place in a window, for which all runs may be waiting: it needs no
        room among them, or none would go on.
        """
        waiting = [record for record in self._under_way() if self._nodes[record.node].run is None]
        if self._has_room():
            return waiting
        return [record for record in waiting if record.booting is not None]

    def _has_room(self) -> bool:
        return len(self._runs) < self._settings.most_runs

    def _waiting_since(self) -> dict[str, float]:
        return {name: node.waiting_since for name, node in self._nodes.items()}

    # starting

    def _start_batches(self) -> None:
        ready = self._gathering.ready(
            self._waiting(), self._waiting_since(), len(self._under_way()), time.monotonic()
        )
        for records in ready:
            if self._has_room() or records[0].booting is not None:
                self._start(records)

    def _start(self, records: list[Record]) -> None:
        batch, refused = make_batch_of_able(self._make_batch, records)
        for record, reason in refused:
            self._guarded(lambda record=record, reason=reason: self._refuse(record, reason))
        if batch is None:
            return
        run = self._runner.start(batch, self._events.put)
        self._runs.append(run)
        self._runs_started += 1
        for name in batch.nodes:
            self._nodes[name].run = run

    def _refuse(self, record: Record, reason: str) -> None:
        """What the node needs is not there: it is lost before its state has begun."""
        self._enter_for_loss(record)
        self._apply(record.node, Failed(record.state.position, reason, hopeless=True))

    # gates

    def _at_gates(self) -> list[Record]:
        """The nodes that stand in front of a state, in a run; who came first is first."""
        at_gates = [
            record
            for record in self._under_way()
            if record.entered is None and self._nodes[record.node].run is not None
        ]
        return sorted(at_gates, key=lambda record: self._nodes[record.node].waiting_since)

    def _open_gates(self) -> None:
        for record in self._at_gates():
            now = time.monotonic()
            opens = self._windows.opens_at(record, self._under_way(), now)
            if opens is not None and max(opens, self._nodes[record.node].look_again) <= now:
                self._guarded(lambda record=record: self._enter(record))

    def _enter(self, record: Record) -> None:
        """The store first: no state begins that it does not know of."""
        node, state, now = self._nodes[record.node], record.state, time.monotonic()
        run = node.run
        timeout = run.batch.timeouts[record.node][state.position]
        with self._store.transaction():
            # In one transaction: two drivers do not take the last place both.
            if state.window and self._opens_at(record, now) is None:
                node.look_again = now + self._settings.look
                return
            entered = planner.apply(record, Entered(state.position, timeout), now)
            self._ledger.enter(entered, str(run.batch.logs[record.node]))
        node.percent, node.rate, node.facts, node.since = None, None, {}, time.time()
        self._set(entered)
        self._windows.note_entry(record.node, state, now)
        run.enter(record.node, state.position)

    def _opens_at(self, record: Record, now: float) -> float | None:
        """When the state's window opens, other drivers' nodes counted too."""
        elsewhere = {
            held.node: places(held.record)
            for held in self._store.deployments().values()
            if held.claim != self._claim and held.is_claimed(time.time())
        }
        return self._windows.opens_at(record, self._under_way(), now, elsewhere)

    # events

    def _take_events(self) -> None:
        """Wait for an event, or until something is due; then take those that are there by now.

        No more: deadlines are looked at in between, however fast events come.
        """
        timeout = max(0.0, self._next_due() - time.monotonic())
        try:
            self._handle(self._events.get(timeout=timeout))
            for _ in range(self._events.qsize()):
                self._handle(self._events.get_nowait())
        except queue.Empty:
            return

    def _next_due(self) -> float:
        now = time.monotonic()
        due = [self._next_renewal, self._next_look]
        due += [limit for r in self._under_way() if (limit := planner.deadline(r)) is not None]
        for record in self._at_gates():
            opens = self._windows.opens_at(record, self._under_way(), now)
            if opens is not None:
                due.append(max(opens, self._nodes[record.node].look_again))
        due += self._gathering.next_due(self._waiting(), self._waiting_since())
        return min(due)

    def _handle(self, event: RunEvent | _Detach) -> None:
        match event:
            case Progressed():
                self._on_progress(event)
            case RunEnded(run=run, error=error):
                self._on_run_ended(run, error)
            case _Detach(reason=reason):
                self._on_detach(reason)
            case StateProven() | StateFailed() | Remembered():
                node = self._nodes.get(event.node)
                if node is not None and node.run is event.run:
                    self._guarded(lambda: self._on_state_event(event))

    def _on_state_event(self, event: StateProven | StateFailed | Remembered) -> None:
        match event:
            case StateProven(node=node, position=position, at=at):
                self._apply(node, Proven(position), at)
            case StateFailed(node=node, position=position, reason=reason, hopeless=hopeless):
                self._apply(node, Failed(position, reason, hopeless))
            case Remembered(node=node, position=position, facts=facts):
                self._on_facts(node, position, facts)

    def _on_facts(self, name: str, position: int, facts: dict[str, Any]) -> None:
        """Facts are stored with the state's proof; that it has settled, at once."""
        node = self._nodes[name]
        if node.record.entered is None or node.record.state.position != position:
            return
        node.facts |= {key: value for key, value in facts.items() if key != SETTLED}
        if facts.get(SETTLED) is True and node.record.state.reboots:
            self._set(planner.apply(node.record, Settled(position), time.monotonic()))
            self._ledger.settle(node.record)

    def _on_progress(self, event: Progressed) -> None:
        name, news = event.node, (event.percent, event.rate)
        node = self._nodes.get(name)
        if node is None or node.record.entered is None or news == (node.percent, node.rate):
            return
        node.percent, node.rate = news
        self._guarded(lambda: self._store.set_percent(name, self._claim, *news))
        self._show(name)

    def _on_run_ended(self, run: Run, error: str) -> None:
        self._runs.remove(run)
        for name, node in self._nodes.items():
            if node.run is run:
                node.run = None
                reason = error or "the run ended without a word on this node"
                self._guarded(lambda name=name, reason=reason: self._on_abandoned(name, reason))

    def _on_abandoned(self, name: str, reason: str) -> None:
        record = self._nodes[name].record
        if record.status is not Status.IN_PROGRESS:
            return
        if record.entered is None:
            # It stood at a gate. A run that ends there by mistake must not be begun for ever.
            self._enter_for_loss(record)
        self._apply(name, Failed(record.state.position, reason))

    def _enter_for_loss(self, record: Record) -> None:
        entered = planner.apply(record, Entered(record.state.position, 60.0), time.monotonic())
        self._ledger.enter(entered, "")
        self._set(entered)

    def _on_detach(self, reason: str) -> None:
        self._detaching, self._expecting = True, False
        for run in list(self._runs):
            run.end()
        for record in self._under_way():
            self._guarded(lambda name=record.node: self._ledger.release(name, reason))
            self._nodes.pop(record.node)

    def _end_overdue(self) -> None:
        for record in self._under_way():
            limit = planner.deadline(record)
            if limit is not None and time.monotonic() >= limit:
                node = self._nodes[record.node]
                detail = node.run.end_node(record.node) if node.run else ""
                node.run = None
                if node.percent is not None:
                    detail = f"{detail}, at {node.percent} %" if detail else f"at {node.percent} %"
                event = Overdue(record.state.position, detail)
                self._guarded(lambda name=record.node, event=event: self._apply(name, event))

    # what others want

    def _look_around(self, look: Look | None) -> None:
        now = time.monotonic()
        if now >= self._next_renewal or self._clock_was_set():
            self._renew_claim()
            self._next_renewal = now + self._settings.claim / 3
        if now < self._next_look:
            return
        self._next_look = now + self._settings.look
        for name, who in self._store.cancels_asked(self._claim).items():
            if name in self._nodes:
                self._guarded(lambda name=name, who=who: self._cancel(name, who))
        if look is not None and not self._detaching:
            more = look()
            self._expecting = more is not None
            for record in more or ():
                self._add(record)

    def _renew_claim(self) -> None:
        """Who was stopped for long, and wakes up, finds here that nodes were taken meanwhile."""
        ours = self._store.renew_claim(self._claim, time.time() + self._settings.claim)
        for record in self._under_way():
            if record.node not in ours:
                self._give_up(record.node, f"{record.node} is no longer ours ({self._claim})")

    def _clock_was_set(self) -> bool:
        """Claims expire by the manager's clock: when it is set, ours must be renewed at once."""
        before, self._clock = self._clock, time.time() - time.monotonic()
        return abs(self._clock - before) > self._settings.claim / 6

    def _cancel(self, name: str, who: str) -> None:
        node = self._nodes[name]
        doing = node.run.end_node(name) if node.run else ""
        node.run = None
        at = f", {doing}" if doing else ""
        self._apply(name, Cancelled(f"{node.record.state.name}: cancelled by {who}{at}"))

    # what follows

    def _apply(self, name: str, event: planner.Event, at: float | None = None) -> None:
        node = self._nodes[name]
        before, now = node.record, time.monotonic() if at is None else at
        try:
            after = planner.apply(before, event, now)
        except ImpossibleEvent:
            return  # of a run that was given up; the record stands
        # A proof that comes too late is a failure, and leaves a reason.
        is_proven = isinstance(event, Proven) and not after.reason
        if isinstance(event, Cancelled):
            self._ledger.cancel(after)
        elif is_proven:
            self._ledger.prove(after, node.facts)
        else:
            self._ledger.fail(after, after.reason)
        node.record, node.facts, node.percent, node.rate = after, {}, None, None
        node.since, node.waiting_since = time.time(), time.monotonic()
        if node.run is not None and not (is_proven and self._leads_on(node.run, before, after)):
            run, node.run = node.run, None
            if not is_proven:
                run.end_node(name)
        self._show(name)

    def _leads_on(self, run: Run, before: Record, after: Record) -> bool:
        """Whether the node's next state follows the one that it was in within its run too."""
        positions = [state.position for state in run.batch.states]
        following = positions[positions.index(before.state.position) + 1 :]
        return after.status is Status.IN_PROGRESS and following[:1] == [after.state.position]

    def _give_up(self, name: str, reason: str) -> None:
        """The node is another driver's by now: leave it, and write nothing of it any more."""
        node = self._nodes.get(name)
        if node is None:
            return
        node.record = replace(node.record, status=Status.LOST, entered=None, reason=reason)
        if node.run is not None:
            node.run.end_node(name)
            node.run = None
        self._show(name)

    def _set(self, record: Record) -> None:
        self._nodes[record.node].record = record
        if record.entered is not None:
            self._show(record.node)

    def _show(self, name: str) -> None:
        node = self._nodes[name]
        record = node.record
        self._observe(
            NodeView(
                node=name,
                status=record.status,
                state=record.state.name,
                attempt=record.attempt,
                percent=node.percent,
                rate=node.rate,
                since=node.since,
                reason=record.reason,
            )
        )
