# SPDX-License-Identifier: MIT
"""Files below a folder that someone else has filled, such as the root of a card's system.

Links in it may point anywhere: to ``/etc``, to ``../../..``. The kernel resolves every path as if
the folder were the root (openat2(2), RESOLVE_IN_ROOT; Linux 5.6), so nothing outside of it is read
or written, whatever the links say.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import PurePosixPath

from ansible.module_utils.piseduce_process import Failure

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_LARGEST = 1 << 20  # bytes; configuration files are smaller
_LIBC = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


class Tree:
    """A folder whose contents are not trusted. Use as ``with Tree(folder) as tree``.

    Paths are relative to the folder. Reading follows links inside of it; changing replaces or
    removes the last part of a path itself, never what it points to.

    :param folder: path of the folder
    :param in_place: write into existing files, for a file system without owners, modes and atomic
        replacement (FAT), where that is the fewest and the simplest writes
    """

    def __init__(self, folder, in_place=False):
        self.folder = folder
        self._in_place = in_place

    def __enter__(self):
        self._root = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_exception):
        os.close(self._root)

    def sync(self):
        """Write everything of this file system to the card (syncfs(2))."""
        if _LIBC.syncfs(self._root) != 0:
            raise OSError(ctypes.get_errno(), "cannot sync", self.folder)

    def fits(self, status, mode):
        """Tell whether something has this mode and is root's; FAT knows neither."""
        if self._in_place:
            return True
        return stat.S_IMODE(status.st_mode) == mode and (status.st_uid, status.st_gid) == (0, 0)

    def status(self, path):
        """``os.stat_result`` of what is at a path, links not followed; None if nothing is."""
        with self._parent(path) as (parent, name):
            if parent is None:
                return None
            try:
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def read(self, path, longest=_LARGEST):
        """Contents of the file that a path leads to; None if it leads to no file in this tree.

        :raises Failure: it has more bytes than `longest`, by default more than any configuration
        """
        try:
            # O_NONBLOCK: nobody writes into a pipe that lies in an image.
            descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = file.read(longest + 1)
        if len(data) > longest:
            raise Failure(f"{path} on the card is larger than {longest} bytes")
        return data

    def names(self, path):
        """Sorted names in a folder; none if there is no such folder."""
        try:
            descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in entries)
        finally:
            os.close(descriptor)

    def link(self, path):
        """Where a symbolic link points, as it is written; None if there is no link."""
        with self._parent(path) as (parent, name):
            if parent is None:
                return None
            try:
                return os.readlink(name, dir_fd=parent)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):
                    return None
                raise

    def write(self, path, data, mode):
        """Make a file of root's with these contents, whole or not at all."""
        self._refuse_folder(path)
        with self._made_parent(path) as (parent, name):
            if self._in_place:
                # Not O_TRUNC: the old text is there until the new one is.
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(name, flags, mode, dir_fd=parent), "wb") as file:
                    # One write that covers the old text: cut off before the rest of it is dropped,
                    # it leaves the new text and empty lines.
                    file.write(data.ljust(os.fstat(file.fileno()).st_size, b"\n"))
                    file.flush()
                    file.truncate(len(data))
                    file.flush()
                    os.fsync(file.fileno())
                return
            partial = f".{name}.piseduce"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(partial, flags, 0o600, dir_fd=parent), "wb") as file:
                os.fchown(file.fileno(), 0, 0)
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)

    def make_folder(self, path, mode):
        """Make a folder of root's; a link or a file in its place is removed."""
        found = self.status(path)
        if found and not stat.S_ISDIR(found.st_mode):
            self.remove(path)
        with self._made_parent(path) as (parent, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=parent)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=parent)
            try:
                os.fchown(descriptor, 0, 0)
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_link(self, path, target):
        """Make a symbolic link; another link or a file in its place is removed."""
        self.remove(path)
        with self._made_parent(path) as (parent, name):
            os.symlink(target, name, dir_fd=parent)
            os.fsync(parent)

    def remove(self, path):
        """Remove a file or a link, not what it points to; nothing there is fine."""
        self._refuse_folder(path)
        with self._parent(path) as (parent, name):
            if parent is None:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)

    def _refuse_folder(self, path):
        found = self.status(path)
        if found and stat.S_ISDIR(found.st_mode):
            raise Failure(f"{path} on the card is a folder, where a file belongs")

    @contextlib.contextmanager
    def _parent(self, path):
        """The folder that a path's last part is in, as descriptor or None; and that part."""
        place = PurePosixPath(path)
        try:
            parent = self._open(str(place.parent), os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            yield None, place.name
            return
        try:
            yield parent, place.name
        finally:
            os.close(parent)

    @contextlib.contextmanager
    def _made_parent(self, path):
        """As :meth:`_parent`, missing folders made."""
        for place in list(PurePosixPath(path).parents)[-2::-1]:
            with self._existing_parent(str(place)) as (parent, name):
                try:
                    os.mkdir(name, 0o755, dir_fd=parent)
                except FileExistsError:
                    continue
        with self._existing_parent(path) as found:
            yield found

    @contextlib.contextmanager
    def _existing_parent(self, path):
        with self._parent(path) as (parent, name):
            if parent is None:
                raise Failure(f"{path} on the card cannot be made: its folder is a dead link")
            yield parent, name

    def _open(self, path, flags):
        how = _OpenHow(
            flags | os.O_CLOEXEC,
            0,
            _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV,
        )
        descriptor = _LIBC.syscall(
            _SYS_OPENAT2, self._root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)
        )
        if descriptor >= 0:
            return descriptor
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise Failure("the deploy OS needs Linux 5.6 or newer (openat2)")
        if code == errno.ELOOP:
            raise Failure(f"{path} on the card is a loop of links, or a link into /proc")
        raise OSError(code, os.strerror(code), f"{self.folder}/{path}")
