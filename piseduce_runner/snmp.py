"""The SNMP client of our Ansible modules, for the runner itself.

A switch is asked here exactly as the states `turn_off` and `turn_on` ask it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ansible.module_utils

from piseduce_runner import paths

# What Ansible does for a module: ours are found below ansible.module_utils.
ansible.module_utils.__path__.append(str(paths.ansible_dir() / "module_utils"))

from ansible.module_utils.piseduce_poe import (  # noqa: E402
    STATUS_REASONS,
    PortTable,
    PowerError,
)
from ansible.module_utils.piseduce_snmp import (  # noqa: E402
    Client,
    Community,
    Deadline,
    Missing,
    NoAnswer,
    Refused,
    SecurityRefused,
    SnmpError,
)
from ansible.module_utils.piseduce_usm import Usm  # noqa: E402

__all__ = [
    "ACCESS_VARIABLES",
    "STATUS_REASONS",
    "Client",
    "Deadline",
    "Missing",
    "NoAnswer",
    "PortTable",
    "PowerError",
    "Refused",
    "SecurityRefused",
    "SnmpError",
    "SwitchAccess",
    "Usm",
]

# pethPsePortAdminEnable and pethPsePortDetectionStatus of group 1: RFC 3621, POWER-ETHERNET-MIB.
_ADMIN_OID = "1.3.6.1.2.1.105.1.1.1.3.1"
_STATUS_OID = "1.3.6.1.2.1.105.1.1.1.6.1"
_OID = re.compile(r"\.?[0-2](\.\d{1,10}){1,127}")


# The variables of a switch that `SwitchAccess.of` looks at.
ACCESS_VARIABLES = frozenset(
    f"switch_{name}"
    for name in (
        *("address", "udp_port", "version", "admin_oid", "status_oid", "port_offset"),
        *("community", "user"),
        *("auth_protocol", "auth_password", "priv_protocol", "priv_password"),
    )
)


@dataclass(frozen=True)
class SwitchAccess:
    """How a switch is asked, from its variables in the inventory (`switch_*`)."""

    address: str
    udp_port: int
    version: str
    admin_oid: tuple[int, ...]
    status_oid: tuple[int, ...]  # empty: the switch has no such column
    port_offset: int
    credentials: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, variables: Mapping[str, Any]) -> "SwitchAccess":
        """The access of a switch with these variables. ValueError names one that cannot be."""
        texts = {
            name: _text(variables, f"switch_{name}", default)
            for name, default in (
                ("community", ""),
                ("user", ""),
                ("auth_protocol", "sha"),
                ("auth_password", ""),
                ("priv_protocol", "aes"),
                ("priv_password", ""),
            )
        }
        return cls(
            address=_text(variables, "switch_address", ""),
            udp_port=_number(variables, "switch_udp_port", 161),
            version=_text(variables, "switch_version", "v2c"),
            admin_oid=_oid(variables, "switch_admin_oid", _ADMIN_OID),
            status_oid=_oid(variables, "switch_status_oid", _STATUS_OID),
            port_offset=_number(variables, "switch_port_offset", 0),
            credentials=texts,
        )

    def security(self) -> Community | Usm:
        """The message format. ValueError: credentials that no switch takes."""
        given = self.credentials
        if self.version == "v2c":
            return Community(given["community"])
        protocols = given["auth_protocol"], given["priv_protocol"]
        try:
            return Usm(
                given["user"],
                protocols[0],
                given["auth_password"],
                protocols[1],
                given["priv_password"],
            )
        except KeyError as unknown:
            raise ValueError(f"{unknown} is not a protocol that poe_port knows") from unknown

    @contextmanager
    def client(self, timeout: float, retries: int, deadline: Deadline) -> Iterator[Client]:
        """A client for the length of a block. SnmpError, ValueError: see Client and `security`."""
        with Client(
            self.address, self.udp_port, self.security(), timeout, retries, deadline
        ) as client:
            yield client

    def table(self, client: Client) -> PortTable:
        """The switch's ports, through a client of this access."""
        return PortTable(client, self.admin_oid, self.status_oid, self.port_offset)


def _text(variables: Mapping[str, Any], name: str, default: str) -> str:
    value = variables.get(name, default)
    if not isinstance(value, str | int):
        raise ValueError(f"{name} is not text")
    return str(value)


def _number(variables: Mapping[str, Any], name: str, default: int) -> int:
    try:
        return int(variables.get(name, default))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {variables[name]!r}, which is not a number") from error


def _oid(variables: Mapping[str, Any], name: str, default: str) -> tuple[int, ...]:
    text = _text(variables, name, default)
    if not text and name == "switch_status_oid":
        return ()
    if not _OID.fullmatch(text):
        raise ValueError(f"{name} is {text!r}, which is not an identifier such as 1.3.6.1")
    return tuple(int(number) for number in text.strip(".").split("."))
