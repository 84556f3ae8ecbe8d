"""The type of a real cell: what hits a node in which state, and how that must end."""

from dataclasses import dataclass
from enum import Enum

from matrix.ends import LOST_ENDS, End
from matrix.hits import Hit
from matrix.states import LABELS, POSITION


class Until(Enum):
    """When what hit the node is over."""

    FAILURE = "the node has failed once"
    POWER_CYCLE = "the node's power is cut"
    END = "the node has ended"


@dataclass(frozen=True)
class Cell:
    """One real cell.

    `state` is the row: the state that the fault is meant for. It is set when the node enters
    `set_in` (`state`, unless that would be too late; empty: before the deployment begins), before
    anything of that state is done, or once it is at `percent`. `also` are states that fail too
    on the way back; the node is lost in `lost_in`, or in `state`. `reason` is a regular expression
    on why the state failed first; `lost_reason` one on why the node is lost, if that is another.
    """

    state: str
    hit: Hit
    end: End
    reason: str = ""
    until: Until = Until.END
    set_in: str | None = None
    percent: int | None = None
    also: tuple[str, ...] = ()
    lost_in: str = ""
    lost_reason: str = ""

    @property
    def position(self) -> int:
        """Where the state stands in the process."""
        return POSITION[self.state]

    @property
    def places(self) -> frozenset[int]:
        """The positions of all states that may fail because of it."""
        labels = {self.state, *self.also, *([self.lost_in] if self.lost_in else [])}
        return frozenset(POSITION[label] for label in labels)

    @property
    def name(self) -> str:
        """Its name among the tests."""
        detail = f" {self.hit.detail}" if self.hit.detail else ""
        return f"{self.state}-{self.hit.name}{detail}".replace(" ", "_")

    @property
    def begins(self) -> str:
        """The state in which the fault is set, or empty: before the first."""
        return self.state if self.set_in is None else self.set_in

    @property
    def updates(self) -> bool:
        """Whether its state is one of those that only an update goes through."""
        return self.state in LABELS[POSITION["system_update"] : POSITION["ssh_test 3"] + 1]

    @property
    def loses(self) -> bool:
        """Whether the node is lost at its end."""
        return self.end in LOST_ENDS


Chain = tuple[Cell, ...]  # what hits one node in one deployment, one after the other
Wave = tuple[Chain, ...]  # the chains of the nodes that are deployed together, from node-1 on
