"""The command line as its users meet it: mistakes are one line and exit 2, JSON is a promise."""

import json
import time

import pytest
from click.testing import CliRunner
from sites import node, write_site

from piseduce_runner.cli import main
from piseduce_runner.planner import Status
from piseduce_runner.store import NewDeployment, Store

DEPLOY = ["deploy", "node-1", "--env", "debian-12"]


@pytest.fixture
def run(tmp_path):
    write_site(tmp_path / "site")

    def invoke(*words, **options):
        return CliRunner().invoke(main, ["--site", str(tmp_path / "site"), *words], **options)

    return invoke


def is_one_clear_line(result, *fragments):
    assert result.exit_code == 2, result.output
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.output
    return True


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["deploy", "node-9", "--env", "debian-12"], "unknown node: node-9"),
        (DEPLOY, "unknown environment 'debian-12'"),
        ([*DEPLOY, "--part-size", "xgb"], "part size 'xgb'"),
        ([*DEPLOY, "--ssh-key", "/nowhere.pub"], "/nowhere.pub"),
        (["history", "node-9"], "unknown node: node-9"),
        (["log", "node-9"], "unknown node: node-9"),
        (["log", "node-1"], "nothing was ever deployed"),
        (["processes", "fly"], "unknown process: fly"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(run, tmp_path, words, fragment):
    before = contents(tmp_path / "site")
    assert is_one_clear_line(run(*words), fragment)
    assert contents(tmp_path / "site") == before


def test_a_password_is_never_shown(run):
    result = run(*DEPLOY, "--password-stdin", input="secret\x07\n")
    assert is_one_clear_line(result, "control character")
    assert "secret" not in result.output


def test_a_malformed_inventory_is_one_line(tmp_path):
    site = write_site(tmp_path / "bad", lambda i: node(i).pop("node_mac"))
    result = CliRunner().invoke(main, ["--site", str(site), "status"])
    assert is_one_clear_line(result, "node_mac is missing")


@pytest.mark.parametrize("state", ["env_cpy", "boot_conf_of_ours"])
def test_a_bad_process_table_of_the_site_is_one_line_with_its_line(run, tmp_path, state):
    table = tmp_path / "site" / "processes.yml"
    table.write_text(
        f"deploy:\n  phases:\n    - phase: nfs\n      states: [{{state: {state}, timeout: 5}}]\n"
    )
    assert is_one_clear_line(run(*DEPLOY), f"{table}:4: unknown state '{state}'")


def test_a_state_of_a_site_without_tasks_is_refused(run, tmp_path):
    (tmp_path / "site" / "roles" / "ours").mkdir(parents=True)
    (tmp_path / "site" / "processes.yml").write_text(
        "deploy: {phases: [{phase: nfs, states: [{state: ours, timeout: 5}]}]}\n"
    )
    assert is_one_clear_line(run(*DEPLOY), "state 'ours' has no role")


def test_the_site_comes_from_the_environment_too(tmp_path):
    site = write_site(tmp_path / "site")
    result = CliRunner().invoke(main, ["status"], env={"PISEDUCE_SITE": str(site)})
    assert result.exit_code == 0
    assert "node-2" in result.output


def test_a_site_may_be_named_from_where_one_stands(tmp_path, monkeypatch):
    write_site(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["--site", "site", "status"])
    assert result.exit_code == 0, result.output


def test_without_any_site_the_way_to_one_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("PISEDUCE_LAB_ROOT", str(tmp_path))
    monkeypatch.setattr("piseduce_runner.cli.context._SYSTEM_SITE", tmp_path / "nowhere")
    result = CliRunner().invoke(main, ["status"], env={"PISEDUCE_SITE": None})
    assert is_one_clear_line(result, "no lab is up", "--site")


def test_json_status_has_the_promised_fields(run, tmp_path):
    store = Store.open(tmp_path / "site" / "state" / "piseduce.db")
    new = NewDeployment("node-2", "deploy", "debian-12", "alice", 4, "env_copy", {})
    store.begin([new], "me", now=0, expires=10)
    store.end("node-2", "me", Status.LOST, "env_copy: not done", 1_000_000_000, {})
    store.close()
    result = run("--json", "status")
    assert result.exit_code == 0
    first, second = json.loads(result.output)["nodes"]
    assert first == {
        "node": "node-1", "status": "free", "process": None, "state": None, "percent": None,
        "rate": None,
        "environment": None, "owner": None, "attempt": None, "since": None, "reason": "",
        "reservation": None, "hint": "",
    }  # fmt: skip
    hint = second.pop("hint")
    assert hint.startswith("lost since 2001-09-09")
    assert "`piseduce-run log node-2`" in hint
    assert "`piseduce-run reboot node-2`" in hint
    assert second == {
        "node": "node-2", "status": "lost", "process": "deploy", "state": "env_copy",
        "percent": None,
        "rate": None, "environment": "debian-12", "owner": "alice", "attempt": 1,
        "since": "2001-09-09T01:46:40Z", "reason": "env_copy: not done",
        "reservation": None,
    }  # fmt: skip


def test_a_deployment_whose_driver_has_died_is_shown_as_interrupted(run, tmp_path):
    store = Store.open(tmp_path / "site" / "state" / "piseduce.db")
    new = NewDeployment("node-1", "deploy", "debian-12", "alice", 4, "env_copy", {})
    store.begin([new], "driver 7", now=0, expires=10)
    store.close()
    row = json.loads(run("--json", "status").output)["nodes"][0]
    assert row["status"] == "in_progress"
    assert row["reason"] == "interrupted: driver 7 has gone"
    assert "`piseduce-run agent --once`" in row["hint"]


@pytest.mark.parametrize("words", [["processes"], ["env", "list"], ["status"]])
def test_a_folder_that_is_no_site_is_refused_by_every_command(tmp_path, words):
    result = CliRunner().invoke(main, ["--site", str(tmp_path), *words])
    assert is_one_clear_line(result, "is no site")


def test_a_damaged_environment_hides_no_other(run, tmp_path):
    (tmp_path / "site" / "environments" / "broken").mkdir(parents=True)
    result = run("env", "list")
    assert result.exit_code == 1
    assert "damaged: " in result.output


def test_every_command_has_help(run):
    for name, command in main.commands.items():
        assert command.help, name
        assert run(name, "--help").exit_code == 0


def test_processes_are_shown_with_timeouts_and_conditions(run):
    result = run("processes", "deploy")
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines()[2:]]
    assert rows[0][:3] == ["boot_conf", "nfs", "30"]
    assert [row[0] for row in rows].count("ssh_test") == 3


def test_processes_are_shown_with_the_policy_of_the_site(tmp_path):
    def change(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {
            "env_copy": {
                "timeout": "60 * nodes",
                "retries": 7,
                "window": {"most": 3, "seconds": 1.5, "per": "switch"},
            }
        }

    site = str(write_site(tmp_path / "site", change))
    shown = CliRunner().invoke(main, ["--site", site, "processes", "deploy"])
    (line,) = [line for line in shown.output.splitlines() if line.startswith("env_copy")]
    for words in ("60 * nodes", "7", "3 at once, 1.5 s apart per switch"):
        assert words in line
    shown = CliRunner().invoke(main, ["--site", site, "--json", "processes", "deploy"])
    (process,) = json.loads(shown.output)["processes"]
    assert process["ends"] == "deployed"
    (copy,) = [state for state in process["states"] if state["state"] == "env_copy"]
    assert (copy["timeout"], copy["retries"]) == ("60 * nodes", 7)
    assert copy["window"] == {"most": 3, "seconds": 1.5, "per": "switch"}


def test_a_policy_for_a_state_that_does_not_exist_is_one_line(tmp_path):
    def change(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {"env_cpy": {"retries": 1}}

    site = str(write_site(tmp_path / "site", change))
    result = CliRunner().invoke(main, ["--site", site, "processes"])
    assert is_one_clear_line(result, "piseduce_policy", "'env_cpy'", "did you mean env_copy?")


def test_a_node_that_is_under_way_or_is_somebody_elses_is_refused(run, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from piseduce_runner import deployment

    image = SimpleNamespace(name="debian-12", family="raspbian")
    monkeypatch.setattr(deployment, "find_environment", lambda site, name: image)
    monkeypatch.setattr(deployment, "check_part_size", lambda *_: None)
    store = Store.open(tmp_path / "site" / "state" / "piseduce.db")
    new = NewDeployment("node-1", "deploy", "debian-12", "alice", 4, "env_copy", {})
    store.begin([new], "driver 7", now=0, expires=time.time() + 600)
    assert is_one_clear_line(run(*DEPLOY, "--owner", "alice"), "is under way", "driver 7")
    store.end("node-1", "driver 7", Status.DEPLOYED, "", 1, {})
    assert is_one_clear_line(run(*DEPLOY, "--owner", "bob"), "node-1 is alice's")
    store.close()
