"""The store: claims, the journal, and what two processes may not do to each other."""

import sqlite3
import threading
from dataclasses import replace

import pytest

from piseduce_runner.planner import Status
from piseduce_runner.store import NewDeployment, NodeTaken, Outcome, Store


@pytest.fixture
def store(tmp_path):
    with_tables = Store.open(tmp_path / "state" / "piseduce.db")
    yield with_tables
    with_tables.close()


def new(node="node-1", **options):
    return NewDeployment(node, "deploy", "debian", "alice", 0, "boot_conf", options)


def into(position, state, attempt=1, record=None):
    """What `Store.enter` needs to know of the state."""
    return {
        "position": position,
        "state": state,
        "attempt": attempt,
        "log": f"{state}.log",
        "record": record or {},
    }


def test_a_node_goes_through_a_state_and_the_journal_tells_it(store):
    store.begin([new(update=True)], "me", now=100, expires=130)
    store.enter("node-1", "me", **into(0, "boot_conf"), now=101)
    store.leave("node-1", "me", Outcome.PROVEN, "", now=103, record={"proven": [0]})
    store.enter("node-1", "me", **into(1, "turn_off"), now=103)
    store.end("node-1", "me", Status.LOST, "turn_off: no answer", now=110, record={"tries": 2})

    held = store.deployment("node-1")
    assert (held.status, held.state, held.reason) == (
        Status.LOST,
        "turn_off",
        "turn_off: no answer",
    )
    assert (held.since, held.claim, held.options) == (110, None, {"update": True})
    assert held.record == {"tries": 2}
    told = [(t.state, t.started, t.ended, t.outcome) for t in store.transitions("node-1")]
    assert told == [
        ("boot_conf", 101, 103, Outcome.PROVEN),
        ("turn_off", 103, 110, Outcome.FAILED),
    ]


def test_what_was_written_is_there_for_another_connection(store, tmp_path):
    store.begin([new()], "me", now=1, expires=2)
    other = Store.open(tmp_path / "state" / "piseduce.db")
    assert other.deployments()["node-1"].owner == "alice"
    other.close()


def test_a_claimed_node_is_refused_until_the_claim_expires_and_none_of_the_batch_begins(store):
    store.begin([new("node-2")], "me", now=100, expires=130)
    with pytest.raises(NodeTaken, match="node-2 is being driven by me"):
        store.begin([new("node-1"), new("node-2")], "other", now=129, expires=160)
    assert store.deployment("node-1") is None
    store.begin([new("node-1"), new("node-2")], "other", now=131, expires=160)
    assert store.deployment("node-2").claim == "other"


def test_a_renewed_claim_holds(store):
    store.begin([new()], "me", now=100, expires=130)
    store.renew_claim("me", expires=200)
    with pytest.raises(NodeTaken):
        store.begin([new()], "other", now=150, expires=160)


def test_a_claim_from_when_the_clock_was_wrong_holds_nothing(store):
    store.begin([new()], "me", now=1e6, expires=1e6 + 30)
    assert store.deployment("node-1").is_claimed(1e6)
    assert not store.deployment("node-1").is_claimed(100)
    assert [held.node for held in store.interrupted(100)] == ["node-1"]
    assert [held.claim for held in store.take(["node-1"], "other", 100, 130)] == ["other"]


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.enter("node-1", "other", **into(1, "turn_off"), now=5),
        lambda s: s.leave("node-1", "other", Outcome.PROVEN, "", now=5, record={}),
        lambda s: s.end("node-1", "other", Status.DEPLOYED, "", now=5, record={}),
        lambda s: s.release("node-1", "other", now=5, reason="detached"),
        lambda s: s.remember("node-1", "other", {"boot_id": "x"}),
        lambda s: s.set_percent("node-1", "other", 5),
    ],
)
def test_nothing_is_changed_on_a_node_that_is_not_ours(store, change):
    store.begin([new()], "me", now=1, expires=9)
    before = store.deployment("node-1")
    with pytest.raises(NodeTaken):
        change(store)
    assert store.deployment("node-1") == before
    assert store.transitions() == []


def test_memory_adds_up_and_of_it_only_the_last_boot_id_outlives_the_deployment(store):
    store.begin([new()], "me", now=1, expires=9)
    store.remember("node-1", "me", {"boot_id": "a"})
    assert store.remember("node-1", "me", {"host_key": "k"}) == {"boot_id": "a", "host_key": "k"}
    store.end("node-1", "me", Status.DEPLOYED, "", now=2, record={})
    store.begin([new()], "me", now=3, expires=9)
    assert store.deployment("node-1").memory == {"boot_id": "a"}


def test_two_processes_that_begin_at_once_never_both_get_the_node(store, tmp_path):
    barrier, won = threading.Barrier(8), []

    def contend(name):
        mine = Store.open(tmp_path / "state" / "piseduce.db")
        barrier.wait(timeout=30)
        try:
            mine.begin([new("node-1"), new("node-2")], name, now=1, expires=9)
            won.append(name)
        except NodeTaken:
            pass
        finally:
            mine.close()

    threads = [threading.Thread(target=contend, args=[f"driver-{i}"]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(won) == 1
    assert {d.claim for d in store.deployments().values()} == set(won)


def test_the_table_refuses_a_wrong_type_and_a_second_active_row(store, tmp_path):
    store.begin([new()], "me", now=1, expires=9)
    raw = sqlite3.connect(tmp_path / "state" / "piseduce.db")
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute("UPDATE deployment SET position = 'three'")
    raw.execute("CREATE TEMP TABLE copy AS SELECT * FROM deployment")
    raw.execute("UPDATE copy SET id = 99")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        raw.execute("INSERT INTO deployment SELECT * FROM copy")
    raw.close()


def test_the_last_boot_id_outlives_a_destroyed_node_too(store):
    store.begin([new()], "me", now=1, expires=9)
    store.remember("node-1", "me", {"boot_id": "a", "host_key": "k"})
    store.end("node-1", "me", Status.DESTROYED, "", now=2, record={})
    assert store.deployment("node-1") is None
    store.begin([new()], "me", now=3, expires=9)
    assert store.deployment("node-1").memory == {"boot_id": "a"}


def test_all_that_is_known_of_a_node_is_carried_over_when_it_only_reboots(store):
    store.begin([new()], "me", now=1, expires=9)
    store.end("node-1", "me", Status.DEPLOYED, "", 2, {}, {"boot_id": "a", "host_key": "k"})
    store.begin([replace(new(), process="reboot", carry_memory=True)], "me", now=3, expires=9)
    assert store.deployment("node-1").memory == {"boot_id": "a", "host_key": "k"}


def test_a_states_facts_are_stored_together_with_its_proof(store):
    store.begin([replace(new(), record={"proven": []})], "me", now=1, expires=9)
    assert store.deployment("node-1").record == {"proven": []}
    store.remember("node-1", "me", {"boot_id": "a"})
    store.enter("node-1", "me", **into(2, "ssh_test", attempt=3, record={"tries": 3}), now=2)
    assert (store.deployment("node-1").attempt, store.deployment("node-1").record) == (
        3,
        {"tries": 3},
    )
    facts = {"host_key": "k"}
    store.leave("node-1", "me", Outcome.PROVEN, "", 3, {"proven": [2]}, facts)
    held = store.deployment("node-1")
    assert (held.memory, held.record) == (
        {"boot_id": "a", "host_key": "k"},
        {"proven": [2]},
    )
    assert [t.attempt for t in store.transitions()] == [3]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (Status.DEPLOYED, Outcome.PROVEN),
        (Status.BOOTED, Outcome.PROVEN),
        (Status.DESTROYED, Outcome.PROVEN),
        (Status.LOST, Outcome.FAILED),
        (Status.CANCELLED, Outcome.CANCELLED),
    ],
)
def test_the_journals_last_line_says_how_the_process_ended(store, status, outcome):
    store.begin([new()], "me", now=1, expires=9)
    store.enter("node-1", "me", **into(0, "boot_conf"), now=2)
    store.ask_cancel("node-1", "bob", now=3)
    store.end("node-1", "me", status, "why", now=4, record={})
    last = store.transitions()[-1]
    assert (last.outcome, last.reason, last.ended) == (outcome, "why", 4)
    held = store.deployment("node-1")
    if status is Status.DESTROYED:
        assert held is None
    else:
        assert (held.status, held.claim, held.cancel_asked_by) == (status, None, "")


# giving back, taking over, resuming


def test_a_node_that_was_given_back_is_taken_by_the_next_driver(store):
    store.begin([new()], "me", now=1, expires=9)
    store.enter("node-1", "me", **into(0, "boot_conf"), now=2)
    store.release("node-1", "me", now=3, reason="detached")
    held = store.deployment("node-1")
    assert (held.status, held.claim, held.reason) == (Status.IN_PROGRESS, None, "detached")
    assert [d.node for d in store.interrupted(now=3)] == ["node-1"]

    (taken,) = store.take(["node-1", "node-2"], "agent", now=4, expires=30)
    assert (taken.node, taken.claim, taken.claim_expires) == ("node-1", "agent", 30)
    (line,) = store.transitions()
    assert (line.outcome, line.reason, line.ended) == (Outcome.INTERRUPTED, "detached", 3)
    assert store.interrupted(now=4) == []


def test_a_node_whose_driver_died_is_taken_only_once_the_claim_has_expired(store):
    store.begin([new()], "dead", now=1, expires=9)
    store.enter("node-1", "dead", **into(0, "boot_conf"), now=2)
    assert store.take(["node-1"], "agent", now=8.9, expires=30) == []
    assert store.transitions()[-1].outcome is None
    assert [d.claim for d in store.interrupted(now=9)] == ["dead"]
    assert [d.claim for d in store.take(["node-1"], "agent", now=9, expires=30)] == ["agent"]
    assert store.transitions()[-1].outcome is Outcome.INTERRUPTED


def test_a_deployment_that_nobody_drives_yet_waits_for_the_agent(store):
    store.begin([new()], None, now=1, expires=None)
    assert [d.node for d in store.interrupted(now=1)] == ["node-1"]
    assert len(store.take(["node-1"], "agent", now=2, expires=30)) == 1
    assert store.transitions() == []


@pytest.mark.parametrize("status", [Status.DEPLOYED, Status.LOST, Status.CANCELLED])
def test_only_nodes_in_progress_are_taken(store, status):
    store.begin([new()], "me", now=1, expires=9)
    store.end("node-1", "me", status, "", now=2, record={})
    assert store.take(["node-1"], "agent", now=20, expires=30) == []


def test_a_deployment_in_the_place_of_an_interrupted_one_leaves_no_open_line(store):
    store.begin([new()], "dead", now=1, expires=9)
    store.enter("node-1", "dead", **into(0, "boot_conf"), now=2)
    store.begin([new()], "me", now=10, expires=30)
    (line,) = store.transitions()
    assert (line.outcome, line.ended) == (Outcome.INTERRUPTED, 10)


def resume(store, claim="me", expected=Status.LOST):
    return store.resume(
        "node-1", claim, now=20, expires=50, position=1, state="turn_off",
        record={"cycled": 1}, expected_status=expected,
    )  # fmt: skip


@pytest.mark.parametrize("status", [Status.LOST, Status.CANCELLED])
def test_a_node_that_was_given_up_is_resumed(store, status):
    store.begin([new()], "dead", now=1, expires=9)
    store.set_percent("node-1", "dead", 40)
    store.end("node-1", "dead", status, "boot_conf: no answer", now=2, record={})
    held = resume(store, expected=status)
    assert (held.status, held.claim, held.claim_expires) == (Status.IN_PROGRESS, "me", 50)
    assert (held.position, held.state, held.record) == (1, "turn_off", {"cycled": 1})
    assert (held.reason, held.percent, held.since) == ("", None, 20)


def test_a_node_is_resumed_by_one_only_and_only_as_it_was_seen(store):
    store.begin([new()], "dead", now=1, expires=9)
    with pytest.raises(NodeTaken):
        resume(store)
    store.end("node-1", "dead", Status.LOST, "", now=2, record={})
    with pytest.raises(NodeTaken):
        resume(store, expected=Status.CANCELLED)
    resume(store)
    before = store.deployment("node-1")
    with pytest.raises(NodeTaken, match="node-1 is no longer lost"):
        resume(store, claim="other")
    assert store.deployment("node-1") == before


# cancelling


def test_the_driver_is_told_which_of_its_nodes_to_cancel_and_who_asked_first(store):
    store.begin([new("node-1"), new("node-2")], "me", now=1, expires=9)
    store.begin([new("node-3")], "other", now=1, expires=9)
    assert store.ask_cancel("node-1", "bob", now=2)
    assert store.ask_cancel("node-1", "carol", now=3)
    assert store.ask_cancel("node-3", "bob", now=3)
    assert store.cancels_asked("me") == {"node-1": "bob"}
    assert store.deployment("node-1").cancel_asked == 2


def test_there_is_nothing_to_cancel_on_a_node_that_is_not_in_progress(store):
    assert not store.ask_cancel("node-1", "bob", now=2)
    store.begin([new()], "me", now=1, expires=9)
    store.end("node-1", "me", Status.DEPLOYED, "", now=2, record={})
    assert not store.ask_cancel("node-1", "bob", now=3)


def test_whoever_takes_over_hears_of_a_cancel_that_was_asked_before(store):
    store.begin([new()], "dead", now=1, expires=9)
    store.ask_cancel("node-1", "bob", now=2)
    store.take(["node-1"], "agent", now=10, expires=30)
    assert store.cancels_asked("agent") == {"node-1": "bob"}
