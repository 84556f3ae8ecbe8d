"""Runs waves of real cells: a deployment of all nodes at once, each with its own faults."""

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from simulated_lab import SimulatedLab

from matrix.ends import End
from matrix.judge import Evidence, tell_story
from matrix.outcomes import Outcome
from matrix.real_cells import Cell, Chain, Wave
from matrix.watcher import Watcher
from piseduce_runner.deployment import Request, find_environment
from piseduce_runner.environments import Environment
from piseduce_runner.operations import Operations
from piseduce_runner.people import current_person
from piseduce_runner.planner import Record, Status
from piseduce_runner.policy import Policy
from piseduce_runner.session import Session
from piseduce_runner.site import Site
from piseduce_runner.site_processes import SiteProcesses
from piseduce_runner.site_reader import load_site
from piseduce_runner.store import Store

# Some states last a second in a lab; what hangs is to be noticed soon. Retries are the table's.
POLICY = Policy.parse(
    {
        "boot_conf": {"timeout": 12},
        "turn_off": {"timeout": 12},
        "turn_on": {"timeout": 12, "window": None},
        "ssh_test": {"timeout": 22},
        "env_copy": {"timeout": 25},
        "env_check": {"timeout": 15},
        "delete_partition": {"timeout": 12},
        "create_partition": {"timeout": 12},
        "mount_partition": {"timeout": 12},
        "resize_partition": {"timeout": 12},
        "wait_resizing": {"timeout": 20},
        "system_conf": {"timeout": 12},
        "boot_files": {"timeout": 15},
        "system_update": {"timeout": 50},
        "boot_update": {"timeout": 15},
        "user_conf": {"timeout": 12},
    },
    "the fault matrix",
)
MOST_TRIES = 3  # of a cell whose fault came too late, or whose node did not get there


def cells_of(waves: Iterable[Wave]) -> list[Cell]:
    """All their cells."""
    return [cell for wave in waves for chain in wave for cell in chain]


def chosen(waves: Iterable[Wave], items: Iterable[pytest.Item]) -> list[Wave]:
    """The waves without the cells that none of these tests is about."""
    wanted = {item.callspec.params.get("cell") for item in items if hasattr(item, "callspec")}
    return [
        tuple(tuple(cell for cell in chain if cell in wanted) for chain in wave) for wave in waves
    ]


class Waves:
    """Runs waves on one lab, and remembers what became of each cell."""

    def __init__(self, lab: SimulatedLab) -> None:
        self._lab = lab
        self._site: Site = replace(load_site(lab.site), policy=POLICY)
        self._environment: Environment = find_environment(self._site, "debian-12")
        self.evidence: dict[Cell, Evidence] = {}
        self.nodes: list[list[Evidence]] = []  # of each chain that was run
        self.tries = MOST_TRIES

    def run(self, waves: Iterable[Wave]) -> None:
        """Run them all; cells that were not hit run again, each on a node of its own."""
        for wave in waves:
            self._run(wave)
        for _ in range(MOST_TRIES - 1):
            missed = [cell for cell, one in self.evidence.items() if not one.was_hit]
            width = self._lab.settings.nodes
            for start in range(0, len(missed), width):
                self._run(tuple((cell,) for cell in missed[start : start + width]))

    def outcome(self, cell: Cell) -> Outcome:
        """What happened, for the page: where this lab lies is nobody's business."""
        seen = self.evidence[cell].seen
        return replace(seen, reason=seen.reason.replace(str(self._lab.folder.path), "LAB"))

    def _run(self, wave: Wave) -> None:
        chains = {f"node-{index}": chain for index, chain in enumerate(wave, 1) if chain}
        if not chains:
            return
        # A port that is off already would have nothing to obey.
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda node: self._lab.power(_index(node), True), chains))
        store = Store.open(self._site.database)
        try:
            watcher = Watcher(self._lab, store, chains)
            session = Session(self._site, store, observe=watcher)
            records = self._begin(store, session.claim, chains)
            watcher.before()
            try:
                session.drive(records)
            finally:
                watcher.end()
            rows = {node: store.deployment(node) for node in chains}
            journals = {
                node: [t for t in store.transitions(node) if t.deployment == rows[node].id]
                for node in chains
            }
            self._help(chains, {n: row.status for n, row in rows.items()})
            for node in chains:
                evidence = [
                    Evidence(
                        course, rows[node], journals[node], store.deployment(node),
                        self._lab.booted(_index(node))[0],
                    )
                    for course in watcher.courses[node]
                ]  # fmt: skip
                print(tell_story(evidence))  # pytest shows it when a test fails
                self.nodes.append(evidence)
                self.evidence |= {one.course.cell: one for one in evidence}
        finally:
            store.close()

    def _begin(self, store: Store, claim: str, chains: dict[str, Chain]) -> list[Record]:
        person = current_person(self._site.admins)
        operations = Operations(store, SiteProcesses(self._site), person, person.name, claim=claim)
        return [
            record
            for node, chain in chains.items()
            for record in operations.deploy(self._request(node, chain), replace=True, until=None)
        ]

    def _request(self, node: str, chain: Chain) -> Request:
        update = any(cell.updates for cell in chain)
        return Request((self._site.nodes[node],), self._environment, update, 0, "", ())

    def _help(self, chains: dict[str, Chain], status: dict[str, Status]) -> None:
        """What a person does once the faults are gone: `reboot`, or `redeploy`."""
        stopped = [node for node in chains if status[node] is not Status.DEPLOYED]
        again = [n for n in stopped if chains[n][-1].end is End.LOST_REDEPLOY]
        commands = {"reboot": [n for n in stopped if n not in again], "redeploy": again}
        with ThreadPoolExecutor(2) as pool:
            for done in [
                pool.submit(self._lab.run, "--site", str(self._lab.site), what, *nodes, check=False)
                for what, nodes in commands.items()
                if nodes
            ]:
                result: subprocess.CompletedProcess = done.result()
                assert result.returncode in (0, 1), result.stdout + result.stderr


def _index(node: str) -> int:
    return int(node.rpartition("-")[2])
