"""Who holds which node, from when until when.

No two reservations of a node overlap. They are half-open: one may start the very moment at which
the one before ends.

What happens at a reservation's end depends on what is on the node:

* Nothing was deployed for it: the node is free by itself from that moment on, also when nobody
  runs. The row is closed by the next one that writes here.
* Something was: it *holds* the node beyond its end, until `Store.end` says that the node's system
  is destroyed. As long as it holds, nobody can reserve the node from now on, and a later
  reservation that should have started by now waits: it is not `due`. So nobody's reservation
  begins on a node with somebody else's system on it.

So does a reservation that is given back early (`end_reservation`): its end is now.

"Something was deployed" means that the node's active deployment belongs to the reservation, in
whatever state it is; a deployment is no longer active once it is destroyed.
"""

import json
from collections.abc import Iterable
from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.store.database import Database
from piseduce_runner.store.failures import NodeReserved, ReservationEnded
from piseduce_runner.store.records import Reservation

_DEPLOYED = """EXISTS (
    SELECT 1 FROM deployment
    WHERE deployment.reservation = reservation.id AND deployment.active = 1
)"""
_HAS_ENDED = "(until IS NOT NULL AND until <= :now)"
_IS_OVER = f"({_HAS_ENDED} AND NOT {_DEPLOYED})"
_HOLDS = f"(active = 1 AND start <= :now AND NOT {_IS_OVER})"


class Reservations(Database):
    """The reservations of the store."""

    def reserve(
        self,
        nodes: Iterable[str],
        owner: str,
        start: float,
        end: float | None,
        now: float,
        configuration: dict[str, Any] | None = None,
    ) -> list[Reservation]:
        """Reserve these nodes, all or none; `end` None is for ever.

        Raises `NodeReserved` when one of them is somebody's in that time, be it the same owner's.
        """
        if end is not None and end <= max(start, now):
            raise UserError("a reservation has to end after it starts, and in the future")
        made = []
        with self.transaction():
            self._close_those_over(now)
            for node in dict.fromkeys(nodes):
                if (other := self.conflict(node, start, end, now)) is not None:
                    raise NodeReserved(node, other)
                row = self._execute(
                    "INSERT INTO reservation (node, owner, start, until, created, configuration)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    [node, owner, start, end, now, _as_json(configuration)],
                )
                made.append(self._active_reservation(row.lastrowid, now))
        return made

    def conflict(
        self, node: str, start: float, end: float | None, now: float, besides: int | None = None
    ) -> Reservation | None:
        """The first reservation, `besides` this one, that takes the node in that time."""
        return self._first_reservation(
            "node = :node AND active = 1 AND id IS NOT :besides"
            " AND (:end IS NULL OR start < :end)"
            f" AND (until IS NULL OR (until > :start AND NOT {_IS_OVER})"
            f" OR (:start <= :now AND {_HAS_ENDED} AND {_DEPLOYED}))",
            {"node": node, "start": start, "end": end, "now": now, "besides": besides},
        )

    def configure(
        self,
        reservation_id: int,
        owner: str | None,
        configuration: dict[str, Any] | None,
        now: float,
    ) -> Reservation:
        """Say what is to be deployed on the node when the reservation starts.

        Raises `NodeReserved` when it is not this owner's; `owner` None asks for no owner. Raises
        `ReservationEnded` when it is over.
        """
        with self.transaction():
            held = self._active_reservation(reservation_id, now)
            if owner is not None and held.owner != owner:
                raise NodeReserved(held.node, held)
            self._execute(
                "UPDATE reservation SET configuration = ? WHERE id = ?",
                [_as_json(configuration), reservation_id],
            )
            return self._active_reservation(reservation_id, now)

    def extend(self, reservation_id: int, new_end: float | None, now: float) -> Reservation:
        """Let the reservation end later; `new_end` None is for ever.

        Raises `NodeReserved` when a later one is in the way, `ReservationEnded` when it is over,
        and `UserError` when it would end earlier than it does: that is no extension.
        """
        with self.transaction():
            held = self._active_reservation(reservation_id, now)
            shorter = new_end is not None and (held.end is None or new_end < held.end)
            if shorter or (new_end is not None and new_end <= now):
                raise UserError(f"{held.node}: the new end is earlier than the present one, or now")
            other = self.conflict(held.node, held.start, new_end, now, besides=held.id)
            if other is not None:
                raise NodeReserved(held.node, other)
            self._execute(
                "UPDATE reservation SET until = ? WHERE id = ?", [new_end, reservation_id]
            )
            return self._active_reservation(reservation_id, now)

    def end_reservation(
        self, reservation_id: int, now: float, *, at_once: bool = False
    ) -> Reservation:
        """Give the node back. One that was given back already stays as it is.

        When something is deployed on it, the reservation ends now and holds the node until that is
        destroyed: it is one of the `expired`. With `at_once` it holds the node no longer: for
        somebody who puts another deployment in its place in the same transaction.
        """
        with self.transaction():
            self._close_those_over(now)
            if self._first_reservation("id = ?", [reservation_id]) is None:
                raise ReservationEnded(reservation_id)
            if not at_once:
                self._execute(
                    "UPDATE reservation SET until = max(start, :now) WHERE id = :id"  # noqa: S608
                    f" AND active = 1 AND (until IS NULL OR until > :now) AND {_DEPLOYED}",
                    {"now": now, "id": reservation_id},
                )
            self._close_reservation(reservation_id, now, although_deployed=at_once)
            return self._first_reservation("id = ?", [reservation_id])

    def reservation(self, reservation_id: int) -> Reservation | None:
        """The reservation of that number, also when it is over."""
        return self._first_reservation("id = ?", [reservation_id])

    def reservations(
        self, node: str | None = None, active: bool = True, now: float | None = None
    ) -> list[Reservation]:
        """Reservations, of one node or of all; with `active` False also those of the past.

        With `now`, those are left out that are over by then, although nobody has closed them yet.
        """
        over = f" AND NOT {_IS_OVER}" if active and now is not None else ""
        return self._reservations(
            f"(:node IS NULL OR node = :node) AND active >= :active{over}",
            {"node": node, "active": int(active), "now": now},
        )

    def reservation_at(self, node: str, now: float) -> Reservation | None:
        """The reservation that holds the node."""
        return self._first_reservation(f"node = :node AND {_HOLDS}", {"node": node, "now": now})

    def due(self, now: float, process: str = "deploy") -> list[Reservation]:
        """Those to be deployed: started, not yet ended, configured, and nothing begun for them.

        A node that an earlier reservation still holds has to wait. Only `process` counts as begun:
        a boot test does not take the place of what was asked for.
        """
        held_before = (
            "EXISTS (SELECT 1 FROM reservation AS other WHERE other.node = reservation.node"
            " AND other.active = 1 AND other.id <> reservation.id"
            " AND other.start < reservation.start AND EXISTS (SELECT 1 FROM deployment"
            " WHERE deployment.reservation = other.id AND deployment.active = 1))"
        )
        return self._reservations(
            f"{_HOLDS} AND NOT {_HAS_ENDED} AND configuration IS NOT NULL AND NOT {held_before}"  # noqa: S608
            " AND NOT EXISTS (SELECT 1 FROM deployment"
            " WHERE deployment.reservation = reservation.id AND deployment.process = :process)",
            {"now": now, "process": process},
        )

    def expired(self, now: float) -> list[Reservation]:
        """Those whose end has passed and that still hold their node: to be destroyed.

        Closes those that hold nothing.
        """
        with self.transaction():
            self._close_those_over(now)
            return self._reservations(f"active = 1 AND {_HAS_ENDED}", {"now": now})

    def unconfigured(self, now: float) -> list[Reservation]:
        """Those that take a node, now or later, and nobody has said what for."""
        return self._reservations(
            f"active = 1 AND configuration IS NULL AND NOT {_IS_OVER} AND NOT {_DEPLOYED}",
            {"now": now},
        )

    # the inside

    def _close_those_over(self, now: float) -> None:
        self._execute(
            f"UPDATE reservation SET active = 0, ended = until WHERE active = 1 AND {_IS_OVER}",  # noqa: S608
            {"now": now},
        )

    def _close_reservation(
        self, reservation_id: int, now: float, *, although_deployed: bool
    ) -> None:
        unless = "" if although_deployed else f" AND NOT {_DEPLOYED}"
        self._execute(
            f"UPDATE reservation SET active = 0, ended = ? WHERE id = ? AND active = 1{unless}",  # noqa: S608
            [now, reservation_id],
        )

    def _active_reservation(self, reservation_id: int, now: float) -> Reservation:
        found = self._first_reservation(
            f"id = :id AND active = 1 AND NOT {_IS_OVER}", {"id": reservation_id, "now": now}
        )
        if found is None:
            raise ReservationEnded(reservation_id)
        return found

    def _first_reservation(self, where: str, arguments: Any) -> Reservation | None:
        return next(iter(self._reservations(where, arguments)), None)

    def _reservations(self, where: str, arguments: Any) -> list[Reservation]:
        rows = self._rows(
            f"SELECT * FROM reservation WHERE {where} ORDER BY start, id",  # noqa: S608
            arguments,
        )
        return [_reservation(row) for row in rows]


def _as_json(configuration: dict[str, Any] | None) -> str | None:
    return None if configuration is None else json.dumps(configuration)


def _reservation(row: dict[str, Any]) -> Reservation:
    configuration = row["configuration"]
    return Reservation(
        id=row["id"],
        node=row["node"],
        owner=row["owner"],
        start=row["start"],
        end=row["until"],
        created=row["created"],
        configuration=None if configuration is None else json.loads(configuration),
        active=bool(row["active"]),
        ended=row["ended"],
    )
