"""Processes: which states a node goes through, in which order, with which policy.

Types only. `process_table` reads them from a file, `policy` changes them for a site or an
environment, `planner` decides with them.
"""

from dataclasses import dataclass
from enum import Enum

from piseduce_runner.expressions import Expression


class Phase(Enum):
    """Where a node runs while it is in a state."""

    NFS = "nfs"  # the deploy OS, over the network
    DEPLOYED = "deployed"  # the system on the node's own card


class Power(Enum):
    """What a state does to the node's power."""

    OFF = "off"
    ON = "on"


class Ends(Enum):
    """What a node is when its process has ended well."""

    DEPLOYED = "deployed"
    BOOTED = "booted"  # it runs the deploy OS
    DESTROYED = "destroyed"  # it is off, and free


class Scope(Enum):
    """Among which nodes a window counts."""

    SWITCH = "switch"
    SITE = "site"


@dataclass(frozen=True)
class Window:
    """How many nodes may be in a state at once, and how close they may follow each other.

    `most` is a number of nodes, 0 for any; `seconds` the least time between two that enter.
    """

    most: int = 0
    seconds: float = 0.0
    per: Scope = Scope.SITE


@dataclass(frozen=True)
class State:
    """One step of a process.

    `position` counts from 0 within the process: a state's name may occur twice (`ssh_test`).
    `timeout` is in seconds, or an expression of what is known when the state begins.
    `retries`: how often a failed or overdue state is run again; `again_from` is the position at
    which a retry begins (an earlier state, or this one: None). `power_cycle`: after the retries,
    the node is power-cycled once before it is lost. `durable`: the effect survives a power cycle.
    `reboots`: the node restarts at the end of the state, so what comes next meets another system.
    `role` does the work, if not the one of the state's name (families replace roles).
    `power`: what the state does to the node's power. `only_if` names the condition without which
    the state is passed over.
    """

    position: int
    name: str
    phase: Phase
    timeout: float | Expression
    retries: int = 0
    again_from: int | None = None
    power_cycle: bool = False
    durable: bool = False
    window: Window | None = None
    reboots: bool = False
    power: Power | None = None
    only_if: str | None = None
    role: str = ""


@dataclass(frozen=True)
class Process:
    """An ordered list of states, and what a node is at their end."""

    name: str
    description: str
    states: tuple[State, ...]
    ends: Ends = Ends.DEPLOYED


# What a user can ask for at the start of a process, and `only_if` can name.
CONDITIONS = ("update", "erase", "capture")
