"""What faults act on: the parts of a running lab, and commands on its machine."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from piseduce_runner.lab import network, procfs
from piseduce_runner.lab.board import Board
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.services import Service
from piseduce_runner.lab.settings import Node, Settings
from piseduce_runner.lab.switch import PoeSwitch

log = logging.getLogger("faults")


@dataclass(frozen=True)
class Parts:
    """A running lab, as its supervisor holds it. `boards` by node, `services` by name."""

    folder: LabFolder
    settings: Settings
    switch: PoeSwitch
    boards: Mapping[str, Board]
    services: Mapping[str, Service]

    def node(self, name: str) -> Node:
        return self.boards[name].node

    def namespace_file(self, name: str) -> str:
        """The file of a node's network namespace, for nsenter(1)."""
        return str(procfs.NETNS_FOLDER / self.boards[name].namespace)


async def run(*command: str, stdin: str | None = None) -> str:
    """As `network.run`, while the lab goes on."""
    return await asyncio.to_thread(network.run, *command, stdin=stdin)


@asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Does some work while the block lasts; its failure is in the supervisor's log."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            log.error("a fault's watch failed", exc_info=task.exception())

    task = asyncio.create_task(work)
    task.add_done_callback(report)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
