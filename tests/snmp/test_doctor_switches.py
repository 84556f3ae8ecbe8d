"""What `doctor` finds at a switch that answers, at one that does not, and at one that takes us not.

Real SNMP over loopback; no test may leave a SET behind.
"""

import socket

import pytest
from poe_bench import ACCESS, V3

from piseduce_runner.doctor import switches
from piseduce_runner.doctor.findings import Level
from piseduce_runner.doctor.ports import check_places
from piseduce_runner.doctor.switches import check_switch
from piseduce_runner.lab.switch import Detection
from piseduce_runner.site import Node, Switch
from piseduce_runner.snmp import Missing

MANAGER = "dc:a6:32:00:ff:01"
SWITCH = Switch("switch-1", "127.0.0.1", 8, frozenset({8}))
BY_V3 = {f"switch_{name}": value for name, value in V3.items()}


def node(port):
    mac = f"dc:a6:32:00:00:{port:02x}"
    return Node(f"node-{port}", "192.0.2.1", mac, "0" * 8, "RPI4B4G", "switch-1", port, "", None)


NODES = [node(1), node(2)]


def variables(served, **given):
    access = {"switch_address": served.address, "switch_udp_port": served.udp_port}
    return access | {"switch_community": "writes"} | given


@pytest.fixture
def impatient(monkeypatch):
    """Silence is expected: it need not be waited for as long as on a real network."""
    monkeypatch.setattr(switches, "_TIMEOUT", 0.3)


def by_id(findings):
    return {one.id: one for one in findings}


def levels(findings):
    return {one.id: one.level for one in findings}


@pytest.mark.parametrize("credentials", [{}, {"switch_community": "reads"}, BY_V3])
def test_a_switch_in_order_has_nothing_to_mend_and_is_only_read(served, credentials):
    found = check_switch(SWITCH, NODES, variables(served, **credentials), MANAGER)
    assert levels(found) == {
        "switch-answers": Level.OK,
        "switch-access": Level.OK,
        "switch-ports": Level.OK,
        "switch-port-count": Level.OK,
        "switch-forbidden-ports": Level.NOT_CHECKED,  # this one has no BRIDGE-MIB
    }
    assert served.sets() == []
    assert served.powered == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"switch_community": "guess"}, "does not answer to this community"),
        (BY_V3 | {"switch_user": "nobody"}, "knows no SNMPv3 user 'nobody'"),
        (BY_V3 | {"switch_auth_password": "another-password"}, "auth_password or auth_protocol"),
        (BY_V3 | {"switch_priv_password": "another-password"}, "priv_password or priv_protocol"),
    ],
)
def test_wrong_credentials_are_told_from_a_switch_that_is_not_there(served, wrong, says, impatient):
    found = by_id(check_switch(SWITCH, NODES, variables(served, **wrong), MANAGER))
    assert found["switch-answers"].level is Level.OK
    assert found["switch-access"].level is Level.PROBLEM
    assert says in found["switch-access"].message
    assert found["switch-ports"].level is Level.NOT_CHECKED
    said = "".join(one.message + one.remedy for one in found.values())
    assert "guess" not in said
    assert "another-password" not in said


def test_a_closed_port_and_a_silent_agent_are_no_matter_of_credentials(served, impatient):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        place = {"switch_udp_port": reserved.getsockname()[1]}
    closed = by_id(check_switch(SWITCH, NODES, variables(served, **place), MANAGER))
    assert "no SNMP agent listens" in closed["switch-answers"].message
    served.switch.faults.silent = True
    silent = by_id(check_switch(SWITCH, NODES, variables(served), MANAGER))
    for found in (closed, silent):
        assert found["switch-answers"].level is Level.PROBLEM
        assert found["switch-access"].level is Level.NOT_CHECKED


def test_an_agent_that_meets_a_wrong_privacy_password_with_silence(served, impatient, monkeypatch):
    # As RFC 3414 allows. That it is there is known from its introduction.
    monkeypatch.setattr(switches, "_introduces_itself", lambda access: True)
    served.switch.faults.silent = True
    found = by_id(check_switch(SWITCH, NODES, variables(served, **BY_V3), MANAGER))
    assert found["switch-access"].level is Level.PROBLEM
    assert "most likely switch_priv_password" in found["switch-access"].message


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"switch_version": "v3", "switch_user": "a", "switch_auth_password": "short"}, "8 char"),
        ({"switch_version": "v3", "switch_user": "a", "switch_auth_protocol": "rot13"}, "rot13"),
        ({"switch_port_offset": "many"}, "switch_port_offset is 'many'"),
        ({"switch_admin_oid": "pethPsePortAdminEnable"}, "switch_admin_oid"),
    ],
)
def test_variables_that_cannot_be_are_named(served, wrong, says):
    (found,) = check_switch(SWITCH, NODES, variables(served, **wrong), MANAGER)
    assert found.level is Level.PROBLEM
    assert says in found.message


def test_a_port_that_the_switch_has_not_is_its_nodes_problem(served):
    switch = Switch("switch-1", "127.0.0.1", 24, frozenset())
    found = check_switch(switch, [*NODES, node(9)], variables(served), None)
    wrong = by_id(found)["node-port"]
    assert (wrong.subject, wrong.level) == ("node-9", Level.PROBLEM)
    assert "port 9 does not exist" in wrong.message
    assert levels(found)["switch-port-count"] is Level.WARNING
    assert levels(found)["switch-forbidden-ports"] is Level.WARNING


def test_a_node_without_power_at_a_port_that_is_on_is_a_warning(start_switch):
    served = start_switch(access=ACCESS, detect=lambda port: Detection.SEARCHING)
    served.turn(2, True)
    found = by_id(check_switch(SWITCH, NODES, variables(served), None))
    assert (found["node-power"].subject, found["node-power"].level) == ("node-2", Level.WARNING)
    assert "finds nothing that wants power" in found["node-power"].message


class Bridge:
    """A switch that tells where it has seen whom: dot1dTpFdbPort."""

    def __init__(self, ports):
        self._ports = {bytes.fromhex(mac.replace(":", "")): port for mac, port in ports.items()}

    def get(self, oids):
        return {
            oid: self._ports.get(bytes(oid[-6:]), Missing("noSuchInstance"))
            if oid[:-6] == (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 2)
            else Missing("noSuchObject")
            for oid in oids
        }


@pytest.mark.parametrize(
    ("place", "offset", "level"),
    [
        (8, 0, Level.OK),
        (5, 0, Level.PROBLEM),
        (56, 48, Level.OK),
        (53, 48, Level.PROBLEM),
        (25, 0, Level.OK),
        (0, 0, Level.NOT_CHECKED),
    ],
)
def test_the_port_that_leads_to_the_manager_must_be_forbidden(place, offset, level):
    (found,) = check_places(Bridge({MANAGER: place}), offset, SWITCH, [], MANAGER)
    assert (found.id, found.level) == ("switch-forbidden-ports", level)


def test_a_node_that_is_seen_at_another_port_is_a_warning():
    bridge = Bridge({MANAGER: 8, NODES[0].mac: 1, NODES[1].mac: 5})
    found = by_id(check_places(bridge, 0, SWITCH, NODES, MANAGER))
    assert (found["node-place"].subject, found["node-place"].level) == ("node-2", Level.WARNING)
    assert "at port 5, but node_port is 2" in found["node-place"].message
