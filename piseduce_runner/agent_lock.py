"""One agent for each site: whoever holds the lock is it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from piseduce_runner.errors import UserError

# Somebody who looks whether an agent runs holds the lock for an instant.
_PATIENCE_SECONDS = 1.0


@contextlib.contextmanager
def hold_agent_lock(path: Path) -> Iterator[None]:
    """Be the site's agent as long as the block lasts, at most as long as this process lives.

    Raises `UserError` when there is one already.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        file = path.open("a+", encoding="ascii")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; the agent runs as the site's owner") from error
    with file:
        limit = time.monotonic() + _PATIENCE_SECONDS
        while not _try_lock(file.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > limit:
                raise UserError(
                    f"an agent is at work on this site already (pid {_pid(path) or 'unknown'});"
                    " it does what is due by itself"
                )
            time.sleep(0.02)
        try:
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
        yield
        os.ftruncate(file.fileno(), 0)


def running_agent(path: Path) -> int | None:
    """The process id of the agent that is at work; None when there is none."""
    try:
        with path.open("r", encoding="ascii") as file:
            if _try_lock(file.fileno(), fcntl.LOCK_SH):
                return None
            return _pid(path)
    except OSError:
        return None


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(path: Path) -> int | None:
    text = path.read_text("ascii", errors="replace")
    return int(text) if text.isdigit() else None
