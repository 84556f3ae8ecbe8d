"""Packet rules in a node's network namespace (nft(8)): they are there whatever the node boots, and
vanish with the namespace.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from piseduce_runner.lab.faults.parts import Parts, run


@asynccontextmanager
async def rules(
    parts: Parts, node: str, fault: str, chains: str, family: str = "ip"
) -> AsyncIterator[None]:
    """Has the `chains` (of a table of this family) in force on a node within the block."""
    table = f"{family} {fault.replace('-', '_')}"
    await _nft(parts, node, f"table {table} {{\n{chains}\n}}\n")
    try:
        yield
    finally:
        # A system that flushes its firewall has flushed this one, too: deleting must not fail.
        await _nft(parts, node, f"table {table}\ndelete table {table}\n")


@asynccontextmanager
async def losses(
    parts: Parts, node: str, fault: str, *, incoming: str = "", outgoing: str = ""
) -> AsyncIterator[None]:
    """Loses the node's packets that the rules `drop`, as a cable would: the sender is not told.

    (A packet that is dropped before it reaches the interface is an error of the system call.)
    """
    chains = "\n".join(
        f"chain {hook} {{ type filter hook {hook} device eth0 priority 0; {rule}; }}"
        for hook, rule in (("ingress", incoming), ("egress", outgoing))
        if rule
    )
    async with rules(parts, node, fault, chains, family="netdev"):
        yield


async def _nft(parts: Parts, node: str, script: str) -> None:
    await run("nsenter", f"--net={parts.namespace_file(node)}", "nft", "-f", "-", stdin=script)
