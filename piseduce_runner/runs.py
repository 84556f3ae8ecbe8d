"""What a runner is asked for, and what it reports: the interface between driver and runner.

`runner.AnsibleRunner` is the implementation that works on machines; tests and simulations have
others. A run takes a batch of nodes through a stretch of consecutive states. Each node waits in
front of each state until the driver lets it in.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from piseduce_runner.processes import State


@dataclass(frozen=True)
class Batch:
    """Nodes that go through `states` together.

    `variables` are each node's own variables for the roles; `timeouts` the seconds that each state
    may last on it, by position; `logs` the file to which what happened on the node is appended.
    """

    states: tuple[State, ...]
    variables: dict[str, dict[str, Any]]
    timeouts: dict[str, dict[int, float]]
    logs: dict[str, Path]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(self.variables)


@dataclass(frozen=True)
class StateProven:
    """The state at `position` has ended well on the node, which waits in front of the next one.

    `at` is when, on the monotonic clock: a busy driver must not make a node late.
    """

    run: "Run"
    node: str
    position: int
    at: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True)
class StateFailed:
    """The state at `position` failed on the node, which leaves the run.

    `hopeless`: the role knows that trying again cannot help.
    """

    run: "Run"
    node: str
    position: int
    reason: str
    hopeless: bool = False


@dataclass(frozen=True)
class Remembered:
    """The state at `position` learned something of the node that later states need."""

    run: "Run"
    node: str
    position: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Progressed:
    """The node's state is done to so many percent, at so many bytes per second (if it says)."""

    node: str
    percent: int
    rate: int | None = None


@dataclass(frozen=True)
class RunEnded:
    """Nothing of the run is alive any more. `error` is empty, or why it ended before its time."""

    run: "Run"
    error: str = ""


RunEvent = StateProven | StateFailed | Remembered | Progressed | RunEnded
Report = Callable[[RunEvent], None]


class Run(Protocol):
    """A run that was started. Every run ends with one `RunEnded`."""

    batch: Batch

    def enter(self, node: str, position: int) -> None:
        """Let the node enter the state at `position`."""

    def end_node(self, node: str) -> str:
        """Give the node up: end what runs for it here, and report nothing of it any more.

        Gives what it was doing, for people. Other nodes of the run are left alone.
        """

    def end(self) -> None:
        """End the whole run. Nothing of it is left running on the manager."""


class Runner(Protocol):
    """Starts runs."""

    def start(self, batch: Batch, report: Report) -> Run:
        """Start the batch. `report` is called from other threads."""
