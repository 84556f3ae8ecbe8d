"""Cancelling what is under way on nodes, whoever drives them: alive, dead, or hanging.

A driver that lives is asked, and ends its own run. When nobody drives the node (any more), whoever
cancels takes it, ends what the last driver has left running here, and writes that it is cancelled.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from piseduce_runner import people, planner
from piseduce_runner.errors import UserError
from piseduce_runner.operations import FindProcess
from piseduce_runner.people import Person
from piseduce_runner.planner import Cancelled, Status
from piseduce_runner.records import from_values, to_values
from piseduce_runner.store import Deployment, NodeTaken, Store

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Cancelling:
    """Cancels in somebody's name.

    `claim` is the name under which nodes are taken that nobody drives; `end_runs_of` ends what the
    driver with that claim has running on this machine.
    """

    store: Store
    find_process: FindProcess
    claim: str
    end_runs_of: Callable[[str], None]
    clock: Callable[[], float] = time.time

    def ask(self, nodes: Iterable[str], person: Person, *, owner: str, force: bool) -> None:
        """Ask that these nodes, which are under way, be cancelled: all or none.

        Raises `UserError` when one is somebody else's, or not under way (any more).
        """
        with self.store.transaction():
            held = self.store.deployments()
            for node in nodes:
                deployment = held.get(node)
                if deployment is None or deployment.status is not Status.IN_PROGRESS:
                    raise UserError(f"{node}: nothing is under way on it")
                reservation = self.store.reservation_at(node, self.clock())
                holder = reservation.owner if reservation else deployment.owner
                forced = people.check_may_touch(person, node, holder, owner=owner, force=force)
                self.store.ask_cancel(node, person.name, self.clock())
                detail = f"{deployment.process}: {deployment.state}"
                self.store.record_act(
                    person.name, "cancel", node, self.clock(), forced=forced, detail=detail
                )

    def wait(self, nodes: Iterable[str], patience: float) -> list[str]:
        """Wait until these nodes, for which it was asked, are no longer under way.

        Gives those that still are after `patience` seconds: their driver lives, and does not do it.
        """
        left = list(nodes)
        limit = time.monotonic() + patience
        while left := [node for node in left if not self.is_done(node)]:
            if time.monotonic() > limit:
                break
            time.sleep(_POLL_SECONDS)
        return left

    def is_done(self, node: str) -> bool:
        """Whether the node is no longer under way; cancels it here when nobody drives it."""
        held = self.store.deployment(node)
        if held is None or held.status is not Status.IN_PROGRESS or not held.cancel_asked_by:
            return True
        if held.is_claimed(self.clock()):
            return False
        return self._cancel_here(held)

    def _cancel_here(self, held: Deployment) -> bool:
        """Take the node and end it as cancelled; False when another driver was quicker."""
        now = self.clock()
        if not self.store.take([held.node], self.claim, now, now + 60):
            return False
        if held.claim is not None:
            # After the claim is ours: whoever wakes up now cannot write of the node any more.
            self.end_runs_of(held.claim)
        reason = f"{held.state}: cancelled by {held.cancel_asked_by}"
        try:
            process = self.find_process(held.process, held.environment)
            stored = from_values(held.node, process, held.status, held.reason, held.record)
            record = to_values(planner.apply(stored, Cancelled(reason), now))
        except UserError:
            # It cannot be taken up again by this table or without its environment, only ended.
            record = held.record
        try:
            self.store.end(held.node, self.claim, Status.CANCELLED, reason, self.clock(), record)
        except NodeTaken:
            return False
        return True
