"""Cancelling what is under way: its driver does it, or whoever asks when there is none."""

import threading
import time

import pytest
from simulated import HANG, SimulatedRunner, make_batch

from piseduce_runner import planner
from piseduce_runner.cancelling import Cancelling
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.errors import UserError
from piseduce_runner.people import Person
from piseduce_runner.planner import Status
from piseduce_runner.processes import Phase, Process, State
from piseduce_runner.records import from_values, to_values
from piseduce_runner.store import NewDeployment, Outcome, Store

PROCESS = Process(
    "deploy",
    "",
    (State(0, "turn_on", Phase.NFS, timeout=60), State(1, "env_copy", Phase.NFS, timeout=60)),
)
ALICE = Person("alice", is_admin=False)


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "piseduce.db")
    yield opened
    opened.close()


@pytest.fixture
def ended_runs():
    return []


@pytest.fixture
def cancelling(store, ended_runs):
    return Cancelling(store, lambda name, environment: PROCESS, "us", ended_runs.append)


def begin(store, *nodes, claim="driver 7", expires=None):
    records = [planner.begin(PROCESS, node, frozenset()) for node in nodes]
    store.begin(
        [
            NewDeployment(r.node, "deploy", "debian", "alice", 0, "turn_on", record=to_values(r))
            for r in records
        ],
        claim, time.time(), expires if expires is not None else time.time() + 600,
    )  # fmt: skip
    return records


def ask(cancelling, *nodes, person=ALICE, force=False):
    cancelling.ask(nodes, person, owner=person.name, force=force)


def test_a_driver_that_lives_ends_what_it_was_asked_to(store, cancelling, ended_runs, tmp_path):
    records = begin(store, "a", "b")
    runner = SimulatedRunner({("a", 1): HANG, ("b", 1): HANG})
    hangs = threading.Event()
    runner.on_state = lambda node, position: position == 1 and hangs.set()

    def drive():
        import queue

        own = Store.open(tmp_path / "piseduce.db")
        driver = Driver(
            own, runner, make_batch, queue.SimpleQueue(), claim="driver 7",
            settings=DriverSettings(gather=0.05, look=0.05),
        )  # fmt: skip
        driver.run(records)
        own.close()

    driving = threading.Thread(target=drive)
    driving.start()
    assert hangs.wait(60)
    ask(cancelling, "a", "b")
    assert cancelling.wait(["a", "b"], patience=60) == []
    driving.join(60)
    for node in ("a", "b"):
        held = store.deployment(node)
        assert (held.status, held.claim) == (Status.CANCELLED, None)
        assert held.reason == "env_copy: cancelled by alice, in task: Wait for ever"
    assert ended_runs == []


@pytest.mark.parametrize("claim", [None, "driver 7"])
def test_a_node_that_nobody_drives_is_cancelled_by_whoever_asks(
    store, cancelling, ended_runs, claim
):
    begin(store, "a", claim=claim, expires=time.time() - 1)
    ask(cancelling, "a")
    assert cancelling.wait(["a"], patience=60) == []
    held = store.deployment("a")
    assert (held.status, held.claim, held.reason) == (
        Status.CANCELLED, None, "turn_on: cancelled by alice",
    )  # fmt: skip
    # What hangs of the driver that has gone is ended, and the node can be taken up again.
    assert ended_runs == ([claim] if claim else [])
    stored = from_values("a", PROCESS, held.status, held.reason, held.record)
    assert planner.resume(stored).status is Status.IN_PROGRESS


def test_a_deployment_of_a_process_that_has_changed_is_cancelled_too(store, ended_runs):
    begin(store, "a", claim=None)

    def gone(name, environment):
        raise UserError("unknown environment")

    cancelling = Cancelling(store, gone, "us", ended_runs.append)
    ask(cancelling, "a")
    assert cancelling.wait(["a"], patience=60) == []
    assert store.deployment("a").status is Status.CANCELLED


def test_a_driver_that_lives_and_does_not_answer_is_named_after_a_while(store, cancelling):
    begin(store, "a")
    ask(cancelling, "a")
    assert cancelling.wait(["a"], patience=0) == ["a"]
    assert store.deployment("a").claim == "driver 7"


def test_all_that_was_named_is_cancelled_or_nothing(store, cancelling):
    begin(store, "a")
    with pytest.raises(UserError, match="b: nothing is under way"):
        ask(cancelling, "a", "b")
    assert store.cancels_asked("driver 7") == {}
    assert store.acts() == []


def test_somebody_elses_deployment_takes_an_admins_force(store, cancelling):
    begin(store, "a")
    with pytest.raises(UserError, match="a is alice's"):
        ask(cancelling, "a", person=Person("bob", is_admin=False), force=True)
    root = Person("root", is_admin=True)
    with pytest.raises(UserError, match="a is alice's"):
        ask(cancelling, "a", person=root)
    ask(cancelling, "a", person=root, force=True)
    assert store.cancels_asked("driver 7") == {"a": "root"}
    assert [(act.what, act.forced) for act in store.acts()] == [("cancel", True)]


def test_the_journal_says_that_it_was_cancelled(store, cancelling):
    (record,) = begin(store, "a", claim="driver 7", expires=time.time() + 600)
    store.enter(
        "a", "driver 7", position=0, state="turn_on", attempt=1, log="", now=time.time(),
        record=to_values(record),
    )  # fmt: skip
    store.release("a", "driver 7", time.time(), "left by SIGINT")
    ask(cancelling, "a")
    cancelling.wait(["a"], patience=60)
    assert store.transitions("a")[-1].outcome is Outcome.INTERRUPTED
    assert store.acts("a")[-1].detail == "deploy: turn_on"
