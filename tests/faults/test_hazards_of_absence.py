"""Hazards 1 to 3: the original took the absence of a process for success."""

import subprocess

import pytest
from bench import POSITION
from simulated import FAIL

from piseduce_runner.planner import Status


def test_hazard_01_a_half_written_card_does_not_pass(
    written, start_module, run_module, server, copy_options, check_options, published
):
    """Not even one that held the very same image before."""
    server.stall_after = (published / "debian" / "image.img.zst").stat().st_size // 2
    copy = start_module("card_write", device=written.device, **copy_options)
    assert server.stalled.wait(60)
    copy.kill()
    copy.wait()
    check = run_module("card_verify", device=written.device, **check_options)
    assert check.failed
    assert "differs" in check.message or "disk id" in check.message, check.message


@pytest.mark.parametrize(("lost_in", "copied_again"), [("env_copy", True), ("env_check", False)])
def test_hazard_01_a_reboot_passes_over_nothing_but_what_was_proven(bench, lost_in, copied_again):
    """What the copy has proven is read back once more; what it has not is written again."""
    one = bench({("node-1", POSITION[lost_in]): [FAIL] * 4})
    assert one.drive(one.begin("node-1"))["node-1"].status is Status.LOST
    one.played()
    ended = one.drive(one.asks().reboot(["node-1"]))
    assert ended["node-1"].status is Status.DEPLOYED
    boot = ["boot_conf", "turn_off", "turn_on", "ssh_test"]
    copy = ["env_copy", "env_check"] if copied_again else ["env_check"]
    assert one.played()[:6] == [*boot, *copy, "delete_partition"][:6]


def test_hazard_01_a_driver_that_starts_again_has_the_card_checked(bench):
    one = bench()
    one.runner.on_state = lambda node, position: (
        one.driver.detach("it died") if position == POSITION["env_check"] else None
    )
    one.drive(one.begin("node-1"))
    one.runner.on_state = lambda node, position: None
    one.played()
    assert one.take_over("node-1")["node-1"].status is Status.DEPLOYED
    assert one.played()[0] == "env_check"


def test_hazard_01_no_resize2fs_is_no_proof_that_the_file_system_has_grown(grown, resize):
    run = resize(grown, "finished")
    assert run.failed
    assert "resize_partition must run again" in run.message


def test_hazard_02_a_copy_that_is_over_at_once_is_seen_with_its_own_end(bench):
    """The deadlines are those of the table, minutes: nobody waited for one."""
    one = bench({("node-2", POSITION["env_copy"]): [FAIL] * 4})
    ended = one.drive(one.begin("node-1", "node-2"))
    assert ended["node-1"].status is Status.DEPLOYED
    assert ended["node-2"].status is Status.LOST
    assert ended["node-2"].reason == "env_copy: Do it: it broke"


@pytest.fixture
def namesakes(written):
    """Processes that a search for names would take for ours."""
    names = [f"dd of={written.device}", f"[jbd2/{written.device}p2-8]", "tar", "resize2fs"]
    running = [subprocess.Popen([name, "600"], executable="/bin/sleep") for name in names]
    yield
    for process in running:
        process.kill()
        process.wait()


def test_hazard_03_processes_of_the_same_name_are_not_waited_for(
    namesakes, written, run_module, check_options
):
    run = run_module("card_verify", device=written.device, **check_options)
    assert not run.failed, run.message


def test_hazard_03_processes_of_the_same_name_are_not_trusted(namesakes, grown, resize):
    assert resize(grown, "finished").failed
