"""The planner's rules, one by one, on the deploy process."""

from dataclasses import replace

import pytest

from piseduce_runner import planner
from piseduce_runner.planner import (
    Cancelled,
    Entered,
    Failed,
    ImpossibleEvent,
    Overdue,
    Proven,
    Settled,
    Status,
)
from piseduce_runner.processes import Ends, Phase, Power, Process, State

NFS, DEPLOYED = Phase.NFS, Phase.DEPLOYED


def process(*states, ends=Ends.DEPLOYED):
    return Process("deploy", "", tuple(replace(s, position=i) for i, s in enumerate(states)), ends)


def state(name, phase=NFS, **policy):
    return State(0, name, phase, timeout=10, **policy)


DEPLOY = process(
    state("boot_conf"),
    state("turn_off", power=Power.OFF),
    state("turn_on", power=Power.ON),
    state("ssh_test", retries=1, power_cycle=True),
    state("env_copy", retries=1, power_cycle=True, durable=True),
    state("env_check", retries=1, again_from=4, power_cycle=True, durable=True),
    state("mount_partition", power_cycle=True),
    state("system_conf", durable=True),
    state("boot_files", reboots=True),
    state("ssh_test", DEPLOYED, power_cycle=True),
    state("system_update", DEPLOYED, durable=True, only_if="update"),
    state("boot_update", DEPLOYED, reboots=True, only_if="update"),
    state("ssh_test", DEPLOYED, only_if="update"),
    state("user_conf", DEPLOYED, durable=True),
)
OFF, ON, COPY, CHECK, MOUNT, BOOT_FILES, FIRST_SSH, USER_CONF = 1, 2, 4, 5, 6, 8, 9, 13


def enter(record, now=0.0):
    return planner.apply(record, Entered(record.state.position, 10), now)


def prove(record, now=0.0):
    record = enter(record, now)
    return planner.apply(record, Proven(record.state.position), now)


def fail(record, reason="broken", **options):
    record = enter(record)
    return planner.apply(record, Failed(record.state.position, reason, **options), 0)


def at(position, *, wanted=(), table=DEPLOY):
    """A node that waits for the state at `position`, all before it proven."""
    record = planner.begin(table, "node-1", frozenset(wanted))
    while record.state.position != position:
        record = prove(record)
    return record


def left(record):
    return [record.process.states[position].name for position in record.plan]


@pytest.mark.parametrize("wanted", [(), ("update",)])
def test_a_node_whose_states_are_all_proven_is_deployed(wanted):
    record = planner.begin(DEPLOY, "node-1", frozenset(wanted))
    while record.status is Status.IN_PROGRESS:
        record = prove(record)
    assert record.status is Status.DEPLOYED
    assert record.proven == {s.position for s in DEPLOY.states if planner.applies(s, set(wanted))}


@pytest.mark.parametrize(("ends", "status"), planner._STATUS_AT_END.items())
def test_a_process_ends_as_its_table_says(ends, status):
    record = planner.begin(process(state("only"), ends=ends), "node-1", frozenset())
    assert prove(record).status is status


def test_a_process_of_which_nothing_applies_has_ended_at_once():
    table = process(state("only", only_if="update"))
    assert planner.begin(table, "node-1", frozenset()).status is Status.DEPLOYED


def test_a_failed_state_is_tried_again_then_the_node_is_power_cycled_then_it_is_lost():
    record = at(COPY)
    record = fail(record)
    assert (record.state.name, record.attempt) == ("env_copy", 1)
    record = fail(record)
    assert left(record)[:5] == ["boot_conf", "turn_off", "turn_on", "ssh_test", "env_copy"]
    while record.state.name != "env_copy":
        record = prove(record)
    record = fail(fail(record))
    assert record.status is Status.LOST
    assert record.reason == "env_copy: broken"
    assert record.attempt == 4


def test_what_is_hopeless_is_lost_at_once():
    assert fail(at(COPY), hopeless=True).status is Status.LOST


def test_a_bad_check_copies_again():
    record = fail(at(CHECK))
    assert left(record)[:3] == ["env_copy", "env_check", "mount_partition"]
    record = fail(prove(record))
    assert left(record)[0] == "boot_conf"


def test_a_power_cycle_passes_over_what_is_proven_and_lasts():
    record = fail(at(MOUNT))
    assert left(record)[:6] == [
        "boot_conf", "turn_off", "turn_on", "ssh_test", "mount_partition", "system_conf",
    ]  # fmt: skip


def test_a_lost_check_never_passes_on_a_half_written_card():
    record = enter(at(COPY))
    lost = planner.apply(record, Failed(COPY, "pulled", hopeless=True), 0)
    assert left(planner.resume(lost))[4:6] == ["env_copy", "env_check"]


def test_a_copy_that_begins_again_undoes_what_was_built_on_it():
    record = at(MOUNT)
    assert CHECK in record.proven
    record = replace(record, plan=(COPY, *record.plan))
    assert CHECK not in enter(record).proven


def test_a_settled_state_needs_no_network_boot_a_power_cycle_is_its_restart():
    record = planner.apply(enter(at(BOOT_FILES)), Settled(BOOT_FILES), 0)
    record = planner.apply(record, Failed(BOOT_FILES, "no answer"), 0)
    assert left(record) == ["turn_off", "turn_on", "ssh_test", "user_conf"]


def test_a_state_that_reboots_and_has_not_settled_goes_back_to_the_network_boot():
    lost = fail(at(BOOT_FILES))
    assert lost.status is Status.LOST
    assert left(planner.resume(lost))[:5] == [
        "boot_conf", "turn_off", "turn_on", "ssh_test", "mount_partition",
    ]  # fmt: skip


def test_a_node_lost_on_its_own_system_resumes_there():
    lost = fail(at(USER_CONF))
    assert left(planner.resume(lost)) == ["turn_off", "turn_on", "ssh_test", "user_conf"]
    record = planner.resume(lost)
    while record.status is Status.IN_PROGRESS:
        record = prove(record)
    assert record.status is Status.DEPLOYED


def test_after_an_update_it_resumes_behind_the_second_restart():
    lost = fail(at(USER_CONF, wanted=["update"]))
    assert planner.resume(lost).plan == (OFF, ON, 12, USER_CONF)


def test_a_process_without_power_states_takes_up_its_state_again():
    table = process(state("ssh_test", DEPLOYED), state("update_boot_files", DEPLOYED))
    lost = fail(at(1, table=table))
    assert planner.resume(lost).plan == (1,)


def test_a_cancelled_node_goes_no_further_and_can_be_resumed():
    record = planner.apply(enter(at(COPY)), Cancelled("cancelled by alice"), 0)
    assert (record.status, record.reason) == (Status.CANCELLED, "cancelled by alice")
    assert planner.resume(record).status is Status.IN_PROGRESS


def test_an_interrupted_state_is_entered_again_and_one_that_reboots_power_cycles():
    assert planner.interrupted(enter(at(COPY))).plan[0] == COPY
    assert left(planner.interrupted(enter(at(BOOT_FILES))))[0] == "boot_conf"
    settled = planner.apply(enter(at(BOOT_FILES)), Settled(BOOT_FILES), 0)
    assert left(planner.interrupted(settled))[0] == "turn_off"
    waiting = at(COPY)
    assert planner.interrupted(waiting) == waiting


def test_a_state_in_which_drivers_die_again_and_again_is_lost():
    record = at(COPY)
    for _ in range(planner.MOST_INTERRUPTIONS):
        record = planner.interrupted(enter(record))
    assert record.status is Status.IN_PROGRESS
    lost = planner.interrupted(enter(record))
    assert lost.status is Status.LOST
    assert "interrupted 6 times" in lost.reason


def test_overdue_names_the_state_its_limit_and_what_was_going_on():
    record = enter(at(BOOT_FILES), now=5)
    with pytest.raises(ImpossibleEvent):
        planner.apply(record, Overdue(BOOT_FILES), now=14.9)
    lost = planner.apply(record, Overdue(BOOT_FILES, "task X, 43 %"), now=15)
    assert lost.reason == "boot_files: not done within 10 s (task X, 43 %)"


def test_a_proof_that_comes_too_late_is_none():
    lost = planner.apply(enter(at(BOOT_FILES)), Proven(BOOT_FILES), now=10.5)
    assert lost.status is Status.LOST
    assert "after its deadline of 10 s" in lost.reason


def test_events_of_another_state_and_of_an_ended_node_are_refused():
    record = at(COPY)
    for event in (Proven(COPY), Entered(CHECK, 10), Settled(COPY)):
        with pytest.raises(ImpossibleEvent):
            planner.apply(record, event, 0)
    for event in (Proven(CHECK), Failed(CHECK, "broken"), Overdue(CHECK), Entered(COPY, 10)):
        with pytest.raises(ImpossibleEvent):
            planner.apply(enter(record), event, 10)
    with pytest.raises(ImpossibleEvent):
        planner.apply(enter(record), Settled(COPY), 0)
    with pytest.raises(ImpossibleEvent):
        planner.apply(fail(record, hopeless=True), Entered(COPY, 10), 0)


def test_no_state_is_entered_whose_preconditions_are_gone():
    record = replace(at(MOUNT), plan=(BOOT_FILES,))
    with pytest.raises(ImpossibleEvent, match="boot_files needs mount_partition"):
        enter(record)


def test_a_run_goes_on_to_the_next_reboot_and_power_states_touch_no_system():
    assert [s.position for s in planner.next_stretch(at(0))] == list(range(9))
    resumed = planner.resume(fail(at(USER_CONF)))
    stretch = planner.next_stretch(resumed)
    assert [s.position for s in stretch] == [OFF, ON, FIRST_SSH, USER_CONF]
    assert planner.phase_of(stretch) is DEPLOYED
    assert planner.next_stretch(enter(resumed)) == ()


def test_a_run_does_not_go_on_with_another_system():
    updating = at(FIRST_SSH, wanted=["update"])
    assert [s.name for s in planner.next_stretch(updating)][-1] == "boot_update"
    by_hand = process(state("env_copy"), state("ssh_test", DEPLOYED))
    record = planner.begin(by_hand, "node-1", frozenset())
    assert [s.name for s in planner.next_stretch(record)] == ["env_copy"]


def test_a_place_in_a_power_window_is_held_until_the_boot_is_proven():
    record = enter(at(ON))
    assert planner.holds_place(record, ON)
    record = planner.apply(record, Proven(ON), 0)
    assert planner.holds_place(record, ON)
    assert planner.holds_place(enter(record), ON)
    assert not planner.holds_place(prove(record), ON)


def test_a_try_that_gives_power_again_cuts_it_first():
    states = list(DEPLOY.states)
    states[3] = replace(states[3], again_from=ON)
    record = fail(at(3, table=process(*states)))
    assert left(record)[:3] == ["turn_off", "turn_on", "ssh_test"]


@pytest.mark.parametrize("position", [OFF, ON])
def test_to_switch_again_in_a_power_cycle_of_the_own_system_leaves_its_boot_files(position):
    states = list(DEPLOY.states)
    states[position] = replace(states[position], retries=1, again_from=0)
    record = planner.resume(fail(at(USER_CONF, table=process(*states))))
    while record.state.position != position:
        record = prove(record)
    assert left(fail(record)) == ["turn_off", "turn_on", "ssh_test", "user_conf"]
    while record.status is Status.IN_PROGRESS:
        record = prove(record)
    assert record.status is Status.DEPLOYED


def test_power_is_not_given_again_before_it_was_cut():
    record = replace(at(3), plan=(ON,))
    with pytest.raises(ImpossibleEvent, match="turn_on needs its power cut"):
        enter(record)


def test_a_restart_on_the_deploy_os_does_not_cut_the_way_back_to_its_boot_files():
    flash = state("flash", reboots=True)
    table = process(*DEPLOY.states[:3], flash, *DEPLOY.states[3:4], *DEPLOY.states[8:10])
    record = at(5, table=table)
    assert record.state.name == "boot_files"
    assert left(planner.interrupted(enter(record)))[:5] == [
        "boot_conf", "turn_off", "turn_on", "flash", "ssh_test",
    ]  # fmt: skip
