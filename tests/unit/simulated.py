"""A runner that plays scripts instead of running Ansible: what each state does on each node."""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from piseduce_runner import planner
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.planner import Record
from piseduce_runner.processes import Phase, Power, Process, State
from piseduce_runner.records import to_values
from piseduce_runner.runs import (
    Batch,
    Progressed,
    Remembered,
    Report,
    RunEnded,
    StateFailed,
    StateProven,
)
from piseduce_runner.store import NewDeployment, Outcome, Store

# What a script may say for (node, position); without a word the state is proven at once. A list has
# a word for each try.
HANG = "hang"  # nothing is ever heard
FAIL = "fail"
HOPELESS = "hopeless"  # it fails, and says that trying again cannot help
SETTLE = "settle-and-hang"  # only the restart is left, and nothing more is heard
LATE = "late"  # only the restart is left, and that is proven, but after the deadline
CRASH = "crash"  # the whole run ends, with an error


class SimulatedRun:
    def __init__(self, batch: Batch, report: Report, runner: "SimulatedRunner") -> None:
        self.batch, self.report, self.runner = batch, report, runner
        self.left = set(batch.nodes)
        self.given_up: list[str] = []
        self.ended = False

    def enter(self, node: str, position: int) -> None:
        self._play(node, position)

    def end_node(self, node: str) -> str:
        self.given_up.append(node)
        self._leave(node)
        return "in task: Wait for ever"

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.report(RunEnded(self, ""))

    def _play(self, node: str, position: int) -> None:
        if self.ended:
            return
        self.runner.on_state(node, position)
        self.runner.played.append((node, position))
        word = self.runner.script.get((node, position))
        if isinstance(word, list):
            word = word.pop(0) if word else None
        match word:
            case None:
                self._do(node, self.batch.states[self._place(position)])
            case "late":
                self.report(Remembered(self, node, position, {"settled": True}))
                self.report(StateProven(self, node, position, time.monotonic() + 1e6))
            case "hang":
                self.report(Progressed(node, 43))
            case "settle-and-hang":
                self.report(Remembered(self, node, position, {"settled": True}))
            case "fail" | "hopeless":
                hopeless = word == "hopeless"
                self.report(StateFailed(self, node, position, "Do it: it broke", hopeless))
                self._leave(node)
            case "crash":
                self.ended = True
                self.report(RunEnded(self, "ansible-playbook ended with status 250"))

    def _do(self, node: str, state: State) -> None:
        if state.power is not None:
            self.runner.switch(node, state.power)
        facts = {f"seen_{state.position}": "yes"} | ({"settled": True} if state.reboots else {})
        self.report(Remembered(self, node, state.position, facts))
        self.report(StateProven(self, node, state.position))
        if state is self.batch.states[-1]:
            self._leave(node)

    def _place(self, position: int) -> int:
        return [state.position for state in self.batch.states].index(position)

    def _leave(self, node: str) -> None:
        self.left.discard(node)
        if not self.left:
            self.end()


class SimulatedRunner:
    def __init__(self, script: dict[tuple[str, int], str | list[str | None]] | None = None) -> None:
        self.script = script or {}
        self.runs: list[SimulatedRun] = []
        self.played: list[tuple[str, int]] = []
        self.on_state: Callable[[str, int], None] = lambda node, position: None
        # Which nodes have power, and what the switch did. Who asks for what is so, changes nothing.
        self.powered: set[str] = set()
        self.switched: list[tuple[str, Power]] = []

    def start(self, batch: Batch, report: Report) -> SimulatedRun:
        run = SimulatedRun(batch, report, self)
        self.runs.append(run)
        return run

    def switch(self, node: str, power: Power) -> None:
        """Give or cut the node's power."""
        if (node in self.powered) is not (power is Power.ON):
            self.powered ^= {node}
            self.switched.append((node, power))


def make_batch(states, records) -> Batch:
    nodes = [record.node for record in records]
    return Batch(
        states,
        {node: {} for node in nodes},
        {
            record.node: {s.position: record.process.states[s.position].timeout for s in states}
            for record in records
        },
        {node: Path(f"{node}.log") for node in nodes},
    )


BOOT_CONF, OFF, ON, NFS_SSH, COPY, CHECK, BOOT_FILES, SSH, USERS = range(9)
# Only what hangs may be short: a slow disk must make nobody late.
TIMEOUT, SHORT = 60.0, 0.2


def deploy(**changes: dict) -> Process:
    """A small deploy process; `changes` are fields of states, by name."""
    nfs, own = {"phase": Phase.NFS}, {"phase": Phase.DEPLOYED}
    states = [
        ("boot_conf", nfs),
        ("turn_off", nfs | {"power": Power.OFF}),
        ("turn_on", nfs | {"power": Power.ON}),
        ("ssh_test", nfs),
        ("env_copy", nfs | {"durable": True}),
        ("env_check", nfs | {"durable": True, "again_from": COPY}),
        ("boot_files", nfs | {"reboots": True}),
        ("ssh_test", own),
        ("user_conf", own | {"durable": True}),
    ]
    return Process(
        "deploy",
        "",
        tuple(
            State(position, name, **{"timeout": TIMEOUT} | fields | changes.get(name, {}))
            for position, (name, fields) in enumerate(states)
        ),
    )


class Cluster:
    """A store with claimed nodes, and a driver on a simulated runner."""

    def __init__(
        self,
        path: Path,
        nodes: list[str],
        script: dict | None = None,
        process: Process | None = None,
        *,
        store: type[Store] = Store,
        switch_of: dict[str, str] | None = None,
        **options: float,
    ) -> None:
        self.process = process or deploy()
        self.path = path
        self.store = store.open(path)
        self.records = [planner.begin(self.process, node, frozenset()) for node in nodes]
        self.store.begin(
            [
                NewDeployment(
                    node, "deploy", "debian", "alice", 0, "boot_conf", record=to_values(record)
                )
                for node, record in zip(nodes, self.records, strict=True)
            ],
            "me", now=0, expires=1e12,
        )  # fmt: skip
        self.runner = SimulatedRunner(script)
        self.make_batch = make_batch
        self.switch_of = switch_of
        self.options = {"gather": 0.05, "look": 0.05} | options
        self.new_driver("me")

    def new_driver(self, claim: str) -> Driver:
        """A driver on the store as it is, with the same runner."""
        self.driver = Driver(
            self.store,
            self.runner,
            lambda states, records: self.make_batch(states, records),
            queue.SimpleQueue(),
            claim=claim,
            switch_of=self.switch_of,
            settings=DriverSettings(**self.options),
        )
        return self.driver

    def run(self) -> dict[str, Record]:
        """Drive all nodes to their end. A driver that stands still is detached after a minute."""
        watch = threading.Timer(60, self.driver.detach, ["it stands still"])
        watch.start()
        try:
            return self.driver.run(self.records)
        finally:
            watch.cancel()

    def journal(self, node: str) -> list[tuple[int, Outcome | None]]:
        """Which positions the node has been through, and how each ended."""
        return [(told.position, told.outcome) for told in self.store.transitions(node)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.store.close()
