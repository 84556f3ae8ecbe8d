"""`history`, `log`, `watch` and `agent` as typed: what people and programs are shown."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from sites import write_site

from piseduce_runner.agent_lock import hold_agent_lock
from piseduce_runner.cli import context, main
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.site_reader import load_site
from piseduce_runner.store import NewDeployment, Outcome, Store

CLI = "from piseduce_runner.cli import main; main()"
LOG = """--- 2001-09-09 01:46:40  turn_on
[Switch the port on] (1.0 s)
changed
--- 2001-09-09 01:46:50  env_copy
[Write the image] (1.0 s)
the card is worn
--- 2001-09-09 01:47:00  env_copy
[Write the image] (2.0 s)
the card is worn out
--- 2001-09-09 01:47:10  turn_off
[Switch the port off] (1.0 s)
changed
"""
START = time.mktime((2001, 9, 9, 1, 46, 40, 0, 0, -1))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A site that is read once: Ansible takes most of a second for it."""
    return load_site(write_site(tmp_path_factory.mktemp("looking") / "site"))


@pytest.fixture
def site(loaded):
    shutil.rmtree(loaded.folder / "state", ignore_errors=True)
    return loaded


@pytest.fixture
def run(site, monkeypatch):
    monkeypatch.setattr(context, "load_site", lambda folder: site)

    def invoke(*words):
        return CliRunner().invoke(main, ["--site", str(site.folder), *words])

    return invoke


@pytest.fixture
def store(site):
    opened = Store.open(site.database)
    yield opened
    opened.close()


def begin(store, node="node-1", claim="driver 7", expires=None, process="deploy"):
    expires = time.time() + 600 if expires is None else expires
    new = NewDeployment(node, process, "debian-12", "alice", 0, "turn_on")
    store.begin([new], claim, START, expires)


def go_through(store, log, *states):
    """States of node-1, as (name, seconds after START, outcome)."""
    for position, (state, after, outcome) in enumerate(states):
        store.enter(
            "node-1", "driver 7", position=position, state=state, attempt=1, log=str(log),
            now=START + after, record={},
        )  # fmt: skip
        store.leave("node-1", "driver 7", outcome, f"{state}: why", START + after + 9, {})


@pytest.fixture
def lost(store, tmp_path):
    """node-1 failed in env_copy twice, and was then power-cycled in vain."""
    log = tmp_path / "node-1.log"
    log.write_text(LOG)
    begin(store)
    go_through(
        store, log,
        ("turn_on", 0, Outcome.PROVEN), ("env_copy", 10, Outcome.FAILED),
        ("env_copy", 20, Outcome.FAILED), ("turn_off", 30, Outcome.INTERRUPTED),
    )  # fmt: skip
    store.end("node-1", "driver 7", Status.LOST, "env_copy: why", START + 40, {})


def test_log_of_a_lost_node_is_ansibles_words_for_the_try_that_failed(run, lost):
    told = json.loads(run("--json", "log", "node-1").output)
    assert (told["state"], told["outcome"]) == ("env_copy", "failed")
    assert told["text"].splitlines()[0].endswith("01:47:00  env_copy")
    assert told["text"].endswith("the card is worn out\n")
    assert set(told) == {"node", "state", "attempt", "outcome", "reason", "file", "text"}
    assert "reason: env_copy: why" in run("log", "node-1").output
    assert json.loads(run("--json", "log", "node-1", "--all").output)["text"] == LOG


def test_log_of_another_node_is_about_its_last_state(run, store, tmp_path):
    log = tmp_path / "node-1.log"
    log.write_text(LOG)
    begin(store)
    go_through(store, log, ("env_copy", 10, Outcome.FAILED), ("turn_off", 30, Outcome.PROVEN))
    assert "Switch the port off" in run("log", "node-1").output


def test_log_of_a_node_that_never_began_says_why(run, store):
    begin(store)
    store.end("node-1", "driver 7", Status.LOST, "unknown environment 'gone'", START, {})
    assert "unknown environment 'gone'" in run("log", "node-1").output


def test_log_of_an_earlier_deployment_is_not_taken_for_that_of_the_last(run, store, lost):
    begin(store)
    store.end("node-1", "driver 7", Status.LOST, "unknown environment 'gone'", START + 60, {})
    result = run("log", "node-1")
    assert result.exit_code == 2
    assert "nothing was begun: unknown environment 'gone'" in result.output


def test_history_says_when_there_is_none_and_refuses_senseless_limits(run):
    assert run("history").output == "nothing was done yet\n"
    assert run("history", "--limit", "0").exit_code == 2
    assert run("history", "--limit", "-5").exit_code == 2


def test_history_tells_states_tries_and_who_asked_for_what(run, store, lost):
    store.record_act("root", "cancel", "node-1", START + 35, forced=True, detail="deploy: turn_on")
    told = json.loads(run("--json", "history", "node-1").output)
    assert [row["attempt"] for row in told["transitions"]] == [1] * 4
    assert told["transitions"][0]["seconds"] == 9.0
    (act,) = told["acts"]
    assert set(act) == {"at", "who", "what", "node", "forced", "detail"}
    lines = run("history").output.splitlines()
    assert "root: cancel deploy: turn_on by force" in lines[-1]
    newest = json.loads(run("--json", "history", "--limit", "2").output)
    assert [row["state"] for row in newest["transitions"]] == ["turn_off"]
    assert len(newest["acts"]) == 1


def test_watch_ends_when_nothing_is_under_way(run, store):
    assert run("watch").output == "nothing is under way\n"
    begin(store, claim=None)
    # Nobody drives it and no agent runs: there is nothing to wait for, but something to do.
    shown = run("watch", "node-1")
    assert shown.exit_code == 0
    assert "node-1: nobody drives it now" in shown.output
    assert json.loads(run("--json", "watch").output) == {"nodes": []}


def test_watch_shows_nodes_until_their_end(run, store, monkeypatch):
    from piseduce_runner.cli import watching

    begin(store)
    steps = [
        lambda: store.set_percent("node-1", "driver 7", 43),
        lambda: store.end("node-1", "driver 7", Status.LOST, "env_copy: why", time.time(), {}),
    ]
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: steps.pop(0)())
    shown = run("watch")
    assert shown.exit_code == 1
    assert "node-1 turn_on 43 %" in shown.output
    assert "node-1 lost: env_copy: why" in shown.output


def test_ctrl_c_only_stops_looking(run, store, monkeypatch):
    from piseduce_runner.cli import watching

    def interrupted(seconds):
        raise KeyboardInterrupt

    begin(store)
    monkeypatch.setattr(watching.time, "sleep", interrupted)
    assert run("watch").exit_code == 0
    assert store.deployment("node-1").claim == "driver 7"


def test_an_agent_with_nothing_to_do_says_so(run):
    done = run("agent", "--once")
    assert (done.exit_code, done.output) == (0, "nothing was due\n")
    assert json.loads(run("--json", "agent", "--once").output) == {"nodes": []}


def test_an_agent_says_what_is_not_due_because_somebody_drives_it(run, store):
    begin(store)
    lines = run("agent", "--once").output.splitlines()
    assert lines == ["nothing was due", "node-1 is under way (deploy: turn_on) by driver 7"]


def test_a_second_agent_is_refused(run, site):
    with hold_agent_lock(site.agent_lock):
        done = run("agent", "--once")
    assert done.exit_code == 2
    assert f"(pid {os.getpid()})" in done.output
    assert done.output.count("\n") == 1


def test_an_agent_that_cannot_write_its_lock_says_so():
    with pytest.raises(UserError, match="/dev/full: cannot be written"):  # noqa: SIM117
        with hold_agent_lock(Path("/dev/full")):
            pass


def test_an_agent_stops_at_sigterm_and_reads_the_site_again_at_sighup(site):
    """One process: its words come in this order, whatever the machine is busy with."""
    command = [sys.executable, "-c", CLI, "--site", str(site.folder), "agent"]
    agent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert "the agent works on" in agent.stderr.readline()
        agent.send_signal(signal.SIGHUP)
        assert "the site was read again" in agent.stderr.readline()
        agent.send_signal(signal.SIGTERM)
        assert "the agent has stopped" in agent.stderr.readline()
        assert agent.wait(timeout=60) == 0
    finally:
        agent.kill()
        agent.communicate()
