"""Faults of a board's cable and of its network interface."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from piseduce_runner.lab.faults.parts import Parts, run
from piseduce_runner.lab.network import limit_link, unlimit_link


@asynccontextmanager
async def link_cut(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """No carrier at either end, as with a pulled cable; the power stays (it is not a cable)."""
    cable = parts.folder.link(parts.node(node).index)
    await run("ip", "link", "set", cable, "down")
    try:
        yield
    finally:
        await run("ip", "link", "set", cable, "up")


@asynccontextmanager
async def link_slow(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    ends = (
        (parts.folder.link(parts.node(node).index), None),
        ("eth0", parts.boards[node].namespace),
    )
    for interface, namespace in ends:
        await asyncio.to_thread(limit_link, interface, given["rate"], namespace)
    try:
        yield
    finally:
        for interface, namespace in ends:
            if parts.settings.link_rate:
                await asyncio.to_thread(limit_link, interface, parts.settings.link_rate, namespace)
            else:
                await asyncio.to_thread(unlimit_link, interface, namespace)


@asynccontextmanager
async def wrong_mac(parts: Parts, node: str, given: Mapping[str, Any]) -> AsyncIterator[None]:
    """The board has been exchanged: the manager knows another one."""
    board = parts.boards[node]
    change = ("ip", "-netns", board.namespace, "link", "set", "eth0", "address")
    await run(*change, f"dc:a6:32:ff:ff:{board.node.index:02x}")
    try:
        yield
    finally:
        await run(*change, board.node.mac)
