# SPDX-License-Identifier: MIT
"""The deployed system's two file systems, mounted on the deploy OS at fixed places."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

from ansible.module_utils.piseduce_device import flush_path
from ansible.module_utils.piseduce_ext4 import check
from ansible.module_utils.piseduce_mounts import is_of, mounted_at, unmount
from ansible.module_utils.piseduce_process import Failure, run

Place = namedtuple("Place", "name index kind")
"""name: folder below the mount directory; index: partition; kind: type for mount(8)."""

BOOT = Place("boot", 1, "vfat")
ROOT = Place("root", 2, "ext4")

# Nothing of an image is run on the deploy OS.
_OPTIONS = "rw,nosuid,nodev,noexec,noatime"
# One of them must be there: proof that this is a system, and not an empty or another file system.
SYSTEM_FILES = ("etc/os-release", "usr/lib/os-release")
_BOOT_FILES = ("cmdline.txt",)


def point_of(card, place):
    """Where a place is mounted: a path without symlinks."""
    return f"{card.mount_directory}/{place.name}"


def is_mounted(card, place):
    """Tell whether the card's partition is mounted where it belongs.

    :raises Failure: something else is mounted there
    """
    point = point_of(card, place)
    mount = mounted_at(point)
    if not mount:
        return False
    if not is_of(mount, {card.partitions().get(place.index)}):
        raise Failure(f"{mount.source} is mounted on {point}, not partition {place.index}")
    return True


def mount(card, place, root_has=SYSTEM_FILES):
    """Mount a partition of the card and prove it; a file system of Linux is checked before.

    :param root_has: as for :func:`prove`
    :returns: True if it was not mounted yet
    :raises Failure: it cannot be mounted, or is not what it should be
    """
    point = point_of(card, place)
    device = card.partition(place.index)
    fresh = not is_mounted(card, place)
    if fresh:
        if place.kind == "ext4":
            check(device, force=False)
        Path(point).mkdir(parents=True, exist_ok=True)
        run(
            ["mount", "-t", place.kind, "-o", _OPTIONS, device, point],
            what=f"mounting {device} on {point}",
        )
        if not is_mounted(card, place):
            raise Failure(f"mount reported success, and nothing is mounted on {point}")
    prove(card, place, root_has)
    return fresh


def prove(card, place, root_has=SYSTEM_FILES):
    """Demand that a place is mounted for writing and holds what it should.

    :param root_has: paths of which one has to be on the second partition
    :raises Failure: with what is missing, and the state that has to run again
    """
    point = point_of(card, place)
    if not is_mounted(card, place):
        raise Failure(f"nothing is mounted on {point}: mount_partition must run again")
    if "ro" in mounted_at(point).options:
        raise Failure(f"{point} is mounted read-only: its file system may be damaged")
    # lstat: os-release is a link, which leads out of the card as seen from here.
    proof = root_has if place is ROOT else _BOOT_FILES
    if not any(os.path.lexists(f"{point}/{name}") for name in proof):
        raise Failure(
            f"partition {place.index} of {card.path} does not hold a system: "
            f"it has no {' or '.join(proof)}"
        )


def release(card, *places):
    """Unmount places and see that everything is on the card.

    :returns: the mount points that were unmounted
    :raises Failure: one is in use
    """
    done = []
    for place in places:
        if is_mounted(card, place):
            unmount(point_of(card, place))
            done.append(point_of(card, place))
    for place in places:
        if place.index in card.partitions():
            flush_path(card.partition(place.index))
    flush_path(card.path)
    return done
