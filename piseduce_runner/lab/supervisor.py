"""The lab's one daemon: it runs the switch, the boards, and the manager's services.

`python -m piseduce_runner.lab.supervisor FOLDER`, started by `lab up`. It reads `plan.json` and
`settings.json` in the lab's folder, and writes `status.json`. When it ends, however it ends, all
its children end; what else may be left is the business of `lab down`.
"""

import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.board import Board, Booted, BootOptions
from piseduce_runner.lab.card import Card
from piseduce_runner.lab.card_rate import CardRate
from piseduce_runner.lab.faults import control
from piseduce_runner.lab.faults.faults_set import FaultsSet
from piseduce_runner.lab.faults.parts import Parts
from piseduce_runner.lab.folder import LabFolder, write_atomically
from piseduce_runner.lab.probe import NoAnswer, ask_manager
from piseduce_runner.lab.services import Service, manager_services
from piseduce_runner.lab.settings import SWITCH, Settings
from piseduce_runner.lab.switch import Access, PoeSwitch, serve

log = logging.getLogger("supervisor")


@dataclass(frozen=True)
class Plan:
    """What `lab up` prepared for the supervisor: the deploy OS's tree, and the switch's access."""

    deploy_os: str
    access: dict[str, str]
    udp_port: int = 161


class Supervisor:
    """Everything of a lab that runs."""

    def __init__(self, lab: LabFolder) -> None:
        self._lab = lab
        self._settings: Settings = lab.settings()
        self._plan = Plan(**json.loads(lab.plan_file.read_text("utf-8")))
        self._services: list[Service] = manager_services(lab.manager)
        self._boards: dict[int, Board] = {}
        self._switch = PoeSwitch(
            self._settings.port_count,
            self._power,
            stuck_off=self._settings.ports_of(self._settings.stuck_off),
            stuck_on=self._settings.ports_of(self._settings.stuck_on),
            name=SWITCH,
        )
        self._faults: FaultsSet | None = None
        self._ready = False
        self._status_due = False

    async def run(self) -> None:
        """Runs the lab until SIGTERM or SIGINT. NoAnswer, OSError, UserError: it cannot start."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            await self._start_services(stack)
            access = Access(**self._plan.access)
            address = self._settings.switch_address
            await stack.enter_async_context(
                serve(self._switch, address, self._plan.udp_port, access)
            )
            self._insert_boards()
            tasks = [asyncio.create_task(board.run()) for board in self._boards.values()]
            for task in tasks:
                task.add_done_callback(_report_failure)
            stack.push_async_callback(_end_tasks, tasks)
            self._faults = FaultsSet(self._parts(), self._changed)
            stack.push_async_callback(self._faults.clear_all_at_the_end)
            await stack.enter_async_context(control.serve(self._lab, self._faults, self._settings))
            # A port that nobody can switch off is on from the beginning.
            for port in self._switch.stuck_on:
                self._switch.set_port(port, True)
            self._ready = True
            self._write_status()
            log.info("the lab is up")
            await stop.wait()
            log.info("going down")

    async def _start_services(self, stack: AsyncExitStack) -> None:
        for service in self._services:
            await service.start()
            stack.push_async_callback(service.stop)
            watch = asyncio.create_task(self._watch(service))
            stack.callback(watch.cancel)
        await ask_manager(self._lab, self._settings)

    async def _watch(self, service: Service) -> None:
        while True:
            await service.started()
            self._changed()
            status = await service.ended()
            if service.wanted:
                log.error("%s ended with %d: %s", service.name, status, service.last_words())
                self._changed()
                return
            self._changed()

    def _insert_boards(self) -> None:
        settings, lab = self._settings, self._lab
        options = BootOptions(
            deploy_os=Path(self._plan.deploy_os),
            layer=lab.layer,
            firmware_seconds=settings.boot_time / 2,
            kernel_seconds=settings.boot_time / 2,
        )
        rate = CardRate(lab) if settings.card_rate else None
        if rate:
            rate.enter()
        for node in settings.all_nodes():
            card = None
            if node.name not in settings.no_card:
                file = lab.card(node.name)
                card = Card.insert(file, settings.card_size, direct_io=rate is not None)
                if rate:
                    rate.limit(card, settings.card_rate)
            self._boards[node.port] = Board(
                node,
                lab.namespace(node.index),
                lab.board(node.name),
                card,
                options,
                self._changed,
            )

    def _parts(self) -> Parts:
        return Parts(
            self._lab,
            self._settings,
            self._switch,
            {board.node.name: board for board in self._boards.values()},
            {service.name: service for service in self._services},
        )

    def _power(self, port: int, on: bool) -> None:
        """The switch's hook: power came to a port, or went."""
        log.info("port %d: power %s", port, "on" if on else "off")
        if port in self._boards:
            board = self._boards[port]
            board.set_power(on)
            if self._faults and not on:
                self._faults.power_cut(board.node.name)
        self._changed()

    def _changed(self) -> None:
        """Has the status written soon, once for all changes of this moment."""
        if not self._status_due:
            self._status_due = True
            asyncio.get_running_loop().call_soon(self._write_status)

    def _write_status(self) -> None:
        self._status_due = False
        write_atomically(self._lab.status_file, json.dumps(self._status(), indent=2) + "\n")

    def _status(self) -> dict:
        settings = self._settings
        return {
            "lab": settings.name,
            "ready": self._ready,
            "site": str(self._lab.site),
            "network": settings.network,
            "services": {service.name: service.running for service in self._services},
            "switches": [
                {
                    "name": SWITCH,
                    "address": settings.switch_address,
                    "udp_port": self._plan.udp_port,
                    "ports": settings.port_count,
                }
            ],
            "nodes": [self._node_status(board) for board in self._boards.values()],
            "faults": self._faults.listing() if self._faults else [],
        }

    def _node_status(self, board: Board) -> dict:
        node, powered = board.node, self._switch.power[board.node.port]
        # The power is there before the board's task has noticed.
        waking = powered and board.booted is Booted.OFF
        return {
            "node": node.name,
            "address": node.address,
            "mac": node.mac,
            "serial": node.serial,
            "switch": SWITCH,
            "port": node.port,
            "power": "on" if powered else "off",
            "booted": (Booted.BOOTING if waking else board.booted).value,
            "card_file": str(board.card.file) if board.card else None,
            "reason": board.reason,
        }


def _report_failure(task: asyncio.Task) -> None:
    """A board's task ends only when it is cancelled; anything else is a defect of the lab."""
    if not task.cancelled() and task.exception():
        log.error("a board's task failed", exc_info=task.exception())


async def _end_tasks(tasks: list[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main(folder: str) -> int:
    lab = LabFolder(Path(folder))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    # `lab up` sees to it that there is one supervisor; whoever asks for our life holds the lock for
    # a moment.
    lock = os.open(lab.supervisor_lock, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        asyncio.run(Supervisor(lab).run())
    except (NoAnswer, OSError, RuntimeError, UserError) as error:
        log.error("%s", " ".join(str(error).split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
