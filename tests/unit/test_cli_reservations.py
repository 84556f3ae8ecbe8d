"""`reserve`, `configure`, `extend`, `cancel` and `deploy` of what was configured, as typed."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from sites import node, write_site

from piseduce_runner import deployment, environments, reservations
from piseduce_runner.cli import context, main
from piseduce_runner.planner import Status
from piseduce_runner.policy import NO_POLICY
from piseduce_runner.site_reader import load_site
from piseduce_runner.store import NewDeployment, Store

IMAGE = SimpleNamespace(
    name="debian-12",
    family="raspbian",
    login="pi",
    root_start_sector=2048,
    root_sectors=2048,
    policy=NO_POLICY,
)
FIELDS = {"id", "node", "owner", "start", "end", "configured", "environment"}


@pytest.fixture(autouse=True)
def people(monkeypatch):
    """Whoever runs the tests is alice, and no admin."""
    monkeypatch.setenv("SUDO_USER", "alice")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A site that is read once: Ansible takes most of a second for it."""
    folder = tmp_path_factory.mktemp("reserving") / "site"
    return load_site(write_site(folder, lambda i: node(i, "node-2").update(node_model="RPI3B+")))


@pytest.fixture
def site(loaded):
    """The site's folder, without a store."""
    shutil.rmtree(loaded.folder / "state", ignore_errors=True)
    return loaded.folder


@pytest.fixture
def run(site, loaded, monkeypatch):
    """run("reserve", ...) on a site that has an environment."""
    monkeypatch.setattr(context, "load_site", lambda folder: loaded)
    monkeypatch.setattr(deployment, "find_environment", lambda site, name: IMAGE)
    monkeypatch.setattr(environments, "find", lambda folder, name: IMAGE)
    monkeypatch.setattr(reservations.environments, "find", lambda folder, name: IMAGE)

    def invoke(*words, **options):
        return CliRunner().invoke(main, ["--site", str(site), *words], **options)

    return invoke


@pytest.fixture
def store(site):
    opened = Store.open(site / "state" / "piseduce.db")
    yield opened
    opened.close()


def listed(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["reservations"]


def refused(result, *fragments):
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    assert all(fragment in result.output for fragment in fragments), result.output
    return True


def test_reserve_tells_what_was_reserved_in_the_promised_fields(run):
    (one,) = listed(run("--json", "reserve", "node-1", "--duration", "2h"))
    assert set(one) == FIELDS
    assert (one["node"], one["owner"], one["configured"]) == ("node-1", "alice", False)
    shown = run("reserve", "node-2")
    assert "node-2" in shown.output
    assert "configure node-2 --env" in shown.output


def test_nodes_are_chosen_by_count_and_model(run):
    assert [one["node"] for one in listed(run("--json", "reserve", "--count", "1"))] == ["node-1"]
    (one,) = listed(run("--json", "reserve", "--count", "1", "--model", "RPI3B+"))
    assert one["node"] == "node-2"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "name the nodes, or give --count"),
        (["node-1", "--count", "1"], "and not both"),
        (["node-1", "--model", "RPI3B+"], "--model goes with --count"),
        (["--count", "1", "--model", "RPI9"], "no node is a RPI9; there are: RPI3B+, RPI4B4G"),
        (["--count", "3"], "3 nodes are asked for, but 2 of 2 are free"),
        (["node-9"], "unknown node: node-9"),
        (["node-1", "--start", "2001-01-01"], "in the past"),
        (["node-1", "--duration", "99999d"], "more than a year"),
        (["node-1", "--owner", "bob"], "only an admin acts in the name of bob"),
    ],
)
def test_reservations_that_are_refused(run, words, fragment):
    assert refused(run("reserve", *words), fragment)
    assert listed(run("--json", "reservations")) == []


@pytest.mark.parametrize(
    "words",
    [["configure", "node-1", "--env", "x"], ["extend", "node-1", "--duration", "1h"],
     ["cancel", "node-1"]],
)  # fmt: skip
def test_what_was_never_reserved_is_told_and_nothing_is_written(run, site, words):
    assert refused(run(*words), "nothing was ever reserved here")
    assert not (site / "state").exists()


def test_reserved_and_unconfigured_nodes_are_easy_to_find(run):
    run("reserve", "node-1")
    run("reserve", "node-2", "--start", "+2h")
    rows = json.loads(run("--json", "status").output)["nodes"]
    assert [(row["status"], row["owner"]) for row in rows] == [
        ("reserved", "alice"), ("free", None),
    ]  # fmt: skip
    assert rows[0]["reservation"]["configured"] is False
    assert "not configured" in run("status").output
    found = listed(run("--json", "status", "--unconfigured"))
    assert [one["node"] for one in found] == ["node-1", "node-2"]
    run("configure", "node-1", "--env", "debian-12")
    assert [one["node"] for one in listed(run("--json", "reservations", "--unconfigured"))] == [
        "node-2"
    ]
    run("cancel", "node-2")
    assert "no unconfigured reservations" in run("status", "--unconfigured").output


def test_a_configuration_keeps_the_password_as_a_hash_only(run, site):
    run("reserve", "node-1")
    words = ["configure", "node-1", "--env", "debian-12", "--password-stdin"]
    (done,) = listed(run("--json", *words, input="open sesame\n"))
    assert done["environment"] == "debian-12"
    for file in (site / "state").iterdir():
        assert b"open sesame" not in file.read_bytes()


def test_a_configured_node_is_deployed_without_saying_again_what(run):
    run("reserve", "node-1", "node-2")
    run("configure", "node-1", "--env", "debian-12", "--update", "--part-size", "256mb")
    result = run("--json", "deploy", "node-1", "--dry-run")
    assert result.exit_code == 0, result.output
    (plan,) = json.loads(result.output)["plans"]
    assert (plan["nodes"], plan["environment"]) == (["node-1"], "debian-12")
    assert plan["part_bytes"] == 256 * 1024**2
    assert "system_update" in plan["states"]
    assert refused(run("deploy", "node-1", "node-2"), "node-2 is reserved but not configured")
    assert refused(run("deploy", "node-1", "--update"), "--update: give --env too")


def test_a_dry_run_refuses_what_would_be_refused_and_changes_nothing(run, store):
    run("reserve", "node-1", "--duration", "2h")
    new = NewDeployment("node-2", "deploy", "debian-12", "bob", 4, "env_copy")
    store.begin([new], "bob's driver", time.time(), time.time() + 600)
    words = ["deploy", "--env", "debian-12", "--dry-run"]
    assert refused(run(*words, "node-1", "node-2"), "node-2 is under way")
    assert refused(run(*words, "node-1", "--duration", "1h"), "node-1 is reserved already")
    assert run(*words, "node-1").exit_code == 0
    assert list(store.deployments()) == ["node-2"]
    assert [act.what for act in store.acts("node-1", 9)] == ["reserve"]


def test_a_node_that_is_not_reserved_needs_an_environment(run):
    assert refused(run("deploy", "node-1"), "node-1 is not reserved", "--env")


def test_cancel_ends_reservations_and_what_nobody_drives(run, store):
    run("reserve", "node-1", "node-2")
    new = NewDeployment("node-2", "deploy", "debian-12", "alice", 4, "env_copy")
    store.begin([new], None, time.time(), None)
    done = json.loads(run("--json", "cancel", "node-1", "node-2").output)
    assert [(row["node"], row["status"]) for row in done["nodes"]] == [("node-2", "cancelled")]
    assert [one["node"] for one in done["reservations"]] == ["node-1"]
    assert "destroy node-2" in done["nodes"][0]["hint"]
    assert refused(run("cancel", "node-2"), "node-2 is cancelled: `piseduce-run destroy node-2`")


def test_cancel_of_a_deployment_and_of_something_senseless_does_neither(run, store):
    run("reserve", "node-2")
    new = NewDeployment("node-2", "deploy", "debian-12", "alice", 4, "env_copy")
    store.begin([new], None, time.time(), None)
    assert refused(run("cancel", "node-2", "node-1"), "node-1 is not reserved")
    assert store.deployment("node-2").status is Status.IN_PROGRESS
    assert store.deployment("node-2").cancel_asked_by == ""


def test_a_detached_deployment_says_how_to_come_back(run):
    run("reserve", "node-1")
    run("configure", "node-1", "--env", "debian-12")
    result = run("deploy", "node-1", "--detach")
    assert result.exit_code == 0, result.output
    assert "no agent runs: `piseduce-run agent --once`" in result.output
    assert "piseduce-run watch node-1" in result.output
    assert "piseduce-run cancel node-1" in result.output
