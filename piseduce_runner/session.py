"""A driver at work on a site: everything that it needs, for the length of a command or a daemon."""

import os
import queue
import shutil
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from piseduce_runner.batches import BatchMaker
from piseduce_runner.driver import Driver, DriverSettings, Look, NodeView
from piseduce_runner.errors import UserError
from piseduce_runner.leftovers import end_run
from piseduce_runner.planner import Record
from piseduce_runner.progress import ProgressListener
from piseduce_runner.run_folder import remove_stale_run_folders, run_folders_of
from piseduce_runner.runner import AnsibleRunner
from piseduce_runner.runs import RunEvent
from piseduce_runner.site import Site
from piseduce_runner.store import Store


def our_claim() -> str:
    """The name under which this process holds nodes in the store."""
    return _claim_of(os.getpid())


def _claim_of(pid: int) -> str:
    """The claim of the process, which no other process of its number has; empty if it has ended.

    In a container, the number is the same after each start. proc_pid_stat(5): field 22 is when the
    process was started, in ticks of the clock since the machine was.
    """
    try:
        stat = Path("/proc", str(pid), "stat").read_text("ascii", "replace")
    except OSError:
        return ""
    start = stat.rpartition(")")[2].split()[22 - 3]
    return f"piseduce-run on {socket.gethostname()} (start {start}), pid {pid}"


def end_runs_of(claim: str) -> None:
    """End what a driver that does not answer any more has running on this machine.

    It may be stopped (SIGSTOP) rather than dead: its runs must not go on beside the next driver's,
    nor begin when it wakes up. Ansible finds nothing to do without its folder.
    """
    remove_stale_run_folders()
    pid = claim.rpartition(", pid ")[2]
    if pid.isdigit() and int(pid) != os.getpid() and claim == _claim_of(int(pid)):
        for folder in run_folders_of(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
            end_run(folder.name, str(folder))


@dataclass
class Session:
    """Drives nodes of `site`, whose rows in `store` are under `claim`."""

    site: Site
    store: Store
    observe: Callable[[NodeView], None] = lambda view: None
    settings: DriverSettings = field(default_factory=DriverSettings)
    claim: str = field(default_factory=our_claim)
    runs_started: int = 0
    detached: bool = False

    def drive(self, records: Iterable[Record], look: Look | None = None) -> dict[str, Record]:
        """Drive these nodes until each has ended; SIGINT and SIGTERM leave them to the next driver.

        `detached` says afterwards that they did. Gives the records of those that have ended.
        `look`: see `Driver.run`. Raises `UserError` when the manager's address is not one of this
        machine's.
        """
        remove_stale_run_folders()
        events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
        progress = self._listen(events)
        driver = Driver(
            self.store,
            AnsibleRunner(self.site.inventory, self.site.roles),
            BatchMaker(self.site, self.store, progress.target),
            events,
            claim=self.claim,
            observe=self.observe,
            switch_of={name: node.switch for name, node in self.site.nodes.items()},
            settings=self.settings,
        )
        before = {
            number: signal.signal(number, lambda number, _: self._detach(driver, number))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            return driver.run(records, look)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            progress.close()
            self.runs_started += driver.runs_started

    def _detach(self, driver: Driver, number: int) -> None:
        self.detached = True
        driver.detach(f"left by {signal.Signals(number).name}")

    def _listen(self, events: "queue.SimpleQueue[RunEvent]") -> ProgressListener:
        try:
            return ProgressListener(self.site.manager_address, self.site.nodes, events.put)
        except OSError as error:
            raise UserError(
                f"piseduce_manager_address {self.site.manager_address} is no address of this"
                f" machine ({error.strerror}); run on the manager"
            ) from error
