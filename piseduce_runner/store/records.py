"""What the store gives and takes: one frozen record for each table."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from piseduce_runner.planner import Status

# Seconds; no driver asks for a claim that lasts longer. One that does was made while the manager's
# clock was wrong, and would hold its node until the clock gets there.
LONGEST_CLAIM = 3600.0


class Outcome(Enum):
    """How a state ended on a node."""

    PROVEN = "proven"
    FAILED = "failed"  # the role failed, or the deadline passed; the reason says which
    INTERRUPTED = "interrupted"  # its driver died or went away: the state is entered again
    CANCELLED = "cancelled"  # somebody asked for it


@dataclass(frozen=True)
class Deployment:
    """A node's deployment as it stands in the store.

    `options` are what the user asked for (never a password in clear), `memory` what states
    remembered of the node, `record` the planner's own memory, which the store only keeps. `since`
    is when `state` or `status` last changed. `reservation` is the reservation that the deployment
    belongs to. `cancel_asked_by` is empty unless somebody asked to cancel, at `cancel_asked`.
    """

    id: int
    node: str
    process: str
    environment: str
    owner: str
    options: dict[str, Any]
    memory: dict[str, Any]
    status: Status
    position: int
    state: str
    attempt: int
    percent: int | None
    rate: int | None
    reason: str
    since: float
    created: float
    claim: str | None
    claim_expires: float | None
    record: dict[str, Any]
    reservation: int | None
    cancel_asked_by: str
    cancel_asked: float | None

    def is_claimed(self, now: float) -> bool:
        """Whether a living driver holds the node at `now`."""
        return self.claim is not None and 0 < (self.claim_expires or 0) - now <= LONGEST_CLAIM


@dataclass(frozen=True)
class NewDeployment:
    """What `Store.begin` needs to know of a node's new deployment.

    `carry_memory` takes over all that is known of the node (it only reboots), instead of the boot
    id alone. Without a `reservation`, it belongs to the one that holds the node, if any.
    """

    node: str
    process: str
    environment: str
    owner: str
    position: int
    state: str
    options: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    reservation: int | None = None
    carry_memory: bool = False


@dataclass(frozen=True)
class Transition:
    """One line of the journal. `ended` and `outcome` are None while the state lasts."""

    deployment: int
    node: str
    process: str
    state: str
    position: int
    attempt: int
    started: float
    ended: float | None
    outcome: Outcome | None
    reason: str
    log: str


@dataclass(frozen=True)
class Reservation:
    """A node is somebody's from `start` until just before `end`.

    `end` None is for ever: until it is given back. `configuration` is what is to be deployed, None
    as long as nobody said. Once it is no longer `active`, `ended` is when the node was given back.
    """

    id: int
    node: str
    owner: str
    start: float
    end: float | None
    created: float
    configuration: dict[str, Any] | None
    active: bool
    ended: float | None

    def has_ended(self, now: float) -> bool:
        """Whether its time is over at `now`. It may hold its node still: see reservations.py."""
        return self.end is not None and self.end <= now


@dataclass(frozen=True)
class Act:
    """What somebody asked for. `forced`: although the node was somebody else's."""

    id: int
    at: float
    who: str
    what: str
    node: str
    forced: bool
    detail: str
