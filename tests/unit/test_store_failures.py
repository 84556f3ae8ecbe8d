"""When the store cannot be written: one clear line, nothing half done, and usable afterwards."""

import multiprocessing
import os
import signal
import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlite_utils
from click.testing import CliRunner
from sites import write_site

from piseduce_runner.cli import main
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.store import (
    NewDeployment,
    NodeReserved,
    NodeTaken,
    Outcome,
    Store,
    StoreFailed,
)

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "piseduce.db"


@pytest.fixture
def store(path):
    impatient = Store.open(path, timeout=0.05)
    impatient.begin([new()], "me", now=1, expires=9)
    yield impatient
    impatient.close()


def new(node="node-1", **options):
    return NewDeployment(node, "deploy", "debian", "alice", 0, "boot_conf", options)


@contextmanager
def locked(path):
    """Another process is in the middle of a transaction."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


WRITES = {
    "begin": lambda s: s.begin([new("node-2")], "me", 1, 9),
    "take": lambda s: s.take(["node-1"], "me", 1, 9),
    "enter": lambda s: s.enter(
        "node-1", "me", position=1, state="x", attempt=1, log="", now=2, record={}
    ),
    "end": lambda s: s.end("node-1", "me", Status.DEPLOYED, "", 2, {}),
    "set_percent": lambda s: s.set_percent("node-1", "me", 5),
    "renew_claim": lambda s: s.renew_claim("me", 20),
    "ask_cancel": lambda s: s.ask_cancel("node-1", "bob", 2),
    "reserve": lambda s: s.reserve(["node-2"], "alice", 5, 9, 5),
    "expired": lambda s: s.expired(5),
    "record_act": lambda s: s.record_act("alice", "deploy", "node-1", 1),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_store_that_another_process_has_locked_is_a_clear_error_and_works_later(
    store, path, what
):
    before = store.deployment("node-1")
    with locked(path):
        with pytest.raises(StoreFailed) as failed:
            WRITES[what](store)
        assert str(failed.value) == (
            f"the store {path} is locked by another process for more than 0.05 s; try again"
        )
        assert store.deployment("node-1") == before  # reading needs no lock
    WRITES[what](store)


def test_a_full_disk_is_a_clear_error_and_loses_nothing(store, path):
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    before = store.deployment("node-1")
    with pytest.raises(StoreFailed) as failed:
        store.leave("node-1", "me", Outcome.PROVEN, "", 2, {"much": "x" * 100_000})
    assert str(failed.value) == f"the store {path} is full; make room on its disk and try again"
    assert store.deployment("node-1") == before
    store.set_percent("node-1", "me", 7)  # what fits is written
    store._db.execute("PRAGMA max_page_count = 100000")
    store.remember("node-1", "me", {"much": "x" * 100_000})
    assert store.deployment("node-1").percent == 7


def test_an_outer_block_writes_no_half_after_an_error_that_undid_all(store):
    with pytest.raises(StoreFailed, match="has undone"), store.transaction():
        store.set_percent("node-1", "me", 50)
        # As SQLite does by itself after some errors of the disk (see its "lang_transaction").
        store._db.execute("ROLLBACK")
        store.renew_claim("me", 99)
    held = store.deployment("node-1")
    assert (held.percent, held.claim_expires) == (None, 9)
    store.renew_claim("me", 20)


def test_a_store_that_is_read_only_is_a_clear_error_and_can_be_read(store, path):
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    read_only = Store(sqlite_utils.Database(connection), path, timeout=0.05)
    with pytest.raises(StoreFailed, match=f"the store {path} cannot be written; "):
        read_only.set_percent("node-1", "me", 5)
    assert read_only.deployment("node-1").owner == "alice"
    read_only.close()


@contextmanager
def as_nobody():
    """Without the rights of root, to whom no file is read-only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_that_one_may_not_write_is_refused_or_says_so():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piseduce.db"
        Store.open(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        with as_nobody(), pytest.raises(UserError, match=f"{path}: the store cannot be opened: it"):
            Store.open(path)
        Path(folder).chmod(0o755)


def test_a_store_that_cannot_be_written_can_still_be_read_and_says_why_it_is_so():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "piseduce.db"
        assert Store.open_to_read(path) is None
        made = Store.open(path)
        made.begin([new()], "me", now=1, expires=9)
        made.close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        with as_nobody():
            read = Store.open_to_read(path)
            assert list(read.deployments()) == ["node-1"]
            assert f"{path}: the store cannot be opened" in read.unwritable
            with pytest.raises(StoreFailed):
                read.set_percent("node-1", "me", 5)
            read.close()
        Path(folder).chmod(0o755)
        path.write_bytes(b"no database" * 1000)
        with pytest.raises(UserError, match="it is damaged"):
            Store.open_to_read(path)


def test_people_who_forget_sudo_are_told_so():
    with tempfile.TemporaryDirectory() as folder:
        site = write_site(Path(folder) / "site")
        Path(folder).chmod(0o755)
        store = Store.open(site / "state" / "piseduce.db")
        store.close()
        hosts = site / "inventory" / "hosts.yml"
        for closed, mode in ((hosts, 0o600), (hosts.parent, 0o700), (site, 0o700)):
            closed.chmod(mode)
            with as_nobody():
                result = CliRunner().invoke(main, ["--site", str(site), "status"])
            assert result.exit_code == 2, result.output
            assert "Permission denied; work as root (sudo)" in result.output
            assert result.output.count("\n") == 1
        site.chmod(0o755)
        (site / "state").chmod(0o700)
        with as_nobody(), pytest.raises(UserError, match=r"Permission denied; work as root"):
            Store.open_to_read(site / "state" / "piseduce.db")


def test_a_damaged_store_is_a_clear_error(store, path):
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    damaged = Store.open(path)
    with pytest.raises(StoreFailed, match=f"the store {path} is damaged"):
        damaged.deployments()
    damaged.close()


def test_a_store_that_is_closed_is_no_traceback_of_sqlite(store, path):
    store.close()
    with pytest.raises(StoreFailed, match=f"the store {path} cannot be used: .*closed"):
        store.deployments()


def test_a_store_that_stays_locked_is_not_opened(tmp_path):
    path = tmp_path / "piseduce.db"
    raw = sqlite3.connect(path)  # there, but without tables: they have to be made
    raw.execute("PRAGMA journal_mode = WAL")
    raw.close()
    with locked(path), pytest.raises(UserError) as refused:
        Store.open(path, timeout=0.05)
    assert str(refused.value) == (
        f"{path}: the store cannot be opened:"
        " it is locked by another process for more than 0.05 s; try again"
    )
    Store.open(path).close()


def test_the_command_line_shows_one_line(monkeypatch, tmp_path):
    def fail(*_):
        raise StoreFailed(tmp_path / "piseduce.db", "is full")

    monkeypatch.setattr("piseduce_runner.cli.context.load_site", fail)
    result = CliRunner().invoke(main, ["--site", str(tmp_path), "status"])
    assert result.exit_code == 1
    assert result.output == f"Error: the store {tmp_path}/piseduce.db is full\n"


# transactions


def test_a_transaction_is_written_all_or_not_at_all(store, path):
    with pytest.raises(NodeReserved), store.transaction():
        store.record_act("bob", "reserve", "node-2", now=1)
        store.reserve(["node-2"], "bob", 1, 50, now=1)
        store.reserve(["node-2"], "bob", 2, 50, now=1)
    assert (store.acts(), store.reservations()) == ([], [])
    with store.transaction():
        store.record_act("bob", "reserve", "node-2", now=1)
        store.reserve(["node-2"], "bob", 1, 50, now=1)
        other = Store.open(path)
        assert (other.acts(), other.reservations()) == ([], [])
        other.close()
    assert len(store.acts()) == len(store.reservations()) == 1


def test_a_refusal_that_the_outer_block_catches_undoes_the_inner_one_only(store):
    with store.transaction():
        store.record_act("bob", "reserve", "node-2", now=1)
        store.reserve(["node-2", "node-3"], "bob", 1, None, 1)
        with pytest.raises(NodeReserved):
            store.reserve(["node-4", "node-3"], "bob", 1, None, 1)
        with pytest.raises(NodeTaken):
            store.set_percent("node-1", "other", 5)
    assert len(store.acts()) == 1
    assert [r.node for r in store.reservations()] == ["node-2", "node-3"]


def test_an_interrupted_block_leaves_nothing(store):
    with pytest.raises(KeyboardInterrupt), store.transaction():
        store.set_percent("node-1", "me", 5)
        raise KeyboardInterrupt
    assert store.deployment("node-1").percent is None
    store.set_percent("node-1", "me", 6)


def write_and_wait(path, reached):
    store = Store.open(path)
    with store.transaction():
        store.set_percent("node-1", "me", 99)
        store.record_act("me", "deploy", "node-1", now=1)
        reached.set()
        signal.pause()


def test_a_process_that_is_killed_in_a_transaction_leaves_nothing_and_holds_up_nobody(store, path):
    spawn = multiprocessing.get_context("spawn")
    reached = spawn.Event()
    killed = spawn.Process(target=write_and_wait, args=(path, reached))
    killed.start()
    assert reached.wait(timeout=60)
    with pytest.raises(StoreFailed):
        store.set_percent("node-1", "me", 1)
    killed.kill()
    killed.join(timeout=60)
    assert store.deployment("node-1").percent is None
    assert store.acts() == []
    store.set_percent("node-1", "me", 1)


# acts


def test_acts_tell_who_asked_for_what_newest_last(store):
    store.record_act("alice", "reserve", "node-1", now=1, detail="2 h")
    store.record_act("root", "destroy", "node-1", now=2, forced=True)
    store.record_act("bob", "reserve", "node-2", now=3)
    told = [(a.at, a.who, a.what, a.node, a.forced, a.detail) for a in store.acts("node-1")]
    assert told == [
        (1, "alice", "reserve", "node-1", False, "2 h"),
        (2, "root", "destroy", "node-1", True, ""),
    ]
    assert [a.who for a in store.acts(limit=2)] == ["root", "bob"]
