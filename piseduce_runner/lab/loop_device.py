"""What can be done to a loop device, and to the file behind it, while it is in use (loop(4))."""

import errno
import fcntl
import os
import struct
import time
from pathlib import Path

BLKROSET, BLKROGET = 0x125D, 0x125E  # linux/fs.h
LOOP_SET_STATUS64, LOOP_GET_STATUS64, LOOP_SET_DIRECT_IO = 0x4C04, 0x4C05, 0x4C08  # linux/loop.h
STATUS_BYTES = 232  # struct loop_info64; lo_offset and lo_sizelimit are 64-bit numbers from byte 24
OFFSET_AND_LIMIT = struct.Struct("=QQ")
OFFSET_PLACE = 24
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
FS_IMMUTABLE_FL = 0x10
DRAINED_WITHIN = 10.0  # seconds that a busy device may take to be changed


def set_window(device: str, offset: int, limit: int) -> None:
    """Shows the file from byte `offset` on, at most `limit` bytes of it (0: all). OSError: refused.

    The kernel says "again" as long as somebody writes to the page cache of the device.
    """
    until = time.monotonic() + DRAINED_WITHIN
    descriptor = os.open(device, os.O_RDONLY)
    try:
        while True:
            status = bytearray(STATUS_BYTES)
            fcntl.ioctl(descriptor, LOOP_GET_STATUS64, status)
            OFFSET_AND_LIMIT.pack_into(status, OFFSET_PLACE, offset, limit)
            try:
                fcntl.ioctl(descriptor, LOOP_SET_STATUS64, status)
                return
            except OSError as error:
                if error.errno != errno.EAGAIN or time.monotonic() > until:
                    raise
            time.sleep(0.01)
    finally:
        os.close(descriptor)


def set_direct_io(device: str, on: bool) -> None:
    """Whether the file's page cache is passed by. OSError: its file system cannot do that."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, LOOP_SET_DIRECT_IO, int(on))
    finally:
        os.close(descriptor)


def is_read_only(descriptor: int) -> bool:
    """Whether an open block device refuses to be opened for writing."""
    return bool(struct.unpack("i", fcntl.ioctl(descriptor, BLKROGET, struct.pack("i", 0)))[0])


def set_read_only(descriptor: int, on: bool) -> None:
    """Lets an open block device refuse writers, or not. Mounted file systems do not notice."""
    fcntl.ioctl(descriptor, BLKROSET, struct.pack("i", int(on)))


def set_immutable(file: Path, on: bool) -> None:
    """Lets a file refuse all writes, also a loop device's, which become I/O errors; or not.

    OSError: its file system has no such attribute, or does not look at it once a file is open, as
    ext4 does. See chattr(1).
    """
    try:
        descriptor = os.open(file, os.O_RDWR)
    except PermissionError:  # it is immutable: nobody gets a descriptor to write through
        descriptor = os.open(file, os.O_RDONLY)
        on_already = True
    else:
        on_already = False
    try:
        if on == on_already:
            return
        _set_flag(descriptor, on)
        if on and not _refuses(descriptor):
            _set_flag(descriptor, False)
            raise OSError(errno.ENOTSUP, "this file system goes on writing to it", str(file))
    finally:
        os.close(descriptor)


def _set_flag(descriptor: int, on: bool) -> None:
    flags = struct.unpack("l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("l", 0)))[0]
    wanted = flags | FS_IMMUTABLE_FL if on else flags & ~FS_IMMUTABLE_FL
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", wanted))


def _refuses(descriptor: int) -> bool:
    """Whether even a write of no bytes is refused."""
    try:
        os.pwrite(descriptor, b"", 0)
    except PermissionError:
        return True
    return False
