"""Nodes' deployments and their history, reservations, and who asked for what, in SQLite.

The only package that knows SQLite. Times are seconds since the epoch, and callers give them. A
connection belongs to the thread that opened it.
"""

from piseduce_runner.store.acts import Acts
from piseduce_runner.store.deployments import Deployments
from piseduce_runner.store.failures import (
    NodeReserved,
    NodeTaken,
    ReservationEnded,
    StoreFailed,
)
from piseduce_runner.store.records import (
    Act,
    Deployment,
    NewDeployment,
    Outcome,
    Reservation,
    Transition,
)


class Store(Deployments, Acts):
    """The database of one site.

    `open` makes it when it is not there. Every method may raise `StoreFailed`; nothing of what it
    was to write is written then, and the store can be used again.
    """


__all__ = [
    "Act",
    "Deployment",
    "NewDeployment",
    "NodeReserved",
    "NodeTaken",
    "Outcome",
    "Reservation",
    "ReservationEnded",
    "Store",
    "StoreFailed",
    "Transition",
]
