"""The site's agent: does what is due by itself.

Reservations that are due are deployed, in their owners' names; those that have ended are destroyed;
what was left or interrupted is taken over. The agent decides only what to begin: the driver does
the rest, and asks the agent about once a second for more (`Agent.look`).

What goes wrong with one reservation is said once and written to the store, and stops no other.
"""

import time
from collections.abc import Callable

from piseduce_runner.cancelling import Cancelling
from piseduce_runner.deployment import Request
from piseduce_runner.driver import NodeView
from piseduce_runner.errors import UserError
from piseduce_runner.operations import FindProcess, Operations, take_over
from piseduce_runner.people import Person
from piseduce_runner.planner import Record, Status
from piseduce_runner.store import (
    Deployment,
    NewDeployment,
    NodeReserved,
    NodeTaken,
    Reservation,
    Store,
)

AGENT = Person("agent", is_admin=True)
# A node that cannot be destroyed needs somebody; its switch must not be asked for ever.
DESTROY_AGAIN_SECONDS = 600.0
# What was refused (somebody else works on the node) may be possible soon.
_REFUSED_AGAIN_SECONDS = 30.0
# A driver that lives cancels within seconds; `--once` waits no longer for one that does not.
_CANCEL_SECONDS = 90.0


class Agent:
    """Decides what is to be begun.

    `claim` is the driver's, for `lease` seconds; `make_request` gives what a reservation was
    configured with, and raises `UserError` when it cannot be had any more; `end_runs_of` ends what
    a driver that has gone has running on this machine; `say` is told, in a line, what happens. With
    `once` nothing is expected to become due later.
    """

    def __init__(
        self,
        store: Store,
        find_process: FindProcess,
        make_request: Callable[[Reservation], Request],
        *,
        claim: str,
        lease: float,
        end_runs_of: Callable[[str], None],
        say: Callable[[str], None],
        once: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._find_process = find_process
        self._make_request = make_request
        self._claim = claim
        self._lease = lease
        self._end_runs_of = end_runs_of
        self._cancelling = Cancelling(store, find_process, claim, end_runs_of, clock)
        self._say = say
        self._once = once
        self._clock = clock
        self._told: dict[str, str] = {}
        self._not_before: dict[tuple[str, int], float] = {}
        self._failed: set[str] = set()
        self._winding_up = False
        self._has_looked = False

    @property
    def failed(self) -> frozenset[str]:
        """The nodes for which something could not even be begun."""
        return frozenset(self._failed)

    def wind_up(self) -> None:
        """Begin nothing more: `look` gives None from now on. For a signal handler."""
        self._winding_up = True

    def look(self) -> list[Record] | None:
        """Begin what is due now; None when nothing more is to come."""
        if self._winding_up:
            return None
        if not self._has_looked:
            self._release_namesakes()
        stopping, records = self._end_expired()
        records += self._take_over()
        records += self._deploy_due()
        is_done = not records and not stopping and not self._drives_any()
        return None if self._once and is_done else records

    def observe(self, view: NodeView) -> None:
        """Say what becomes of a node: its end, and each try that failed."""
        if view.status is Status.IN_PROGRESS:
            if view.reason:
                self._say_once(view.node, f"{view.reason}; {view.state} is next")
            return
        self._told.pop(view.node, None)
        reason = f": {view.reason}" if view.reason else ""
        self._say(f"{view.node}: {view.status.value}{reason}")

    def _drives_any(self) -> bool:
        """Whether something is under way of ours, whose end may make something else due."""
        return any(held.claim == self._claim for held in self._store.deployments().values())

    def _release_namesakes(self) -> None:
        """Give up what a driver of our own name has left: an earlier process of our number."""
        self._has_looked = True
        for held in self._store.deployments().values():
            if held.status is Status.IN_PROGRESS and held.claim == self._claim:
                self._store.release(held.node, self._claim, self._clock(), "its driver has gone")

    # what has ended

    def _end_expired(self) -> tuple[set[str], list[Record]]:
        """The nodes whose deployment has yet to stop, and those that begin to be destroyed.

        They come first: what is to be cancelled is not taken over.
        """
        stopping: set[str] = set()
        records: list[Record] = []
        for reservation in self._store.expired(self._clock()):
            held = self._store.deployment(reservation.node)
            if held is None:
                continue
            if held.status is not Status.IN_PROGRESS:
                records += self._destroy(reservation, held)
            elif held.process != "destroy" and self._stop(held):
                stopping.add(held.node)
        return stopping, records

    def _stop(self, held: Deployment) -> bool:
        """Have it cancelled; False when its driver does not do it, and nobody waits for it."""
        now = self._clock()
        if not held.cancel_asked_by:
            with self._store.transaction():
                self._store.ask_cancel(held.node, AGENT.name, now)
                why = f"{held.process}: {held.state}; the reservation has ended"
                self._store.record_act(AGENT.name, "cancel", held.node, now, detail=why)
            self._say(f"{held.node}: cancelled, for its reservation has ended")
        self._cancelling.is_done(held.node)
        if held.cancel_asked is not None and now - held.cancel_asked > _CANCEL_SECONDS:
            self._say_once(held.node, f"{held.claim} was asked to cancel, and does not")
            self._failed.add(held.node)
            return False
        return True

    def _destroy(self, reservation: Reservation, held: Deployment) -> list[Record]:
        again = held.since + DESTROY_AGAIN_SECONDS
        if held.process == "destroy" and self._clock() < again:
            at = time.strftime("%H:%M:%S", time.localtime(again))
            words = f"could not be destroyed ({held.reason}); it is tried again at {at}"
            self._say_once(held.node, words)
            self._failed.add(held.node)
            return []
        return self._begin(
            "destroy",
            reservation,
            lambda operations: operations.destroy([reservation.node], erase=False),
        )

    # what was left

    def _take_over(self) -> list[Record]:
        """Go on with what nobody drives any more."""
        records: list[Record] = []
        for held in self._store.interrupted(self._clock()):
            if held.cancel_asked_by:
                self._cancelling.is_done(held.node)
                continue
            records += self._take_one(held)
        return records

    def _take_one(self, held: Deployment) -> list[Record]:
        try:
            taken = take_over(
                self._store, self._find_process, [held.node], self._claim, self._lease
            )
        except NodeTaken:
            return []
        after = self._store.deployment(held.node)
        if not taken and (after is None or after.status is not Status.LOST):
            return []  # somebody else was quicker
        if held.claim is not None:
            # The node is ours, and does not go on before we return: what hangs of its last driver
            # cannot get in its way.
            self._end_runs_of(held.claim)
        why = f"{held.claim} has gone" if held.claim else held.reason or "it was left to the agent"
        self._say(f"{held.node}: {held.process} taken on in {held.state}: {why}")
        if not taken:
            self._say(f"{held.node}: lost: {after.reason}")
            self._failed.add(held.node)
        return taken

    # what is due

    def _deploy_due(self) -> list[Record]:
        records: list[Record] = []
        for reservation in self._store.due(self._clock()):
            try:
                request = self._make_request(reservation)
                self._find_process("deploy", request.environment.name)
            except UserError as error:
                self._lose(reservation, str(error))
                continue
            records += self._begin(
                "deploy",
                reservation,
                lambda operations, request=request: operations.deploy(
                    request, replace=False, until=None
                ),
            )
        return records

    def _lose(self, reservation: Reservation, reason: str) -> None:
        """What was asked for cannot be had: the node is lost before anything was done to it."""
        now, environment = self._clock(), reservation.configuration["environment"]
        new = NewDeployment(
            reservation.node,
            "deploy",
            environment,
            reservation.owner,
            position=0,
            state="",
            options=reservation.configuration["options"],
            reservation=reservation.id,
        )
        try:
            with self._store.transaction():
                self._store.begin([new], self._claim, now, now + self._lease)
                self._store.end(new.node, self._claim, Status.LOST, reason, now, {})
                self._store.record_act(AGENT.name, "deploy", new.node, now, detail=environment)
        except (NodeTaken, NodeReserved) as error:
            self._say_once(new.node, f"deploy has to wait: {error}")
        else:
            self._say(f"{new.node}: lost: {reason}")
        self._failed.add(new.node)

    # what they share

    def _begin(
        self, what: str, reservation: Reservation, begin: Callable[[Operations], list[Record]]
    ) -> list[Record]:
        key, node, now = (what, reservation.id), reservation.node, self._clock()
        if now < self._not_before.get(key, 0):
            return []
        operations = Operations(
            self._store,
            self._find_process,
            AGENT,
            reservation.owner,
            claim=self._claim,
            lease=self._lease,
            clock=self._clock,
        )
        try:
            records = begin(operations)
        except UserError as error:
            self._not_before[key] = now + _REFUSED_AGAIN_SECONDS
            self._say_once(node, f"{what} has to wait: {error}")
            self._failed.add(node)
            return []
        self._told.pop(node, None)
        self._failed.discard(node)
        self._say(f"{node}: {what} begins, for {reservation.owner}")
        return records

    def _say_once(self, node: str, words: str) -> None:
        if self._told.get(node) != words:
            self._told[node] = words
            self._say(f"{node}: {words}")
