"""The loop that takes nodes through a process.

It asks the planner what is next, has the runner do it, and writes to the store before and after.
It holds no rule of its own on what a failure means: that is the planner's. One thread runs the
loop; runs report into its queue.
"""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from piseduce_runner import planner
from piseduce_runner.planner import (
    Entered,
    Failed,
    ImpossibleEvent,
    Overdue,
    Proven,
    Record,
    Status,
)
from piseduce_runner.processes import Process, State
from piseduce_runner.runs import (
    Batch,
    Progressed,
    Remembered,
    Run,
    RunEnded,
    RunEvent,
    Runner,
    StateFailed,
    StateProven,
)
from piseduce_runner.store import NodeTaken, Outcome, Store


@dataclass(frozen=True)
class DriverSettings:
    """How the driver gathers nodes into runs. Times are seconds.

    `gather` is how long a node waits for others that are about to enter the same state;
    `claim` how long its nodes stay ours after the driver has died.
    """

    gather: float = 1.0
    largest_batch: int = 48
    most_runs: int = 4
    claim: float = 30.0


@dataclass(frozen=True)
class NodeView:
    """What people see of a node while the driver works. `since` is seconds since the epoch."""

    node: str
    status: Status
    state: str
    percent: int | None
    since: float
    reason: str


@dataclass(frozen=True)
class _Stop:
    """Somebody wants the driver to end."""

    reason: str


MakeBatch = Callable[[tuple[State, ...], list[str]], Batch]
Observe = Callable[[NodeView], None]


class Driver:
    """Takes the nodes of one process to its end.

    `claim` is the name under which this driver holds its nodes in the store; `make_batch` gives
    the variables with which nodes go through states; runs, and whoever else knows something of
    the nodes, put their events into `events`; `observe` is told of every change.
    """

    def __init__(
        self,
        process: Process,
        store: Store,
        runner: Runner,
        make_batch: MakeBatch,
        events: "queue.SimpleQueue[RunEvent]",
        *,
        claim: str,
        observe: Observe = lambda view: None,
        settings: DriverSettings | None = None,
    ) -> None:
        self._process = process
        self._store = store
        self._runner = runner
        self._make_batch = make_batch
        self._claim = claim
        self._observe = observe
        self._settings = settings or DriverSettings()
        self._events: queue.SimpleQueue[RunEvent | _Stop] = events
        self._records: dict[str, Record] = {}
        self._waiting_since: dict[str, float] = {}
        self._run_of: dict[str, Run] = {}
        self._runs: list[Run] = []
        self._percent: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._next_renewal = 0.0
        self._runs_started = 0

    @property
    def runs_started(self) -> int:
        """How many runs were started so far."""
        return self._runs_started

    def stop(self, reason: str) -> None:
        """End every run; the nodes that are under way are lost, with this reason.

        May be called from another thread or from a signal handler.
        """
        self._events.put(_Stop(reason))

    def run(self, records: list[Record]) -> dict[str, Record]:
        """Drive these nodes, which are ours in the store, until each has ended."""
        for record in records:
            self._records[record.node] = record
            self._since[record.node] = time.time()
            self._waiting_since[record.node] = time.monotonic()
            self._show(record.node)
            if record.status is not Status.IN_PROGRESS:
                self._end(record.node)
        try:
            while self._under_way() or self._runs:
                steps = (self._start_batches, self._take_events, self._end_overdue)
                for step in (*steps, self._renew_claim):
                    try:
                        step()
                    except NodeTaken as error:
                        self._give_up(error.node, str(error))
        finally:
            for run in self._runs:
                run.end()
        return dict(self._records)

    # starting

    def _under_way(self) -> list[Record]:
        return [r for r in self._records.values() if r.status is Status.IN_PROGRESS]

    def _groups(self) -> dict[tuple[State, ...], list[str]]:
        groups: dict[tuple[State, ...], list[str]] = {}
        for record in self._under_way():
            if record.node not in self._run_of:
                stretch = planner.next_stretch(self._process, record)
                groups.setdefault(stretch, []).append(record.node)
        return groups

    def _start_batches(self) -> None:
        for stretch, nodes in self._groups().items():
            if len(self._runs) >= self._settings.most_runs:
                return
            if self._is_gathered(nodes):
                self._start(stretch, nodes[: self._settings.largest_batch])

    def _is_gathered(self, nodes: list[str]) -> bool:
        if len(nodes) == len(self._under_way()) or len(nodes) >= self._settings.largest_batch:
            return True
        return time.monotonic() >= self._gathered_at(nodes)

    def _gathered_at(self, nodes: list[str]) -> float:
        return min(self._waiting_since[node] for node in nodes) + self._settings.gather

    def _start(self, stretch: tuple[State, ...], nodes: list[str]) -> None:
        batch = self._make_batch(stretch, nodes)
        ours = []
        for node in nodes:
            try:
                self._enter(node, str(batch.logs[node]))
                ours.append(node)
            except NodeTaken as error:
                self._give_up(node, str(error))
        if not ours:
            return
        variables = {node: batch.variables[node] for node in ours}
        run = self._runner.start(replace(batch, variables=variables), self._events.put)
        self._runs.append(run)
        self._runs_started += 1
        for node in ours:
            self._run_of[node] = run

    def _enter(self, node: str, log: str) -> None:
        """The store first: no state begins that it does not know of."""
        record = self._records[node]
        state = self._process.states[record.position]
        self._since[node] = time.time()
        self._store.enter(
            node,
            self._claim,
            position=state.position,
            state=state.name,
            attempt=1,
            log=log,
            now=self._since[node],
            record={},
        )
        self._percent.pop(node, None)
        self._records[node] = planner.apply(
            self._process, record, Entered(state.position), time.monotonic()
        )
        self._show(node)

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
        due = [self._next_renewal]
        due += [
            limit
            for record in self._under_way()
            if (limit := planner.deadline(self._process, record)) is not None
        ]
        if len(self._runs) < self._settings.most_runs:
            due += [self._gathered_at(nodes) for nodes in self._groups().values()]
        return min(due)

    def _handle(self, event: RunEvent | _Stop) -> None:
        match event:
            case StateProven(run=run, node=node):
                if self._run_of.get(node) is run:
                    self._on_proven(event)
            case StateFailed(run=run, node=node, position=position, reason=reason):
                if self._run_of.get(node) is run:
                    self._apply(node, Failed(position, reason))
            case Remembered(run=run, node=node, facts=facts):
                if self._run_of.get(node) is run:
                    self._store.remember(node, self._claim, facts)
            case Progressed(node=node, percent=percent):
                self._on_progress(node, percent)
            case RunEnded(run=run, error=error):
                self._on_run_ended(run, error)
            case _Stop(reason=reason):
                self._on_stop(reason)

    def _on_proven(self, event: StateProven) -> None:
        run, node, position = event.run, event.node, event.position
        self._apply(node, Proven(position), event.at)
        record = self._records[node]
        if record.status is not Status.IN_PROGRESS:
            return
        self._store.leave(node, self._claim, Outcome.PROVEN, "", time.time(), {})
        if any(state.position == record.position for state in run.batch.states):
            self._enter(node, str(run.batch.logs[node]))
            run.go_on(node, position)
        else:
            del self._run_of[node]
            self._waiting_since[node] = time.monotonic()

    def _on_progress(self, node: str, percent: int) -> None:
        record = self._records.get(node)
        if record is None or record.entered is None or self._percent.get(node) == percent:
            return
        self._percent[node] = percent
        self._store.set_percent(node, self._claim, percent)
        self._show(node)

    def _on_run_ended(self, run: Run, error: str) -> None:
        self._runs.remove(run)
        for node in [node for node, its in self._run_of.items() if its is run]:
            reason = error or "the run ended without a word on this node"
            self._apply(node, Failed(self._records[node].position, reason))

    def _on_stop(self, reason: str) -> None:
        for run in self._runs:
            run.end()
        for record in self._under_way():
            if record.entered is None:
                self._records[record.node] = planner.apply(
                    self._process, record, Entered(record.position), time.monotonic()
                )
            self._apply(record.node, Failed(record.position, reason))

    def _end_overdue(self) -> None:
        for record in self._under_way():
            limit = planner.deadline(self._process, record)
            if limit is not None and time.monotonic() >= limit:
                detail = self._run_of.pop(record.node).end_node(record.node)
                if (percent := self._percent.get(record.node)) is not None:
                    detail = f"{detail}, at {percent} %" if detail else f"at {percent} %"
                self._apply(record.node, Overdue(record.position, detail))

    # what follows

    def _give_up(self, node: str, reason: str) -> None:
        """The node is another driver's by now: leave it, and write nothing of it any more."""
        record = self._records[node]
        self._records[node] = replace(record, status=Status.LOST, entered=None, reason=reason)
        run = self._run_of.pop(node, None)
        if run is not None:
            run.end_node(node)
        self._show(node)

    def _apply(self, node: str, event: planner.Event, at: float | None = None) -> None:
        now = time.monotonic() if at is None else at
        try:
            record = planner.apply(self._process, self._records[node], event, now)
        except ImpossibleEvent:
            return  # of a run that was given up; the record stands
        self._records[node] = record
        if record.status is not Status.IN_PROGRESS:
            self._end(node)

    def _end(self, node: str) -> None:
        record = self._records[node]
        self._since[node] = time.time()
        self._store.end(node, self._claim, record.status, record.reason, self._since[node], {})
        run = self._run_of.pop(node, None)
        if run is not None and record.status is Status.LOST:
            run.end_node(node)
        self._show(node)

    def _renew_claim(self) -> None:
        if time.monotonic() >= self._next_renewal:
            self._store.renew_claim(self._claim, time.time() + self._settings.claim)
            self._next_renewal = time.monotonic() + self._settings.claim / 3

    def _show(self, node: str) -> None:
        record = self._records[node]
        self._observe(
            NodeView(
                node=node,
                status=record.status,
                state=self._process.states[record.position].name,
                percent=self._percent.get(node),
                since=self._since[node],
                reason=record.reason,
            )
        )
