"""Sets and clears the faults of a wave, at the very moment at which its nodes get there.

The driver tells of every change before anything comes of it: when it says that a node has entered a
state, the node still stands in front of it. So a fault is there from the state's first instant on.
"""

import time
from dataclasses import dataclass, field

from simulated_lab import SimulatedLab

from matrix.real_cells import Cell, Chain, Until
from matrix.states import POSITION
from piseduce_runner.driver import NodeView
from piseduce_runner.errors import UserError
from piseduce_runner.lab.faults.control import NotDone
from piseduce_runner.store import Deployment, Outcome, Store


@dataclass
class Course:
    """How it goes with a cell: when it was set and cleared (seconds since the epoch)."""

    cell: Cell
    index: int
    set_at: float | None = None
    cleared_at: float | None = None
    problem: str = ""

    @property
    def is_on(self) -> bool:
        return self.set_at is not None and self.cleared_at is None

    def set(self, lab: SimulatedLab) -> None:
        self.set_at = time.time()
        try:
            self.cell.hit.set(lab, self.index)
        except (UserError, NotDone, OSError, AssertionError) as error:
            self.problem = f"{self.cell.hit.name} could not be set: {error}"

    def clear(self, lab: SimulatedLab) -> None:
        self.cleared_at = time.time()
        try:
            self.cell.hit.clear(lab, self.index)
        except (UserError, NotDone, OSError) as error:
            self.problem = f"{self.cell.hit.name} could not be cleared: {error}"


@dataclass
class Watcher:
    """Called by the driver with every change (see `driver.Observe`)."""

    lab: SimulatedLab
    store: Store
    chains: dict[str, Chain]  # by node
    courses: dict[str, list[Course]] = field(init=False)

    def __post_init__(self) -> None:
        self.courses = {
            node: [Course(cell, int(node.rpartition("-")[2])) for cell in chain]
            for node, chain in self.chains.items()
        }

    def before(self) -> None:
        """Set what must be there before the deployments begin."""
        for course in self._all():
            if not course.cell.begins:
                course.set(self.lab)

    def __call__(self, view: NodeView) -> None:
        held = self.store.deployment(view.node)
        if held is None or view.node not in self.courses:
            return
        for course in self.courses[view.node]:
            if course.is_on and self._is_over(course, held):
                course.clear(self.lab)
            elif course.set_at is None and _is_due(course.cell, held, view):
                course.set(self.lab)

    def end(self) -> None:
        """Clear all that is left."""
        for course in self._all():
            if course.is_on:
                course.clear(self.lab)
        self.lab.clear_faults()

    def _all(self) -> list[Course]:
        return [course for courses in self.courses.values() for course in courses]

    def _is_over(self, course: Course, held: Deployment) -> bool:
        match course.cell.until:
            case Until.FAILURE:
                return any(
                    last.outcome is Outcome.FAILED
                    and last.ended >= course.set_at
                    and last.position in course.cell.places
                    for last in self.store.transitions(held.node, limit=1)
                )
            case Until.POWER_CYCLE:
                return _entered(held) == POSITION["turn_off"]
            case Until.END:
                return False


def _entered(held: Deployment) -> int | None:
    """The position of the state that the node is in; None while it waits."""
    return held.record["plan"][0] if held.record["entered"] else None


def _is_due(cell: Cell, held: Deployment, view: NodeView) -> bool:
    if not cell.begins or _entered(held) != POSITION[cell.begins]:
        return False
    return cell.percent is None or (view.percent or 0) >= cell.percent
