"""The product without machines: our process table, operations, driver and store; simulated runs."""

import hashlib
import queue
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml
from simulated import SimulatedRunner
from sites import write_site

from piseduce_runner import environments, paths
from piseduce_runner.batches import BatchMaker
from piseduce_runner.deployment import Request
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.operations import Operations, take_over
from piseduce_runner.people import Person
from piseduce_runner.planner import Record
from piseduce_runner.policy import Policy
from piseduce_runner.process_table import load_processes
from piseduce_runner.site import Site
from piseduce_runner.site_processes import SiteProcesses
from piseduce_runner.store import Store

ALICE, BOB, ADMIN = Person("alice", False), Person("bob", False), Person("root", True)
ENVIRONMENT = "debian-12"

_CONTENT = paths.ansible_dir()
PROCESSES = load_processes(_CONTENT / "playbooks" / "processes.yml", [_CONTENT / "roles"])
DEPLOY = PROCESSES["deploy"]
# The states of the deploy process by name; the first of a name that occurs twice.
POSITION = {state.name: state.position for state in reversed(DEPLOY.states)}

# Nobody waits for a place at a switch that is not there.
_NO_PAUSE = Policy.parse({"turn_on": {"window": None}}, "the bench")


def write_bench_site(folder: Path) -> Path:
    write_site(folder)
    (folder / "environments").mkdir()
    return folder


def write_environment(root: Path, name: str = ENVIRONMENT, **changes: object) -> Path:
    """An environment whose image nobody can deploy; `changes` are keys of its description."""
    folder = root / name
    folder.mkdir(parents=True)
    image, block_map = b"an image", b"a block map"
    (folder / "image.img.zst").write_bytes(image)
    (folder / "image.bmap").write_bytes(block_map)
    values = {
        "name": name,
        "family": "raspbian",
        "login": "pi",
        "boot_directory": "/boot/firmware",
        "image": "image.img.zst",
        "block_map": "image.bmap",
        "image_bytes": 64 << 20,
        "mapped_bytes": 32 << 20,
        "compressed_bytes": len(image),
        "compressed_sha256": hashlib.sha256(image).hexdigest(),
        "block_map_sha256": hashlib.sha256(block_map).hexdigest(),
        "disk_id": "0x5eed0001",
        "boot_partition": 1,
        "boot_start_sector": 8192,
        "boot_sectors": 8192,
        "root_partition": 2,
        "root_start_sector": 16384,
        "root_sectors": 65536,
    }
    (folder / "environment.yml").write_text(yaml.safe_dump(values | changes))
    return folder


class Bench:
    """A store in a folder of its own, people who ask, and a driver whose runs play `script`."""

    def __init__(self, site: Site, folder: Path, script=None) -> None:
        self.site = replace(site, folder=folder, policy=_NO_PAUSE)
        folder.mkdir()
        (folder / "keys").symlink_to(site.folder / "keys")
        write_environment(self.site.environments)
        self.store = Store.open(self.site.database)
        self.find_process = SiteProcesses(self.site)
        self.runner = SimulatedRunner(script)
        self.driver: Driver | None = None
        self.observe = lambda view: None

    def asks(self, person: Person = ALICE, claim: str | None = "me", **options) -> Operations:
        """What this person can ask of nodes, in their own name."""
        options = {"owner": person.name} | options
        return Operations(self.store, self.find_process, person, claim=claim, **options)

    def request(self, *nodes: str, environment: str = ENVIRONMENT) -> Request:
        found = environments.find(self.site.environments, environment)
        return Request(tuple(self.site.nodes[n] for n in nodes), found, False, 0, "", ())

    def begin(
        self, *nodes: str, person: Person = ALICE, until: float | None = None, **request
    ) -> list[Record]:
        """Deployments that are begun and not driven yet."""
        return self.asks(person).deploy(self.request(*nodes, **request), replace=True, until=until)

    def drive(self, records: Iterable[Record], claim: str = "me") -> dict[str, Record]:
        self.driver = Driver(
            self.store,
            self.runner,
            BatchMaker(self.site, self.store, lambda node: {}),
            queue.SimpleQueue(),
            claim=claim,
            observe=lambda view: self.observe(view),
            settings=DriverSettings(gather=0.0, look=0.05),
        )
        return self.driver.run(records)

    def take_over(self, *nodes: str, claim: str = "the next") -> dict[str, Record]:
        """Another driver goes on with the nodes that nobody drives."""
        return self.drive(take_over(self.store, self.find_process, nodes, claim, 60.0), claim)

    def played(self, node: str = "node-1", process: str = "deploy") -> list[str]:
        """The states that runs went through on the node since this was asked last."""
        states = PROCESSES[process].states
        names = [states[position].name for who, position in self.runner.played if who == node]
        self.runner.played = [one for one in self.runner.played if one[0] != node]
        return names
