# SPDX-License-Identifier: MIT
"""What is mounted, and where: proc_pid_mountinfo(5) of this process."""

from __future__ import annotations

import re
import time
from collections import namedtuple
from pathlib import Path

from ansible.module_utils.piseduce_device import number_of
from ansible.module_utils.piseduce_process import Failure, run

PATIENCE = 5.0  # seconds

Mount = namedtuple("Mount", "number point kind source options")
"""number: (major, minor) of the file system; point, source: paths; kind: file system type."""


def parse_mountinfo(text):
    """Read mountinfo's text into a list of :class:`Mount`, in the order of mounting."""
    mounts = []
    for line in text.splitlines():
        fields, _dash, rest = line.partition(" - ")
        _id, _parent, number, _root, point, options = fields.split(" ")[:6]
        kind, source = rest.split(" ")[:2]
        major, minor = number.split(":")
        mounts.append(
            Mount((int(major), int(minor)), _plain(point), kind, _plain(source), options.split(","))
        )
    return mounts


def _plain(field):
    """Undo the octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def mounts():
    """Everything that is mounted in this process's mount namespace."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def is_of(mount, numbers):
    """Tell whether a mount is of one of these block devices.

    A file system of the kernel carries the device's number. One that is served by a process (FUSE)
    has a number of its own, and names the device as its source.
    """
    if mount.number in numbers:
        return True
    if not mount.kind.startswith("fuse"):
        return False
    try:
        return number_of(mount.source) in numbers
    except Failure:  # the source is no device: a network file system, a container's overlay
        return False


def is_below(point, directory):
    """Tell whether a mount point is this directory or lies in it."""
    directory = directory.rstrip("/")
    return point == directory or point.startswith(directory + "/")


def mounted_at(point):
    """The uppermost mount at exactly this path, or None."""
    found = [mount for mount in mounts() if mount.point == point]
    return found[-1] if found else None


def unmount(point):
    """Unmount what is at this path, until nothing is; proven by mountinfo.

    What an interrupted attempt had running in there (a list of files, an archive) ends when it sees
    that nobody reads from it any more. It is waited for.

    :raises Failure: it stays in use, or will not go
    """
    end = time.monotonic() + PATIENCE
    while mounted_at(point):
        before = len(mounts())
        try:
            run(["umount", point], what=f"unmounting {point}")
        except Failure:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
            continue
        if len(mounts()) >= before:
            raise Failure(f"umount of {point} reported success, and it is still mounted")


def release(numbers, directory):
    """Unmount what earlier attempts left mounted of these devices below our directory.

    :param numbers: set of ``(major, minor)``
    :returns: the mount points that were unmounted
    :raises Failure: something of these devices is mounted elsewhere: they are not ours to touch
    """
    ours = []
    for mount in mounts():
        if not is_of(mount, numbers):
            continue
        if not is_below(mount.point, directory):
            raise Failure(
                f"the device is in use: {mount.source} is mounted on {mount.point}, "
                f"and only what is below {directory} may be unmounted"
            )
        ours.append(mount.point)
    for point in reversed(ours):
        unmount(point)
    return ours
