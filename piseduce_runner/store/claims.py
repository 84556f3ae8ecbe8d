"""Whose a node is to drive: deployments begin, are given back, and are taken over.

A driver holds its nodes by a *claim*: its name, and when it expires unless it is renewed. Only the
holder of the claim changes the node's row (compare and set): `NodeTaken` says that it no longer
holds it. A node that is in progress and that no living driver holds can be taken by any.
"""

import json
from collections.abc import Iterable
from typing import Any

from piseduce_runner.planner import Status
from piseduce_runner.store.deployment_rows import DeploymentRows
from piseduce_runner.store.failures import NodeReserved, NodeTaken
from piseduce_runner.store.records import LONGEST_CLAIM, Deployment, NewDeployment, Outcome

# As `Deployment.is_claimed`.
_UNCLAIMED = (
    "(claim IS NULL OR coalesce(claim_expires, 0) <= :now"
    f" OR claim_expires > :now + {LONGEST_CLAIM})"
)
_DRIVER_GONE = "its driver was gone"


class Claims(DeploymentRows):
    """The claims on the deployments of the store."""

    def begin(
        self, new: Iterable[NewDeployment], claim: str | None, now: float, expires: float | None
    ) -> None:
        """Start these deployments, all or none, and claim their nodes.

        Without a `claim` nobody drives them yet. What was known of a node before is set aside, but
        for the boot id of the system that ran on it last (the next one must have another), unless
        `carry_memory` is set.

        Raises `NodeTaken` when a living driver holds one of the nodes, or when the deployment's
        reservation does not hold its node (any more); `NodeReserved` when another one does.
        """
        with self.transaction():
            for one in new:
                held = self.deployment(one.node)
                if held is not None and held.is_claimed(now):
                    raise NodeTaken(one.node, f"{one.node} is being driven by {held.claim}")
                reservation = self._reservation_of(one, now)
                memory = self._memory_for(one)
                self._close_journal(one.node, Outcome.INTERRUPTED, _DRIVER_GONE, now)
                self._execute(
                    "UPDATE deployment SET active = 0, claim = NULL WHERE node = ? AND active = 1",
                    [one.node],
                )
                self._insert(
                    node=one.node,
                    process=one.process,
                    environment=one.environment,
                    owner=one.owner,
                    options=json.dumps(one.options),
                    memory=json.dumps(memory),
                    status=Status.IN_PROGRESS.value,
                    position=one.position,
                    state=one.state,
                    attempt=1,
                    reason="",
                    since=now,
                    created=now,
                    claim=claim,
                    claim_expires=expires,
                    record=json.dumps(one.record),
                    reservation=reservation,
                )

    def take(
        self, nodes: Iterable[str], claim: str, now: float, expires: float
    ) -> list[Deployment]:
        """Claim those of the nodes that are in progress and that no living driver holds.

        Gives those that are ours now. Of two processes that want a node, one gets it.
        """
        taken = []
        with self.transaction():
            for node in nodes:
                changed = self._execute(
                    "UPDATE deployment SET claim = :claim, claim_expires = :expires"  # noqa: S608
                    " WHERE node = :node AND active = 1 AND status = :in_progress"
                    f" AND {_UNCLAIMED}",
                    {
                        **{"claim": claim, "expires": expires, "node": node, "now": now},
                        "in_progress": Status.IN_PROGRESS.value,
                    },
                )
                if changed.rowcount == 1:
                    self._close_journal(node, Outcome.INTERRUPTED, _DRIVER_GONE, now)
                    taken.append(self._check_claim(node, claim))
        return taken

    def resume(
        self,
        node: str,
        claim: str | None,
        now: float,
        expires: float | None,
        *,
        position: int,
        state: str,
        record: dict[str, Any],
        expected_status: Status,
    ) -> Deployment:
        """A node that was given up (lost or cancelled) is in progress again, under this claim.

        Raises `NodeTaken` when its status is not the expected one any more, or somebody holds it.
        """
        with self.transaction():
            changed = self._execute(
                "UPDATE deployment SET status = :status, claim = :claim, claim_expires = :expires,"  # noqa: S608
                " position = :position, state = :state, record = :record, percent = NULL,"
                " rate = NULL, reason = '', since = :now"
                f" WHERE node = :node AND active = 1 AND status = :expected AND {_UNCLAIMED}",
                {
                    "status": Status.IN_PROGRESS.value,
                    "claim": claim,
                    "expires": expires,
                    "position": position,
                    "state": state,
                    "record": json.dumps(record),
                    "now": now,
                    "node": node,
                    "expected": expected_status.value,
                },
            )
            if changed.rowcount != 1:
                raise NodeTaken(node, f"{node} is no longer {expected_status.value}, or is driven")
            return self.deployment(node)

    def release(self, node: str, claim: str, now: float, reason: str) -> None:
        """Give the claim back while the node is in progress: any driver can go on with it."""
        with self.transaction():
            self._change(node, claim, reason=reason, claim=None, claim_expires=None)
            self._close_journal(node, Outcome.INTERRUPTED, reason, now)

    def renew_claim(self, claim: str, expires: float) -> set[str]:
        """Hold all nodes of this claim until `expires`; gives them."""
        with self._light_transaction():
            self._execute(
                "UPDATE deployment SET claim_expires = ? WHERE claim = ? AND active = 1",
                [expires, claim],
            )
            held = self._rows("SELECT node FROM deployment WHERE claim = ? AND active = 1", [claim])
        return {row["node"] for row in held}

    def interrupted(self, now: float) -> list[Deployment]:
        """Those that are in progress and that no living driver holds."""
        return self._deployments(
            f"active = 1 AND status = :in_progress AND {_UNCLAIMED}",
            {"in_progress": Status.IN_PROGRESS.value, "now": now},
        )

    # the inside

    def _reservation_of(self, new: NewDeployment, now: float) -> int | None:
        holder = self.reservation_at(new.node, now)
        if holder is None:
            if new.reservation is None:
                return None
            raise NodeTaken(
                new.node, f"{new.node}: reservation {new.reservation} does not hold the node now"
            )
        # Who names no reservation has not looked whose the node is, or looked too early.
        if new.reservation != holder.id and (new.reservation or new.owner != holder.owner):
            raise NodeReserved(new.node, holder)
        return holder.id

    def _memory_for(self, new: NewDeployment) -> dict[str, Any]:
        rows = self._rows(
            "SELECT memory FROM deployment WHERE node = ? ORDER BY id DESC LIMIT 1", [new.node]
        )
        memory = json.loads(rows[0]["memory"]) if rows else {}
        if new.carry_memory:
            return memory
        return {name: memory[name] for name in ("boot_id",) if name in memory}

    def _insert(self, **columns: Any) -> None:
        names, marks = ", ".join(columns), ", ".join("?" for _ in columns)
        self._execute(
            f"INSERT INTO deployment ({names}) VALUES ({marks})",  # noqa: S608
            [*columns.values()],
        )
