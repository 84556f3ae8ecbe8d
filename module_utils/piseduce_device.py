# SPDX-License-Identifier: MIT
"""Block devices: their number, and what ioctl(2) knows and does (linux/fs.h)."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

from ansible.module_utils.piseduce_process import Failure, Hopeless

_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
# The number holds the size of size_t, which differs on 32-bit systems.
_BLKGETSIZE64 = 2 << 30 | struct.calcsize("N") << 16 | 0x12 << 8 | 114

_DISCARD_STEP = 256 << 20
"""Bytes. While the kernel waits for the card, nothing is told and no deadline is noticed."""
_BUSY = "it is in use (mounted, used as swap, or opened by another program)"
_HOPELESS = {
    errno.ENOMEDIUM: "there is no card in the slot",
    errno.ENXIO: "there is no card in the slot",
    errno.EROFS: "it is read-only (write-protect switch?)",
    errno.EACCES: "it is read-only (write-protect switch?)",
}


def number_of(path):
    """``(major, minor)`` of the block device that a path leads to.

    :raises Failure: there is nothing, or something else
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise Hopeless(f"{path} does not exist on this node (is there a card?)") from error
    if not stat.S_ISBLK(status.st_mode):
        raise Hopeless(f"{path} is not a block device")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def open_device(path, flags):
    """Open a block device.

    :param flags: as for :func:`os.open`
    :returns: file descriptor
    :raises Failure: it is in use, read-only, empty, gone
    """
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if why := _HOPELESS.get(error.errno):
            raise Hopeless(f"cannot open {path}: {why}") from error
        why = _BUSY if error.errno == errno.EBUSY else error.strerror
        raise Failure(f"cannot open {path}: {why}") from error


def is_read_only(descriptor):
    """Tell whether the kernel refuses to write to an open block device."""
    return bool(_integer(descriptor, _BLKROGET))


def size_of(descriptor):
    """Size of an open block device in bytes, as the kernel says (BLKGETSIZE64)."""
    answer = array.array("Q", [0])
    fcntl.ioctl(descriptor, _BLKGETSIZE64, answer, True)
    return answer[0]


def size_of_path(path):
    """Size of the block device at a path in bytes."""
    descriptor = open_device(path, os.O_RDONLY)
    try:
        return size_of(descriptor)
    finally:
        os.close(descriptor)


def logical_block(descriptor):
    """Logical block size of an open block device in bytes: the unit of direct transfers."""
    return _integer(descriptor, _BLKSSZGET)


def flush(descriptor):
    """Write back, and then drop, what the kernel has cached of a block device (BLKFLSBUF)."""
    os.fsync(descriptor)
    fcntl.ioctl(descriptor, _BLKFLSBUF, 0)


def flush_path(path):
    """As :func:`flush`, for the device at a path. A partition's cache is not the whole disk's."""
    descriptor = open_device(path, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def discard(descriptor, length, progress=None):
    """Tell the card that nothing on it is needed: old data goes, and writing gets faster.

    :param progress: its ``done`` is raised by each byte discarded
    :returns: None if it worked, else why not: not every card or reader can
    """
    for start in range(0, length, _DISCARD_STEP):
        step = min(_DISCARD_STEP, length - start)
        try:
            fcntl.ioctl(descriptor, _BLKDISCARD, struct.pack("QQ", start, step))
        except OSError as error:
            return error.strerror
        if progress:
            progress.done += step
    return None


def zero(descriptor, start, length):
    """Write zeros without sending them from here, where the card can do that (BLKZEROOUT).

    :param start: byte; with `length` a multiple of the logical block size
    """
    fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("QQ", start, length))


def _integer(descriptor, request):
    answer = array.array("i", [0])
    fcntl.ioctl(descriptor, request, answer, True)
    return answer[0]
