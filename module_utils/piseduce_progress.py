# SPDX-License-Identifier: MIT
"""Progress of long work on a node, as UDP datagrams to the manager: sent and forgotten."""

from __future__ import annotations

import json
import socket
import time

ARGUMENT = {
    "type": "dict",
    "options": {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "token": {"type": "str", "required": True, "no_log": True},
        "node": {"type": "str", "required": True},
    },
}


_HOLE = 16
"""How many bytes of a hole count as one of data. A long hole takes time too: its zeros come
decompressed like all else, at many times the speed of a card."""


class Progress:
    """Tells the manager how much of the work is done.

    :param target: dict with ``address``, ``port``, ``token`` and ``node``, or None to tell nobody
    :param total: amount of work, in bytes
    :param holes: bytes that are only passed over, see :data:`_HOLE`

    ``done`` and ``passed`` are raised by whoever does the work; only ``done`` makes a rate.

    Call :meth:`tell` as often as is handy, :class:`Watch` does once per second. A datagram that is
    lost or refused is not missed: the next one replaces it, and the module's result is what counts.
    """

    def __init__(self, target, total, holes=0):
        self.done = self.passed = 0
        self._target = target
        self._total = total + holes // _HOLE
        self._last = (time.monotonic(), 0)
        self._socket = None
        if target:
            family, kind, _protocol, _name, address = socket.getaddrinfo(
                target["address"], target["port"], type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind)
            self._socket.setblocking(False)
            self._address = address

    def percent(self):
        """Whole percents of the work done; 100 is kept for :meth:`finish`."""
        done = self.done + self.passed // _HOLE
        return min(99, done * 100 // self._total) if self._total else 99

    def tell(self):
        """Send where the work is, with the rate in bytes per second since the last time."""
        now, before = time.monotonic(), self._last
        self._last = (now, self.done)
        rate = (self.done - before[1]) / max(now - before[0], 0.001)
        self._send(self.percent(), int(rate))

    def finish(self, rate):
        """Send 100 percent, with the mean rate of the whole work in bytes per second."""
        self._send(100, int(rate))

    def _send(self, percent, rate):
        if self._socket is None:
            return
        message = {
            "token": self._target["token"],
            "node": self._target["node"],
            "percent": percent,
            "rate": rate,
        }
        try:
            self._socket.sendto(json.dumps(message).encode(), self._address)
        except OSError:
            # No listener, a full buffer, a link that is down: progress is a courtesy, never a
            # reason to give up the work itself.
            return
