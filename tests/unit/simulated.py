"""A runner that plays scripts instead of running Ansible: what each state does on each node."""

from collections.abc import Callable
from pathlib import Path

from piseduce_runner.runs import (
    Batch,
    Progressed,
    Remembered,
    Report,
    RunEnded,
    StateFailed,
    StateProven,
)

# What a script may say for (node, position); without a word the state is proven at once.
HANG = "hang"  # nothing is ever heard
FAIL = "fail"
CRASH = "crash"  # the whole run ends, with an error


class SimulatedRun:
    def __init__(self, batch: Batch, report: Report, runner: "SimulatedRunner") -> None:
        self.batch, self.report, self.runner = batch, report, runner
        self.left = set(batch.nodes)
        self.given_up: list[str] = []
        self.ended = False

    def begin(self) -> None:
        for node in self.batch.nodes:
            self._play(node, self.batch.states[0].position)

    def go_on(self, node: str, position: int) -> None:
        later = [s.position for s in self.batch.states if s.position > position]
        self._play(node, later[0])

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
        match self.runner.script.get((node, position)):
            case None:
                self.report(Remembered(self, node, {f"seen_{position}": "yes"}))
                self.report(StateProven(self, node, position))
                if position == self.batch.states[-1].position:
                    self._leave(node)
            case "hang":
                self.report(Progressed(node, 43))
            case "fail":
                self.report(StateFailed(self, node, position, "Do it: it broke"))
                self._leave(node)
            case "crash":
                self.ended = True
                self.report(RunEnded(self, "ansible-playbook ended with status 250"))

    def _leave(self, node: str) -> None:
        self.left.discard(node)
        if not self.left:
            self.end()


class SimulatedRunner:
    def __init__(self, script: dict[tuple[str, int], str] | None = None) -> None:
        self.script = script or {}
        self.runs: list[SimulatedRun] = []
        self.played: list[tuple[str, int]] = []
        self.on_state: Callable[[str, int], None] = lambda node, position: None

    def start(self, batch: Batch, report: Report) -> SimulatedRun:
        run = SimulatedRun(batch, report, self)
        self.runs.append(run)
        run.begin()
        return run


def make_batch(states, nodes) -> Batch:
    return Batch(
        states, {node: {} for node in nodes}, {node: Path(f"{node}.log") for node in nodes}
    )
