"""Switches: whether they answer, take us, and have the nodes' ports. Nothing but GETs is sent."""

import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from piseduce_runner.doctor import ports
from piseduce_runner.doctor.findings import Finding, not_checked, ok, problem
from piseduce_runner.site import Node, Switch
from piseduce_runner.snmp import (
    Client,
    Deadline,
    NoAnswer,
    Refused,
    SecurityRefused,
    SnmpError,
    SwitchAccess,
    Usm,
)

# A switch that is dead costs this many seconds, and those of the second opinion.
_TIMEOUT, _RETRIES = 1.5, 1
_WHOLE = 12.0
_PING_SECONDS = 1


def check_switch(
    switch: Switch, nodes: list[Node], variables: Mapping[str, Any], manager_mac: str | None
) -> list[Finding]:
    """All of one switch. `nodes` are those that it feeds, `variables` its own in the inventory.

    `manager_mac` is the MAC address by which the manager is on the cluster's network.
    """
    deadline = Deadline(_WHOLE)
    try:
        access = SwitchAccess.of(variables)
        with access.client(_TIMEOUT, _RETRIES, deadline) as client:
            trouble = _ask(access, client, switch)
            if trouble:
                return [*trouble, _unchecked("switch-ports", switch)]
            return [
                ok("switch-answers", switch.name, f"it answers SNMP {access.version}"),
                ok("switch-access", switch.name, f"it lets {client.who} read"),
                *ports.check_ports(access.table(client), switch, nodes),
                *ports.check_places(client, access.port_offset, switch, nodes, manager_mac),
            ]
    except ValueError as error:
        message, remedy = str(error), "correct the switch's variables in the inventory"
    except SnmpError as error:
        message, remedy = str(error), "look at the switch, its cable and switch_address"
    return [problem("switch-answers", switch.name, message, remedy)]


def _ask(access: SwitchAccess, client: Client, switch: Switch) -> list[Finding]:
    """One GET: empty if it is answered, else why not."""
    try:
        client.get([(*access.admin_oid, access.port_offset + 1)])
    except (SecurityRefused, Refused) as refusal:
        message = f"it answers, but it does not take us: {refusal}"
    except NoAnswer as silence:
        if not _introduces_itself(access):
            return _silent(access, switch, silence)
        message = _refused_in_silence(access)
    else:
        return []
    words = "switch_community" if access.version == "v2c" else "switch_user and its passwords"
    return [
        ok("switch-answers", switch.name, "there is an SNMP agent"),
        problem(
            "switch-access",
            switch.name,
            message,
            f"correct {words} in the inventory, or what the switch admits",
        ),
    ]


def _introduces_itself(access: SwitchAccess) -> bool:
    """Whether an SNMPv3 agent is there: it says so to anybody (RFC 3414, 4).

    A wrong community and a wrong privacy password are met with silence, as if nobody were there.
    """
    nobody = Usm("piseduce-doctor", "sha", "", "aes", "")
    try:
        with Client(
            access.address, access.udp_port, nobody, _TIMEOUT, _RETRIES, Deadline(4)
        ) as client:
            client.get([access.admin_oid])
    except (SecurityRefused, Refused):
        return True
    except SnmpError:
        return nobody.has_met_agent
    return True


def _refused_in_silence(access: SwitchAccess) -> str:
    peer = f"the SNMP agent at {access.address} (UDP port {access.udp_port})"
    if access.version == "v2c":
        return (
            f"{peer} is there, but does not answer to this community: it is wrong, or v2c is"
            " switched off, or restricted to other managers"
        )
    return (
        f"{peer} is there, but does not answer this user: most likely switch_priv_password or"
        " switch_priv_protocol is wrong"
    )


def _silent(access: SwitchAccess, switch: Switch, silence: NoAnswer) -> list[Finding]:
    answer = _answers_ping(access.address)
    hint = {
        True: "; it answers ping, so the device is there",
        False: "; it does not answer ping either",
        None: "",
    }[answer]
    remedy = (
        "enable SNMP on the switch for this manager, and compare switch_community and"
        " switch_udp_port"
        if answer
        else "look at the switch's power and cable, and compare switch_address"
    )
    return [
        problem("switch-answers", switch.name, f"{silence}{hint}", remedy),
        _unchecked("switch-access", switch),
    ]


def _answers_ping(address: str) -> bool | None:
    """None: nobody knows, ping(8) is not installed."""
    if not shutil.which("ping"):
        return None
    command = ["ping", "-n", "-q", "-c", "1", "-W", str(_PING_SECONDS), address]
    done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    return done.returncode == 0


def _unchecked(check: str, switch: Switch) -> Finding:
    return not_checked(check, switch.name, "the switch has to answer us first")
