# SPDX-License-Identifier: MIT
"""The card's lock: one module at a time works on a card, and the next is told which one does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from ansible.module_utils.piseduce_device import number_of, open_device
from ansible.module_utils.piseduce_process import Failure

_FOLDER = Path("/run/lock")
PATIENCE = 5.0
"""Seconds. A module that lost its manager notices within one (see Watch), udev is done sooner."""


@contextlib.contextmanager
def locked(path, doing, wait=PATIENCE):
    """Hold the card's two locks; yields the descriptor of the first.

    The lock file tells who holds it. The lock on the device itself keeps udev from looking at the
    card meanwhile, as systemd's page "Locking Block Device Access" describes. The kernel drops
    both when the last process that has them open is gone, however it ends; so no lock is stale.

    :param path: device file of the whole card
    :param doing: what for, as the next one is told
    :param wait: seconds to wait for another holder to end
    :raises Failure: it is held, with the holder's process id
    """
    number = number_of(path)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    name = _FOLDER / f"piseduce-card-{number[0]}-{number[1]}.lock"
    end = time.monotonic() + wait
    with contextlib.ExitStack() as stack:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        stack.callback(os.close, lock)
        if not _take(lock, end):
            raise Failure(f"the card {path} is locked by process {_holder(lock)}")
        sign(lock, os.getpid(), doing)
        device = open_device(path, os.O_RDONLY)
        stack.callback(os.close, device)
        if not _take(device, end):
            raise Failure(f"the card {path} is locked by another program (flock on the device)")
        yield lock


def sign(descriptor, pid, doing):
    """Write into the lock file who holds it, and what for."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid} ({doing})\n".encode(), 0)


def _take(descriptor, end):
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        else:
            return True


def _holder(descriptor):
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "of unknown number"
