#!/usr/bin/python
# Copyright: PiSeduce runner contributors
# SPDX-License-Identifier: MIT
"""Switches the power of PoE ports over SNMP, and proves that it happened."""

from __future__ import annotations

import re

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible.module_utils.piseduce_poe import (
        Misconfigured,
        PortTable,
        PowerChange,
        PowerError,
    )
    from ansible.module_utils.piseduce_snmp import (
        Client,
        Community,
        Deadline,
        SecurityRefused,
        SnmpError,
    )

    PYSNMP_PROBLEM = None
except ImportError as problem:
    PYSNMP_PROBLEM = str(problem)

DOCUMENTATION = r"""
---
module: poe_port
short_description: Switch Power over Ethernet ports of a switch over SNMP
description:
  - Reads the ports, compares, switches only those that differ (all of them in one request), and
    then looks at the switch until the new state is seen. Success is what the switch shows
    afterwards, never that it accepted the request.
  - The objects are pethPsePortAdminEnable (what was asked of a port) and
    pethPsePortDetectionStatus (what becomes of it) of RFC 3621, POWER-ETHERNET-MIB. A port is on
    when it is enabled and C(deliveringPower); it is off when it is disabled and neither
    C(deliveringPower) nor in C(test).
  - A port is never switched on before the switch has stopped delivering power to it.
  - The call ends within O(confirm_timeout), even if the switch falls silent in the middle.
requirements:
  - pysnmp >= 7.1
  - cryptography (SNMPv3 with privacy)
options:
  address:
    description:
      - IPv4 or IPv6 address of the switch. A name works, but the time it takes to look it up comes
        on top of O(confirm_timeout).
    type: str
    required: true
  udp_port:
    description: UDP port of its SNMP agent.
    type: int
    default: 161
  version:
    description: SNMP version. V(v2c) sends its community in clear.
    type: str
    choices: [v2c, v3]
    default: v2c
  community:
    description: Community with write access (V(v2c)).
    type: str
  user:
    description: User with write access (V(v3)).
    type: str
  auth_protocol:
    description: How the user is authenticated.
    type: str
    choices: [md5, sha, sha224, sha256, sha384, sha512]
    default: sha
  auth_password:
    description: Password of at least 8 characters. Without it the user is not authenticated.
    type: str
    default: ""
  priv_protocol:
    description: How requests are encrypted; V(aes) is AES-128 (RFC 3826).
    type: str
    choices: [des, aes]
    default: aes
  priv_password:
    description:
      - Password of at least 8 characters. Without it requests are not encrypted. Needs
        O(auth_password).
    type: str
    default: ""
  admin_oid:
    description:
      - Column that switches a port, without the port number. The default is
        pethPsePortAdminEnable for group 1, the only group of a switch that is not modular.
    type: str
    default: 1.3.6.1.2.1.105.1.1.1.3.1
  status_oid:
    description:
      - Column that tells what becomes of a port (default pethPsePortDetectionStatus, group 1).
      - The empty string says that the switch has none; then it is taken by its word.
    type: str
    default: 1.3.6.1.2.1.105.1.1.1.6.1
  port_offset:
    description: Port n is number O(port_offset) + n in the columns (48 on some switches).
    type: int
    default: 0
  port_count:
    description: Ports of the switch. A port beyond is refused before anything is sent.
    type: int
    required: true
  forbidden_ports:
    description:
      - Ports that are never switched, such as the uplink and the manager's own; refused before
        anything is sent. They may be queried.
    type: list
    elements: int
    default: []
  ports:
    description: Ports to switch, as printed on the case. For O(state=query), empty means all.
    type: list
    elements: int
    default: []
  state:
    description: V(on) and V(off) switch; V(query) only reads.
    type: str
    choices: ["on", "off", query]
    required: true
  allow_already_on:
    description:
      - Whether O(state=on) takes a port that is on already. If not, it is an error, and no port is
        switched; for callers who need to know that the node starts now.
    type: bool
    default: true
  hold_seconds:
    description:
      - How long the state must last after it was seen, looked at once more at the end. A board's
        capacitors need seconds without power before they are empty.
    type: float
    default: 0
  confirm_timeout:
    description: Seconds the call may take, O(hold_seconds) included.
    type: float
    default: 30
  poll_interval:
    description: Seconds between two looks at the ports.
    type: float
    default: 0.5
  request_timeout:
    description: Seconds to wait for the answer to one SNMP request.
    type: float
    default: 2
  request_retries:
    description: How often a request is sent again if there is no answer.
    type: int
    default: 2
attributes:
  check_mode:
    description: Reads the ports and says what would be switched; sends no SET.
    support: full
  diff_mode:
    description: Shows the ports before and after.
    support: full
  idempotent:
    description: A port that is as asked is not switched, but still has to be proven.
    support: full
author:
  - PiSeduce runner contributors
"""

EXAMPLES = r"""
- name: Cut the power of port 3 and keep it cut for three seconds
  poe_port:
    address: 192.0.2.10
    community: "{{ switch_community }}"
    port_count: 8
    forbidden_ports: [1, 8]
    ports: [3]
    state: "off"
    hold_seconds: 3

- name: Read all ports of a switch that numbers them from 49
  poe_port:
    address: 192.0.2.11
    version: v3
    user: poe
    auth_password: "{{ switch_auth_password }}"
    priv_password: "{{ switch_priv_password }}"
    port_offset: 48
    port_count: 8
    state: query
"""

RETURN = r"""
before:
  description: The ports as they were found; also on failure, if they could be read.
  returned: when the ports could be read
  type: list
  elements: dict
  sample: [{"port": 3, "admin": "on", "status": "deliveringPower"}]
after:
  description:
    - The ports as they were last seen. C(admin) is V(on) or V(off); C(status) is a name of RFC
      3621, or empty without O(status_oid). In check mode, as they would be.
  returned: when they are known
  type: list
  elements: dict
  sample: [{"port": 3, "admin": "off", "status": "disabled"}]
hopeless:
  description:
    - That no retry can help, because the ports are forbidden or not there, the switch refuses these
      credentials, or its objects are not those of O(admin_oid) and O(status_oid).
  returned: on such a failure
  type: bool
remember:
  description: What the runner keeps of this node, C(power) being V(on) or V(off).
  returned: success, when O(state) is not V(query), and not in check mode
  type: dict
  sample: {"power": "off"}
"""

SPEC = {
    "address": {"type": "str", "required": True},
    "udp_port": {"type": "int", "default": 161},
    "version": {"type": "str", "choices": ["v2c", "v3"], "default": "v2c"},
    "community": {"type": "str", "no_log": True},
    "user": {"type": "str"},
    "auth_protocol": {
        "type": "str",
        "choices": ["md5", "sha", "sha224", "sha256", "sha384", "sha512"],
        "default": "sha",
    },
    "auth_password": {"type": "str", "default": "", "no_log": True},
    "priv_protocol": {"type": "str", "choices": ["des", "aes"], "default": "aes"},
    "priv_password": {"type": "str", "default": "", "no_log": True},
    "admin_oid": {"type": "str", "default": "1.3.6.1.2.1.105.1.1.1.3.1"},
    "status_oid": {"type": "str", "default": "1.3.6.1.2.1.105.1.1.1.6.1"},
    "port_offset": {"type": "int", "default": 0},
    "port_count": {"type": "int", "required": True},
    "forbidden_ports": {"type": "list", "elements": "int", "default": []},
    "ports": {"type": "list", "elements": "int", "default": []},
    "state": {"type": "str", "choices": ["on", "off", "query"], "required": True},
    "allow_already_on": {"type": "bool", "default": True},
    "hold_seconds": {"type": "float", "default": 0},
    "confirm_timeout": {"type": "float", "default": 30},
    "poll_interval": {"type": "float", "default": 0.5},
    "request_timeout": {"type": "float", "default": 2},
    "request_retries": {"type": "int", "default": 2},
}


def parse_oid(option, text):
    """ "1.3.6" -> (1, 3, 6). ValueError names the option."""
    if not re.fullmatch(r"\.?[0-2](\.\d{1,10}){1,127}", text):
        raise ValueError(f"{option} is not a numeric object identifier such as 1.3.6.1: {text!r}")
    return tuple(int(number) for number in text.strip(".").split("."))


def checked_ports(params):
    """The ports to work on, each once. ValueError: one of them is not to be touched."""
    ports = list(dict.fromkeys(params["ports"]))
    count = params["port_count"]
    if count < 1:
        raise ValueError(f"port_count must be at least 1, not {count}")
    if not ports:
        if params["state"] == "query":
            return list(range(1, count + 1))
        raise ValueError(f"ports is empty: nothing to switch {params['state']}")
    outside = [port for port in ports if not 1 <= port <= count]
    if outside:
        raise ValueError(
            f"{_named(outside)} not on this switch, which has ports 1 to {count} (port_count)"
        )
    if params["state"] != "query":
        forbidden = [port for port in ports if port in params["forbidden_ports"]]
        if forbidden:
            raise ValueError(
                f"{_named(forbidden)} in forbidden_ports (uplink or manager): refused, nothing was "
                "sent to the switch"
            )
    return ports


def _named(ports):
    return f"port {ports[0]} is" if len(ports) == 1 else f"ports {', '.join(map(str, ports))} are"


def check_times(params):
    """ValueError: a time or a number of tries that makes no sense."""
    for name in ("confirm_timeout", "poll_interval", "request_timeout"):
        if not params[name] > 0:
            raise ValueError(f"{name} must be greater than 0 seconds, not {params[name]:g}")
    for name in ("hold_seconds", "request_retries", "port_offset"):
        if params[name] < 0:
            raise ValueError(f"{name} must not be negative: {params[name]:g}")
    if not 1 <= params["udp_port"] <= 65535:
        raise ValueError(f"udp_port must be 1 to 65535, not {params['udp_port']}")
    if params["hold_seconds"] >= params["confirm_timeout"]:
        raise ValueError(
            f"hold_seconds ({params['hold_seconds']:g}) does not fit into confirm_timeout "
            f"({params['confirm_timeout']:g})"
        )


def make_security(params):
    """The message format for a version. ValueError: credentials that cannot be."""
    credential = "community" if params["version"] == "v2c" else "user"
    if not params[credential]:
        raise ValueError(f"{credential} is empty: SNMP {params['version']} needs one")
    if params["version"] == "v2c":
        return Community(params["community"])
    # Only here: it brings the ciphers, which cost start-up time.
    from ansible.module_utils.piseduce_usm import Usm

    return Usm(
        params["user"],
        params["auth_protocol"],
        params["auth_password"],
        params["priv_protocol"],
        params["priv_password"],
    )


def listed(states):
    """{port: PortState} as it is returned."""
    return [
        {"port": port, "admin": state.admin, "status": state.status}
        for port, state in states.items()
    ]


def diff_text(ports):
    return "".join(
        f"port {port['port']}: {' '.join(filter(None, (port['admin'], port['status'])))}\n"
        for port in ports
    )


def predicted(before, state, status_oid):
    """What check mode promises."""
    status = {"on": "deliveringPower", "off": "disabled"}[state] if status_oid else ""
    return [
        port if port["admin"] == state else {**port, "admin": state, "status": status}
        for port in before
    ]


def fail(module, problem, **result):
    """End the module with what went wrong; says so where no retry can help."""
    if isinstance(problem, (Misconfigured, SecurityRefused)):
        result["hopeless"] = True
    module.fail_json(msg=str(problem), **result)


def query(module, table, ports):
    states = listed(table.read(ports))
    module.exit_json(changed=False, before=states, after=states)


def switch(module, table, ports, deadline):
    """Switches and ends the module; SnmpError and PowerError end it too, with what is known."""
    params = module.params
    change = PowerChange(
        table,
        ports,
        params["state"],
        deadline=deadline,
        poll_interval=params["poll_interval"],
        hold_seconds=params["hold_seconds"],
    )
    result = {}
    try:
        change.plan()
        result["before"] = listed(change.before)
        result["changed"] = bool(change.differing)
        already = [port for port in ports if port not in change.differing]
        if params["state"] == "on" and already and not params["allow_already_on"]:
            result["changed"] = False
            raise PowerError(
                f"{_named(already)} on already, and was not proven off before: switch off first"
            )
        if module.check_mode:
            result["after"] = predicted(result["before"], params["state"], params["status_oid"])
        else:
            change.carry_out()
            result["after"] = listed(change.after)
            result["remember"] = {"power": params["state"]}
    except (SnmpError, PowerError) as problem:
        if change.after is not None:
            result["after"] = listed(change.after)
            result["changed"] = any(
                state.admin != change.before[port].admin for port, state in change.after.items()
            )
        fail(module, problem, **result)
    for port in result["after"]:
        if port["status"] in ("fault", "otherFault"):
            module.warn(f"port {port['port']} is off, and the switch reports `{port['status']}`")
    if module._diff:
        result["diff"] = {
            "before": diff_text(result["before"]),
            "after": diff_text(result["after"]),
        }
    module.exit_json(**result)


def main():
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("version", "v2c", ["community"]), ("version", "v3", ["user"])],
        supports_check_mode=True,
    )
    if PYSNMP_PROBLEM:
        module.fail_json(msg=f"{missing_required_lib('pysnmp')} ({PYSNMP_PROBLEM})", hopeless=True)
    params = module.params
    try:
        ports = checked_ports(params)
        check_times(params)
        admin_oid = parse_oid("admin_oid", params["admin_oid"])
        status_oid = parse_oid("status_oid", params["status_oid"]) if params["status_oid"] else ()
        security = make_security(params)
    except ValueError as problem:
        module.fail_json(msg=str(problem), hopeless=True)
    deadline = Deadline(params["confirm_timeout"])
    try:
        with Client(
            params["address"],
            params["udp_port"],
            security,
            params["request_timeout"],
            params["request_retries"],
            deadline,
        ) as client:
            table = PortTable(client, admin_oid, status_oid, params["port_offset"])
            if params["state"] == "query":
                query(module, table, ports)
            else:
                switch(module, table, ports, deadline)
    except (SnmpError, PowerError) as problem:
        fail(module, problem)


if __name__ == "__main__":
    main()
