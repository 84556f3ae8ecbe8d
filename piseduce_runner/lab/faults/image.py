"""Faults of an image's download: a relay between one node and the image server damages it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from piseduce_runner.lab.faults.firewall import rules
from piseduce_runner.lab.faults.parts import Parts
from piseduce_runner.lab.settings import HTTP_PORT

CHUNK = 64 << 10
PATIENCE = 3600.0  # seconds that a connection may last
IMAGE = re.compile(rb"GET \S+\.img\.zst HTTP/")
LENGTH = re.compile(rb"^content-length:\s*(\d+)", re.IGNORECASE | re.MULTILINE)
CONNECTION = re.compile(rb"^connection:[^\r]*\r\n", re.IGNORECASE | re.MULTILINE)


@asynccontextmanager
async def image_corrupt(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    async with _relayed(parts, node, "image-corrupt", given, flip=True):
        yield


@asynccontextmanager
async def image_short(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    async with _relayed(parts, node, "image-short", given, flip=False):
        yield


@asynccontextmanager
async def _relayed(
    parts: Parts, node: str, fault: str, given: Mapping[str, Any], *, flip: bool
) -> AsyncIterator[None]:
    """The node's new connections to the image server go through a relay of ours."""
    address = parts.settings.manager_address
    relay = _Relay(address, given["at"], given["times"], flip)
    server = await asyncio.start_server(relay.serve, address, 0)
    port = server.sockets[0].getsockname()[1]
    chains = f"""
        chain elsewhere {{
            type nat hook output priority -100;
            ip daddr {address} tcp dport {HTTP_PORT} dnat to {address}:{port}
        }}"""
    try:
        async with rules(parts, node, fault, chains):
            yield
    finally:
        server.close()


class _Relay:
    """Passes one request and its answer on, per connection; damages the bodies of images."""

    def __init__(self, address: str, at: int, times: int, flip: bool) -> None:
        self._address = address
        self._at = at
        self._times = times
        self._flip = flip
        self._damaged = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):  # either end has gone
            async with asyncio.timeout(PATIENCE):
                await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        upstream, asking = await asyncio.open_connection(self._address, HTTP_PORT)
        try:
            # HTTP/1.1 connections last otherwise, and the next request would not be seen.
            head = CONNECTION.sub(b"", request)
            asking.write(head[:-2] + b"Connection: close\r\n\r\n")
            answer = await upstream.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await self._pass_on(upstream, writer, self._place(request, answer))
        finally:
            asking.close()

    def _place(self, request: bytes, answer: bytes) -> int | None:
        """The byte of the body that is to be damaged; None: this answer is left as it is."""
        length = LENGTH.search(answer)
        if not IMAGE.match(request) or not length or 0 < self._times <= self._damaged:
            return None
        self._damaged += 1
        return self._at or int(length[1]) // 2

    async def _pass_on(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, place: int | None
    ) -> None:
        passed = 0
        while chunk := await upstream.read(CHUNK):
            if place is not None and passed <= place < passed + len(chunk):
                here = place - passed
                if not self._flip:
                    writer.write(chunk[:here])
                    await writer.drain()
                    return
                chunk = chunk[:here] + bytes([chunk[here] ^ 1]) + chunk[here + 1 :]
            passed += len(chunk)
            writer.write(chunk)
            await writer.drain()
