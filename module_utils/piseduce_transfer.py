# SPDX-License-Identifier: MIT
"""Moving an image's mapped blocks to the card and back, the digest of each range checked.

The image is cut into windows of 4 MiB, aligned as the card's erase blocks are. While one thread
moves a window's blocks between memory and card, the other one reads or hashes the next: on a Pi
either takes about as long as the other. Transfers are direct (open(2), O_DIRECT): the card's speed
shows at once, nothing of it is in the page cache, and memory for it is bounded.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import signal
from collections import deque, namedtuple
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.piseduce_process import Failure

WINDOW = 4 * 1024 * 1024
HEAD = 4096
"""Bytes at the card's start that are written last, so that an unfinished card has no partitions."""
_GAP = 64 * 1024
"""Bytes: a smaller hole between two ranges is written too (with the image's own bytes). For a card
one larger write is quicker than two."""
_BUFFERS = 4

Piece = namedtuple("Piece", "start end index")
"""start, end: bytes in the image; index: of the range in the map that this is a piece of."""

Window = namedtuple("Window", "start end pieces")
"""start, end: bytes in the image; pieces: list of :class:`Piece`, empty for a hole."""


def windows(block_map, chosen=None):
    """Cut an image into windows, each with its pieces of mapped ranges, in order.

    :param chosen: set of the ranges' numbers, from 0, that matter; None for all
    """
    pending = deque(
        (index, part)
        for index, part in enumerate(block_map.ranges)
        if chosen is None or index in chosen
    )
    for start in range(0, block_map.image_bytes, WINDOW):
        end = min(start + WINDOW, block_map.image_bytes)
        pieces = []
        while pending and pending[0][1].start < end:
            index, part = pending[0]
            pieces.append(Piece(max(start, part.start), min(end, part.end), index))
            if part.end > end:
                break
            pending.popleft()
        yield Window(start, end, pieces)


def extents(pieces, gap=_GAP):
    """Join pieces that are less than `gap` bytes apart: list of ``(start, end)`` to write."""
    joined = []
    for piece in pieces:
        if joined and piece.start - joined[-1][1] < gap:
            joined[-1] = (joined[-1][0], piece.end)
        else:
            joined.append((piece.start, piece.end))
    return joined


class RangeDigests:
    """Compares each range with the digest that the block map has of it.

    :param where: what is compared, for the message
    """

    def __init__(self, block_map, where):
        self._map = block_map
        self._where = where
        self._hash = hashlib.sha256()

    def feed(self, piece, view):
        """Take a piece's bytes; pieces must come in the map's order.

        :raises Failure: a range is complete and has another digest
        """
        self._hash.update(view)
        part = self._map.ranges[piece.index]
        if piece.end < part.end:
            return
        if self._hash.hexdigest() != part.digest:
            raise Failure(
                f"{self._where} differs from the block map in bytes {part.start} to {part.end - 1} "
                f"(range {piece.index + 1} of {len(self._map.ranges)})"
            )
        self._hash = hashlib.sha256()


class DirectFile:
    """Positioned transfers of the open card, past the page cache where the card allows it."""

    def __init__(self, descriptor, block):
        self._descriptor = descriptor
        self._block = block
        self._set_direct(True)

    def _set_direct(self, wanted):
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        self.direct = wanted
        try:
            fcntl.fcntl(
                self._descriptor,
                fcntl.F_SETFL,
                flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT,
            )
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.direct = False  # the driver knows no direct transfers

    def write(self, view, offset):
        """Write all of a memory view at an offset.

        :raises Failure: with the offset at which the card failed
        """
        self._move("writing", os.pwrite, view, offset)

    def read(self, view, offset):
        """Fill a memory view from an offset.

        :raises Failure: with the offset at which the card failed
        """
        self._move("reading", _pread_into, view, offset)

    def head(self):
        """The card's first :data:`HEAD` bytes."""
        view = memoryview(mmap.mmap(-1, HEAD))
        self.read(view, 0)
        return bytes(view)

    def _move(self, doing, transfer, view, offset):
        if self.direct and len(view) % self._block:
            # The end of an image that is no multiple of the card's blocks.
            self._set_direct(False)
        done = 0
        while done < len(view):
            try:
                count = transfer(self._descriptor, view[done:], offset + done)
            except OSError as error:
                if self.direct and error.errno == errno.EINVAL:
                    self._set_direct(False)
                    continue
                raise Failure(
                    f"{doing} the card failed at byte {offset + done}: {error.strerror}"
                ) from error
            if count == 0:
                raise Failure(f"{doing} the card failed: it ends at byte {offset + done}")
            done += count


def _pread_into(descriptor, view, offset):
    return os.preadv(descriptor, [view], offset)


class _Mover:
    """A thread that works on one window after the other, with a ring of buffers.

    :param then: called in this thread with a job's buffer and arguments when the job is done,
        before the buffer is used again
    """

    def __init__(self, then=None):
        self._then = then
        self._buffers = deque(memoryview(mmap.mmap(-1, WINDOW)) for _ in range(_BUFFERS))
        self._jobs = deque()
        self._pool = ThreadPoolExecutor(1, initializer=_leave_signals_to_main_thread)

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self._pool.shutdown(wait=True, cancel_futures=True)

    def buffer(self):
        """A buffer that is free until :meth:`start`; waits for the oldest job if there is none."""
        if not self._buffers:
            self._finish_oldest()
        return self._buffers[0]

    def start(self, work, *arguments):
        """Let the thread do ``work(buffer, *arguments)`` with the buffer just got."""
        buffer = self._buffers.popleft()
        self._jobs.append((self._pool.submit(work, buffer, *arguments), buffer, arguments))

    def finish(self):
        """Wait for all jobs; raises the first error."""
        while self._jobs:
            self._finish_oldest()

    def _finish_oldest(self):
        job, buffer, arguments = self._jobs.popleft()
        job.result()
        if self._then:
            self._then(buffer, *arguments)
        self._buffers.append(buffer)


def _leave_signals_to_main_thread():
    # Python runs handlers in the main thread, and only there does a signal end a wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})


def write_image(stream, block_map, descriptor, block, progress):
    """Write an image's mapped blocks to the card; its first bytes last, after all others are safe.

    :param stream: :class:`ImageStream`
    :param descriptor: of the card, opened for writing and for us alone
    :param block: the card's logical block size in bytes
    :param progress: its ``done`` is set to the mapped bytes written, its ``passed`` to the others
    :returns: ``(bytes written, direct)``
    :raises Failure: with the first thing that went wrong
    """
    card = DirectFile(descriptor, block)
    digests = RangeDigests(block_map, stream.url)
    head = memoryview(mmap.mmap(-1, HEAD))
    card.write(head, 0)
    os.fsync(descriptor)
    written = 0

    def put(buffer, window, parts):
        for start, end in parts:
            card.write(buffer[start - window.start : end - window.start], start)
        progress.done += sum(piece.end - piece.start for piece in window.pieces)

    with _Mover() as mover:
        for window in windows(block_map):
            buffer = mover.buffer()
            count = stream.fill(buffer[: window.end - window.start])
            if window.start + count < window.end:
                stream.finish()
                raise Failure(
                    f"{stream.url} holds {window.start + count} bytes, "
                    f"its block map says {block_map.image_bytes}"
                )
            for piece in window.pieces:
                view = buffer[piece.start - window.start : piece.end - window.start]
                digests.feed(piece, view)
            if window.start == 0:
                head[:] = buffer[:HEAD]
            mapped = sum(piece.end - piece.start for piece in window.pieces)
            progress.passed += window.end - window.start - mapped
            parts = [(max(start, HEAD), end) for start, end in extents(window.pieces) if end > HEAD]
            written += sum(end - start for start, end in parts)
            if window.pieces:
                mover.start(put, window, parts)
        stream.finish()
        mover.finish()
    _sync(descriptor)
    card.write(head, 0)
    _sync(descriptor)
    return written + HEAD, card.direct


def _sync(descriptor):
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise Failure(f"the card did not keep what was written: {error.strerror}") from error


def compare_card(block_map, descriptor, block, progress, chosen=None):
    """Read an image's mapped blocks back from the card and compare each range's digest.

    :param descriptor: of the card, its cache dropped
    :param block: the card's logical block size in bytes
    :param progress: its ``done`` is set to the bytes compared
    :param chosen: set of the ranges' numbers, from 0, that are compared; None for all
    :raises Failure: with the first range that differs, or where reading failed
    """
    card = DirectFile(descriptor, block)
    digests = RangeDigests(block_map, "the card")

    def get(buffer, window):
        for start, end in extents(window.pieces):
            card.read(buffer[start - window.start : end - window.start], start)

    def compare(buffer, window):
        for piece in window.pieces:
            digests.feed(piece, buffer[piece.start - window.start : piece.end - window.start])
            progress.done += piece.end - piece.start

    with _Mover(compare) as mover:
        for window in windows(block_map, chosen):
            if window.pieces:
                mover.buffer()
                mover.start(get, window)
        mover.finish()
    return card.direct
