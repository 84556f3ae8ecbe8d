"""The driver dies at each of its writes to the store, and another one goes on with its nodes."""

import time
from dataclasses import replace
from itertools import count

import pytest
from simulated import BOOT_FILES, CHECK, COPY, FAIL, HANG, OFF, ON, SSH, USERS, Cluster, deploy

from piseduce_runner.operations import take_over
from piseduce_runner.planner import Status
from piseduce_runner.processes import Power
from piseduce_runner.runs import StateProven
from piseduce_runner.store import Outcome, Store, StoreFailed

ALL = list(range(USERS + 1))


class Killed(BaseException):
    """The driver's process is gone: nothing catches that."""


class FailingStore(Store):
    """A store whose `at`-th write from now on fails, or is the last thing that its driver does."""

    at, fails = 0, "killed before"

    def _execute(self, sql, arguments=()):
        if sql != "COMMIT" or not self.at:
            return super()._execute(sql, arguments)
        self.at -= 1
        if self.at:
            return super()._execute(sql, arguments)
        if self.fails == "is full":
            raise StoreFailed(self._path, "is full")
        if self.fails == "killed after":
            super()._execute(sql, arguments)
        raise Killed


def crashed(path, at, fails, script=None, nodes=("a",), **changes):
    """A cluster whose driver has met that failure; None when it came to the end before."""
    cluster = Cluster(path, list(nodes), script, deploy(**changes), store=FailingStore)
    cluster.store.at, cluster.store.fails = at, fails
    try:
        cluster.run()
    except (Killed, StoreFailed):
        return cluster
    cluster.store.close()
    return None


def go_on(cluster, claim="second"):
    """Another driver takes the nodes over, on its own connection."""
    cluster.store.close()
    cluster.store = Store.open(cluster.path)
    cluster.store._db.execute("UPDATE deployment SET claim_expires = 0 WHERE active = 1")
    nodes = [record.node for record in cluster.records]
    taken = take_over(
        cluster.store, lambda name, environment: cluster.process, nodes, claim, lease=1e9
    )
    return cluster.new_driver(claim).run(taken)


def switched_on(cluster, node="a"):
    return cluster.runner.switched.count((node, Power.ON))


@pytest.mark.parametrize("fails", ["killed before", "killed after", "is full"])
def test_a_driver_that_dies_at_any_write_leaves_a_node_that_the_next_one_deploys(tmp_path, fails):
    for at in count(1):
        cluster = crashed(tmp_path / f"{at}.db", at, fails)
        if cluster is None:
            break
        with cluster:
            was_in = cluster.store.deployment("a")
            if was_in.status is Status.IN_PROGRESS:
                go_on(cluster)
            check_deployed(cluster, was_in)
    assert at > 2 * len(ALL)  # each state is written before and after


def check_deployed(cluster, was_in):
    assert all(run.ended for run in cluster.runner.runs)
    held = cluster.store.deployment("a")
    assert (held.status, held.claim) == (Status.DEPLOYED, None)
    # Of a state whose power cycle was its restart, nothing but that is known.
    restarting = was_in.record["entered"] and was_in.position == BOOT_FILES
    learned = set(ALL) - ({BOOT_FILES} if restarting and was_in.record["settled"] else set())
    assert held.memory == {f"seen_{position}": "yes" for position in learned}
    journal = cluster.journal("a")
    assert [position for position, outcome in journal if outcome is Outcome.PROVEN][-1] == USERS
    assert not {outcome for _, outcome in journal} - {Outcome.PROVEN, Outcome.INTERRUPTED}
    # Only a node that was about to restart is power-cycled: who knows which system it runs?
    assert switched_on(cluster) == (2 if restarting else 1)
    again = [(OFF, Outcome.PROVEN), (ON, Outcome.PROVEN), (SSH, Outcome.PROVEN)]
    if restarting and was_in.record["settled"]:
        assert journal[-4:-1] == again


def test_nodes_at_different_places_all_go_on(tmp_path):
    nodes, retry = ["a", "b", "c"], {"retries": 1}
    for at in range(8, 50, 7):
        script = {("b", COPY): [FAIL], ("c", CHECK): [FAIL]}
        cluster = crashed(
            tmp_path / f"{at}.db", at, "killed after", script, nodes, env_copy=retry,
            env_check=retry,
        )  # fmt: skip
        with cluster:
            ended = go_on(cluster)
            assert {record.status for record in ended.values()} == {Status.DEPLOYED}


def test_drivers_that_die_one_after_the_other_lose_nothing(tmp_path):
    """Each one writes a little more than its start, and dies."""
    cluster = crashed(tmp_path / "store.db", 3, "killed after")
    with cluster:
        for number in count():
            if cluster.store.deployment("a").status is not Status.IN_PROGRESS:
                break
            cluster.store.close()
            cluster.store = FailingStore.open(cluster.path)
            cluster.store._db.execute("UPDATE deployment SET claim_expires = 0")
            taken = take_over(
                cluster.store, lambda *_: cluster.process, ["a"], f"number {number}", lease=1e9
            )
            cluster.store.at, cluster.store.fails = 8, "killed after"
            driver = cluster.new_driver(f"number {number}")
            try:
                driver.run(taken)
            except Killed:
                continue
        assert cluster.store.deployment("a").status is Status.DEPLOYED
        assert switched_on(cluster) <= 1 + cluster.journal("a").count((OFF, Outcome.PROVEN))


def test_a_driver_that_comes_back_to_its_name_drives_nothing_that_was_taken(tmp_path):
    """The first driver hung until its claim was over; then it goes on writing."""
    with Cluster(tmp_path / "store.db", ["a"], {("a", 4): [HANG]}) as cluster:
        other = Store.open(cluster.path)

        def taken_by_another(node, position):
            if position == 4:
                other._db.execute("UPDATE deployment SET claim_expires = 0")
                other.take(["a"], "second", time.time(), 1e12)
                cluster.store.ask_cancel("a", "alice", 0)
                cluster.runner.runs[-1].report(StateProven(cluster.runner.runs[-1], node, position))

        cluster.runner.on_state = taken_by_another
        ended = cluster.run()
        assert "no longer ours" in ended["a"].reason
        held = other.deployment("a")
        assert (held.status, held.claim) == (Status.IN_PROGRESS, "second")
        assert cluster.journal("a")[-1] == (4, Outcome.INTERRUPTED)
        other.close()


def test_taking_over_a_node_whose_process_has_changed_loses_it_with_the_reason(tmp_path):
    cluster = crashed(tmp_path / "store.db", 12, "killed after")
    with cluster:
        cluster.process = replace(cluster.process, states=cluster.process.states[:-1])
        assert go_on(cluster) == {}
        held = cluster.store.deployment("a")
        assert held.status is Status.LOST
        assert "has other states now" in held.reason
