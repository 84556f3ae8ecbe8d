# SPDX-License-Identifier: MIT
"""Bringing parts of a node's card to files on the manager, through SSH, compressed on the way."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile

from ansible.module_utils.piseduce_process import Failure, kill, one_line, spawn
from ansible.module_utils.piseduce_ssh import (
    LONGEST_COMPLAINT,
    SSH_FAILED,
    explain,
    ssh_command,
)

KEPT_FREE = 64 << 20
"""Bytes of the manager's file system that are never used: others need some."""
_STEP = 1 << 20
_HOLE = 64 << 10
_ZEROS = bytes(_HOLE)
_DIGEST = 64  # hex digits

# Runs on the node. It reads all that it is asked for before it answers; the digest comes last, so
# that whoever stops in the middle is found out.
_READER = """
import hashlib, os, sys
parts = [tuple(map(int, line.split())) for line in sys.stdin]
card, digest = os.open(sys.argv[1], os.O_RDONLY), hashlib.sha256()
for start, end in parts:
    while start < end:
        data = os.pread(card, min(1 << 20, end - start), start)
        if not data:
            sys.exit(f"the card ends at byte {start}")
        digest.update(data)
        sys.stdout.buffer.write(data)
        os.posix_fadvise(card, start, len(data), os.POSIX_FADV_DONTNEED)
        start += len(data)
sys.stdout.write(digest.hexdigest())
"""


def check_room(folder, needed=0):
    """See that a folder's file system has room for so many bytes more, and :data:`KEPT_FREE`.

    :raises Failure: it has not
    """
    system = os.statvfs(folder)
    free = system.f_bavail * system.f_frsize
    if free < needed + KEPT_FREE:
        mib = -(-(needed + KEPT_FREE) // 1048576)
        raise Failure(
            f"not enough space in {folder.parent} on the manager: {mib} MiB are needed, "
            f"{free // 1048576} MiB are free"
        )


def remote_command(device):
    """The command for the node's shell: it reads ``start end`` lines, and writes their bytes."""
    return f"python3 -c {shlex.quote(_READER)} {shlex.quote(device)} | zstd -q -1 -c"


def fetch(node, device, parts, targets, folder, progress):
    """Write parts of a node's card to a file each.

    :param node: how to reach it, see :data:`piseduce_ssh.ARGUMENT`
    :param parts: list of dicts: ``start`` is the byte of the card that becomes the file's first;
        ``extents`` are ``(start, end)`` in bytes of the card, ascending
    :param targets: file descriptor for each part, of an empty file; zeros become holes of it
    :param folder: the files', a :class:`Path`, whose file system must not get full
    :param progress: its ``done`` is raised by each byte
    :returns: the digest that node and manager agree on
    :raises Failure: whatever went wrong, in the words of who noticed
    """
    request = "".join(f"{start} {end}\n" for part in parts for start, end in part["extents"])
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as complaint:
        asked.write(request.encode())
        asked.seek(0)
        ssh = spawn(
            ssh_command(node, remote_command(device)),
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=complaint,
            largest_file=LONGEST_COMPLAINT,
        )
        unpacker = None
        try:
            unpack = ["zstd", "-q", "-d", "-c"]
            unpacker = spawn(unpack, stdin=ssh.stdout, stdout=subprocess.PIPE, stderr=complaint)
            ssh.stdout.close()  # it alone reads from there, and so notices the end
            ours = _store(unpacker.stdout, parts, targets, folder, progress)
            theirs = unpacker.stdout.read(_DIGEST + 1).decode("ascii", "replace")
            status = ssh.wait()
            if ours is None or len(theirs) != _DIGEST or status or unpacker.wait():
                raise Failure(_why(status, complaint))
        finally:
            kill(*filter(None, (ssh, unpacker)))
            if unpacker:
                unpacker.stdout.close()
    if ours != theirs:
        raise Failure("what arrived is not what was read from the card: the digests differ")
    return ours


def _store(stream, parts, targets, folder, progress):
    """Write the stream's bytes to their places; their digest, or None if there are not enough."""
    digest = hashlib.sha256()
    for part, target in zip(parts, targets, strict=True):
        for start, end in part["extents"]:
            while start < end:
                data = stream.read(min(_STEP, end - start))
                if not data:
                    return None
                digest.update(data)
                check_room(folder)
                _write(target, data, start - part["start"])
                start += len(data)
                progress.done += len(data)
    return digest.hexdigest()


def _write(target, data, offset):
    view = memoryview(data)
    for at in range(0, len(view), _HOLE):
        part = view[at : at + _HOLE]
        if part == _ZEROS[: len(part)]:
            continue
        done = 0
        while done < len(part):
            done += os.pwrite(target, part[done:], offset + at + done)


def _why(status, complaint):
    complaint.seek(max(0, complaint.seek(0, os.SEEK_END) - 4096))
    said = complaint.read().decode("utf-8", "replace")
    if status == SSH_FAILED:
        return explain(said)
    return f"the node stopped in the middle: {one_line(said) or 'it did not say why'}"
