"""Why the store refuses something, or cannot do it."""

import sqlite3
import time
from pathlib import Path

from piseduce_runner.store.records import Reservation


class StoreFailed(Exception):
    """The store cannot be read or written now: one line for people, which names it and says why.

    Nothing of what was to be written is written, and the store can be used again. `words` are the
    line without its beginning.
    """

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(f"the store {path} {words}")
        self.words = words


class NodeTaken(Exception):
    """The node is driven by another driver, or its row changed under our hands."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(message)
        self.node = node


class NodeReserved(Exception):
    """The node is somebody's at that time: `reservation` says whose, and for how long."""

    def __init__(self, node: str, reservation: Reservation) -> None:
        start, end = _clock(reservation.start), "it is given back"
        if reservation.end is not None:
            end = _clock(reservation.end)
        super().__init__(f"{node} is reserved by {reservation.owner} from {start} until {end}")
        self.node = node
        self.reservation = reservation


class ReservationEnded(Exception):
    """There is no such reservation, or the node has been given back."""

    def __init__(self, reservation_id: int) -> None:
        super().__init__(f"reservation {reservation_id} has ended, or there never was one")
        self.reservation_id = reservation_id


def in_plain_words(error: Exception, timeout: float) -> str:
    """What has happened to the store, as the end of a sentence that begins with it.

    The numbers are SQLite's result codes (https://www.sqlite.org/rescode.html); an extended code
    has the primary one in its low byte.
    """
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"is locked by another process for more than {timeout:g} s; try again"
        case sqlite3.SQLITE_FULL:
            return "is full; make room on its disk and try again"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return "cannot be written; its file, its folder or its disk is read-only for this user"
        case sqlite3.SQLITE_CANTOPEN:
            return (
                "is closed to this user, or its disk is read-only;"
                " look at the permissions of its file and folder"
            )
        case sqlite3.SQLITE_IOERR:
            return "cannot be read or written; its disk fails or is full"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "is damaged, or no store at all; put a backup in its place"
        case _:
            return f"cannot be used: {error}"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
