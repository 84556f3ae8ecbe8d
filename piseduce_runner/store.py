"""Every node's deployment and its history, in SQLite. The only file that knows SQLite.

Tables:

* `deployment`: one active row per node: what is deployed on it, which state it is in, and which
  driver has claimed it. Rows of the past stay, with `active` 0.
* `transition`: the journal, append-only but for the end of a row that is still open: which node
  entered which state, when it left it, how and why.

Times are seconds since the epoch. A connection belongs to the thread that opened it.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import sqlite_utils

from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE deployment (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1,
    process TEXT NOT NULL,
    environment TEXT NOT NULL,
    owner TEXT NOT NULL,
    options TEXT NOT NULL,
    memory TEXT NOT NULL,
    status TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    percent INTEGER,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    created REAL NOT NULL,
    claim TEXT,
    claim_expires REAL
) STRICT;
CREATE UNIQUE INDEX one_active_deployment_per_node ON deployment (node) WHERE active = 1;
CREATE TABLE transition (
    id INTEGER PRIMARY KEY,
    deployment INTEGER NOT NULL REFERENCES deployment (id),
    node TEXT NOT NULL,
    process TEXT NOT NULL,
    state TEXT NOT NULL,
    position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started REAL NOT NULL,
    ended REAL,
    outcome TEXT,
    reason TEXT NOT NULL DEFAULT '',
    log TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX transitions_of_node ON transition (node, id);
"""


class Outcome(Enum):
    """How a state ended on a node."""

    PROVEN = "proven"
    FAILED = "failed"  # the role failed, or the deadline passed; the reason says which


@dataclass(frozen=True)
class Deployment:
    """A node's deployment as it stands in the store.

    `options` are what the user asked for (never a password in clear), `memory` what states
    remembered of the node. `since` is when `state` or `status` last changed.
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
    reason: str
    since: float
    created: float
    claim: str | None
    claim_expires: float | None

    def is_claimed(self, now: float) -> bool:
        """Whether a living driver holds the node at `now`."""
        return self.claim is not None and (self.claim_expires or 0) > now


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
class NewDeployment:
    """What `Store.begin` needs to know of a node's new deployment."""

    node: str
    process: str
    environment: str
    owner: str
    position: int
    state: str
    options: dict[str, Any] = field(default_factory=dict)


class NodeTaken(Exception):
    """The node is driven by another driver, or its row changed under our hands."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(message)
        self.node = node


class Store:
    """The database of one site.

    `open` makes it when it is not there. Raises `UserError` when it cannot be used.
    """

    def __init__(self, database: sqlite_utils.Database) -> None:
        self._db = database

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the database at `path`, making it and its folder if need be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            path.chmod(0o640)
            store = cls(sqlite_utils.Database(connection))
            store._migrate()
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: the store cannot be opened: {error}") from error
        return store

    @classmethod
    def open_existing(cls, path: Path) -> "Store | None":
        """Open the database if there is one; None before the first deployment."""
        return cls.open(path) if path.is_file() else None

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    # deployments

    def begin(self, new: Iterable[NewDeployment], claim: str, now: float, expires: float) -> None:
        """Start these deployments, all or none, and claim their nodes.

        What was known of the node before is set aside, but for the boot id of the system that ran
        on it last: the next one must have another. Raises `NodeTaken` when a living driver holds
        one of the nodes.
        """
        with self._transaction():
            for one in new:
                held = self.deployment(one.node)
                if held is not None and held.is_claimed(now):
                    raise NodeTaken(one.node, f"{one.node} is being driven by {held.claim}")
                self._db.execute(
                    "UPDATE deployment SET active = 0, claim = NULL WHERE node = ? AND active = 1",
                    [one.node],
                )
                self._db.execute(
                    "INSERT INTO deployment (node, process, environment, owner, options, memory,"
                    " status, position, state, attempt, reason, since, created, claim,"
                    " claim_expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?)",
                    [
                        *(one.node, one.process, one.environment, one.owner),
                        json.dumps(one.options),
                        json.dumps(_carried_over(held)),
                        *(Status.IN_PROGRESS.value, one.position, one.state, 1),
                        *(now, now, claim, expires),
                    ],
                )

    def enter(self, node: str, claim: str, position: int, state: str, log: str, now: float) -> None:
        """The node enters a state: its row says so and the journal has an open line."""
        with self._transaction():
            self._change(
                node, claim, position=position, state=state, percent=None, since=now, reason=""
            )
            self._db.execute(
                "INSERT INTO transition"
                " (deployment, node, process, state, position, attempt, started, log)"
                " SELECT id, node, process, state, position, attempt, ?, ? FROM deployment"
                " WHERE node = ? AND active = 1",
                [now, log, node],
            )

    def leave(self, node: str, claim: str, outcome: Outcome, reason: str, now: float) -> None:
        """The state that the node is in has ended: the journal's open line is closed."""
        with self._transaction():
            self._check_claim(node, claim)
            self._close_journal(node, outcome, reason, now)

    def end(self, node: str, claim: str, status: Status, reason: str, now: float) -> None:
        """The node's process has ended, well or lost, and the claim on it is given back."""
        outcome = Outcome.PROVEN if status is Status.DEPLOYED else Outcome.FAILED
        with self._transaction():
            self._change(node, claim, status=status.value, reason=reason, since=now)
            self._close_journal(node, outcome, reason, now)
            self._db.execute(
                "UPDATE deployment SET claim = NULL, claim_expires = NULL"
                " WHERE node = ? AND active = 1",
                [node],
            )

    def remember(self, node: str, claim: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Add to what is remembered of the node; gives the whole memory."""
        with self._transaction():
            memory = self._check_claim(node, claim).memory | facts
            self._change(node, claim, memory=json.dumps(memory))
        return memory

    def set_percent(self, node: str, claim: str, percent: int) -> None:
        """How far the node's state is, 0 to 100."""
        with self._transaction():
            self._change(node, claim, percent=percent)

    def renew_claim(self, claim: str, expires: float) -> None:
        """Hold all nodes of this claim until `expires`."""
        with self._transaction():
            self._db.execute(
                "UPDATE deployment SET claim_expires = ? WHERE claim = ? AND active = 1",
                [expires, claim],
            )

    def deployment(self, node: str) -> Deployment | None:
        """The node's active deployment."""
        rows = self._db.query("SELECT * FROM deployment WHERE node = ? AND active = 1", [node])
        return next((_deployment(row) for row in rows), None)

    def deployments(self) -> dict[str, Deployment]:
        """The active deployment of every node that has one."""
        rows = self._db.query("SELECT * FROM deployment WHERE active = 1")
        return {row["node"]: _deployment(row) for row in rows}

    def transitions(self, node: str | None = None, limit: int = 1000) -> list[Transition]:
        """The newest `limit` lines of the journal, oldest first; of one node or of all."""
        where, arguments = ("WHERE node = ?", [node]) if node is not None else ("", [])
        rows = self._db.query(
            f"SELECT * FROM transition {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*arguments, limit],
        )
        return [_transition(row) for row in rows][::-1]

    # the inside

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise UserError("the store was written by a newer version of piseduce-run; update it")
        if version == _SCHEMA_VERSION:
            return
        with self._transaction():
            # Another process may have made the tables while this one waited for the lock.
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock first: a deferred transaction that reads and then writes
        # fails with "database is locked" at once when another process writes in between.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _check_claim(self, node: str, claim: str) -> Deployment:
        held = self.deployment(node)
        if held is None or held.claim != claim:
            raise NodeTaken(node, f"{node} is no longer ours ({claim})")
        return held

    def _change(self, node: str, claim: str, **columns: Any) -> None:
        """Compare and set: only a row that is still ours is changed."""
        names = ", ".join(f"{name} = ?" for name in columns)
        cursor = self._db.execute(
            f"UPDATE deployment SET {names} WHERE node = ? AND active = 1 AND claim = ?",  # noqa: S608
            [*columns.values(), node, claim],
        )
        if cursor.rowcount != 1:
            raise NodeTaken(node, f"{node} is no longer ours ({claim})")

    def _close_journal(self, node: str, outcome: Outcome, reason: str, now: float) -> None:
        self._db.execute(
            "UPDATE transition SET ended = ?, outcome = ?, reason = ?"
            " WHERE node = ? AND ended IS NULL",
            [now, outcome.value, reason, node],
        )


def _carried_over(held: Deployment | None) -> dict[str, Any]:
    memory = held.memory if held else {}
    return {name: memory[name] for name in ("boot_id",) if name in memory}


def _deployment(row: dict[str, Any]) -> Deployment:
    values = {name: row[name] for name in Deployment.__dataclass_fields__}
    return Deployment(
        **values
        | {
            "options": json.loads(row["options"]),
            "memory": json.loads(row["memory"]),
            "status": Status(row["status"]),
        }
    )


def _transition(row: dict[str, Any]) -> Transition:
    values = {name: row[name] for name in Transition.__dataclass_fields__}
    return Transition(**values | {"outcome": Outcome(row["outcome"]) if row["outcome"] else None})
