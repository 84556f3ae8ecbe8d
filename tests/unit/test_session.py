"""Which runs are ended when a driver's nodes are taken from it."""

import os
import subprocess

import pytest

from piseduce_runner import run_folder, session
from piseduce_runner.leftovers import is_gone
from piseduce_runner.run_folder import hold_run_folder

MARK = "PISEDUCE_RUN"


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A process that lives, the folder of a run of its own, and a process of that run."""
    monkeypatch.setattr(run_folder, "runtime_folder", lambda: tmp_path)
    with subprocess.Popen(["sleep", "600"]) as driver:
        folder = tmp_path / f"piseduce-{driver.pid}-run"
        (folder / "gates").mkdir(parents=True)
        (folder / "gates" / "node-1.0").write_text("go")
        environment = os.environ | {MARK: folder.name}
        with hold_run_folder(folder), subprocess.Popen(["sleep", "600"], env=environment) as run:
            yield driver.pid, folder, run.pid
            run.kill()
        driver.kill()


def test_the_runs_of_a_driver_that_hangs_are_ended_and_cannot_begin_when_it_wakes_up(stopped):
    driver, folder, run = stopped
    session.end_runs_of(session._claim_of(driver))
    assert is_gone(run)
    assert not folder.exists()


def test_the_runs_of_another_process_that_has_the_number_of_a_dead_driver_go_on(stopped):
    driver, folder, run = stopped
    host, _, pid = session._claim_of(driver).rpartition(", pid ")
    session.end_runs_of(f"{host.rstrip(')')}0), pid {pid}")
    assert not is_gone(run)
    assert folder.exists()


def test_a_process_that_has_ended_has_no_claim():
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert session._claim_of(child.pid) == ""


def test_what_others_have_put_among_the_folders_of_runs_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "runtime_folder", lambda: tmp_path / "run")
    (tmp_path / "run").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.mkfifo(elsewhere / "driver")  # whoever opens it waits
    (tmp_path / "run" / "piseduce-1-x").symlink_to(elsewhere)
    run_folder.remove_stale_run_folders()
    assert list(elsewhere.iterdir()) == [elsewhere / "driver"]
