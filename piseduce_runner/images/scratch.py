"""Work in hand in the environments' folder: hidden, within the disk's room, and never left behind.

Whoever works in a scratch folder holds a lock (flock(2)) on it, so that one whose owner was killed
can be told from one in use.
"""

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from piseduce_runner.errors import UserError

_NAME = re.compile(r"\.[a-z0-9][a-z0-9._-]*\.new-[a-z0-9_]{8}")
_MIB = 1 << 20
KEPT_FREE = 64 * _MIB
"""Bytes of the file system that are never used: the store and its journal may be on it."""


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A new hidden folder in `root`, for the length of a block; gone after it, unless renamed.

    Removes what killed owners have left. Raises UserError if there can be none.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, wait=True):  # nobody takes a folder for left before it is locked
            remove_leftovers(root)
            folder = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=root))
            lock = _lock(folder, wait=True)
    except OSError as error:
        raise UserError(f"{root}: cannot be written to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # gone already if all went well
        os.close(lock)


def remove_leftovers(root: Path) -> None:
    """Remove the scratch folders in `root` whose owners have gone."""
    for folder in root.iterdir():
        if _NAME.fullmatch(folder.name) and not folder.is_symlink() and folder.is_dir():
            with suppress(BlockingIOError, FileNotFoundError), _locked(folder, wait=False):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    lock = _lock(folder, wait=wait)
    try:
        yield
    finally:
        os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_room(folder: Path, needed: int) -> None:
    """Raises UserError if the file system of `folder` has no room for so many bytes more."""
    file_system = os.statvfs(folder)
    free = file_system.f_bavail * file_system.f_frsize
    if free < needed + KEPT_FREE:
        raise UserError(
            f"not enough space in {folder.parent}: {-(-(needed + KEPT_FREE) // _MIB)} MiB are "
            f"needed, {free // _MIB} MiB are free"
        )


@contextmanager
def system_errors(folder: Path) -> Iterator[None]:
    """Makes UserErrors of what the system says when it cannot read or write what it should."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "not enough space" if full else "cannot go on"
        raise UserError(f"{what} in {folder.parent}: {error.strerror or error}") from error
