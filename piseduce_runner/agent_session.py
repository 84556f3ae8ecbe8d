"""The agent at work on a site, until it is told to stop, or with `once` until all is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from piseduce_runner.agent import Agent
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Record, Status
from piseduce_runner.reservations import stored_request
from piseduce_runner.session import Session, end_runs_of
from piseduce_runner.site import Site
from piseduce_runner.site_processes import SiteProcesses
from piseduce_runner.store import Store

_WELL = (Status.DEPLOYED, Status.BOOTED, Status.DESTROYED)


@dataclass
class AgentSession:
    """The agent, its driver, and the signals to them.

    SIGTERM and SIGINT leave the nodes that are under way to the next driver, and end it. SIGHUP has
    `read_site` read the site again, once nothing is under way.
    """

    read_site: Callable[[], Site]
    say: Callable[[str], None]
    once: bool = False
    ended: dict[str, Record] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _reread: threading.Event = field(default_factory=threading.Event)
    _agent: Agent | None = None

    def run(self, site: Site) -> bool:
        """Work; whether all that was done ended well. Raises `UserError` when it cannot begin."""
        store = Store.open(site.database)
        try:
            with self._signals():
                self._announce(f"the agent works on {site.folder}")
                while not self._stop.is_set():
                    self._work(site, store)
                    if self._stop.is_set() or not self._reread.is_set():
                        break
                    site = self._read_again(site)
                self._announce("the agent has stopped")
        finally:
            store.close()
        lost = {name for name, record in self.ended.items() if record.status not in _WELL}
        return not (lost | self.failed) and not (self.once and self._stop.is_set())

    def _announce(self, words: str) -> None:
        if not self.once:
            self.say(words)

    def _work(self, site: Site, store: Store) -> None:
        session = Session(site, store)
        self._agent = agent = Agent(
            store,
            SiteProcesses(site),
            lambda one: stored_request(site, one.node, one.configuration),
            claim=session.claim,
            lease=session.settings.claim,
            end_runs_of=end_runs_of,
            say=self.say,
            once=self.once,
        )
        session.observe = agent.observe
        if self._reread.is_set() or self._stop.is_set():
            agent.wind_up()
        self.ended |= session.drive((), agent.look)
        self.failed |= agent.failed
        if session.detached:
            self._stop.set()

    def _read_again(self, site: Site) -> Site:
        self._reread.clear()
        try:
            site = self.read_site()
        except UserError as error:
            self.say(f"the site stays as it was read before: {error}")
        else:
            self.say("the site was read again")
        return site

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """While the driver is at work, SIGTERM and SIGINT are its own: see `Session.drive`."""

        def wind_up(wanted: threading.Event) -> None:
            wanted.set()
            if self._agent is not None:
                self._agent.wind_up()

        def stop(number: int, frame: object) -> None:
            wind_up(self._stop)

        def reread(number: int, frame: object) -> None:
            wind_up(self._reread)

        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reread}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
