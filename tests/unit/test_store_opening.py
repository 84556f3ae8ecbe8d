"""Opening the store: stores of other versions, files that are none, and all at once."""

import multiprocessing
import sqlite3

import pytest

from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.store import NewDeployment, Outcome, Store

# As version 1 made its tables, whatever the present code says.
VERSION_1 = """
CREATE TABLE deployment (id INTEGER PRIMARY KEY, node TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1, process TEXT NOT NULL, environment TEXT NOT NULL,
    owner TEXT NOT NULL, options TEXT NOT NULL, memory TEXT NOT NULL, status TEXT NOT NULL,
    position INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, percent INTEGER,
    reason TEXT NOT NULL, since REAL NOT NULL, created REAL NOT NULL, claim TEXT,
    claim_expires REAL) STRICT;
CREATE UNIQUE INDEX one_active_deployment_per_node ON deployment (node) WHERE active = 1;
CREATE TABLE transition (id INTEGER PRIMARY KEY,
    deployment INTEGER NOT NULL REFERENCES deployment (id), node TEXT NOT NULL,
    process TEXT NOT NULL, state TEXT NOT NULL, position INTEGER NOT NULL,
    attempt INTEGER NOT NULL, started REAL NOT NULL, ended REAL, outcome TEXT,
    reason TEXT NOT NULL DEFAULT '', log TEXT NOT NULL DEFAULT '') STRICT;
CREATE INDEX transitions_of_node ON transition (node, id);
PRAGMA user_version = 1;

INSERT INTO deployment VALUES
    (1, 'node-1', 0, 'deploy', 'debian', 'carol', '{}', '{}', 'deployed', 14, 'user_conf', 1,
     NULL, '', 10, 1, NULL, NULL),
    (2, 'node-1', 1, 'deploy', 'debian', 'alice', '{"update": true}', '{"boot_id": "a"}',
     'deployed', 14, 'user_conf', 1, 100, '', 50, 20, NULL, NULL),
    (3, 'node-2', 1, 'deploy', 'ubuntu', 'bob', '{}', '{}', 'lost', 4, 'env_copy', 1,
     43, 'env_copy: it broke', 60, 30, NULL, NULL),
    (4, 'node-3', 1, 'deploy', 'ubuntu', 'bob', '{}', '{}', 'in_progress', 4, 'env_copy', 1,
     12, '', 70, 40, 'driver 7', 90);
INSERT INTO transition VALUES
    (1, 3, 'node-2', 'deploy', 'env_copy', 4, 1, 55, 60, 'failed', 'env_copy: it broke', 'a.log'),
    (2, 4, 'node-3', 'deploy', 'env_copy', 4, 1, 70, NULL, NULL, '', 'b.log');
"""


@pytest.fixture
def old(tmp_path):
    """A store that version 1 has written."""
    path = tmp_path / "piseduce.db"
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.executescript(VERSION_1)
    raw.commit()
    raw.close()
    return path


def test_what_version_1_wrote_is_all_there(old):
    store = Store.open(old)
    held = store.deployments()
    assert sorted(held) == ["node-1", "node-2", "node-3"]
    one = held["node-1"]
    assert (one.id, one.owner, one.options) == (2, "alice", {"update": True})
    assert (one.memory, one.status, one.since) == ({"boot_id": "a"}, Status.DEPLOYED, 50)
    assert (one.record, one.cancel_asked_by, one.cancel_asked) == ({}, "", None)
    assert held["node-2"].reason == "env_copy: it broke"
    assert held["node-3"].claim == "driver 7"
    assert [(t.node, t.outcome) for t in store.transitions()] == [
        ("node-2", Outcome.FAILED),
        ("node-3", None),
    ]
    store.close()


def test_nobody_loses_a_node_that_they_had_in_version_1(old):
    store = Store.open(old)
    for node, owner in (("node-1", "alice"), ("node-2", "bob"), ("node-3", "bob")):
        (held,) = store.reservations(node)
        assert (held.owner, held.end, held.active) == (owner, None, True)
        assert held.start == store.deployment(node).created
        assert store.deployment(node).reservation == held.id
        assert store.reservation_at(node, now=1e9) == held
    assert store.due(now=1e9) == store.expired(now=1e9) == store.unconfigured(now=1e9) == []
    store.close()


def test_a_store_of_version_1_is_brought_over_once_and_can_be_worked_with(old):
    Store.open(old).close()
    store = Store.open(old)
    assert len(store.reservations()) == 3
    (taken,) = store.take(["node-3"], "agent", now=90, expires=120)
    store.end("node-3", "agent", Status.DEPLOYED, "", 100, taken.record)
    new = NewDeployment("node-1", "destroy", "debian", "alice", 0, "turn_off")
    store.begin([new], "agent", now=100, expires=120)
    store.end("node-1", "agent", Status.DESTROYED, "", 110, {})
    assert store.reservations("node-1") == []
    store.close()
    raw = sqlite3.connect(old)
    assert raw.execute("PRAGMA user_version").fetchone() == (2,)
    assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    raw.close()


def open_and_count(path, barrier, answers):
    barrier.wait(timeout=60)
    store = Store.open(path)
    answers.put((len(store.reservations()), len(store.deployments())))
    store.close()


@pytest.mark.parametrize("there_before", [True, False])
def test_processes_that_open_a_store_at_once_find_it_whole(tmp_path, request, there_before):
    path = request.getfixturevalue("old") if there_before else tmp_path / "new" / "piseduce.db"
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(4), spawn.Queue()
    openers = [
        spawn.Process(target=open_and_count, args=(path, barrier, answers)) for _ in range(4)
    ]
    for one in openers:
        one.start()
    for one in openers:
        one.join(timeout=120)
    assert [one.exitcode for one in openers] == [0] * 4
    expected = (3, 3) if there_before else (0, 0)
    assert [answers.get(timeout=60) for _ in openers] == [expected] * 4


def test_a_new_store_waits_for_whoever_is_making_it(tmp_path, monkeypatch):
    path = tmp_path / "piseduce.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = []

    def let_go(seconds):
        waited.append(seconds)
        other.rollback()

    monkeypatch.setattr("piseduce_runner.store.database.time.sleep", let_go)
    store = Store.open(path)
    assert (len(waited), store.deployments()) == (1, {})
    store.close()
    other.close()


def test_a_state_survives_a_power_cut_of_the_manager(tmp_path):
    store = Store.open(tmp_path / "piseduce.db")
    # 2 is FULL: the journal is on the disk when a transaction ends.
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.begin([NewDeployment("node-1", "deploy", "debian", "alice", 0, "boot_conf")], "me", 1, 9)
    store.set_percent("node-1", "me", 5)
    store.renew_claim("me", 20)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_only_its_user_and_group_can_read_the_store(tmp_path):
    path = tmp_path / "state" / "piseduce.db"
    Store.open(path).close()
    assert path.stat().st_mode & 0o137 == 0


def test_a_store_that_is_no_database_is_a_clear_error(tmp_path):
    path = tmp_path / "piseduce.db"
    path.write_text("this is not a database, but long enough to look at " * 5)
    with pytest.raises(UserError) as refused:
        Store.open(path)
    assert str(refused.value) == (
        f"{path}: the store cannot be opened: it is damaged, or no store at all;"
        " put a backup in its place"
    )
    assert path.read_text().startswith("this is not a database")


def test_a_folder_in_the_stores_place_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match="the store cannot be opened"):
        Store.open(tmp_path)


def test_a_file_in_the_place_of_the_stores_folder_is_a_clear_error(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError, match="the store cannot be opened: "):
        Store.open(tmp_path / "state" / "piseduce.db")


def test_a_store_of_a_newer_version_is_refused_and_left_alone(old):
    raw = sqlite3.connect(old)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    before = old.read_bytes()
    with pytest.raises(UserError, match="piseduce.db: the store was written by a newer version"):
        Store.open(old)
    assert old.read_bytes() == before


def test_there_is_no_store_before_the_first_deployment(tmp_path):
    assert Store.open_existing(tmp_path / "piseduce.db") is None
    assert list(tmp_path.iterdir()) == []
