"""What people can ask of reservations: make, configure, extend and end them.

Everything is checked before anything is written, in one transaction with it: a command does all
that it was asked for, or nothing.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from piseduce_runner import environments, people
from piseduce_runner.deployment import Request, check_part_size
from piseduce_runner.durations import LONGEST
from piseduce_runner.errors import UserError
from piseduce_runner.people import Person
from piseduce_runner.planner import Status
from piseduce_runner.site import Site
from piseduce_runner.store import (
    Deployment,
    NodeReserved,
    Reservation,
    ReservationEnded,
    Store,
)

# How far a time that a person typed may be from the start that it means, in seconds.
_SAME_START = 60


@dataclass(frozen=True)
class Booking:
    """Reservations in somebody's name.

    `owner` is whose they are; `force` to touch somebody else's.
    """

    store: Store
    person: Person
    owner: str
    force: bool = False
    clock: Callable[[], float] = time.time

    def reserve(self, nodes: Iterable[str], start: float, end: float) -> list[Reservation]:
        """Reserve these nodes, all or none. Raises `UserError`."""
        people.check_name(self.owner)
        with self._asked():
            made = self.store.reserve(nodes, self.owner, start, end, self.clock())
            self._record("reserve", made, f"until {_minutes(end)}")
            return made

    def reserve_any(
        self, candidates: Iterable[str], count: int, start: float, end: float
    ) -> list[Reservation]:
        """Reserve the first `count` of the candidates that are free all the time.

        Raises `UserError` when they are fewer; nothing is reserved then.
        """
        with self._asked():
            candidates, now = list(candidates), self.clock()
            taken = {node: self.store.conflict(node, start, end, now) for node in candidates}
            free = [node for node, other in taken.items() if other is None]
            if len(free) < count:
                others = [
                    f"{node} is {other.owner}'s until {_minutes(other.end)}"
                    for node, other in taken.items()
                    if other is not None
                ]
                raise UserError(
                    f"{count} nodes are asked for, but {len(free)} of {len(candidates)} are free"
                    f" from {_minutes(start)} until {_minutes(end)}"
                    + (f" ({'; '.join(others)})" if others else "")
                    + "; nothing was reserved"
                )
            return self.reserve(free[:count], start, end)

    def configure(self, request: Request, start: float | None = None) -> list[Reservation]:
        """Say what is to be deployed when the nodes' reservations start. Raises `UserError`.

        `start` chooses among several reservations of a node by their start.
        """
        configuration = {"environment": request.environment.name, "options": request.options}
        with self._asked() as held:
            configured = []
            for node in request.nodes:
                chosen = self._choose_one(node.name, start)
                self._check_not_begun(chosen, held.get(node.name))
                configured.append(
                    self.store.configure(chosen.id, None, configuration, self.clock())
                )
            self._record("configure", configured, request.environment.name)
            return configured

    def extend(
        self, nodes: Iterable[str], seconds: float, start: float | None = None
    ) -> list[Reservation]:
        """Let the nodes' reservations end so much later. Raises `UserError`."""
        with self._asked() as held:
            extended, now = [], self.clock()
            for node in nodes:
                chosen = self._choose_one(node, start)
                if chosen.end is None:
                    raise UserError(f"{node} is reserved without an end; nothing to extend")
                deployment = held.get(node)
                if _is_leaving(deployment, chosen):
                    raise UserError(f"{node} is being given back (destroy): it is too late")
                end = max(chosen.end, now) + seconds
                if end - max(chosen.start, now) > LONGEST:
                    raise UserError(f"{node} would be reserved for more than a year (366d)")
                extended.append(self.store.extend(chosen.id, end, now))
            self._record("extend", extended, lambda one: f"until {_minutes(one.end)}")
            return extended

    def end(self, nodes: Iterable[str], start: float | None = None) -> list[Reservation]:
        """End the nodes' reservations for which nothing was begun, also those of the future.

        Without `start` all of this owner's. Raises `UserError` for a node that carries something:
        that is given back by destroying it.
        """
        with self._asked() as held:
            ended, now = [], self.clock()
            for node in nodes:
                for chosen in self._choose_to_end(node, start, held.get(node)):
                    ended.append(self.store.end_reservation(chosen.id, now))
            self._record("cancel", ended, lambda one: f"the reservation from {_minutes(one.start)}")
            return ended

    def configuration(self, node: str) -> dict[str, Any]:
        """What the reservation that holds the node now was configured with. Raises `UserError`."""
        holding = self.store.reservation_at(node, self.clock())
        if holding is None:
            raise UserError(f"{node} is not reserved now; say with --env what to deploy")
        self._check_may_touch(holding)
        if holding.configuration is None:
            raise UserError(
                f"{node} is reserved but not configured; say with --env what to deploy,"
                f" or `piseduce-run configure {node} --env ...` first"
            )
        return holding.configuration

    # the inside

    @contextmanager
    def _asked(self) -> Iterator[dict[str, Deployment]]:
        """A transaction, and what is on the nodes; the store's refusals become a person's."""
        try:
            with self.store.transaction():
                yield self.store.deployments()
        except NodeReserved as error:
            raise UserError(f"{error}; nothing was changed") from error
        except ReservationEnded as error:
            raise UserError(f"the {error}; nothing was changed") from error

    def _record(
        self, what: str, touched: list[Reservation], detail: str | Callable[[Reservation], str]
    ) -> None:
        for one in touched:
            words = detail if isinstance(detail, str) else detail(one)
            forced = one.owner != self.owner
            self.store.record_act(
                self.person.name, what, one.node, self.clock(), forced=forced, detail=words
            )

    def _check_may_touch(self, reservation: Reservation) -> None:
        people.check_may_touch(
            self.person, reservation.node, reservation.owner, owner=self.owner, force=self.force
        )

    def _candidates(self, node: str, start: float | None) -> list[Reservation]:
        """This owner's reservations of the node, or else those of others if they may be touched."""
        found = self.store.reservations(node, now=self.clock())
        if not found:
            raise UserError(f"{node} is not reserved; `piseduce-run reserve {node}` does that")
        mine = [one for one in found if one.owner == self.owner]
        if not mine:
            for one in found:
                self._check_may_touch(one)
        candidates = mine or found
        if start is None:
            return candidates
        nearest = min(candidates, key=lambda one: abs(one.start - start))
        if abs(nearest.start - start) > _SAME_START:
            raise UserError(f"no reservation of {node} starts then, but {_starts(candidates)}")
        return [nearest]

    def _choose_one(self, node: str, start: float | None) -> Reservation:
        """The reservation that is meant: it holds the node now, or there is no other."""
        candidates = self._candidates(node, start)
        holding = self.store.reservation_at(node, self.clock())
        chosen = [one for one in candidates if holding and one.id == holding.id] or candidates
        if len(chosen) > 1:
            raise UserError(
                f"{node} has several reservations, {_starts(chosen)}; --start chooses one"
            )
        return chosen[0]

    def _choose_to_end(
        self, node: str, start: float | None, held: Deployment | None
    ) -> list[Reservation]:
        candidates = self._candidates(node, start)
        if len({one.owner for one in candidates}) > 1:
            raise UserError(
                f"{node} has several people's reservations, {_starts(candidates)};"
                " --start chooses one"
            )
        for one in candidates:
            if held is not None and held.reservation == one.id:
                others = "" if len(candidates) == 1 else "; --start chooses a reservation to come"
                raise UserError(
                    f"{node} is {held.status.value}: `piseduce-run destroy {node}` gives it back"
                    f"{others}"
                )
        return candidates

    def _check_not_begun(self, reservation: Reservation, held: Deployment | None) -> None:
        if reservation.has_ended(self.clock()):
            raise UserError(f"{reservation.node}: the reservation has ended")
        if held is not None and held.reservation == reservation.id and held.process == "deploy":
            again = "--replace " if held.status is Status.DEPLOYED else ""
            raise UserError(
                f"{reservation.node} is {held.status.value}: a configuration is for what is not yet"
                f" deployed; use `piseduce-run deploy {reservation.node} {again}--env ...`"
            )


def stored_request(site: Site, node: str, configuration: dict[str, Any]) -> Request:
    """The request that a reservation was configured with, for one of its nodes.

    Raises `UserError` when it cannot be carried out any more: the node or the environment is gone.
    The environment's files were verified when it was configured, and are again as they are copied.
    """
    (chosen,) = site.choose_nodes([node])
    environment = environments.find(site.environments, configuration["environment"])
    options = configuration["options"]
    check_part_size(options["part_bytes"], environment, [chosen])
    return Request(
        nodes=(chosen,),
        environment=environment,
        update=options["update"],
        part_bytes=options["part_bytes"],
        password_hash=options["password_hash"],
        ssh_keys=tuple(options["ssh_keys"]),
    )


def _is_leaving(deployment: Deployment | None, reservation: Reservation) -> bool:
    return (
        deployment is not None
        and deployment.reservation == reservation.id
        and deployment.process == "destroy"
    )


def _starts(reservations: list[Reservation]) -> str:
    return ", ".join(f"from {_minutes(one.start)} ({one.owner})" for one in reservations)


def _minutes(epoch: float | None) -> str:
    """A time as people type it back."""
    if epoch is None:
        return "it is given back"
    return time.strftime("%Y-%m-%dT%H:%M", time.localtime(epoch))
