# SPDX-License-Identifier: MIT
"""The card of a node: is this path really the card, and is it ours alone?

Device files are taken as they are given and followed to the device's number; sysfs is read through
``/sys/dev/block/MAJOR:MINOR``, because names in ``/dev`` and in sysfs need not agree.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ansible.module_utils.piseduce_device import is_read_only, number_of, open_device
from ansible.module_utils.piseduce_lock import PATIENCE, locked
from ansible.module_utils.piseduce_mounts import release
from ansible.module_utils.piseduce_process import Failure, Hopeless, run

_SYSFS = Path("/sys/dev/block")

ARGUMENTS = {
    "device": {"type": "path", "required": True},
    "mount_directory": {"type": "path", "default": "/mnt/piseduce"},
    "other_media": {"type": "bool", "default": False},
    "timeout": {"type": "int", "required": True},
}
"""Options that every module has that works on the card."""


def card_of(options, doing, wait=None):
    """The card that a module's options name.

    :param options: values of :data:`ARGUMENTS`
    :param doing: what it is locked for
    :param wait: seconds to wait while another process holds the lock; see :func:`patience`
    """
    wait = patience(options["timeout"]) if wait is None else max(wait, PATIENCE)
    return Card(options["device"], doing, options["mount_directory"], options["other_media"], wait)


def patience(timeout):
    """Seconds to wait for the lock, of the seconds that a module has.

    What holds it is mostly an earlier attempt whose manager has died. It ends within a second or
    two, or when the card has taken what was already on its way to it, and some cards take long.
    """
    return max(PATIENCE, min(60.0, timeout / 2))


class Card:
    """The whole card, checked and locked. Use as ``with Card(...) as card``.

    :param path: device file of the whole card, such as ``/dev/mmcblk0``
    :param doing: what it is locked for; shown to whoever finds it locked
    :param mount_directory: what is mounted of the card below it is ours, and may be unmounted
    :param other_media: also accept what is not on an SD/MMC host, such as a USB disk
    :param wait: seconds to wait while another process holds the lock
    :raises Failure: it is not the card, or someone else works on it
    """

    def __init__(self, path, doing, mount_directory, other_media=False, wait=PATIENCE):
        self.path = path
        self.doing = doing
        self.mount_directory = str(Path(mount_directory).resolve())
        self.number = _found(path)
        self._wait = wait
        self.lock = None  # file descriptor, while it is held
        self._sysfs = _SYSFS / f"{self.number[0]}:{self.number[1]}"
        self._held = contextlib.ExitStack()
        refuse_other_devices(path, self._sysfs, other_media)
        root = Path("/").stat().st_dev
        if (os.major(root), os.minor(root)) in self.numbers():
            raise Hopeless(f"{path} holds the running system's root, it is not to be touched")

    def __enter__(self):
        self.lock = self._held.enter_context(locked(self.path, self.doing, self._wait))
        return self

    def __exit__(self, *_exception):
        self._held.close()

    def partitions(self):
        """The kernel's view: ``{partition number: (major, minor)}``."""
        found = {}
        for entry in self._sysfs.glob("*/partition"):
            major, minor = (entry.parent / "dev").read_text().strip().split(":")
            found[int(entry.read_text())] = (int(major), int(minor))
        return found

    def kernel_extent(self, index):
        """``(start, size)`` of a partition as the kernel sees it, in sectors, or None."""
        for entry in self._sysfs.glob("*/partition"):
            if int(entry.read_text()) == index:
                place = entry.parent
                return int((place / "start").read_text()), int((place / "size").read_text())
        return None

    def numbers(self):
        """Device numbers of the card and of the partitions that the kernel knows, as a set."""
        return {self.number, *self.partitions().values()}

    def partition(self, index):
        """Device file of a partition, proven to be that partition of this card.

        :raises Failure: the kernel or ``/dev`` has no such partition
        """
        expected = self.partitions().get(index)
        if expected is None:
            raise Failure(f"the card {self.path} has no partition {index}")
        path = Path(f"{self.path}p{index}" if self.path[-1].isdigit() else f"{self.path}{index}")
        end = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > end:
                raise Failure(f"the kernel knows partition {index}, but {path} does not exist")
            time.sleep(0.05)
        if number_of(path) != expected:
            raise Failure(f"{path} is not partition {index} of {self.path}, but another device")
        return str(path)

    def release_mounts(self):
        """Unmount what earlier attempts left mounted; returns the mount points."""
        return release(self.numbers(), self.mount_directory)

    @contextlib.contextmanager
    def opened(self, write=False):
        """Open the whole card for this process alone: nothing of it can be mounted meanwhile.

        :returns: file descriptor, opened with O_EXCL (open(2): EBUSY if a block device is in use)
        :raises Failure: in use, read-only, no medium
        """
        access = os.O_RDWR if write else os.O_RDONLY
        descriptor = open_device(self.path, access | os.O_EXCL)
        try:
            if write and is_read_only(descriptor):
                raise Hopeless(f"cannot write to {self.path}: it is read-only (write protection?)")
            yield descriptor
        finally:
            os.close(descriptor)

    def drop_partition(self, index):
        """Make the kernel forget a partition and its cache of it; the card is not touched.

        Not by ``partx --delete``, which takes its numbers from the table on the card: that may be
        gone while the kernel still has the partitions (an earlier copy that was cut short).
        """
        _patiently(
            ["delpart", self.path, str(index)],
            what=f"removing partition {index} of {self.path} from the kernel",
        )
        if index in self.partitions():
            raise Failure(f"the kernel still has partition {index} of {self.path}")

    def update_partitions(self):
        """Make the kernel read the partition table."""
        _patiently(["partx", "--update", self.path], what=f"{self.path}: reading its partitions")


def _found(path):
    """Device number of the card. The kernel may find it some seconds after the system is up."""
    end = time.monotonic() + PATIENCE
    while not Path(path).exists() and time.monotonic() < end:
        time.sleep(0.2)
    return number_of(path)


def _patiently(command, what):
    """Run a command that fails as long as somebody looks at the card, such as udev, or the end of
    a file system that a process served."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            run(command, what=what)
            return
        except Failure:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def refuse_other_devices(path, sysfs, other_media):
    """Refuse partitions, and disks that are not on an SD/MMC host.

    :param sysfs: the device's directory in sysfs, a :class:`Path`
    :raises Failure: it is not a whole disk, or hardware of another kind (a USB disk, an SSD)
    """
    if not sysfs.exists():
        raise Hopeless(f"the kernel does not list {path} as a block device ({sysfs} is missing)")
    if (sysfs / "partition").exists():
        raise Hopeless(f"{path} is a partition, the whole card is needed")
    place = str(sysfs.resolve())
    # What has no hardware of its own (no `device` link) is on no bus that could be the wrong one.
    if other_media or "/mmc_host/" in place or not (sysfs / "device").exists():
        return
    bus = "usb" if "/usb" in place else (sysfs / "device" / "subsystem").resolve().name
    raise Hopeless(f"{path} is not an SD card but a disk on the {bus} bus")
