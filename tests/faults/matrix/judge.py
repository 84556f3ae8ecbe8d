"""Judges a cell by what the store says of its node."""

import re
from dataclasses import dataclass

from matrix.ends import LOST_ENDS, End
from matrix.outcomes import Outcome
from matrix.states import LABELS, POSITION
from matrix.watcher import Course
from piseduce_runner.planner import Status
from piseduce_runner.store import Deployment, Transition
from piseduce_runner.store import Outcome as Journalled


@dataclass(frozen=True)
class Evidence:
    """A cell's node when its deployment had ended, and after whoever had to had helped it.

    `journal` are the deployment's lines until it had ended, `after` the node's row in the end,
    `runs` what the lab says that the board runs then.
    """

    course: Course
    deployment: Deployment
    journal: list[Transition]
    after: Deployment
    runs: str

    @property
    def was_hit(self) -> bool:
        """Whether the node got as far as its fault."""
        return self.course.set_at is not None

    @property
    def events(self) -> list[Transition]:
        """The journal from the fault on, until its state was proven or the node had ended."""
        lines = [line for line in self.journal if line.ended and line.ended >= self.course.set_at]
        for count, line in enumerate(lines, 1):
            if line.position == self.course.cell.position and line.outcome is Journalled.PROVEN:
                return lines[:count]
        return lines

    @property
    def failures(self) -> list[Transition]:
        """Of the cell's states, because of its fault."""
        return [
            line
            for line in self.events
            if line.outcome is Journalled.FAILED and line.position in self.course.cell.places
        ]

    @property
    def seen(self) -> Outcome:
        """What happened, for the page."""
        cell, events, end = self.course.cell, self.events, self._end()
        reason = self.failures[0].reason if self.failures else ""
        return Outcome(
            state=cell.state,
            fault=cell.hit.name,
            detail=cell.hit.detail,
            end=end,
            tries=sum(line.position == cell.position for line in events),
            reason=self.deployment.reason if end in LOST_ENDS else reason,
            seconds=round(events[-1].ended - self.course.set_at, 1) if events else 0.0,
        )

    def _end(self) -> End:
        cell, events = self.course.cell, self.events
        if not events or events[-1].outcome is not Journalled.PROVEN:
            return cell.end if cell.loses else End.LOST
        if not self.failures:
            return End.UNHURT
        since = events[events.index(self.failures[0]) :]
        was_off = any(line.position == POSITION["turn_off"] for line in since)
        # Another try of turn_on begins with turn_off by itself.
        return End.CYCLED if was_off and cell.position > POSITION["turn_on"] else End.RETRIED

    def problems(self) -> list[str]:
        """What is not as the cell says; empty when all is."""
        cell, seen = self.course.cell, self.seen
        found = [self.course.problem] if self.course.problem else []
        if seen.end is not cell.end:
            found.append(f"{seen.end.value}, instead of {cell.end.value}: {seen.reason}")
        first = self.failures[0].reason if self.failures else ""
        if not re.search(cell.reason, first):
            found.append(f"failed for the reason {first!r}, which is not {cell.reason!r}")
        if cell.loses:
            found += self._problems_of_the_loss()
        if self.after.status is not Status.DEPLOYED:
            found.append(f"in the end {self.after.status.value}: {self.after.reason}")
        if self.runs != "card":
            found.append(f"in the end the board runs {self.runs}")
        return found

    def _problems_of_the_loss(self) -> list[str]:
        cell, lost = self.course.cell, self.deployment
        found = []
        place = cell.lost_in or cell.state
        if LABELS[lost.position] != place:
            found.append(f"lost in {LABELS[lost.position]}, not in {place}: {lost.reason}")
        wanted = cell.lost_reason or cell.reason
        if not re.search(rf"^{place.split()[0]}:? .*(?:{wanted})", lost.reason):
            found.append(f"lost for the reason {lost.reason!r}, which is not {wanted!r}")
        return found


def unexplained(evidence: list[Evidence]) -> list[str]:
    """Failures of a node that belong to none of its cells."""
    explained = {id(line) for one in evidence if one.was_hit for line in one.failures}
    return [
        f"{line.node}: {line.reason}"
        for line in (evidence[0].journal if evidence else [])
        if line.outcome is Journalled.FAILED and id(line) not in explained
    ]


def tell_story(evidence: list[Evidence]) -> str:
    """The journal of a node, with what hit it, for whoever looks for what went wrong."""
    journal = evidence[0].journal
    lines = [
        (line.started, f"{line.state} {line.attempt}: {line.outcome.value} {line.reason}")
        for line in journal
    ]
    for one in evidence:
        name = one.course.cell.name
        lines += [(one.course.set_at or 0, f"* {name} set {one.course.problem}")]
        lines += [(one.course.cleared_at, f"* {name} cleared")] if one.course.cleared_at else []
    start = journal[0].started
    told = [f"{max(at - start, 0):6.1f}  {text}" for at, text in sorted(lines)]
    return "\n".join([f"{journal[0].node}: {evidence[0].deployment.status.value}", *told])
