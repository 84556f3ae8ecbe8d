"""Receives how far nodes are, in percent, while a state lasts.

Nodes send UDP datagrams, JSON of `token`, `node` and `percent`, about once a second: no SSH session
per look, and no harm when one gets lost. The token is of this driver; datagrams without it, from a
node that has gone astray or from a stranger, are passed over.
"""

import json
import secrets
import socket
import threading

from piseduce_runner.runs import Progressed, Report

_LONGEST_DATAGRAM = 1024


class ProgressListener:
    """Listens on the manager's address until `close`.

    Raises `OSError` when the address is not one of this machine's.
    """

    def __init__(self, address: str, report: Report) -> None:
        self._report = report
        self._token = secrets.token_hex(16)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="progress", daemon=True)
        self._thread.start()

    @property
    def target(self) -> dict[str, str | int]:
        """What the roles get as `progress`: where to send, and with which token."""
        address, port = self._socket.getsockname()
        return {"address": address, "port": port, "token": self._token}

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        # A datagram to ourselves ends the wait in recv; a closed socket would not.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._closed.is_set():
            datagram = self._socket.recv(_LONGEST_DATAGRAM)
            event = self._parse(datagram)
            if event is not None:
                self._report(event)

    def _parse(self, datagram: bytes) -> Progressed | None:
        try:
            message = json.loads(datagram)
            node, percent, token = message["node"], message["percent"], message["token"]
        except (ValueError, TypeError, KeyError):
            return None
        if not isinstance(token, str) or not secrets.compare_digest(
            token.encode(), self._token.encode()
        ):
            return None
        if not isinstance(node, str) or not isinstance(percent, int) or not 0 <= percent <= 100:
            return None
        return Progressed(node, percent)
