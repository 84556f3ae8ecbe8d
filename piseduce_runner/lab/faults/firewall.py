"""Packet rules in a node's network namespace (nft(8)): they are there whatever the node boots, and
vanish with the namespace.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from piseduce_runner.lab.faults.parts import Parts, run


@asynccontextmanager
async def rules(parts: Parts, node: str, fault: str, chains: str) -> AsyncIterator[None]:
    """Has the `chains` (of a table of family ip) in force on a node within the block."""
    table = fault.replace("-", "_")
    await _nft(parts, node, f"table ip {table} {{\n{chains}\n}}\n")
    try:
        yield
    finally:
        # A system that flushes its firewall has flushed this one, too: deleting must not fail.
        await _nft(parts, node, f"table ip {table}\ndelete table ip {table}\n")


async def _nft(parts: Parts, node: str, script: str) -> None:
    await run("nsenter", f"--net={parts.namespace_file(node)}", "nft", "-f", "-", stdin=script)
