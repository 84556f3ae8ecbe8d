"""The store: claims, the journal, and what two processes may not do to each other."""

import sqlite3
import threading

import pytest

from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.store import NewDeployment, NodeTaken, Outcome, Store


@pytest.fixture
def store(tmp_path):
    with_tables = Store.open(tmp_path / "state" / "piseduce.db")
    yield with_tables
    with_tables.close()


def new(node="node-1", **options):
    return NewDeployment(node, "deploy", "debian", "alice", 0, "boot_conf", options)


def test_a_node_goes_through_a_state_and_the_journal_tells_it(store):
    store.begin([new(update=True)], "me", now=100, expires=130)
    store.enter("node-1", "me", 0, "boot_conf", "a.log", now=101)
    store.leave("node-1", "me", Outcome.PROVEN, "", now=103)
    store.enter("node-1", "me", 1, "turn_off", "a.log", now=103)
    store.end("node-1", "me", Status.LOST, "turn_off: no answer", now=110)

    held = store.deployment("node-1")
    assert (held.status, held.state, held.reason) == (
        Status.LOST,
        "turn_off",
        "turn_off: no answer",
    )
    assert (held.since, held.claim, held.options) == (110, None, {"update": True})
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


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.enter("node-1", "other", 1, "turn_off", "", now=5),
        lambda s: s.leave("node-1", "other", Outcome.PROVEN, "", now=5),
        lambda s: s.end("node-1", "other", Status.DEPLOYED, "", now=5),
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
    store.end("node-1", "me", Status.DEPLOYED, "", now=2)
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
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(
            "INSERT INTO deployment SELECT 99, node, active, process, environment, owner, options,"
            " memory, status, position, state, attempt, percent, reason, since, created, claim,"
            " claim_expires FROM deployment"
        )
    raw.close()


def test_a_store_that_is_no_database_is_a_clear_error(tmp_path):
    path = tmp_path / "piseduce.db"
    path.write_text("this is not a database, but long enough to look at " * 5)
    with pytest.raises(UserError, match="the store cannot be opened"):
        Store.open(path)


def test_a_store_of_a_newer_version_is_refused(store, tmp_path):
    raw = sqlite3.connect(tmp_path / "state" / "piseduce.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    with pytest.raises(UserError, match="newer version"):
        Store.open(tmp_path / "state" / "piseduce.db")
