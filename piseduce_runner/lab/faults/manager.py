"""Faults of the manager's services."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.lab import procfs
from piseduce_runner.lab.faults.firewall import losses
from piseduce_runner.lab.faults.parts import Parts
from piseduce_runner.lab.services import Service
from piseduce_runner.lab.settings import HTTP_PORT

ANSWERS_WITHIN = 15.0  # seconds


@asynccontextmanager
async def http_down(parts: Parts, manager: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    nginx = parts.services["nginx"]
    _send(signal.SIGCONT, nginx)  # one that stands still would not end
    await nginx.stop()
    try:
        yield
    finally:
        await nginx.start()
        await _wait_until_it_accepts(parts.settings.manager_address)


@asynccontextmanager
async def http_stall(parts: Parts, manager: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """The server's processes stand still; the kernel goes on accepting connections for them."""
    nginx = parts.services["nginx"]
    if not nginx.running:
        raise UserError("http-stall: the image server does not run")
    _send(signal.SIGSTOP, nginx)
    try:
        yield
    finally:
        _send(signal.SIGCONT, nginx)


def _send(number: signal.Signals, service: Service) -> None:
    """A signal to a service and its workers."""
    if not service.running:
        return
    for pid in (service.pid, *procfs.children(service.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _wait_until_it_accepts(address: str) -> None:
    limit = time.monotonic() + ANSWERS_WITHIN
    while True:
        try:
            _, writer = await asyncio.open_connection(address, HTTP_PORT)
        except ConnectionRefusedError:
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


@asynccontextmanager
async def tftp_down(parts: Parts, manager: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """Requests vanish on their way out of every board: DHCP and DNS are the same program's."""
    async with AsyncExitStack() as stack:
        for node in parts.boards:
            await stack.enter_async_context(
                losses(parts, node, "tftp-down", outgoing="udp dport 69 drop")
            )
        yield
