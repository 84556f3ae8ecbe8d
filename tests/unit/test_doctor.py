"""What `doctor` says of a site, in a folder and on loopback; see also tests/snmp and tests/lab."""

import json
import threading

import pytest
from click.testing import CliRunner
from sites import node, switch, write_site

from piseduce_runner.cli import main
from piseduce_runner.doctor import examination, examine
from piseduce_runner.doctor.checks import Check, Checks
from piseduce_runner.doctor.findings import Level, ok, problem, warning
from piseduce_runner.site_reader import survey_site


def by_id(findings):
    return {one.id: one for one in findings}


# The whole


@pytest.fixture
def quiet(monkeypatch):
    """No network: what a switch and services answer is tested elsewhere."""

    def said(name):
        return lambda *_: [ok(name, name, "not looked at")]

    monkeypatch.setattr(examination, "check_switch", said("switch-answers"))
    monkeypatch.setattr(examination, "check_image_server", said("image-server"))
    monkeypatch.setattr(examination.boot_server, "check_tftp", said("tftp-server"))


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_each_mistake_of_an_inventory_is_a_finding_and_hides_nothing(tmp_path, quiet):
    def spoil(inventory):
        node(inventory, "node-1").pop("node_mac")
        node(inventory, "node-2")["node_port"] = 8

    before_and_after = []
    site = write_site(tmp_path, spoil)
    before_and_after.append(contents(tmp_path))
    findings = examine(site)
    before_and_after.append(contents(tmp_path))
    mistakes = [one for one in findings if one.id == "inventory"]
    assert [one.level for one in mistakes] == [Level.PROBLEM, Level.PROBLEM]
    assert "node node-1: node_mac is missing" in mistakes[0].message
    assert "node_port 8 is one of switch_forbidden_ports" in mistakes[1].message
    found = by_id(findings)
    assert found["manager-key"].level is Level.PROBLEM
    assert found["switch-answers"].level is Level.OK
    assert found["manager-address"].level is Level.OK
    assert before_and_after[0] == before_and_after[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [("all: [", "hosts.yml:1"), ("nothing: {}\n", "there is no host in group `switches`")],
)
def test_an_inventory_that_cannot_be_read_is_a_finding(tmp_path, quiet, text, says):
    site = write_site(tmp_path)
    (site / "inventory" / "hosts.yml").write_text(text)
    found = by_id(examine(site))
    assert found["inventory"].level is Level.PROBLEM
    assert says in found["inventory"].message
    assert found["site"].level is Level.NOT_CHECKED
    assert found["tool"].level is not Level.PROBLEM


def test_switches_are_looked_at_without_the_sites_own_variables(tmp_path, quiet):
    site = write_site(tmp_path, lambda i: i["all"]["vars"].pop("piseduce_image_url"))
    found = by_id(examine(site))
    assert found["switch-answers"].level is Level.OK
    assert found["site"].level is Level.NOT_CHECKED


def test_a_template_is_filled_in_before_a_switch_is_asked(tmp_path, monkeypatch):
    def spoil(inventory):
        inventory["all"]["vars"]["our_community"] = "deep secret"
        switch(inventory)["switch_community"] = "{{ our_community }}"

    asked = []
    monkeypatch.setattr(examination, "check_switch", lambda *given: asked.append(given) or [])
    survey = survey_site(write_site(tmp_path, spoil))
    assert examination.look_at_switch(survey, survey.switches["switch-1"]) == []
    ((_, nodes, access, _),) = asked
    assert access["switch_community"] == "deep secret"
    assert [one.name for one in nodes] == ["node-1", "node-2"]


def test_a_vault_without_its_password_is_not_checked(tmp_path):
    site = write_site(tmp_path)
    vault = "$ANSIBLE_VAULT;1.1;AES256\n3961\n"
    survey = survey_site(site)
    survey.variables["switch-1"]["switch_community"] = {"__ansible_vault": vault}
    hosts = site / "inventory" / "hosts.yml"
    text = hosts.read_text()
    hosts.write_text(
        text.replace("switch_community: private", f"switch_community: !vault {json.dumps(vault)}")
    )
    assert hosts.read_text() != text
    (found,) = examination.look_at_switch(survey, survey.switches["switch-1"])
    assert found.level is Level.NOT_CHECKED
    assert "no vault secrets" in found.message


# Checks side by side

GOOD = ok("good", "c", "all is well")


def test_a_check_that_fails_hides_no_other():
    def fail():
        raise RuntimeError("a fault of ours")

    def miss():
        raise FileNotFoundError(2, "No such file or directory", "ssh-keygen")

    under_way = Checks()
    under_way.start(
        Check("one", "a", fail), Check("two", "b", miss), Check("three", "c", lambda: [GOOD])
    )
    first, second, third = under_way.collect(60)
    assert (first.id, first.level) == ("one", Level.NOT_CHECKED)
    assert "a fault of ours" in first.message
    assert second.message == "ssh-keygen is not there"
    assert third is GOOD


def test_a_check_without_end_is_not_waited_for():
    never = threading.Event()
    under_way = Checks()
    under_way.start(Check("slow", "a", never.wait))
    (found,) = under_way.collect(0.1)
    never.set()
    assert (found.id, found.level) == ("slow", Level.NOT_CHECKED)
    assert "did not come to an end" in found.message


# What is shown


FINDINGS = [
    ok("tool", "ssh", "it is installed"),
    warning("inventory-mode", "hosts.yml", "others can read it", "chmod 600 hosts.yml"),
    problem("manager-key", "the key", "there is no such file", "make one"),
]


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    def run(findings, *words):
        monkeypatch.setattr("piseduce_runner.doctor.examine", lambda folder: findings)
        return CliRunner().invoke(main, ["--site", str(tmp_path), *words])

    return run


def test_problems_come_first_and_what_is_fine_is_counted(doctor):
    result = doctor(FINDINGS, "doctor")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "problem: manager-key: the key",
        "    there is no such file",
        "    -> make one",
        "warning: inventory-mode: hosts.yml",
        "    others can read it",
        "    -> chmod 600 hosts.yml",
        "1 check is fine",
    ]
    assert "ok: tool: ssh" in doctor(FINDINGS, "doctor", "--all").output


def test_warnings_alone_are_no_failure(doctor):
    assert doctor(FINDINGS[:2], "doctor").exit_code == 0


def test_json_findings_have_the_promised_fields(doctor):
    result = doctor(FINDINGS, "--json", "doctor")
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert answer["findings"][1] == {
        "id": "inventory-mode", "level": "warning", "subject": "hosts.yml",
        "message": "others can read it", "remedy": "chmod 600 hosts.yml",
    }  # fmt: skip
    assert answer["counts"] == {"ok": 1, "warning": 1, "problem": 1, "not_checked": 0}


def test_a_folder_that_is_no_site_is_wrong_usage(tmp_path):
    result = CliRunner().invoke(main, ["--site", str(tmp_path), "doctor"])
    assert result.exit_code == 2
    assert "is no site" in result.output
