"""Faults of network boot."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from piseduce_runner.lab.faults.firewall import losses, rules
from piseduce_runner.lab.faults.parts import Parts

# Not DNS, and the first two bytes are an operation of TFTP (RFC 1350, RFC 2347): read request to
# option acknowledgement. DHCP's first two bytes are others; so are those of progress reports.
TFTP = "udp sport != 53 udp dport != 53 @th,64,16 1-6"
FILE_NOT_FOUND = b"\0\5\0\1File not found\0"  # RFC 1350, section 5: ERROR, code 1


@asynccontextmanager
async def boot_crowd(parts: Parts, switch: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    crowd = _Crowd(given["most"], given["seconds"])
    for board in parts.boards.values():
        board.defects.at_start.append(crowd)
    try:
        yield
    finally:
        for board in parts.boards.values():
            board.defects.at_start.remove(crowd)


class _Crowd:
    """Lets `most` boards start within `seconds`; those that come then hang."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._starts: deque[float] = deque()

    def __call__(self, power_came: bool) -> str:
        now = time.monotonic()
        while self._starts and self._starts[0] < now - self._seconds:
            self._starts.popleft()
        together = len(self._starts)
        self._starts.append(now)
        if together < self._most:
            return ""
        return f"firmware: hangs in network boot: {together} others have just started"


@asynccontextmanager
async def tftp_loss(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    percent = given["percent"]
    share = "" if percent == 100 else f"numgen random mod 100 < {percent}"
    lose = f"{TFTP} {share} drop"
    async with losses(parts, node, "tftp-loss", incoming=lose, outgoing=lose):
        yield


@asynccontextmanager
async def tftp_missing(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """Another server is asked, which has nothing: the manager's folder stays as it is."""
    address = parts.settings.manager_address
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        _EmptyServer, local_addr=(address, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    chains = f"""
        chain elsewhere {{
            type nat hook output priority -100;
            ip daddr {address} udp dport 69 dnat to {address}:{port}
        }}"""
    try:
        async with rules(parts, node, "tftp-missing", chains):
            yield
    finally:
        transport.close()


class _EmptyServer(asyncio.DatagramProtocol):
    """A TFTP server without files."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(FILE_NOT_FOUND, address)
