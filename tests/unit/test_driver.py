"""The driver's loop, on simulated runs: batches, deadlines, isolation, and the store's order."""

import queue
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated import CRASH, FAIL, HANG, SimulatedRunner, make_batch

from piseduce_runner import planner
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.planner import Status
from piseduce_runner.processes import Phase, Process, State, Window
from piseduce_runner.records import to_values
from piseduce_runner.runs import Progressed
from piseduce_runner.store import NewDeployment, Outcome, Store

PROCESS = Process(
    "deploy",
    "",
    (
        State(0, "turn_on", Phase.NFS, timeout=0.4),
        State(1, "env_copy", Phase.NFS, timeout=0.4),
        State(2, "boot_files", Phase.NFS, timeout=0.4, reboots=True),
        State(3, "ssh_test", Phase.DEPLOYED, timeout=0.4),
    ),
)


class Cluster:
    """A store with claimed nodes, and a driver on a simulated runner."""

    def __init__(self, path, nodes, script=None, process=PROCESS, switch_of=None, **options):
        self.store = Store.open(path)
        self.store.begin(
            [NewDeployment(n, "deploy", "debian", "alice", 0, "turn_on") for n in nodes],
            "me", now=0, expires=1e12,
        )  # fmt: skip
        self.runner = SimulatedRunner(script)
        self.views = []
        self.driver = Driver(
            self.store,
            self.runner,
            make_batch,
            queue.SimpleQueue(),
            claim="me",
            observe=self.views.append,
            switch_of=switch_of,
            settings=DriverSettings(**{"gather": 0.05, "look": 0.05} | options),
        )
        self.records = [planner.begin(process, node, frozenset()) for node in nodes]

    def run(self):
        return self.driver.run(self.records)


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make(nodes, script=None, process=PROCESS, **options):
        made.append(Cluster(tmp_path / f"{len(made)}.db", nodes, script, process, **options))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def test_nodes_go_together_through_one_run_for_each_stretch(cluster):
    four = cluster(["a", "b", "c", "d"])
    ended = four.run()
    assert {record.status for record in ended.values()} == {Status.DEPLOYED}
    assert [run.batch.nodes for run in four.runner.runs] == [("a", "b", "c", "d")] * 2
    assert [[s.position for s in run.batch.states] for run in four.runner.runs] == [[0, 1, 2], [3]]
    assert four.driver.runs_started == 2


def test_the_journal_tells_every_state_of_every_node(cluster):
    two = cluster(["a", "b"])
    two.run()
    for node in ("a", "b"):
        told = two.store.transitions(node)
        assert [t.state for t in told] == [state.name for state in PROCESS.states]
        assert {t.outcome for t in told} == {Outcome.PROVEN}
    held = two.store.deployment("a")
    assert (held.status, held.claim) == (Status.DEPLOYED, None)
    assert held.memory["seen_1"] == "yes"


def test_the_store_knows_of_a_state_before_it_begins(cluster):
    one = cluster(["a"])

    def check(node, position):
        held = one.store.deployment(node)
        assert (held.position, held.state) == (position, PROCESS.states[position].name)
        assert one.store.transitions(node)[-1].outcome is None

    one.runner.on_state = check
    assert one.run()["a"].status is Status.DEPLOYED


def test_a_failed_node_is_lost_with_its_reason_and_the_others_go_on(cluster):
    three = cluster(["a", "b", "c"], {("b", 1): FAIL})
    ended = three.run()
    assert ended["b"].status is Status.LOST
    assert ended["b"].reason == "env_copy: Do it: it broke"
    assert ended["a"].status is ended["c"].status is Status.DEPLOYED
    assert three.store.transitions("b")[-1].outcome is Outcome.FAILED
    assert three.store.deployment("b").reason == "env_copy: Do it: it broke"


def test_a_node_that_misses_its_deadline_is_lost_and_only_it_is_ended(cluster):
    two = cluster(["a", "b"], {("b", 1): HANG})
    ended = two.run()
    assert ended["b"].reason == "env_copy: not done within 0.4 s (in task: Wait for ever, at 43 %)"
    assert two.runner.runs[0].given_up == ["b"]
    assert ended["a"].status is Status.DEPLOYED
    assert two.store.deployment("b").percent == 43


def test_nodes_of_a_run_that_crashed_are_lost_with_what_it_said(cluster):
    two = cluster(["a", "b"], {("b", 1): CRASH})
    ended = two.run()
    assert ended["b"].reason == "env_copy: ansible-playbook ended with status 250"


def test_large_batches_are_cut_and_no_more_runs_are_alive_than_allowed(cluster):
    nodes = [f"n{i}" for i in range(10)]
    ten = cluster(nodes, largest_batch=3, most_runs=2)
    alive = []
    ten.runner.on_state = lambda node, position: alive.append(
        sum(not run.ended for run in ten.runner.runs)
    )
    assert {r.status for r in ten.run().values()} == {Status.DEPLOYED}
    assert max(len(run.batch.nodes) for run in ten.runner.runs) == 3
    assert max(alive) <= 2


def test_detaching_ends_the_runs_and_leaves_the_nodes_to_the_next_driver(cluster):
    two = cluster(["a", "b"], {("b", 0): HANG})
    two.runner.on_state = lambda node, position: two.driver.detach("left by SIGINT")
    assert two.run() == {}
    assert all(run.ended for run in two.runner.runs)
    for node in ("a", "b"):
        held = two.store.deployment(node)
        assert (held.status, held.claim, held.reason) == (
            Status.IN_PROGRESS, None, "left by SIGINT",
        )  # fmt: skip
        assert two.store.transitions(node)[-1].outcome is Outcome.INTERRUPTED


def test_a_node_that_another_driver_has_taken_is_left_to_it_and_the_others_go_on(cluster):
    three = cluster(["a", "b", "c"])

    def take(node, position):
        if (node, position) == ("b", 1):
            three.store._db.execute("UPDATE deployment SET claim = 'other' WHERE node = 'b'")

    three.runner.on_state = take
    ended = three.run()
    assert ended["b"].status is Status.LOST
    assert "no longer ours" in ended["b"].reason
    assert ended["a"].status is ended["c"].status is Status.DEPLOYED
    assert three.store.deployment("b").claim == "other"
    assert "b" in three.runner.runs[0].given_up


def test_a_deadline_holds_however_fast_events_come(cluster):
    one = cluster(["a"], {("a", 0): HANG})

    class Flood(queue.SimpleQueue):
        """Never empty: whoever takes an event finds another."""

        def get(self, *arguments, **options):
            self.put(Progressed("a", self.qsize() % 100))
            return super().get(*arguments, **options)

        def get_nowait(self):
            self.put(Progressed("a", self.qsize() % 100))
            return super().get_nowait()

    one.driver._events = Flood()
    assert one.run()["a"].reason.startswith("turn_on: not done within 0.4 s")


NODES = ("a", "b", "c")
scripts = st.dictionaries(
    st.tuples(st.sampled_from(NODES), st.integers(0, 3)), st.sampled_from([FAIL, HANG, CRASH])
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=scripts)
def test_whatever_happens_every_node_ends_and_none_is_deployed_unproven(cluster, script):
    hanging = {position for (_, position), word in script.items() if word == HANG}
    # Short only where a node hangs: a slow disk makes nobody late.
    states = [replace(s, timeout=0.2 if s.position in hanging else 60) for s in PROCESS.states]
    any_cluster = cluster(NODES, script, replace(PROCESS, states=tuple(states)))
    ended = any_cluster.run()
    crashed = {position for (_, position), word in script.items() if word == CRASH}
    for node, record in ended.items():
        assert record.status is not Status.IN_PROGRESS
        proven = [
            t.position for t in any_cluster.store.transitions(node) if t.outcome is Outcome.PROVEN
        ]
        if record.status is Status.DEPLOYED:
            assert proven == [0, 1, 2, 3]
        elif not crashed:
            position = record.state.position
            assert position in hanging or (node, position) in script
        assert any_cluster.store.deployment(node).claim is None


WINDOWED = Process(
    "deploy", "", (State(0, "env_copy", Phase.NFS, timeout=20, window=Window(most=1)),)
)


def test_a_window_counts_the_nodes_of_other_drivers(cluster):
    one = cluster(["a"], process=WINDOWED)
    other = planner.begin(WINDOWED, "x", frozenset())
    in_it = planner.apply(other, planner.Entered(0, 20), 0)
    one.store.begin(
        [NewDeployment("x", "deploy", "debian", "alice", 0, "env_copy", record=to_values(in_it))],
        "another driver", now=0, expires=time.time() + 600,
    )  # fmt: skip
    asked = []

    def look():
        asked.append(one.runner.played[:])
        if len(asked) == 3:
            one.store.end("x", "another driver", Status.LOST, "", 0, {})
        if one.runner.played:
            one.driver.detach("done")
        return []

    assert one.driver.run(one.records, look)["a"].status is Status.DEPLOYED
    assert asked[:3] == [[], [], []]
