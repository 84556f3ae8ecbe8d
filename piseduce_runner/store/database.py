"""The connection: opening, transactions that nest, and errors in plain words."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import sqlite_utils

from piseduce_runner.errors import UserError
from piseduce_runner.store import schema
from piseduce_runner.store.failures import StoreFailed, in_plain_words


class Database:
    """What all parts of the store share.

    `timeout` is how many seconds to wait for another process's transaction.
    """

    def __init__(self, database: sqlite_utils.Database, path: Path, timeout: float) -> None:
        self._db = database
        self._path = path
        self._timeout = timeout
        self._depth = 0
        self.unwritable = ""

    @classmethod
    def open(cls, path: Path, timeout: float = 10.0) -> Self:
        """Open the database at `path`, making it and its folder if need be.

        Raises `UserError` when it cannot be used, or was written by a newer version.
        """
        connection = None

        def refused(reason: str) -> UserError:
            if connection is not None:
                connection.close()
            return UserError(f"{path}: the store cannot be opened: {reason}")

        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            if not path.exists():
                path.touch(mode=0o640)
            connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
            _use_write_ahead_log(connection, timeout)
            # FULL: what a state did to a node is not forgotten when the manager loses its power.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            store = cls(sqlite_utils.Database(connection), path, timeout)
            store._migrate()
        except UserError:
            connection.close()
            raise
        except OSError as error:
            raise refused(error.strerror) from error
        except sqlite3.Error as error:
            raise refused(f"it {in_plain_words(error, timeout)}") from error
        except StoreFailed as error:
            raise refused(f"it {error.words}") from error
        return store

    @classmethod
    def open_existing(cls, path: Path) -> Self | None:
        """Open the database if there is one; None before the first deployment."""
        return cls.open(path) if _is_there(path) else None

    @classmethod
    def open_to_read(cls, path: Path) -> Self | None:
        """As `open_existing`, also where it cannot be written: `unwritable` says why, then.

        A full disk and one that was made read-only are when somebody wants to know how things are.
        """
        if not _is_there(path):
            return None
        try:
            return cls.open(path)
        except UserError as error:
            connection = _connect_to_read(path)
            if connection is None:
                raise
            store = cls(sqlite_utils.Database(connection), path, 0)
            store.unwritable = str(error)
            return store

    @staticmethod
    def check(path: Path) -> list[str]:
        """What is wrong with the database at `path`; each begins in thought with "the store".

        It is read only: neither made, nor brought to this version.
        """
        timeout = 5.0
        try:
            with closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=timeout, uri=True)
            ) as connection:
                if schema.version(connection) > schema.VERSION:
                    return ["was written by a newer version of piseduce-run; update it"]
                found = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
                broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.Error as error:
            return [in_plain_words(error, timeout)]
        problems = [f"is damaged: {words}" for words in found if words != "ok"]
        if broken:
            problems.append(f"is damaged: {len(broken)} rows belong to others that are missing")
        return problems

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written in the block is written all or not at all; nobody else writes meanwhile.

        Blocks nest: an error undoes what its own block wrote, and the outer one may catch it.
        """
        with self._in_plain_words():
            outermost = self._depth == 0
            # IMMEDIATE takes the write lock first: a deferred transaction that reads and then
            # writes fails with "database is locked" at once when another process writes between.
            self._execute("BEGIN IMMEDIATE" if outermost else "SAVEPOINT nested")
            self._depth += 1
            try:
                yield
                self._execute("COMMIT" if outermost else "RELEASE nested")
            except BaseException:
                self._roll_back(outermost)
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _light_transaction(self) -> Iterator[None]:
        """A transaction that a power cut may undo: it does not wait for the disk.

        The next one that is not light takes it along to the disk.
        """
        if self._depth:
            with self.transaction():
                yield
            return
        with self._in_plain_words():
            self._execute("PRAGMA synchronous = NORMAL")
            try:
                with self.transaction():
                    yield
            finally:
                self._execute("PRAGMA synchronous = FULL")

    def _roll_back(self, outermost: bool) -> None:
        # SQLite ends a transaction by itself after some errors (a full disk).
        if self._db.conn.in_transaction:
            undo = ["ROLLBACK"] if outermost else ["ROLLBACK TO nested", "RELEASE nested"]
            for statement in undo:
                self._db.execute(statement)

    def _execute(self, sql: str, arguments: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Cursor:
        with self._in_plain_words():
            if self._depth and not self._db.conn.in_transaction:
                # An outer block caught the error that ended it: do not write half of it.
                raise StoreFailed(self._path, "has undone what was to be written, for an error")
            return self._db.execute(sql, arguments)

    def _rows(
        self, sql: str, arguments: Sequence[Any] | dict[str, Any] = ()
    ) -> list[dict[str, Any]]:
        with self._in_plain_words():
            return list(self._db.query(sql, arguments))

    @contextmanager
    def _in_plain_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreFailed(self._path, in_plain_words(error, self._timeout)) from error

    def _migrate(self) -> None:
        found = schema.version(self._db)
        if found > schema.VERSION:
            raise UserError(
                f"{self._path}: the store was written by a newer version of piseduce-run; update it"
            )
        if found < schema.VERSION:
            with self.transaction():
                # It looks again: another process may have done it while this one waited.
                schema.migrate(self._db)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # the folder is closed to this user
        raise UserError(
            f"{path}: the store cannot be opened: {error.strerror}; work as root (sudo) or as the"
            " site's owner"
        ) from error


def _connect_to_read(path: Path) -> sqlite3.Connection | None:
    """A connection that needs no file of its own beside the store's; None when there is no way.

    SQLite reads a write-ahead log only by means of such a file, so a store that has one in use
    is left alone then (https://www.sqlite.org/wal.html, "Read-Only Databases").
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        in_use = log.exists() and log.stat().st_size > 0
        for mode in ("mode=ro",) if in_use else ("mode=ro", "mode=ro&immutable=1"):
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None
            )
            try:
                if schema.version(connection) == schema.VERSION:
                    connection.execute("SELECT count(*) FROM deployment").fetchone()
                    return connection
            except sqlite3.Error:
                pass  # the error of the ordinary way is told
            connection.close()
    except (OSError, sqlite3.Error):
        return None
    return None


def _use_write_ahead_log(connection: sqlite3.Connection, timeout: float) -> None:
    """Readers and a writer do not wait for each other (https://www.sqlite.org/wal.html).

    The change needs the file for itself, and SQLite does not wait for that: so wait here.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
