"""Several processes on one store, at the same time: each node is one's only."""

import multiprocessing

import pytest

from piseduce_runner.planner import Status
from piseduce_runner.store import NewDeployment, NodeReserved, NodeTaken, Store

NODES = [f"node-{number}" for number in range(6)]
PROCESSES = 4


def reserve(store, name):
    """Each wants pairs of nodes that others want as well."""
    won = []
    for first, second in zip(NODES, NODES[1:], strict=False):
        try:
            store.reserve([first, second], name, 100, 200, now=0)
            won += [first, second]
        except NodeReserved:
            continue
    return won


def take(store, name):
    return [held.node for held in store.take(NODES, name, now=100, expires=200)]


def resume(store, name):
    won = []
    for node in NODES:
        try:
            store.resume(
                node, name, 100, 200, position=0, state="boot_conf", record={},
                expected_status=Status.LOST,
            )  # fmt: skip
            won.append(node)
        except NodeTaken:
            continue
    return won


def contend(path, act, name, barrier, answers):
    store = Store.open(path)
    barrier.wait(timeout=60)
    answers.put((name, act(store, name)))
    store.close()


def race(path, act):
    """What each of several processes got that do the same at the same time."""
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(PROCESSES), spawn.Queue()
    names = [f"process-{number}" for number in range(PROCESSES)]
    contenders = [
        spawn.Process(target=contend, args=(path, act, name, barrier, answers)) for name in names
    ]
    for one in contenders:
        one.start()
    got = dict(answers.get(timeout=120) for _ in contenders)
    for one in contenders:
        one.join(timeout=60)
    assert [one.exitcode for one in contenders] == [0] * PROCESSES
    return got


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "piseduce.db")
    yield opened
    opened.close()


def begin_all(store, claim):
    new = [NewDeployment(n, "deploy", "debian", "alice", 0, "boot_conf") for n in NODES]
    store.begin(new, claim, now=1, expires=50)


def test_processes_that_reserve_at_once_never_get_the_same_node(store, tmp_path):
    got = race(tmp_path / "piseduce.db", reserve)
    won = [node for nodes in got.values() for node in nodes]
    assert len(won) == len(set(won)) > 0
    assert {r.node: r.owner for r in store.reservations()} == {
        node: name for name, nodes in got.items() for node in nodes
    }


def test_an_interrupted_node_is_taken_by_one_process_only(store, tmp_path):
    begin_all(store, "dead")
    got = race(tmp_path / "piseduce.db", take)
    assert sorted(node for nodes in got.values() for node in nodes) == NODES
    for name, nodes in got.items():
        assert {store.deployment(node).claim for node in nodes} <= {name}


def test_a_lost_node_is_resumed_by_one_process_only(store, tmp_path):
    begin_all(store, "dead")
    for node in NODES:
        store.end(node, "dead", Status.LOST, "", 2, {})
    got = race(tmp_path / "piseduce.db", resume)
    assert sorted(node for nodes in got.values() for node in nodes) == NODES
    for name, nodes in got.items():
        assert {store.deployment(node).claim for node in nodes} <= {name}
