"""Which nodes go through a run together: starting Ansible is dear, so they wait for each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from piseduce_runner import planner
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Record
from piseduce_runner.processes import State
from piseduce_runner.runs import Batch

MakeBatch = Callable[[tuple[State, ...], list[Record]], Batch]


@dataclass(frozen=True)
class Gathering:
    """Gathers nodes that wait for the same states.

    `seconds` is how long a node waits for others, `largest` the most nodes of a batch. `waiting`
    maps nodes that wait for a run to since when, on the monotonic clock.
    """

    seconds: float
    largest: int

    def ready(
        self, records: list[Record], waiting: Mapping[str, float], under_way: int, now: float
    ) -> list[list[Record]]:
        """The groups of those that wait which are to start now; `under_way` counts all nodes."""
        return [
            group[: self.largest]
            for group in _groups(records)
            if len(group) == under_way
            or len(group) >= self.largest
            or now >= self._due(group, waiting)
        ]

    def next_due(self, records: list[Record], waiting: Mapping[str, float]) -> list[float]:
        """When each group has waited long enough."""
        return [self._due(group, waiting) for group in _groups(records)]

    def _due(self, group: list[Record], waiting: Mapping[str, float]) -> float:
        return min(waiting[record.node] for record in group) + self.seconds


def _groups(records: list[Record]) -> list[list[Record]]:
    """Nodes that can go through the same states of the same process in one run."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        stretch = planner.next_stretch(record)
        key = tuple((state.position, state.name, state.phase, state.role) for state in stretch)
        groups.setdefault((record.process.name, key), []).append(record)
    return list(groups.values())


def make_batch_of_able(
    make_batch: MakeBatch, records: list[Record]
) -> tuple[Batch | None, list[tuple[Record, str]]]:
    """The batch of those nodes that can go on, and for each other one why it cannot."""
    stretch = planner.next_stretch(records[0])
    try:
        return make_batch(stretch, records), []
    except UserError as error:
        if len(records) == 1:
            return None, [(records[0], str(error))]
    able, refused = [], []
    for record in records:
        try:
            make_batch(stretch, [record])
            able.append(record)
        except UserError as error:
            refused.append((record, str(error)))
    try:
        return (make_batch(stretch, able) if able else None), refused
    except UserError:
        # Each can, but not together (or something has gone just now): the others wait.
        batch, refused_now = make_batch_of_able(make_batch, able[:1])
        return batch, refused + refused_now
