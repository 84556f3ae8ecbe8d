"""The command `lab fault`, and faults of the switch: each is seen by net-snmp, and goes again."""

import json
import subprocess
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from simulated_lab import ADMIN, SimulatedLab

from piseduce_runner.cli import main

NODE = 1


@pytest.fixture(scope="module")
def module_lab(make_lab) -> SimulatedLab:
    return make_lab("--nodes", "2")


@pytest.fixture
def lab(module_lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The lab with no fault set and every node off, before and after the test."""
    yield module_lab
    module_lab.clear_faults()
    module_lab.power_off_everything()


def piseduce_run(lab: SimulatedLab, *words: str, status: int = 0) -> str:
    """What the command prints, within this process."""
    done = CliRunner().invoke(main, words, env=lab.environment())
    assert done.exit_code == status, done.output
    return done.output


def fault(lab: SimulatedLab, *words: str, status: int = 0) -> str:
    return piseduce_run(lab, "lab", "fault", *words, "--name", lab.name, status=status)


def ask(lab: SimulatedLab, *, retries: int = 0) -> subprocess.CompletedProcess:
    """One GET of the node's admin state; each try waits for a second."""
    command = ["snmpget", "-v2c", "-c", "public", "-Oqvn", "-t", "1", "-r", str(retries)]
    name = f"{ADMIN}.{lab.node(NODE).port}"
    return subprocess.run(
        [*command, lab.settings.switch_address, name], capture_output=True, text=True
    )


def admin(lab: SimulatedLab) -> str:
    return ask(lab, retries=5).stdout.strip()


def test_set_list_and_clear_on_the_command_line(lab):
    assert fault(lab, "list") == "no fault is set\n"
    assert fault(lab, "set", "snmp-error", "node-1", "node-2", "status=noAccess") == (
        "node-1: snmp-error status=noAccess set\nnode-2: snmp-error status=noAccess set\n"
    )
    fault(lab, "set", "snmp-delay", "seconds=0.5")
    expected = [
        {"fault": "snmp-error", "target": "node-1", "parameters": {"status": "noAccess"}},
        {"fault": "snmp-error", "target": "node-2", "parameters": {"status": "noAccess"}},
        {"fault": "snmp-delay", "target": "switch-1", "parameters": {"seconds": 0.5}},
    ]
    assert lab.status()["faults"] == expected
    assert "snmp-delay" in fault(lab, "list")
    listed = piseduce_run(lab, "--json", "lab", "fault", "list", "--name", lab.name)
    assert json.loads(listed) == {"faults": expected}
    shown = piseduce_run(lab, "lab", "status", "--name", lab.name)
    assert "fault on node-2: snmp-error status=noAccess" in shown
    assert fault(lab, "clear", "snmp-error", "node-1") == (
        "node-1: snmp-error status=noAccess cleared\n"
    )
    assert lab.folder.status()["faults"] == expected[1:]
    fault(lab, "clear")
    assert lab.folder.status()["faults"] == []
    assert fault(lab, "clear") == "no such fault is set\n"


def test_available_faults_are_listed_without_a_lab(lab):
    assert "power-twice" in piseduce_run(lab, "lab", "fault", "list", "--available")
    listed = json.loads(piseduce_run(lab, "--json", "lab", "fault", "list", "--available"))
    assert {"snmp-delay", "freeze"} <= {row["fault"] for row in listed["available"]}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["set", "snmp-lies", "switch-1"], "did you mean snmp-lie?"),
        (["set", "snmp-lie", "node-7"], "unknown node or switch: node-7"),
        (["set", "snmp-delay", "seconds=soon"], "a number of seconds"),
        (["clear", "frieze"], "did you mean freeze?"),
        (["set", "freeze", "node-1"], "nothing runs on it"),
    ],
)
def test_mistakes_are_one_line_and_set_nothing(lab, words, complaint):
    said = fault(lab, *words, status=2)
    assert complaint in said
    assert len(said.splitlines()) == 1
    assert lab.folder.status()["faults"] == []


def test_a_lab_that_is_not_up_has_no_faults(lab_root):
    said = fault(SimulatedLab(lab_root, "never-was"), "set", "snmp-lie", status=2)
    assert "lab never-was is not up" in said


def test_all_requests_are_dropped_until_cleared(lab):
    assert admin(lab) == "2"
    lab.fault("snmp-drop", "switch-1")
    assert ask(lab).returncode != 0
    lab.clear_faults("snmp-drop")
    assert admin(lab) == "2"


def test_the_next_requests_are_dropped(lab):
    lab.fault("snmp-drop", "switch-1", next=1)
    assert ask(lab).returncode != 0
    assert admin(lab) == "2"


def test_late_answers_are_late_only_while_the_fault_is_set(lab):
    lab.fault("snmp-delay", "switch-1", seconds=60)
    assert ask(lab).returncode != 0
    lab.clear_faults()
    assert admin(lab) == "2"


@pytest.mark.parametrize("target", ["switch-1", "node-1"])
def test_a_set_is_answered_with_an_error(lab, target):
    lab.fault("snmp-error", target, status="resourceUnavailable")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        lab.power(NODE, True)
    assert "resourceUnavailable" in raised.value.stderr
    assert admin(lab) == "2"
    lab.clear_faults()
    lab.power(NODE, True)
    assert admin(lab) == "1"


@pytest.mark.parametrize("target", ["switch-1", "node-1"])
def test_a_lying_switch_says_done_and_does_nothing(lab, target):
    lab.fault("snmp-lie", target)
    lab.power(NODE, True)
    assert (admin(lab), lab.booted(NODE)[0]) == ("2", "off")
    lab.clear_faults()
    lab.power(NODE, True)
    assert (admin(lab), lab.detection(NODE)) == ("1", 3)


def test_a_port_stuck_off_gives_power_when_it_is_cleared(lab):
    lab.fault("port-stuck-off", NODE)
    lab.power(NODE, True)
    assert (admin(lab), lab.detection(NODE)) == ("1", 2)
    lab.clear_faults()
    assert lab.detection(NODE) == 3


def test_a_port_stuck_on_takes_the_power_away_when_it_is_cleared(lab):
    lab.power(NODE, True)
    lab.fault("port-stuck-on", NODE)
    lab.power(NODE, False)
    assert (admin(lab), lab.detection(NODE)) == ("2", 3)
    lab.clear_faults()
    assert lab.detection(NODE) == 1
    lab.wait_booted(NODE, "off")


def test_a_port_needs_two_power_ons_to_give_power(lab):
    lab.fault("power-twice", NODE, mode="no-power")
    lab.power(NODE, True)
    assert lab.detection(NODE) == 2
    lab.power(NODE, False)
    lab.power(NODE, True)
    assert lab.detection(NODE) == 3


def test_a_board_needs_two_power_ons_to_start(lab):
    lab.fault("power-twice", NODE)
    lab.power(NODE, True)
    assert "does not start" in lab.wait_booted(NODE, "dead")
    lab.power(NODE, False)
    lab.wait_booted(NODE, "off")
    lab.power(NODE, True)
    assert "cmdline.txt" in lab.wait_booted(NODE, "dead")  # it got as far as network boot
