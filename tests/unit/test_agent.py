"""The agent: what it begins by itself, what it leaves alone, and that one mistake stops nothing."""

import os
import queue
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from simulated import FAIL, HANG, SimulatedRunner, make_batch

from piseduce_runner import planner
from piseduce_runner.agent import DESTROY_AGAIN_SECONDS, Agent
from piseduce_runner.agent_lock import hold_agent_lock, running_agent
from piseduce_runner.deployment import Request
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.processes import Ends, Phase, Process, State
from piseduce_runner.records import to_values
from piseduce_runner.store import NewDeployment, Store

ROOT = Path(__file__).parents[2]
HOUR = 3600.0
OPTIONS = {"update": False, "part_bytes": 0, "password_hash": "", "ssh_keys": []}
CONFIGURATION = {"environment": "debian", "options": OPTIONS}


def process(name, *states, ends=Ends.DEPLOYED):
    made = [State(i, state, Phase.NFS, timeout=60) for i, state in enumerate(states)]
    return Process(name, "", tuple(made), ends)


PROCESSES = {
    "deploy": process("deploy", "boot_conf", "env_copy"),
    "destroy": process("destroy", "turn_off", "destroying", ends=Ends.DESTROYED),
    "boot_test": process("boot_test", "boot_conf", ends=Ends.BOOTED),
}


class Site:
    """A store, an agent on it, and a driver with simulated runs. Time is this class's `now`."""

    def __init__(self, path):
        self.store = Store.open(path)
        self.now = time.time()
        self.runner = SimulatedRunner()
        self.said, self.ended_runs = [], []

    def agent(self, once=True):
        return Agent(
            self.store,
            lambda name, environment: PROCESSES[name],
            self.request,
            claim="agent 1",
            lease=30,
            end_runs_of=self.ended_runs.append,
            say=self.said.append,
            once=once,
            clock=lambda: self.now,
        )

    def request(self, reservation):
        name = reservation.configuration["environment"]
        if name == "gone":
            raise UserError("unknown environment 'gone'")
        node = SimpleNamespace(name=reservation.node)
        return Request((node,), SimpleNamespace(name=name, family="raspbian"), False, 0, "", ())

    def run(self, agent=None):
        """As `agent --once` does; what became of the nodes that were driven."""
        agent = agent or self.agent()
        driver = Driver(
            self.store, self.runner, make_batch, queue.SimpleQueue(), claim="agent 1",
            observe=agent.observe, settings=DriverSettings(gather=0.01, look=0.02),
        )  # fmt: skip
        return {name: one.status for name, one in driver.run((), agent.look).items()}

    def reserve(self, node, owner="alice", configuration=CONFIGURATION, start=0.0, end=HOUR):
        times = (self.now + start, self.now + end)
        return self.store.reserve([node], owner, *times, self.now, configuration)[0]

    def begin(self, node, name="deploy", claim="driver 7", expires=600.0):
        record = planner.begin(PROCESSES[name], node, frozenset())
        new = NewDeployment(
            node, name, "debian", "alice", 0, record.state.name, record=to_values(record)
        )
        self.store.begin([new], claim, self.now, self.now + expires)
        return record

    def end(self, node, status=Status.DEPLOYED, name="deploy"):
        record = self.begin(node, name)
        self.store.end(node, "driver 7", status, "", self.now, to_values(record))

    def status(self, node):
        held = self.store.deployment(node)
        return held.status if held else None

    def says(self, *words):
        return any(all(word in line for word in words) for line in self.said)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "piseduce.db")
    yield made
    made.store.close()


def test_what_is_due_is_deployed_in_its_owners_name_and_nothing_else(site):
    site.reserve("due")
    site.reserve("later", start=HOUR, end=2 * HOUR)
    site.reserve("unconfigured", configuration=None)
    assert site.run() == {"due": Status.DEPLOYED}
    assert site.store.deployment("due").owner == "alice"
    assert [(a.who, a.what) for a in site.store.acts("due")] == [("agent", "deploy")]
    assert site.says("due: deploy begins, for alice")
    assert site.says("due: deployed")


def test_those_that_are_due_together_go_together(site):
    site.reserve("a")
    site.reserve("b", owner="bob")
    site.run()
    assert [set(run.batch.nodes) for run in site.runner.runs] == [{"a", "b"}]


def test_a_deployment_that_failed_is_not_repeated(site):
    site.reserve("a")
    site.runner.script[("a", 1)] = FAIL
    assert site.run() == {"a": Status.LOST}
    assert site.run() == {}
    assert site.status("a") is Status.LOST


def test_what_cannot_be_had_any_more_is_lost_with_the_reason_and_stops_no_other(site):
    site.reserve("bad", configuration={"environment": "gone", "options": OPTIONS})
    site.reserve("good")
    agent = site.agent()
    assert site.run(agent) == {"good": Status.DEPLOYED}
    held = site.store.deployment("bad")
    assert (held.status, held.reason) == (Status.LOST, "unknown environment 'gone'")
    assert agent.failed == {"bad"}
    assert sum("unknown environment" in line for line in site.said) == 1


def test_what_somebody_else_works_on_has_to_wait_and_is_said_once(site):
    site.reserve("a")
    site.begin("a", "boot_test")
    agent = site.agent(once=False)
    assert agent.look() == []
    site.now += 60
    assert agent.look() == []
    assert sum("deploy has to wait: a is under way" in line for line in site.said) == 1
    site.store.end("a", "driver 7", Status.BOOTED, "", site.now, {})
    site.now += 60
    assert [record.node for record in agent.look()] == ["a"]


def test_an_expired_reservation_is_destroyed_and_the_node_is_free(site):
    site.reserve("a")
    site.end("a")
    assert site.run() == {}
    site.now += 2 * HOUR
    assert site.run() == {"a": Status.DESTROYED}
    assert site.status("a") is None
    assert site.store.reservations("a") == []


def test_the_next_one_gets_the_node_after_it_was_destroyed(site):
    site.reserve("a")
    site.end("a")
    site.reserve("a", owner="bob", start=HOUR, end=3 * HOUR)
    site.now += 2 * HOUR
    assert site.run() == {"a": Status.DEPLOYED}
    assert site.store.deployment("a").owner == "bob"
    assert [p for _, p in site.runner.played] == [0, 1, 0, 1]


def test_as_long_as_something_of_its_own_is_under_way_more_may_become_due(site):
    site.reserve("a")
    agent = site.agent()
    assert len(agent.look()) == 1
    assert agent.look() == []
    site.store.end("a", "agent 1", Status.DEPLOYED, "", site.now, {})
    assert agent.look() is None


def test_a_deployment_that_is_under_way_at_the_end_is_cancelled_first(site):
    """Its driver is the agent itself, which hangs in the deployment's second state."""
    reservation = site.reserve("a")
    site.runner.script[("a", 1)] = [HANG, None]
    site.runner.on_state = lambda node, position: site.store.end_reservation(
        reservation.id, site.now
    )
    assert site.run() == {"a": Status.DESTROYED}
    states = [(t.process, t.state, t.outcome.value) for t in site.store.transitions("a")]
    assert states[1] == ("deploy", "env_copy", "cancelled")
    assert states[-1] == ("destroy", "destroying", "proven")
    assert site.says("a: cancelled, for its reservation has ended")


def test_another_driver_is_asked_to_cancel_and_waited_for(site):
    site.reserve("a")
    site.begin("a", expires=2.5 * HOUR)
    site.now += 2 * HOUR
    agent = site.agent()
    assert agent.look() == []
    assert site.store.cancels_asked("driver 7") == {"a": "agent"}
    site.store.end("a", "driver 7", Status.CANCELLED, "", site.now, {})
    assert site.run(agent) == {"a": Status.DESTROYED}


def test_a_driver_that_does_not_cancel_is_not_waited_for_for_ever(site):
    site.reserve("a")
    site.begin("a", expires=2.5 * HOUR)
    site.now += 2 * HOUR
    agent = site.agent()
    agent.look()
    site.now += 100
    assert agent.look() is None
    assert agent.failed == {"a"}
    assert site.says("driver 7 was asked to cancel, and does not")


def test_an_interrupted_deployment_whose_reservation_has_ended_is_not_resumed(site):
    site.reserve("a")
    site.begin("a", expires=10)
    site.now += 2 * HOUR
    assert site.run() == {"a": Status.DESTROYED}
    assert {t.process for t in site.store.transitions("a")} == {"destroy"}


def test_a_lost_destroy_is_tried_again_after_a_while_only(site):
    reservation = site.reserve("a")
    site.end("a")
    site.store.end_reservation(reservation.id, site.now)
    site.runner.script[("a", 1)] = [FAIL]
    assert site.run() == {"a": Status.LOST}
    site.now = site.store.deployment("a").since + 1
    again = site.agent()
    assert site.run(again) == {}
    assert again.failed == {"a"}
    assert site.says("a: could not be destroyed", "it broke", "tried again at")
    site.now += DESTROY_AGAIN_SECONDS
    assert site.run() == {"a": Status.DESTROYED}


@pytest.mark.parametrize("claim", [None, "driver 7"])
def test_what_was_left_or_interrupted_is_taken_over(site, claim):
    site.begin("a", claim=claim, expires=-1)
    assert site.run() == {"a": Status.DEPLOYED}
    assert site.ended_runs == ([claim] if claim else [])
    assert site.says("a: deploy taken on in boot_conf")


def test_what_somebody_drives_is_left_to_them(site):
    site.begin("a")
    assert site.run() == {}
    assert site.store.deployment("a").claim == "driver 7"
    assert site.ended_runs == []


def test_what_an_earlier_process_of_our_number_left_is_taken_over(site):
    site.begin("a", claim="agent 1")
    assert site.run() == {"a": Status.DEPLOYED}


def test_a_node_that_cannot_be_taken_up_again_is_lost_and_the_others_go_on(site):
    new = NewDeployment("old", "deploy", "debian", "alice", 0, "gone", record={"states": ["gone"]})
    site.store.begin([new], None, site.now, None)
    site.begin("a", claim=None)
    agent = site.agent()
    assert site.run(agent) == {"a": Status.DEPLOYED}
    assert "has other states now" in site.store.deployment("old").reason
    assert agent.failed == {"old"}


def test_an_interrupted_deployment_that_is_to_be_cancelled_is_not_resumed(site):
    site.begin("a", claim=None)
    site.store.ask_cancel("a", "alice", site.now)
    assert site.run() == {}
    assert site.status("a") is Status.CANCELLED


def test_an_agent_that_is_to_end_begins_nothing_more(site):
    site.reserve("a")
    agent = site.agent(once=False)
    agent.wind_up()
    assert site.run(agent) == {}
    assert site.status("a") is None


# one for each site


def test_there_is_one_agent_at_a_time(tmp_path):
    lock = tmp_path / "state" / "agent.lock"
    assert running_agent(lock) is None
    with hold_agent_lock(lock):
        assert running_agent(lock) == os.getpid()
        refused = rf"an agent is at work on this site already \(pid {os.getpid()}\)"
        with pytest.raises(UserError, match=refused), hold_agent_lock(lock):
            pass
    assert running_agent(lock) is None
    with hold_agent_lock(lock):
        pass


def test_an_agent_that_was_killed_holds_no_lock(tmp_path):
    lock = tmp_path / "agent.lock"
    code = (
        "import os, pathlib, signal, sys; from piseduce_runner.agent_lock import hold_agent_lock\n"
        "with hold_agent_lock(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, lock], check=False)
    assert done.returncode < 0
    assert lock.read_text() != ""
    assert running_agent(lock) is None
    with hold_agent_lock(lock):
        assert running_agent(lock) == os.getpid()


def test_systemd_understands_the_unit(tmp_path):
    command = shutil.which("true")
    unit = (ROOT / "examples" / "piseduce-agent.service").read_text()
    assert "ExecStart=/usr/local/bin/piseduce-run agent\n" in unit
    file = tmp_path / "piseduce-agent.service"
    # It asks for the program itself, which is not installed where tests run.
    file.write_text(unit.replace("/usr/local/bin/piseduce-run", command))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
