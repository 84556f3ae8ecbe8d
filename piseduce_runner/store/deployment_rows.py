"""The rows of the deployments and of their journal: reading them, and changing one's own."""

import json
from collections.abc import Iterable
from typing import Any

from piseduce_runner.planner import Status
from piseduce_runner.store.failures import NodeTaken
from piseduce_runner.store.records import Deployment, Outcome, Transition
from piseduce_runner.store.reservations import Reservations


class DeploymentRows(Reservations):
    """What can be seen of deployments, and what those who change them share."""

    def deployment(self, node: str) -> Deployment | None:
        """The node's active deployment."""
        return next(iter(self._deployments("node = ? AND active = 1", [node])), None)

    def deployments(self) -> dict[str, Deployment]:
        """The active deployment of every node that has one."""
        return {held.node: held for held in self._deployments("active = 1")}

    def last_deployments(self, nodes: Iterable[str]) -> list[Deployment]:
        """The newest deployment of each of these nodes, also of those that were given back."""
        return [found[-1] for node in nodes if (found := self._deployments("node = ?", [node]))]

    def transitions(self, node: str | None = None, limit: int = 1000) -> list[Transition]:
        """The newest `limit` lines of the journal, oldest first; of one node or of all."""
        where, arguments = ("WHERE node = ?", [node]) if node is not None else ("", [])
        rows = self._rows(
            f"SELECT * FROM transition {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*arguments, limit],
        )
        return [_transition(row) for row in rows][::-1]

    # the inside

    def _check_claim(self, node: str, claim: str) -> Deployment:
        held = self.deployment(node)
        if held is None or held.claim != claim:
            raise NodeTaken(node, f"{node} is no longer ours ({claim})")
        return held

    def _change(self, node: str, claim: str, /, **columns: Any) -> None:
        """Compare and set: only a row that is still ours is changed."""
        names = ", ".join(f"{name} = ?" for name in columns)
        cursor = self._execute(
            f"UPDATE deployment SET {names} WHERE node = ? AND active = 1 AND claim = ?",  # noqa: S608
            [*columns.values(), node, claim],
        )
        if cursor.rowcount != 1:
            raise NodeTaken(node, f"{node} is no longer ours ({claim})")

    def _close_journal(self, node: str, outcome: Outcome, reason: str, now: float) -> None:
        self._execute(
            "UPDATE transition SET ended = ?, outcome = ?, reason = ?"
            " WHERE node = ? AND ended IS NULL",
            [now, outcome.value, reason, node],
        )

    def _deployments(self, where: str, arguments: Any = ()) -> list[Deployment]:
        rows = self._rows(f"SELECT * FROM deployment WHERE {where} ORDER BY id", arguments)  # noqa: S608
        return [_deployment(row) for row in rows]


def _deployment(row: dict[str, Any]) -> Deployment:
    values = {name: row[name] for name in Deployment.__dataclass_fields__}
    read = {name: json.loads(row[name]) for name in ("options", "memory", "record")}
    return Deployment(**values | read | {"status": Status(row["status"])})


def _transition(row: dict[str, Any]) -> Transition:
    values = {name: row[name] for name in Transition.__dataclass_fields__}
    return Transition(**values | {"outcome": Outcome(row["outcome"]) if row["outcome"] else None})
