"""A lab whose nodes are being deployed while a test looks on, and lays hands on them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from simulated_lab import CLI, SimulatedLab

from piseduce_runner.store import Deployment, Store, Transition

PATIENCE = 240.0  # seconds; what takes longer on a busy machine will never be


class DrivenLab:
    """Commands on the lab's site, and what its store says while they run."""

    def __init__(self, lab: SimulatedLab) -> None:
        self.lab = lab

    def set_policy(self, policy: dict[str, dict[str, Any]]) -> None:
        """The site's policy, as an admin writes it into the inventory."""
        inventory = self.lab.site / "inventory" / "hosts.yml"
        content = yaml.safe_load(inventory.read_text())
        content["all"]["vars"]["piseduce_policy"] = policy
        inventory.write_text(yaml.safe_dump(content))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", CLI, "--site", str(self.lab.site), *words]

    def json(self, *words: str) -> Any:
        done = subprocess.run(
            self.command("--json", *words), env=self.lab.environment(), capture_output=True,
            text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def status(self) -> dict[str, dict[str, Any]]:
        return {row["node"]: row for row in self.json("status")["nodes"]}

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen]:
        """A command that runs while the block looks on; it leads a process group of its own."""
        with subprocess.Popen(
            self.command(*words), env=self.lab.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as command:  # fmt: skip
            try:
                yield command
            except BaseException:
                command.terminate()
                raise

    def held(self, node: str) -> Deployment | None:
        """The node's deployment as it stands in the store at this moment."""
        return self.ask(lambda store: store.deployment(node))

    def journal(self, node: str) -> list[Transition]:
        return self.ask(lambda store: store.transitions(node)) or []

    def wait_for(self, node: str, wanted: Callable[[Deployment], bool]) -> Deployment:
        """The node's deployment once it is as wanted; AssertionError when it will never be."""
        limit = time.monotonic() + PATIENCE
        while True:
            held = self.held(node)
            if held is not None and wanted(held):
                return held
            assert time.monotonic() < limit, f"{node} is in {held}"
            time.sleep(0.02)

    def poll(self, wanted: Callable[[Store], bool], driver: subprocess.Popen) -> bool:
        """Whether the store came to be as wanted before the driver ended."""
        limit = time.monotonic() + PATIENCE
        store = Store.open_existing(self.lab.site / "state" / "piseduce.db")
        try:
            while not wanted(store):
                if driver.poll() is not None:
                    return False
                assert time.monotonic() < limit, store.deployments()
                time.sleep(0.01)
            return True
        finally:
            store.close()

    def wait_state(self, node: str, state: str) -> Deployment:
        """The node has entered the state, or is about to leave the run that it is in."""
        return self.wait_for(node, lambda held: held.state == state)

    def ask(self, question: Callable[[Store], Any]) -> Any:
        """What the store answers; None before there is one."""
        store = Store.open_existing(self.lab.site / "state" / "piseduce.db")
        if store is None:
            return None
        try:
            return question(store)
        finally:
            store.close()
