"""A board's SD card: a sparse file on a loop device, and what a pulled plug does to it."""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piseduce_runner.lab.loop_device import is_read_only, set_read_only
from piseduce_runner.lab.network import run

FS_IOC_SHUTDOWN = 0x8004587D  # linux/fs.h: stop all I/O of a file system
SHUTDOWN_NO_LOG_FLUSH = 2
NOT_TO_BE_WRITTEN = (
    errno.ENXIO,
    errno.ENOENT,
    errno.EBUSY,
    errno.EPERM,
    errno.EACCES,
    errno.EROFS,
)
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class Card:
    """A card in its slot. `device` is the loop device, such as /dev/loop3.

    What is wrong with it on purpose: `gone` (nothing of the file is shown), `limit` (bytes of the
    file that are shown, 0: all), `refusals` (why the file takes no writes).
    """

    def __init__(self, file: Path, device: str) -> None:
        self.file = file
        self.device = device
        self.name = Path(device).name
        self.gone = False
        self.limit = 0
        self.refusals: set[str] = set()

    @classmethod
    def insert(cls, file: Path, size: int, direct_io: bool) -> "Card":
        """Puts the file (made if missing) on a free loop device. RuntimeError: none to be had.

        `direct_io`: without the page cache of the file, so that its speed can be limited.
        """
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                stream.truncate(size)
        options = ["--direct-io=on"] if direct_io else []
        device = run("losetup", "--find", "--show", *options, str(file)).strip()
        card = cls(file, device)
        card.forget_partitions()  # the last user of the loop device may have left some
        return card

    def partitions(self) -> list[str]:
        """Device files of the partitions that the kernel knows now."""
        pattern = f"{self.name}p*"
        return [f"/dev/{path.name}" for path in Path(f"/sys/block/{self.name}").glob(pattern)]

    def forget_partitions(self) -> None:
        """The kernel knows none any more. RuntimeError: one is in use.

        (`partx --delete` asks the card which there are, and the card may have changed.)
        """
        for partition in self.partitions():
            run("delpart", self.device, partition.removeprefix(f"{self.device}p"))

    def numbers(self) -> set[str]:
        """Device numbers (major:minor) of the card and its partitions, as in mountinfo."""
        root = Path(f"/sys/block/{self.name}")
        found = set()
        for file in (root / "dev", *root.glob(f"{self.name}p*/dev")):
            with contextlib.suppress(FileNotFoundError):  # a partition that has just gone
                found.add(file.read_text("ascii").strip())
        return found

    @contextmanager
    def about_to_lose_power(self) -> Iterator[None]:
        """Leaves the block losing what was written to the device but not yet flushed.

        Within the block, everything that has the card open is to be killed. The device files are
        held open meanwhile: otherwise the last one to close them would flush. What is dirty is then
        dropped by punching a hole into a device that was made read-only: the kernel empties the
        page cache first (blkdev_fallocate), then refuses the hole.
        """
        held = [_open(device) for device in (self.device, *self.partitions())]
        held = [descriptor for descriptor in held if descriptor is not None]
        try:
            yield
            if held:
                before = is_read_only(held[0])
                set_read_only(held[0], True)
                try:
                    for descriptor in held:
                        _forget_cache(descriptor)
                finally:
                    set_read_only(held[0], before)
        finally:
            for descriptor in held:
                os.close(descriptor)

    async def wait_unused(self, timeout: float = 10.0) -> None:
        """Returns when no mount holds the card any more. TimeoutError: after `timeout` seconds.

        Unmounting ends some time after the last process of a namespace is gone.
        """
        limit = time.monotonic() + timeout
        while not all(_is_free(device) for device in (self.device, *self.partitions())):
            if time.monotonic() > limit:
                raise TimeoutError(
                    f"{self.file}: still mounted {timeout:g} s after its system ended"
                )
            await asyncio.sleep(0.01)


def stop_file_system(mount_point: str) -> None:
    """No byte of this file system reaches its device any more. OSError: it cannot be stopped."""
    descriptor = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


def _open(device: str) -> int | None:
    """A descriptor to write through, or None for one that has gone or whose mount forbids it.

    (A kernel may refuse writing to mounted devices; a mounted file system is stopped in its own
    way.)
    """
    try:
        return os.open(device, os.O_RDWR)
    except OSError as error:
        if error.errno in NOT_TO_BE_WRITTEN:
            return None
        raise


def _forget_cache(descriptor: int) -> None:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size == 0:
        return
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    result = _libc.fallocate(descriptor, mode, 0, size)
    if result == 0:
        raise RuntimeError("a hole was punched into a read-only device: this kernel loses data")
    if ctypes.get_errno() not in (errno.EPERM, errno.EACCES, errno.EROFS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _is_free(device: str) -> bool:
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in (errno.ENXIO, errno.ENOENT):  # the partition has gone meanwhile
            raise
    return True
