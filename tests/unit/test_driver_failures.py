"""The driver when states fail: what it starts again, what it stores, and who else is touched."""

import time

import pytest
from simulated import (
    BOOT_CONF,
    BOOT_FILES,
    CHECK,
    COPY,
    FAIL,
    HANG,
    HOPELESS,
    LATE,
    NFS_SSH,
    OFF,
    ON,
    SETTLE,
    SHORT,
    SSH,
    USERS,
    Cluster,
    deploy,
)

from piseduce_runner import planner
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.processes import Ends, Phase, Power, Process, State, Window
from piseduce_runner.records import from_values, to_values
from piseduce_runner.runs import Remembered
from piseduce_runner.store import NewDeployment, Outcome

ALL = list(range(USERS + 1))
RETRY, CYCLE, HANGS = {"retries": 1}, {"power_cycle": True}, {"timeout": SHORT}


@pytest.fixture
def cluster(tmp_path):
    made = []

    def make(nodes="a", script=None, process=None, **options):
        made.append(Cluster(tmp_path / f"{len(made)}.db", list(nodes), script, process, **options))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def way(cluster, node="a"):
    return [position for position, _ in cluster.journal(node)]


def test_a_failed_state_is_run_again_in_a_run_of_its_own_and_the_others_go_on(cluster):
    two = cluster("ab", {("b", COPY): [FAIL]}, deploy(env_copy=RETRY))
    ended = two.run()
    assert {record.status for record in ended.values()} == {Status.DEPLOYED}
    assert way(two, "a") == ALL
    assert way(two, "b") == [*ALL[:COPY], COPY, COPY, *ALL[CHECK:]]
    assert two.journal("b")[COPY : COPY + 2] == [(COPY, Outcome.FAILED), (COPY, Outcome.PROVEN)]
    first, again = two.runner.runs[:2]
    assert first.batch.nodes == ("a", "b")
    assert again.batch.nodes == ("b",)
    assert [s.position for s in again.batch.states] == ALL[COPY:SSH]
    assert two.store.transitions("b")[COPY].reason == "env_copy: Do it: it broke"
    assert two.store.deployment("b").attempt == 1  # of its last state


def test_a_bad_check_is_tried_again_from_the_copy(cluster):
    one = cluster("a", {("a", CHECK): [FAIL]}, deploy(env_check=RETRY))
    assert one.run()["a"].status is Status.DEPLOYED
    assert way(one) == [*ALL[: CHECK + 1], COPY, *ALL[CHECK:]]


def test_when_no_try_is_left_the_node_is_power_cycled_once_and_comes_back(cluster):
    one = cluster("a", {("a", CHECK): [FAIL]}, deploy(env_check=CYCLE))
    assert one.run()["a"].status is Status.DEPLOYED
    assert way(one) == [*ALL[: CHECK + 1], *ALL[:COPY], *ALL[CHECK:]]
    assert [power for _, power in one.runner.switched] == [Power.ON, Power.OFF, Power.ON]


def test_a_node_that_fails_also_after_its_power_cycle_is_lost_with_the_reason(cluster):
    one = cluster("a", {("a", COPY): FAIL}, deploy(env_copy=RETRY | CYCLE))
    lost = one.run()["a"]
    assert (lost.status, lost.reason) == (Status.LOST, "env_copy: Do it: it broke")
    assert way(one).count(COPY) == 4
    assert way(one).count(OFF) == 2
    assert one.store.deployment("a").status is Status.LOST
    assert one.store.deployment("a").attempt == 4


def test_what_is_hopeless_is_not_tried_again(cluster):
    one = cluster("a", {("a", COPY): HOPELESS}, deploy(env_copy=RETRY | CYCLE))
    assert one.run()["a"].status is Status.LOST
    assert way(one) == ALL[: COPY + 1]


def test_a_node_that_hangs_with_only_the_restart_left_is_restarted_by_its_power(cluster):
    one = cluster("a", {("a", BOOT_FILES): SETTLE}, deploy(boot_files=HANGS))
    assert one.run()["a"].status is Status.DEPLOYED
    assert way(one) == [*ALL[: BOOT_FILES + 1], OFF, ON, *ALL[SSH:]]
    assert one.journal("a")[BOOT_FILES] == (BOOT_FILES, Outcome.FAILED)


def test_a_proof_after_the_deadline_is_no_proof_in_the_journal_either(cluster):
    one = cluster("a", {("a", BOOT_FILES): [LATE]})
    assert one.run()["a"].status is Status.DEPLOYED
    assert one.journal("a")[BOOT_FILES] == (BOOT_FILES, Outcome.FAILED)
    assert way(one) == [*ALL[: BOOT_FILES + 1], OFF, ON, *ALL[SSH:]]
    assert "after its deadline" in one.store.transitions("a")[BOOT_FILES].reason


@pytest.mark.parametrize("word", [FAIL, HANG, HOPELESS])
def test_what_a_state_learned_is_stored_only_with_its_proof(cluster, word):
    one = cluster("a", {("a", COPY): word}, deploy(env_copy=HANGS if word == HANG else {}))

    def learn_first(node, position):
        if position == COPY:
            run = one.runner.runs[-1]
            run.report(Remembered(run, node, position, {"half": "learned"}))

    one.runner.on_state = learn_first
    assert one.run()["a"].status is Status.LOST
    memory = one.store.deployment("a").memory
    assert memory == {f"seen_{position}": "yes" for position in ALL[:COPY]}


def test_a_states_note_stands_in_the_journal_and_is_not_kept(cluster):
    one = cluster("a")

    def note(node, position):
        if position == COPY:
            run = one.runner.runs[-1]
            run.report(Remembered(run, node, position, {"note": "a worn card"}))

    one.runner.on_state = note
    assert one.run()["a"].status is Status.DEPLOYED
    assert [t.reason for t in one.store.transitions("a")][COPY : COPY + 2] == ["a worn card", ""]
    deployment = one.store.deployment("a")
    assert "note" not in deployment.memory
    assert deployment.reason == ""


def test_that_a_node_has_settled_is_stored_at_once(cluster):
    one = cluster("a", {("a", BOOT_FILES): SETTLE})
    seen = []

    def look():
        seen.append(one.store.deployment("a").record["settled"])
        if seen[-1] or len(seen) == 20:
            one.driver.detach("seen")
        return []

    one.driver.run(one.records, look)
    assert seen[-1] is True


def test_a_node_whose_batch_cannot_be_made_is_lost_and_the_others_go_on(cluster):
    three = cluster("abc")
    make = three.make_batch

    def refuse_b(states, records):
        if states[0].position == SSH and "b" in [record.node for record in records]:
            raise UserError("the environment of b is gone")
        return make(states, records)

    three.make_batch = refuse_b
    ended = three.run()
    assert ended["a"].status is ended["c"].status is Status.DEPLOYED
    assert ended["b"].status is Status.LOST
    assert ended["b"].reason == "ssh_test: the environment of b is gone"
    assert three.journal("b")[-1] == (SSH, Outcome.FAILED)


def test_nodes_that_can_go_on_only_one_by_one_go_one_by_one(cluster):
    """A timeout may be computed from the number of nodes: each alone can, together they cannot."""
    three = cluster("abc")
    make = three.make_batch

    def no_pairs(states, records):
        if states[0].position == SSH and len(records) > 1:
            raise UserError("timeout of ssh_test: not above 0")
        return make(states, records)

    three.make_batch = no_pairs
    ended = three.run()
    assert {record.status for record in ended.values()} == {Status.DEPLOYED}
    alone = [run for run in three.runner.runs if run.batch.states[0].position == SSH]
    assert [len(run.batch.nodes) for run in alone] == [1, 1, 1]


def test_a_cancelled_node_stops_in_its_state_and_the_others_go_on(cluster):
    two = cluster("ab", {("b", COPY): HANG})
    two.runner.on_state = lambda node, position: (
        two.store.ask_cancel("b", "alice", 0) if (node, position) == ("b", COPY) else None
    )
    ended = two.run()
    assert ended["a"].status is Status.DEPLOYED
    assert ended["b"].status is Status.CANCELLED
    assert ended["b"].reason == "env_copy: cancelled by alice, in task: Wait for ever"
    assert two.journal("b")[-1] == (COPY, Outcome.CANCELLED)
    held = two.store.deployment("b")
    assert (held.claim, held.cancel_asked_by) == (None, "")


def test_a_node_that_was_taken_while_its_driver_was_stopped_is_left_at_once(cluster):
    one = cluster("a", {("a", COPY): [HANG]}, claim=0.3)
    looks = []

    def look():
        looks.append(one.store.deployment("a"))
        if looks[-1].percent is not None and looks[-1].claim == "me":
            one.store.renew_claim("me", 1)  # it expired while the driver was stopped
            one.store.take(["a"], "second", time.time(), time.time() + 60)
        return None if one.runner.runs[-1].given_up else []

    assert "no longer ours" in one.driver.run(one.records, look)["a"].reason
    assert one.runner.runs[-1].given_up == ["a"]
    assert one.store.deployment("a").claim == "second"
    assert one.store.deployment("a").status is Status.IN_PROGRESS


def test_claims_are_renewed_at_once_when_the_clock_is_set(cluster, monkeypatch):
    one = cluster("a", {("a", COPY): [HANG]}, claim=600)
    clock, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + ahead[0])

    def look():
        held = one.store.deployment("a")
        if held.percent is None:
            return []
        if not ahead[0]:
            ahead[0] = 3000.0
        elif held.is_claimed(time.time()):
            one.driver.detach("done")
        return []

    assert one.driver.run(one.records, look) == {}


def test_a_cancelled_node_can_be_resumed_by_another_driver(cluster):
    one = cluster("a", {("a", CHECK): [HANG]})
    one.runner.on_state = lambda node, position: (
        one.store.ask_cancel("a", "alice", 0) if position == CHECK else None
    )
    one.run()
    one.runner.on_state = lambda node, position: None
    held = one.store.deployment("a")
    stopped = from_values("a", one.process, held.status, held.reason, held.record)
    record = planner.resume(stopped)
    one.store.resume(
        "a", "second", 0, 1e12, position=BOOT_CONF, state="boot_conf",
        record=to_values(record), expected_status=Status.CANCELLED,
    )  # fmt: skip
    assert one.new_driver("second").run([record])["a"].status is Status.DEPLOYED
    assert way(one) == [*ALL[: CHECK + 1], *ALL[:COPY], *ALL[CHECK:]]


TEST_BOOT = Process(
    "boot_test",
    "",
    (
        State(0, "turn_on", Phase.NFS, 60.0),
        State(1, "ssh_test", Phase.NFS, 60.0),
    ),
    Ends.BOOTED,
)
DESTROY = Process("destroy", "", (State(0, "turn_off", Phase.NFS, 60.0),), Ends.DESTROYED)


def test_nodes_of_several_processes_are_driven_at_once_and_never_share_a_run(cluster):
    three = cluster("a")
    for name, process in (("b", TEST_BOOT), ("c", DESTROY)):
        record = planner.begin(process, name, frozenset())
        three.store.begin(
            [NewDeployment(name, process.name, "", "alice", 0, "x", record=to_values(record))],
            "me", now=0, expires=1e12,
        )  # fmt: skip
        three.records.append(record)
    ended = three.run()
    assert {name: record.status for name, record in ended.items()} == {
        "a": Status.DEPLOYED, "b": Status.BOOTED, "c": Status.DESTROYED,
    }  # fmt: skip
    assert all(len(run.batch.nodes) == 1 for run in three.runner.runs)
    assert three.store.deployment("b").status is Status.BOOTED
    assert three.store.deployment("c") is None


def test_nodes_that_come_while_others_are_driven_are_driven_too(cluster):
    one = cluster("a", {("a", COPY): [HANG]})
    late = planner.begin(one.process, "z", frozenset())
    one.store.begin(
        [NewDeployment("z", "deploy", "debian", "alice", 0, "boot_conf", record=to_values(late))],
        "me", now=0, expires=1e12,
    )  # fmt: skip
    # "z" comes when "a" hangs in its copy; when "z" is through, "a" is cancelled.
    one.runner.on_state = lambda node, position: (
        one.store.ask_cancel("a", "alice", 0) if (node, position) == ("z", USERS) else None
    )
    more = [[late]]

    def look():
        if ("a", COPY) not in one.runner.played:
            return []
        return more.pop() if more else None

    ended = one.driver.run(one.records, look)
    assert ended["z"].status is Status.DEPLOYED
    assert ended["a"].status is Status.CANCELLED


def test_a_node_that_boots_is_not_kept_waiting_by_those_that_wait_for_its_place(cluster):
    """They hold the only run that may be alive, and it the only place at which they wait."""
    process = deploy(turn_on={"window": Window(most=1)}, ssh_test=RETRY)
    two = cluster("ab", {("a", NFS_SSH): [FAIL]}, process, most_runs=1)
    ended = two.run()
    assert {name: record.status for name, record in ended.items()} == {
        "a": Status.DEPLOYED, "b": Status.DEPLOYED,
    }  # fmt: skip


def test_who_has_waited_longest_at_a_gate_goes_first(cluster):
    """Two come to the copy at once while a third is in it, and one only when it was tried again."""
    process = deploy(ssh_test=RETRY, env_copy={"window": Window(most=1)})
    three = cluster("cab", {("a", NFS_SSH): [FAIL], ("c", COPY): [HANG]}, process)

    def look():
        if three.runner.played.count(("a", NFS_SSH)) == 2:
            three.store.ask_cancel("c", "alice", 0)
            return None
        return []

    three.driver.run(three.records, look)
    copied = [node for node, position in three.runner.played if position == COPY]
    assert copied == ["c", "b", "a"]
