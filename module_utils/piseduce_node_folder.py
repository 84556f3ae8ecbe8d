# SPDX-License-Identifier: MIT
"""A node's folder below the TFTP root, kept in versions so that it changes in one step."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import stat

from ansible.module_utils.piseduce_process import Failure
from ansible.module_utils.piseduce_tree import difference, read_tree, readable_by_all

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2)


class NodeFolder:
    """A node's folder: ``root/serial``, a link to the version in use, ``root/.serial-XXXXXXXX``."""

    def __init__(self, root, serial):
        self.path = root / serial
        self._root, self._prefix = root, f".{serial}-"

    def exists(self):
        return os.path.lexists(self.path)

    def tree(self, limit):
        """What it holds; None if it is not there, or not what this module would leave alone."""
        if self.path.is_symlink() and not self._version_in_use():
            return None
        try:
            return read_tree(self.path, limit) if readable_by_all(self.path) else None
        except (Failure, FileNotFoundError):
            return None

    def fill(self, copy, wanted, limit):
        """Make it what `copy` brings, if that proves to be what is wanted; else the old one stays.

        :param copy: function that fills the existing, empty folder that it is given
        :param wanted: tree
        """
        version = self._root / f"{self._prefix}{secrets.token_hex(4)}"
        version.mkdir(mode=0o755)
        try:
            copy(version)
            copied = read_tree(version, limit)
            if copied != wanted:
                raise Failure(f"the copy differs: {difference(wanted, copied)}")
            _flush(version)
            self._swap(version)
        except BaseException:
            shutil.rmtree(version, ignore_errors=True)
            raise

    def remove(self):
        """Take it away in one step."""
        if stat.S_ISDIR(self.path.lstat().st_mode):
            self.path.rename(self._root / f"{self._prefix}{secrets.token_hex(4)}")
        else:
            self.path.unlink()
        _flush(self._root)

    def leftovers(self):
        """Versions that are not in use, and links that were not swapped in: list of paths."""
        used = self._version_in_use()
        return [
            entry
            for entry in self._root.iterdir()
            if entry.name.startswith(self._prefix) and entry.name != used
        ]

    def clean(self):
        """Remove versions that are not in use."""
        for entry in self.leftovers():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _version_in_use(self):
        """Name of the version that the link leads to; None without a link of that kind."""
        if not self.path.is_symlink():
            return None
        name = str(self.path.readlink())
        return name if name.startswith(self._prefix) and "/" not in name else None

    def _swap(self, version):
        link = version.with_name(f"{version.name}.link")
        link.symlink_to(version.name)
        if self.path.is_dir() and not self.path.is_symlink():
            _exchange(link, self.path)
        else:
            link.replace(self.path)
        _flush(self._root)


def _exchange(one, other):
    """Give each of two paths the other's name, in one step: renameat2(2), Linux 3.15."""
    names = os.fsencode(one), os.fsencode(other)
    if _LIBC.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} (cannot replace a real folder)", str(other))


def _flush(folder):
    """Bring a folder's file system to the disk: syncfs(2), one for all files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path, watch):
    """Hold an exclusive lock, flock(2); the kernel drops it when this process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        doing, watch.doing = watch.doing, "waiting for another process that fills this folder"
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        watch.doing = doing
        yield
    finally:
        os.close(descriptor)
