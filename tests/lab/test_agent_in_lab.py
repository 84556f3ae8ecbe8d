"""Reservations, the agent, and cancelling, on a lab: each test goes on where the one before ended.

A driver is really killed, with the node in the middle of its copy.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from simulated_lab import CLI

from piseduce_runner.agent_lock import running_agent
from piseduce_runner.planner import Status
from piseduce_runner.site import SiteFolder
from piseduce_runner.store import Store

CONFIGURED, INTERRUPTED = "node-1", "node-2"
LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def lab(make_lab):
    return make_lab("--nodes", "2")


@pytest.fixture
def store(lab):
    opened = Store.open(SiteFolder(lab.site).database)
    yield opened
    opened.close()


@pytest.fixture
def start(lab):
    """start("deploy", ...) begins a command in another process."""
    started = []

    def begin(*words):
        command = [sys.executable, "-c", CLI, "--site", str(lab.site), *words]
        process = subprocess.Popen(
            command, env=lab.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def run(lab, *words, check=True):
    return lab.run("--site", str(lab.site), *words, check=check)


def statuses(lab):
    rows = json.loads(run(lab, "--json", "status").stdout)["nodes"]
    return {row["node"]: row["status"] for row in rows}


def wait_for(store, node, wanted, process=None):
    """Wait until the node's deployment is as wanted; the driver must not have ended before."""
    limit = time.monotonic() + LIMIT_SECONDS
    while not wanted(store.deployment(node)):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit, store.deployment(node)
        time.sleep(0.05)


def test_a_driver_that_is_killed_in_the_copy_leaves_a_node_that_nobody_else_touches(
    lab, store, start
):
    lab.fault("link-slow", INTERRUPTED, rate="10M")
    driver = start("deploy", INTERRUPTED, "--env", "debian-12")
    wait_for(store, INTERRUPTED, lambda held: held and held.state == "env_copy", driver)
    refused = run(lab, "deploy", INTERRUPTED, "--env", "debian-12", check=False)
    assert refused.returncode == 2
    assert f"{INTERRUPTED} is under way (deploy: env_copy) by piseduce-run on" in refused.stderr
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    lab.clear_faults()
    held = store.deployment(INTERRUPTED)
    assert (held.status, held.state) == (Status.IN_PROGRESS, "env_copy")


def test_the_agent_deploys_what_is_due_and_goes_on_with_what_was_interrupted(lab, store):
    run(lab, "reserve", CONFIGURED)
    run(lab, "configure", CONFIGURED, "--env", "debian-12")
    # As after half a minute.
    store.renew_claim(store.deployment(INTERRUPTED).claim, time.time())
    done = run(lab, "agent", "--once")
    assert f"{CONFIGURED}: deploy begins, for " in done.stderr
    assert f"{INTERRUPTED}: deploy taken on in env_copy" in done.stderr
    assert statuses(lab) == {CONFIGURED: "deployed", INTERRUPTED: "deployed"}
    for index in (1, 2):
        assert lab.hostname_over_ssh(index) == f"node-{index}"
    journal = store.transitions(INTERRUPTED)
    copies = [line.outcome.value for line in journal if line.state == "env_copy"]
    assert copies == ["interrupted", "proven"]
    # The power was switched once: the second driver has gone on, not begun again.
    assert [line.state for line in journal].count("turn_on") == 1


def test_a_running_deployment_is_cancelled_by_another_process(lab, store, start):
    driver = start("deploy", INTERRUPTED, "--env", "debian-12", "--replace")
    wait_for(store, INTERRUPTED, lambda held: held.status is Status.IN_PROGRESS, driver)
    done = json.loads(run(lab, "--json", "cancel", INTERRUPTED).stdout)
    assert [row["status"] for row in done["nodes"]] == ["cancelled"]
    assert ": cancelled by " in done["nodes"][0]["reason"]
    output, _ = driver.communicate(timeout=LIMIT_SECONDS)
    assert driver.returncode == 1, output
    assert f"destroy {INTERRUPTED}" in output


def test_the_agent_destroys_what_has_ended_and_stops_when_it_is_told_to(lab, store, start):
    agent = start("agent")
    lock = SiteFolder(lab.site).agent_lock
    (reservation,) = store.reservations(CONFIGURED)
    store.end_reservation(reservation.id, time.time())
    wait_for(store, CONFIGURED, lambda held: held is None, agent)
    assert statuses(lab)[CONFIGURED] == "free"
    assert lab.booted(1)[0] == "off"
    assert not lab.node_tftp(1).exists()
    second = run(lab, "agent", "--once", check=False)
    assert second.returncode == 2
    assert f"(pid {agent.pid})" in second.stderr
    agent.send_signal(signal.SIGTERM)
    output, _ = agent.communicate(timeout=LIMIT_SECONDS)
    assert agent.returncode == 0, output
    assert output.endswith("the agent has stopped\n")
    assert running_agent(lock) is None
