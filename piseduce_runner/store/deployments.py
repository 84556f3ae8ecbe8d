"""What happens to a deployment while it is driven: states, their facts, and how it ends.

All of it is the driver's that holds the claim (see claims.py), but for asking it to cancel.
"""

import json
from typing import Any

from piseduce_runner.planner import Status
from piseduce_runner.store.claims import Claims
from piseduce_runner.store.records import Outcome

_OUTCOMES = {Status.LOST: Outcome.FAILED, Status.CANCELLED: Outcome.CANCELLED}


class Deployments(Claims):
    """The deployments of the store, and their journal."""

    def enter(
        self,
        node: str,
        claim: str,
        *,
        position: int,
        state: str,
        attempt: int,
        log: str,
        now: float,
        record: dict[str, Any],
    ) -> None:
        """The node enters a state: its row says so and the journal has an open line."""
        with self.transaction():
            self._change(
                node,
                claim,
                position=position,
                state=state,
                attempt=attempt,
                percent=None,
                rate=None,
                since=now,
                reason="",
                record=json.dumps(record),
            )
            self._execute(
                "INSERT INTO transition"
                " (deployment, node, process, state, position, attempt, started, log)"
                " SELECT id, node, process, state, position, attempt, ?, ? FROM deployment"
                " WHERE node = ? AND active = 1",
                [now, log, node],
            )

    def leave(
        self,
        node: str,
        claim: str,
        outcome: Outcome,
        reason: str,
        now: float,
        record: dict[str, Any],
        facts: dict[str, Any] | None = None,
    ) -> None:
        """The state that the node is in has ended: the journal's open line is closed.

        `facts` are what the state remembered of the node; they are kept together with its end.
        """
        with self.transaction():
            memory = self._check_claim(node, claim).memory | (facts or {})
            self._change(
                node, claim, record=json.dumps(record), memory=json.dumps(memory), reason=reason
            )
            self._close_journal(node, outcome, reason, now)

    def end(
        self,
        node: str,
        claim: str,
        status: Status,
        reason: str,
        now: float,
        record: dict[str, Any],
        facts: dict[str, Any] | None = None,
    ) -> None:
        """The node's process has ended, well or not, and the claim on it is given back.

        `Status.DESTROYED` frees the node: its deployment and its reservation are of the past.
        """
        with self.transaction():
            outcome = _OUTCOMES.get(status, Outcome.PROVEN)
            self.leave(node, claim, outcome, reason, now, record, facts)
            held = self._check_claim(node, claim)
            self._change(
                node,
                claim,
                status=status.value,
                reason=reason,
                since=now,
                cancel_asked_by="",
                cancel_asked=None,
                active=int(status is not Status.DESTROYED),
                claim=None,
                claim_expires=None,
            )
            if status is Status.DESTROYED and held.reservation is not None:
                self._close_reservation(held.reservation, now, although_deployed=False)

    def remember(self, node: str, claim: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Add to what is remembered of the node; gives the whole memory."""
        with self.transaction():
            memory = self._check_claim(node, claim).memory | facts
            self._change(node, claim, memory=json.dumps(memory))
        return memory

    def set_record(self, node: str, claim: str, record: dict[str, Any]) -> None:
        """What the planner knows of the node has changed within a state."""
        with self.transaction():
            self._change(node, claim, record=json.dumps(record))

    def set_percent(self, node: str, claim: str, percent: int, rate: int | None = None) -> None:
        """How far the node's state is, 0 to 100, and at how many bytes per second."""
        with self._light_transaction():
            self._change(node, claim, percent=percent, rate=rate)

    # cancelling

    def ask_cancel(self, node: str, who: str, now: float) -> bool:
        """Ask the node's driver to cancel; False when the node is not in progress.

        Whoever asked first is kept.
        """
        with self.transaction():
            changed = self._execute(
                "UPDATE deployment SET cancel_asked = coalesce(cancel_asked, ?),"
                " cancel_asked_by = iif(cancel_asked_by = '', ?, cancel_asked_by)"
                " WHERE node = ? AND active = 1 AND status = ?",
                [now, who, node, Status.IN_PROGRESS.value],
            )
            return changed.rowcount == 1

    def cancels_asked(self, claim: str) -> dict[str, str]:
        """Which of the claim's nodes are to be cancelled, and who asked for it."""
        rows = self._rows(
            "SELECT node, cancel_asked_by FROM deployment"
            " WHERE active = 1 AND claim = ? AND cancel_asked_by <> ''",
            [claim],
        )
        return {row["node"]: row["cancel_asked_by"] for row in rows}
