# SPDX-License-Identifier: MIT
"""resize2fs in the background: its start, its bounded life, and what it left to read.

The process that watches it holds the card's lock, and so does resize2fs itself; the lock is free
when both are gone. That, and not a process list, tells the end. How it ended is in a small file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import namedtuple
from pathlib import Path

from ansible.module_utils.piseduce_lock import sign
from ansible.module_utils.piseduce_process import ending, kill, one_line, spawn

Outcome = namedtuple("Outcome", "state partition_bytes seconds message")
"""state: ``running``, ``done`` or ``failed``; partition_bytes: what was being filled; seconds: how
long it took; message: what went wrong, empty if nothing did."""


def write_outcome(path, outcome):
    """Replace the file at once: whoever reads it sees the old or the new contents."""
    path = Path(path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".new")
    partial.write_text(json.dumps(outcome._asdict()) + "\n")
    partial.replace(path)


def read_outcome(path):
    """What the last resizing on this system came to, or None if there was none."""
    try:
        return Outcome(**json.loads(Path(path).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        # No file, or one that no version of ours has written: nothing is known.
        return None


def start(device, partition_bytes, seconds, lock, path):
    """Start resize2fs on an unmounted, checked file system, detached from this process.

    :param device: the partition
    :param partition_bytes: its size, for the record
    :param seconds: how long it may take before it is killed
    :param lock: descriptor of the card's lock, which the new process goes on holding
    :param path: file for the outcome
    :returns: process id of the watching process
    """
    write_outcome(path, Outcome("running", partition_bytes, 0.0, ""))
    pid = os.fork()
    if pid == 0:
        # os._exit: nothing of the module's own end may happen twice.
        status = 1
        try:
            _detach(lock)
            write_outcome(path, _resize(device, partition_bytes, seconds, lock))
            status = 0
        finally:
            os._exit(status)
    sign(lock, pid, "resize2fs")
    return pid


def _detach(lock):
    """Leave the session, its terminal and its pipes: the SSH session can end now."""
    os.setsid()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.chdir("/")
    os.set_inheritable(lock, True)


def _resize(device, partition_bytes, seconds, lock):
    started = time.monotonic()
    child = spawn(
        ["resize2fs", device],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        encoding="utf-8",
        errors="replace",
    )
    message = ""
    try:
        output = child.communicate(timeout=seconds)[0]
        if child.returncode != 0:
            message = f"resize2fs failed ({ending(child.returncode)}): {one_line(output)}"
    except subprocess.TimeoutExpired:
        kill(child)
        message = f"resize2fs took longer than {seconds} s and was ended"
    took = round(time.monotonic() - started, 3)
    return Outcome("failed" if message else "done", partition_bytes, took, message)


def forget_outcome(path):
    """Remove what an earlier resizing left to read."""
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
