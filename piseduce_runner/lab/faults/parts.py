"""What faults act on: the parts of a running lab, and commands on its machine."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from piseduce_runner.lab import network, procfs
from piseduce_runner.lab.board import Board
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.services import Service
from piseduce_runner.lab.settings import Node, Settings
from piseduce_runner.lab.switch import PoeSwitch


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
