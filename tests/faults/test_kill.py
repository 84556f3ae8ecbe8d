"""kill -9 of the driver in every state of the deploy process, and at moments left to chance.

Only the driver's own process is killed. Ansible, its workers and what they have running on the
nodes are left behind, and go on until the next driver has found them.
"""

import random
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from bench import DEPLOY
from card_writers import CardWriters
from driven_lab import PATIENCE, DrivenLab

from piseduce_runner.planner import Status
from piseduce_runner.store import Outcome, Store

SEED = 20240229
NODES = ["node-1", "node-2", "node-3"]
UPDATED = NODES[0]
CHANCES = 1  # after each of the two states that reboot a node
# Boots that need no place at the switch: there are three boards.
POLICY = {"turn_on": {"window": {"most": 8}}}


class Killer:
    """Starts drivers and kills them."""

    def __init__(self, driven: DrivenLab) -> None:
        self.driven = driven
        self.killed: list[int] = []
        self.said: list[str] = []

    def kill_in(self, position: int) -> bool:
        """Let a driver work, and kill it in that state of the node that is last; False: too late.

        Who is far behind the others would be interrupted in the same state again and again.
        """

        def is_there(store: Store) -> bool:
            left = [h for h in store.deployments().values() if h.status is Status.IN_PROGRESS]
            inside = [h for h in left if h.position == position and h.record.get("entered")]
            return bool(inside) and all(h.position >= position for h in left)

        return self._drive(lambda driver: self.driven.poll(is_there, driver))

    def kill_after(self, seconds: float) -> bool:
        """Let a driver work for so long, from when it has begun with the nodes, and kill it."""

        def wait(driver: subprocess.Popen) -> bool:
            claim = f"pid {driver.pid}"
            mine = self.driven.poll(
                lambda store: any(
                    (held.claim or "").endswith(claim) for held in store.deployments().values()
                ),
                driver,
            )
            try:
                driver.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                return mine
            return False

        return self._drive(wait)

    def finish(self) -> str:
        """Let a driver work to the end; what it said."""
        self._expire()
        done = subprocess.run(
            self.driven.command("agent", "--once"), env=self.driven.lab.environment(),
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _drive(self, wait) -> bool:
        self._expire()
        with self.driven.running("agent", "--once") as driver:
            there = wait(driver)
            driver.kill()
            self.said.append(driver.communicate()[0])
        self.killed.append(driver.pid)
        return there

    def _expire(self) -> None:
        """Half a minute goes by: the claims of drivers that were killed are renewed no more."""

        def expire(store: Store) -> None:
            for held in store.deployments().values():
                if held.claim and not Path(f"/proc/{held.claim.rpartition(' ')[2]}").exists():
                    store.renew_claim(held.claim, 0)

        self.driven.ask(expire)


@pytest.fixture(scope="module")
def driven(make_lab) -> DrivenLab:
    driven = DrivenLab(make_lab("--nodes", "3"))
    driven.set_policy(POLICY)
    return driven


@pytest.fixture(scope="module")
def killer(driven) -> Killer:
    """It has killed drivers in each state, and at moments left to chance."""
    killer, chance = Killer(driven), random.Random(SEED)  # noqa: S311
    writers = CardWriters(driven.lab, [1, 2, 3]).start()
    try:
        deploy = ["deploy", "--env", "debian-12", "--detach"]
        driven.json(*deploy, UPDATED, "--update")
        driven.json(*deploy, *NODES[1:])
        for state in DEPLOY.states:
            killer.kill_in(state.position)
            if state.reboots:
                # The way back to it is long, and was gone before.
                for _ in range(CHANCES):
                    killer.kill_after(chance.uniform(0.3, 3))
        killer.finish()
        if missed := missed_in(driven):
            # The machine was too busy to look at the right moment: once more, for these alone.
            driven.json("redeploy", *NODES, "--detach")
            for position in missed:
                killer.kill_in(position)
            killer.finish()
    finally:
        writers.stop()
    killer.writers = writers
    return killer


def missed_in(driven: DrivenLab) -> list[int]:
    """The states in which no driver was killed."""
    lines = [line for node in NODES for line in driven.journal(node)]
    killed_in = {line.position for line in lines if line.outcome is Outcome.INTERRUPTED}
    return [state.position for state in DEPLOY.states if state.position not in killed_in]


def test_every_node_is_deployed_whenever_its_driver_was_killed(killer, driven):
    assert {row["status"] for row in driven.status().values()} == {"deployed"}
    for index, node in enumerate(NODES, 1):
        assert driven.lab.booted(index)[0] == "card"
        assert driven.lab.hostname_over_ssh(index) == node


def test_a_driver_was_killed_in_every_state(killer, driven):
    assert missed_in(driven) == []
    assert len(killer.killed) >= len(DEPLOY.states) + 2 * CHANCES


def test_no_state_was_lost_to_a_kill(killer, driven):
    """Nothing failed: what a killed driver had left did not get in the way of the next."""
    lines = [line for node in NODES for line in driven.journal(node)]
    failed = [f"{line.node} {line.reason}" for line in lines if line.outcome is Outcome.FAILED]
    assert failed == []


def power_events(driven: DrivenLab, port: int) -> list[str]:
    """What the switch did to the port, by its own log."""
    text = driven.lab.folder.supervisor_log.read_text("utf-8")
    return re.findall(rf"port {port}: power (on|off)", text)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_no_restart_doubled_a_power_action(killer, driven, index):
    """A state that was interrupted and entered again has switched the power once."""
    events = power_events(driven, index)
    assert all(one != other for one, other in pairwise(events))
    states = [line.state for line in driven.journal(f"node-{index}") if "turn_o" in line.state]
    actions = [one for one, before in pairwise([*states[::-1], ""]) if one != before][::-1]
    told = [name.removeprefix("turn_") for name in actions]
    # The boards were off at first, and nobody can switch off what is off.
    assert told[0] == "off"
    assert events == told[1:]


def test_no_two_wrote_to_a_card_at_once(killer):
    assert killer.writers.written == set(NODES)
    assert killer.writers.crowds == []


def test_nothing_of_the_killed_drivers_is_left(killer):
    left = [str(path) for pid in killer.killed for path in Path("/run").glob(f"piseduce-{pid}-*")]
    assert left == []
