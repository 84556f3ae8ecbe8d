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

# What a script may say for (node, position); without a word the state is proven at once. A list has
# a word for each try.
HANG = "hang"  # nothing is ever heard
FAIL = "fail"
HOPELESS = "hopeless"  # it fails, and says that trying again cannot help
SETTLE = "settle-and-hang"  # only the restart is left, and nothing more is heard
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
                self.report(Remembered(self, node, position, {f"seen_{position}": "yes"}))
                self.report(StateProven(self, node, position))
                if position == self.batch.states[-1].position:
                    self._leave(node)
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

    def start(self, batch: Batch, report: Report) -> SimulatedRun:
        run = SimulatedRun(batch, report, self)
        self.runs.append(run)
        return run


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
