"""What a user types after `lab fault set`, and the table that says what there is."""

import re
from pathlib import Path

import pytest

from piseduce_runner.errors import UserError
from piseduce_runner.lab.faults.faults_set import EFFECTS
from piseduce_runner.lab.faults.parameters import Kind
from piseduce_runner.lab.faults.table import FAULTS, Target
from piseduce_runner.lab.faults.words import read_wish
from piseduce_runner.lab.settings import Settings

LAB = Settings(name="lab", nodes=3, network="10.77.0.0/24")
DOCUMENT = Path(__file__).parents[2] / "docs" / "lab.md"


def read(name, *words):
    return read_wish(name, words, LAB)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["frieze", "node-1"], "unknown fault: frieze; did you mean freeze?"),
        (["qqq", "node-1"], "lab fault list --available"),
        (["freeze", "node-9"], "unknown node or switch: node-9; this lab has node-1 to node-3"),
        (["freeze"], "freeze: say on which node"),
        (["freeze", "switch-1"], "freeze is set on a node, switch-1 is none"),
        (["snmp-drop", "node-1"], "snmp-drop is set on a switch, node-1 is none"),
        (["snmp-error", "manager"], "snmp-error is set on a switch or node"),
        (["freeze", "node-1", "long=1"], "unknown parameter; it has none"),
        (["snmp-drop", "most=1"], "unknown parameter; it has next"),
        (["snmp-drop", "next=many"], "snmp-drop next=many: a whole number"),
        (["snmp-drop", "next=-1"], "from 0"),
        (["snmp-drop", "next=1", "next=2"], "given twice"),
        (["snmp-delay"], "seconds= has to be given"),
        (["snmp-delay", "seconds=nan"], "seconds=nan"),
        (["snmp-error", "switch-1", "status=oops"], "one of genErr"),
        (["tftp-loss", "node-1", "percent=0"], "from 1 to 100"),
        (["link-slow", "node-1", "rate=fast"], "link-slow rate fast: bits/s"),
        (["card-small", "node-1", "size=big"], "card-small size big: a number"),
        (["http-down", "node-1"], "http-down is set on a manager"),
    ],
)
def test_a_mistake_is_told_in_one_line(words, complaint):
    with pytest.raises(UserError) as raised:
        read(*words)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_parameters_get_their_types_and_defaults():
    assert read("snmp-drop").parameters == {"next": 0}
    assert read("snmp-drop", "next=3").parameters == {"next": 3}
    assert read("snmp-delay", "seconds=1.5").parameters == {"seconds": 1.5}
    assert read("snmp-error", "node-2", "status=noAccess").parameters == {"status": "noAccess"}


def test_targets_may_be_several_and_the_only_one_may_be_left_out():
    assert read("freeze", "node-1", "node-3", "node-1").targets == ("node-1", "node-3")
    assert read("snmp-drop").targets == ("switch-1",)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_can_be_asked_for_with_its_defaults(fault):
    needed = {
        Kind.COUNT: "1",
        Kind.SECONDS: "1",
        Kind.BITS: "1M",
        Kind.BYTES: "1M",
        Kind.PERCENT: "5",
    }
    words = [
        f"{parameter.name}={needed[parameter.kind]}"
        for parameter in fault.parameters
        if parameter.default is None
    ]
    target = {Target.SWITCH: "switch-1", Target.MANAGER: "manager"}.get(fault.target, "node-1")
    wish = read(fault.name, target, *words)
    assert set(wish.parameters) == {parameter.name for parameter in fault.parameters}
    for parameter in fault.parameters:
        if parameter.choices:
            assert parameter.default in parameter.choices


def test_every_fault_of_the_table_has_an_effect():
    assert set(EFFECTS) == set(FAULTS)


def test_the_documentation_has_the_table():
    section = DOCUMENT.read_text("utf-8").partition("\n## Faults\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \|([^|]*)\|([^|]*)\|", section, re.MULTILINE)
    documented = {
        name: (target.strip(), set(re.findall(r"`([a-z]+)=", parameters)))
        for name, target, parameters in rows
    }
    assert documented == {
        fault.name: (fault.target.value, {parameter.name for parameter in fault.parameters})
        for fault in FAULTS.values()
    }
