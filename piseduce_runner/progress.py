"""Receives how far nodes are, in percent, and how fast, while a state lasts.

Nodes send UDP datagrams, JSON of `token`, `node`, `percent` and `rate`, about once a second: no
SSH session per look, and no harm when one gets lost. Every node has a token of its own; datagrams
without it, from a node that has gone astray or from a stranger, are passed over. What comes faster
than a person can read is passed over too: nobody can keep the driver busy with it.
"""

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterable

from piseduce_runner.runs import Progressed, Report

_LONGEST_DATAGRAM = 1024
_INTERVAL_SECONDS = 0.5
# The same percent at another rate is told again only so often.
_RATE_SECONDS = 1.5
# No card, cable or memory is faster: bytes per second.
_LARGEST_RATE = 10**11


class ProgressListener:
    """Listens on the manager's address for these nodes until `close`.

    Raises `OSError` when the address is not one of this machine's.
    """

    def __init__(self, address: str, nodes: Iterable[str], report: Report) -> None:
        self._report = report
        self._tokens = {node: secrets.token_hex(16) for node in nodes}
        self._reported: dict[str, tuple[float, int]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="progress", daemon=True)
        self._thread.start()

    def target(self, node: str) -> dict[str, str | int]:
        """What the roles get as `progress` on a node: where to send, and with which token."""
        address, port = self._socket.getsockname()
        return {"address": address, "port": port, "token": self._tokens[node]}

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        # A datagram to ourselves ends the wait in recv; a closed socket would not.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._closed.is_set():
            event = self._parse(self._socket.recv(_LONGEST_DATAGRAM))
            if event is not None and self._is_news(event):
                self._report(event)

    def _is_news(self, event: Progressed) -> bool:
        now = time.monotonic()
        when, percent = self._reported.get(event.node, (float("-inf"), -1))
        # The last percent is never passed over; the same one always.
        is_due = now - when >= _INTERVAL_SECONDS or event.percent == 100
        is_same = event.percent == percent and now - when < _RATE_SECONDS
        if is_same or (event.percent == percent and event.rate is None) or not is_due:
            return False
        self._reported[event.node] = (now, event.percent)
        return True

    def _parse(self, datagram: bytes) -> Progressed | None:
        try:
            message = json.loads(datagram)
            node, percent, token = message["node"], message["percent"], message["token"]
            expected = self._tokens[node].encode()
            is_known = secrets.compare_digest(token.encode(), expected)
        # Whatever a stranger sends: not JSON, not a mapping, other types, folded a thousand times.
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if not is_known or type(percent) is not int or not 0 <= percent <= 100:
            return None
        rate = message.get("rate")
        has_rate = type(rate) is int and 0 <= rate < _LARGEST_RATE
        return Progressed(node, percent, rate if has_rate else None)
