"""Serves a FAT file system through FUSE: mount.py DEVICE DIRECTORY [-o OPTIONS] (see mount.vfat).

Reads the device itself and writes with mtools: a file goes to the device, whole, when it is closed
or flushed. What FAT cannot do (owners, modes, links) fails as it does with the kernel's vfat.
"""

import errno
import getopt
import os
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fat import Entry, Volume
from fusepy import FUSE, FuseOSError, Operations

MODE = 0o755  # vfat's, with the usual umask


@dataclass
class OpenFile:
    """A file that is open. Its content is held here from the first write on."""

    path: str
    handles: int = 0
    content: bytearray | None = None
    dirty: bool = False
    removed: bool = False
    mtime: float | None = None  # of the content held here; None: now


class Fat(Operations):
    """The file system's operations, as libfuse 2 names them; paths are absolute.

    The path of a file that was removed while open is None: its handle must do.
    """

    use_ns = True
    flag_nullpath_ok = True

    def __init__(self, device: str) -> None:
        self._device = device
        self._volume = Volume(Path(device))
        self._open: dict[str, OpenFile] = {}  # by case-folded path
        self._handles: dict[int, OpenFile] = {}
        self._last_handle = 0

    # Looking

    def getattr(self, path, fh=None):
        file = self._handles[fh] if fh else self._open.get(path.casefold())
        if file and file.content is not None:
            size, mtime, is_folder = len(file.content), file.mtime, False
            if mtime is None:
                mtime = time.time()
        else:
            entry = self._entry(path)
            size, mtime, is_folder = entry.size, entry.mtime, entry.is_folder
        return {
            "st_mode": (stat.S_IFDIR if is_folder else stat.S_IFREG) | MODE,
            "st_nlink": 1,
            "st_size": size,
            "st_blocks": -(-size // self._volume.cluster_bytes) * self._volume.cluster_bytes // 512,
            **dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), int(mtime * 10**9)),
        }

    def readdir(self, path, fh):
        names = [entry.name for entry in self._volume.entries(self._entry(path)).values()]
        return [".", "..", *names]

    def statfs(self, path):
        free = self._volume.free_clusters()
        return {
            "f_bsize": self._volume.cluster_bytes,
            "f_frsize": self._volume.cluster_bytes,
            "f_blocks": self._volume.clusters,
            "f_bfree": free,
            "f_bavail": free,
            "f_namemax": 255,
        }

    # Files

    def open(self, path, flags):
        self._entry(path)
        file = self._open.setdefault(path.casefold(), OpenFile(path))
        file.handles += 1
        self._last_handle += 1
        self._handles[self._last_handle] = file
        return self._last_handle

    def create(self, path, mode, fi=None):
        self._store(path, b"", None)
        return self.open(path, os.O_RDWR)

    def read(self, path, size, offset, fh):
        file = self._handles[fh]
        if file.content is not None:
            return bytes(file.content[offset : offset + size])
        return self._volume.read(self._entry(file.path), offset, size)

    def write(self, path, data, offset, fh):
        content = self._content(self._handles[fh])
        content.extend(b"\0" * (offset - len(content)))
        content[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path, length, fh=None):
        handle = fh or self.open(path, os.O_RDWR)
        content = self._content(self._handles[handle])
        del content[length:]
        content.extend(b"\0" * (length - len(content)))
        if not fh:
            self.release(path, handle)

    def flush(self, path, fh):
        file = self._handles[fh]
        if file.dirty and file.mtime is None:
            file.mtime = time.time()
        if file.dirty and not file.removed:
            self._store(file.path, bytes(file.content), file.mtime)
        file.dirty = False

    def fsync(self, path, datasync, fh):
        self.flush(path, fh)
        os.fsync(self._volume.file)

    def release(self, path, fh):
        try:
            self.flush(path, fh)
        finally:
            file = self._handles.pop(fh)
            file.handles -= 1
            if not file.handles and not file.removed:
                self._open.pop(file.path.casefold(), None)

    def utimens(self, path, times=None):
        entry = self._entry(path)
        if entry.is_folder:
            return  # mtools cannot
        handle = self.open(path, os.O_RDWR)
        file = self._handles[handle]
        self._content(file)
        file.mtime = times[1] / 10**9 if times else None
        self.release(path, handle)

    # Names

    def unlink(self, path):
        self._entry(path)
        self._forget_open(path)
        self._mtools("mdel", f"::{path}")

    def mkdir(self, path, mode):
        self._mtools("mmd", f"::{path}")

    def rmdir(self, path):
        if self._volume.entries(self._entry(path)):
            raise FuseOSError(errno.ENOTEMPTY)
        self._mtools("mrd", f"::{path}")

    def rename(self, old, new):
        source, target = self._entry(old), self._volume.find(new)
        if source.is_folder:
            raise FuseOSError(errno.EXDEV)  # mv then copies
        if target and target.is_folder:
            raise FuseOSError(errno.EISDIR)
        # mren forgets that a short name is in lower case, so the file is written anew.
        file = self._open.pop(old.casefold(), None)
        if file and file.content is not None:
            content, mtime = bytes(file.content), file.mtime
            file.dirty = False
        else:
            content, mtime = self._volume.read(source, 0, source.size), source.mtime
        if old.casefold() == new.casefold():
            self._mtools("mdel", f"::{old}")
            self._store(new, content, mtime)
        else:  # at no moment is the content on neither of the two names
            self._forget_open(new)
            self._store(new, content, mtime)
            self._mtools("mdel", f"::{old}")
        if file:
            file.path = new
            self._open[new.casefold()] = file

    # What FAT does not have

    def chmod(self, path, mode):
        if stat.S_IMODE(mode) != MODE:
            raise FuseOSError(errno.EPERM)

    def chown(self, path, uid, gid):
        if uid not in (0, 2**32 - 1, -1) or gid not in (0, 2**32 - 1, -1):
            raise FuseOSError(errno.EPERM)

    def link(self, target, source):
        raise FuseOSError(errno.EPERM)

    def symlink(self, target, source):
        raise FuseOSError(errno.EPERM)

    # The end

    def destroy(self, path):
        for handle, file in self._handles.items():
            self.flush(file.path, handle)
        os.fsync(self._volume.file)

    def _entry(self, path: str) -> Entry:
        entry = self._volume.find(path)
        if entry is None:
            raise FuseOSError(errno.ENOENT)
        return entry

    def _forget_open(self, path: str) -> None:
        """Who has the file at `path` open keeps its content, and must not write it back."""
        if file := self._open.pop(path.casefold(), None):
            self._content(file)
            file.removed = True

    def _content(self, file: OpenFile) -> bytearray:
        """The content of a file that is about to change."""
        if file.content is None:
            entry = self._entry(file.path)
            file.content = bytearray(self._volume.read(entry, 0, entry.size))
        file.dirty, file.mtime = True, None
        return file.content

    def _store(self, path: str, content: bytes, mtime: float | None) -> None:
        with tempfile.NamedTemporaryFile(dir="/run") as copy:
            copy.write(content)
            copy.flush()
            if mtime is not None:
                os.utime(copy.name, (mtime, mtime))
            self._mtools("mcopy", "-o", "-m", copy.name, f"::{path}")

    def _mtools(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [command, "-i", self._device, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
        )
        self._volume.forget()
        if done.returncode != 0:
            raise FuseOSError(errno.ENOSPC if "full" in done.stderr else errno.EIO)


def main(arguments: list[str]) -> None:
    options, (device, directory) = getopt.gnu_getopt(arguments, "sfnvN:t:o:")
    given = ",".join(value for key, value in options if key == "-o").split(",")
    FUSE(
        Fat(device),
        directory,
        fsname=device,
        subtype="vfat",
        nothreads=True,  # mtools and we take turns
        ro="ro" in given,
        allow_other=True,
        default_permissions=True,
        big_writes=True,
        hard_remove=True,
        nonempty=True,
    )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"mount.vfat: {error}")
