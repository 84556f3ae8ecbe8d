"""A switch's ports: those that feed nodes, and those that must never be switched."""

from piseduce_runner.doctor.findings import Finding, not_checked, ok, problem, warning
from piseduce_runner.site import Node, Switch
from piseduce_runner.snmp import (
    STATUS_REASONS,
    Client,
    NoAnswer,
    PortTable,
    PowerError,
    SnmpError,
)

# Where a switch has seen a MAC address. Their indices end with its six bytes; the second table
# has the VLAN's filtering database in front of them, and 1 is that of a switch without VLANs.
_FDB_PORT = (1, 3, 6, 1, 2, 1, 17, 4, 3, 1, 2)  # dot1dTpFdbPort, RFC 4188
_VLAN_FDB_PORT = (1, 3, 6, 1, 2, 1, 17, 7, 1, 2, 2, 1, 2, 1)  # dot1qTpFdbPort, RFC 4363


def check_ports(table: PortTable, switch: Switch, nodes: list[Node]) -> list[Finding]:
    """The ports of `nodes` and the last port exist, and none of them is faulty."""
    findings: list[Finding] = []
    try:
        for node in nodes:
            findings += _check_port(table, switch, node)
        if not findings and nodes:
            message = f"the ports of its {len(nodes)} nodes exist"
            findings.append(ok("switch-ports", switch.name, message))
        findings += _check_count(table, switch)
    except NoAnswer as silence:
        findings.append(not_checked("switch-ports", switch.name, f"it fell silent: {silence}"))
    return findings


def _check_port(table: PortTable, switch: Switch, node: Node) -> list[Finding]:
    try:
        state = table.read([node.port])[node.port]
    except PowerError as error:
        remedy = f"correct node_port of {node.name}, or the variables of {switch.name}"
        return [problem("node-port", node.name, str(error), remedy)]
    if state.admin == "on" and state.status and not state.proves("on"):
        message = f"port {node.port} of {switch.name}: {STATUS_REASONS[state.status]}"
        remedy = "the node has no power now: mend this before it is deployed"
        return [warning("node-power", node.name, message, remedy)]
    return []


def _check_count(table: PortTable, switch: Switch) -> list[Finding]:
    check, last = "switch-port-count", switch.port_count
    try:
        table.read([last])
    except PowerError as error:
        message = f"switch_port_count is {last}, but {error}"
        return [warning(check, switch.name, message, "correct switch_port_count")]
    return [ok(check, switch.name, f"its port {last} exists")]


def check_places(
    client: Client, offset: int, switch: Switch, nodes: list[Node], manager_mac: str | None
) -> list[Finding]:
    """Where the switch sees the manager and the nodes, as far as it tells.

    The port that leads to the manager must be forbidden. A node that is seen at another port than
    its `node_port` would have another node's power cut.
    """
    macs = [node.mac for node in nodes] + ([manager_mac] if manager_mac else [])
    seen = _seen_ports(client, macs)
    findings = [_check_manager(switch, offset, seen.get(manager_mac))]
    for node in nodes:
        place = seen.get(node.mac)
        if place is not None and place not in (node.port, node.port + offset):
            findings.append(
                warning(
                    "node-place",
                    node.name,
                    f"{switch.name} sees its MAC address {node.mac} at port {place}, but node_port"
                    f" is {node.port}: switching that port off would hit another node",
                    "compare the cable, node_port and node_mac",
                )
            )
    return findings


def _check_manager(switch: Switch, offset: int, place: int | None) -> Finding:
    check, name = "switch-forbidden-ports", switch.name
    forbidden = ", ".join(map(str, sorted(switch.forbidden_ports)))
    if place is None:
        if not switch.forbidden_ports:
            return warning(
                check,
                name,
                "switch_forbidden_ports is empty, and the switch does not tell which port leads to"
                " the manager",
                "put the ports that lead to the manager and to other switches into it",
            )
        return not_checked(
            check,
            name,
            "the switch does not tell which port leads to the manager (BRIDGE-MIB);"
            f" forbidden are {forbidden}",
            "make sure that the ports of the manager and of other switches are among them",
        )
    if {place, place - offset} & switch.forbidden_ports:
        return ok(check, name, f"port {place}, which leads to the manager, is forbidden")
    if not 1 <= place - offset <= switch.port_count:
        return ok(check, name, f"port {place} leads to the manager, and is none that we switch")
    return problem(
        check,
        name,
        f"port {place - offset} leads to the manager, but is not in switch_forbidden_ports: a"
        " mistake could switch the manager off",
        f"add {place - offset} to switch_forbidden_ports",
    )


def _seen_ports(client: Client, macs: list[str]) -> dict[str, int]:
    """The bridge ports at which the switch has lately seen these addresses."""
    oids = {}
    for mac in macs:
        index = tuple(bytes.fromhex(mac.replace(":", "")))
        oids |= {(*_FDB_PORT, *index): mac, (*_VLAN_FDB_PORT, *index): mac}
    try:
        values = client.get(list(oids)) if oids else {}
    except SnmpError:  # it hides the table from us: then it does not tell
        return {}
    # A Missing is a text, and port 0 means "seen, at a port not known".
    return {oids[oid]: port for oid, port in values.items() if isinstance(port, int) and port > 0}
