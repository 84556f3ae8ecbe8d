"""Hazards 8 to 12: one node's trouble stopped the original's only thread, or looped in it."""

import shutil
import time
from types import SimpleNamespace

import pytest
from bench import DEPLOY, POSITION, PROCESSES, write_environment
from boot.conftest import ModuleFailed
from boot.test_wait_for_system import BOOT_ID, HOSTNAME
from poe_bench import V2C, poe_port
from simulated import FAIL, HANG, HOPELESS

from piseduce_runner import driver
from piseduce_runner.agent import DESTROY_AGAIN_SECONDS, Agent
from piseduce_runner.planner import Status
from piseduce_runner.processes import Power
from piseduce_runner.runs import StateProven
from piseduce_runner.store import Outcome

SSH_TEST = [state.position for state in DEPLOY.states if state.name == "ssh_test"]


def test_hazard_08_a_node_whose_environment_is_deleted_meanwhile_is_lost_alone(bench):
    one = bench()
    folder = write_environment(one.site.environments, "deleted")
    one.runner.on_state = lambda node, position: (
        shutil.rmtree(folder, ignore_errors=True) if position == POSITION["boot_files"] else None
    )
    records = [*one.begin("node-1"), *one.begin("node-2", environment="deleted")]
    ended = one.drive(records)
    assert ended["node-1"].status is Status.DEPLOYED
    assert ended["node-2"].status is Status.LOST
    assert "'deleted'" in ended["node-2"].reason


def test_hazard_08_what_a_driver_has_done_before_it_dies_of_a_defect_is_not_done_again(bench):
    one = bench()

    def defect(node, position):
        if position == POSITION["system_conf"]:
            raise RuntimeError("nobody thought of this")

    one.runner.on_state = defect
    with pytest.raises(RuntimeError, match="nobody thought"):
        one.drive(one.begin("node-1"))
    assert one.played() == [state.name for state in DEPLOY.states[: POSITION["system_conf"]]]
    one.store.renew_claim("me", 0)  # it is not renewed any more, and expires
    one.runner.on_state = lambda node, position: None
    assert one.take_over("node-1")["node-1"].status is Status.DEPLOYED
    assert one.played() == ["system_conf", "boot_files", "ssh_test", "user_conf"]
    (interrupted,) = [t for t in one.store.transitions() if t.outcome is Outcome.INTERRUPTED]
    assert interrupted.state == "system_conf"


def test_hazard_08_a_switch_that_does_not_answer_is_a_failure_of_its_port(served):
    served.switch.faults.silent = True
    result = poe_port(
        served.place, V2C, ports=[1], state="off",
        request_timeout=0.1, request_retries=0, confirm_timeout=1,
    )  # fmt: skip
    assert result["failed"]
    assert "\n" not in result["msg"]


def test_hazard_08_a_node_without_a_card_is_lost_alone(bench):
    one = bench({("node-2", POSITION["env_copy"]): HOPELESS})
    ended = one.drive(one.begin("node-1", "node-2"))
    assert ended["node-1"].status is Status.DEPLOYED
    assert (ended["node-2"].status, ended["node-2"].state.name) == (Status.LOST, "env_copy")
    assert one.played("node-2").count("env_copy") == 1


def test_hazard_09_a_node_that_takes_its_time_holds_up_no_other(bench):
    """node-1 is in boot_files until node-2 is through all states."""
    last = POSITION["boot_files"]
    one = bench({("node-1", last): HANG})

    def release(view):
        if (view.node, view.status) == ("node-2", Status.DEPLOYED):
            (run,) = [run for run in one.runner.runs if "node-1" in run.left]
            run.report(StateProven(run, "node-1", last))
            run.end()

    one.observe = release
    ended = one.drive(one.begin("node-1", "node-2"))
    assert [ended[node].status for node in ("node-1", "node-2")] == [Status.DEPLOYED] * 2


def test_hazard_09_a_node_is_not_late_because_the_driver_was_busy(bench, monkeypatch):
    """node-1 has proven its state at once; the driver hears of it hours later."""
    one, hours = bench(), []
    clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 3600 * sum(hours))
    monkeypatch.setattr(driver, "time", clock)

    def hold_up(node, position):
        if (node, position) == ("node-2", POSITION["env_copy"]):
            (last,) = one.store.transitions("node-1", limit=1)
            assert (last.state, last.outcome) == ("env_copy", None)
            hours.append(5)

    one.runner.on_state = hold_up
    ended = one.drive(one.begin("node-1", "node-2"))
    assert {record.status for record in ended.values()} == {Status.DEPLOYED}
    assert hours == [5]
    assert {t.outcome for t in one.store.transitions()} == {Outcome.PROVEN}


def test_hazard_10_a_deployment_begins_with_a_clean_memory_of_failures(bench):
    """The power cycle that the last deployment had is not missing in this one."""
    first = POSITION["env_copy"]
    one = bench({("node-1", first): [FAIL] * 4})
    assert one.drive(one.begin("node-1"))["node-1"].status is Status.LOST
    assert one.played().count("turn_off") == 2
    one.runner.script = {("node-1", first): [FAIL] * 2}
    ended = one.drive(one.asks().redeploy(["node-1"]))
    assert ended["node-1"].status is Status.DEPLOYED
    assert one.played().count("turn_off") == 2


def test_hazard_11_a_board_that_never_boots_can_be_given_back(bench):
    one = bench({("node-1", position): [FAIL] * 9 for position in SSH_TEST})
    assert one.drive(one.begin("node-1"))["node-1"].status is Status.LOST
    one.runner.script = {}
    one.played()
    ended = one.drive(one.asks().destroy(["node-1"], erase=False))
    assert ended["node-1"].status is Status.DESTROYED
    assert one.played(process="destroy") == ["network_boot", "turn_off", "destroying"]
    assert one.store.deployments() == {}
    assert one.store.reservations() == []


def test_hazard_11_a_destruction_that_fails_ends_and_is_not_begun_again_by_itself(bench):
    one = bench()
    one.drive(one.begin("node-1"))
    destroying = PROCESSES["destroy"].states[-1]
    one.runner.script = {("node-1", destroying.position): [FAIL] * 99}
    one.played()
    ended = one.drive(one.asks().destroy(["node-1"], erase=False))
    assert ended["node-1"].status is Status.LOST
    before = [state.name for state in PROCESSES["destroy"].states if state.only_if is None][:-1]
    tries = one.played(process="destroy")
    assert tries == [*before, *["destroying"] * (1 + destroying.retries)]
    assert one.take_over("node-1") == {}
    assert one.store.reservation_at("node-1", 1e12).owner == "alice"


def test_hazard_11_the_agent_does_not_destroy_in_a_loop(bench):
    """A reservation has ended, and its node cannot be destroyed: somebody has to look."""
    one = bench()
    one.drive(one.begin("node-1"))
    destroying = PROCESSES["destroy"].states[-1]
    one.runner.script = {("node-1", destroying.position): [FAIL] * 99}
    (reservation,) = one.store.reservations()
    one.store.end_reservation(reservation.id, time.time())
    said, later = [], [0.0]
    agent = Agent(
        one.store, one.find_process, lambda one: None, claim="agent", lease=60.0,
        end_runs_of=lambda claim: None, say=said.append, clock=lambda: time.time() + later[0],
    )  # fmt: skip
    assert one.drive(agent.look(), "agent")["node-1"].status is Status.LOST
    assert [agent.look() for _ in range(5)] == [[]] * 5
    assert "could not be destroyed" in said[-1]
    one.runner.script, later[0] = {}, DESTROY_AGAIN_SECONDS + 60
    assert one.drive(agent.look(), "agent")["node-1"].status is Status.DESTROYED
    assert one.store.reservations() == []


# Power


def test_hazard_12_in_every_process_the_power_goes_off_before_it_comes_on():
    for process in PROCESSES.values():
        powers = [state.power for state in process.states if state.power]
        assert powers == [Power.OFF, Power.ON] * (len(powers) // 2)


def switch(served, state, **options):
    return poe_port(served.place, V2C, ports=[3], state=state, **options)


def test_hazard_12_a_port_that_does_not_go_off_is_no_success(start_switch):
    served = start_switch(stuck_on=[3])
    assert not switch(served, "on").get("failed")
    result = switch(served, "off", confirm_timeout=1)
    assert result["failed"]
    assert "port 3" in result["msg"]


def test_hazard_12_a_port_that_nobody_saw_off_is_not_taken_for_a_start(served):
    served.turn(3, True)
    result = switch(served, "on", allow_already_on=False)
    assert result["failed"]
    assert served.sets() == []


def test_hazard_12_the_old_system_that_still_answers_is_no_start(module, sshd):
    with pytest.raises(ModuleFailed, match="the same boot as before"):
        module(
            "wait_for_system", node=sshd.reach(), hostname=HOSTNAME, previous_boot_id=BOOT_ID,
            timeout=3,
        )  # fmt: skip
