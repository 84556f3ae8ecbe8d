"""Ending the processes of a run, wherever they have moved to."""

import os
import subprocess
import sys

from piseduce_runner.leftovers import end_processes, find_processes

# A child that leaves its session, as Ansible's workers do, says so, and waits.
DETACHED = "import os,sys,time; os.setsid(); print('up', flush=True); time.sleep(60)"


def start(run, *words):
    process = subprocess.Popen(
        [sys.executable, "-c", DETACHED, *words],
        env=os.environ | {"PISEDUCE_RUN": run},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    return process


def test_only_processes_of_the_run_are_found_and_ended():
    ours, other = start("run-1234"), start("run-5678")
    try:
        found = find_processes("run-1234", "/no/such/folder")
        assert found == [ours.pid]
        end_processes(found)
        assert ours.wait(timeout=10) < 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_processes_are_found_by_the_folder_in_their_command_line():
    master = start("another-run", "ssh:", "/run/piseduce-1-abc/cp/0123")
    try:
        assert find_processes("run-1234", "/run/piseduce-1-abc") == [master.pid]
    finally:
        master.kill()
        master.wait()


def test_a_node_is_told_from_another_whose_name_begins_alike():
    first, tenth = (start("run-9", f"PISEDUCE_NODE={name} python3") for name in ("n-1", "n-10"))
    try:
        found = find_processes("run-9", "/no/such/folder", assignment="PISEDUCE_NODE=n-1")
        assert found == [first.pid]
    finally:
        for process in (first, tenth):
            process.kill()
            process.wait()


def test_a_process_that_ignores_sigterm_is_killed():
    stubborn = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); " + DETACHED],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout.readline() == b"up\n"
    end_processes([stubborn.pid])
    assert stubborn.wait(timeout=10) == -9
