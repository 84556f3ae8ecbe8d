"""Reads the inventory of a site, and checks it."""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from piseduce_runner.errors import UserError
from piseduce_runner.policy import NO_POLICY, Policy
from piseduce_runner.runner import read_inventory
from piseduce_runner.site import Node, Site, Switch, check_is_site

# RFC 1123, section 2.1: letters, digits and hyphens, no hyphen at either end, at most 63.
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_SERIAL = re.compile(r"[0-9a-f]{8}")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9/_-]+")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Survey:
    """What an inventory says, as far as it can be understood.

    `mistakes` are all that is wrong, one line each; `nodes` and `switches` are those without.
    `site` is None when the site's own variables are wrong. `variables` are those of the hosts as
    Ansible's listing has them, with vaults closed; secrets are among them.
    """

    inventory: Path
    site: Site | None
    nodes: dict[str, Node]
    switches: dict[str, Switch]
    mistakes: tuple[UserError, ...]
    variables: dict[str, dict[str, Any]]


def load_site(folder: Path) -> Site:
    """Read and check the site in `folder`. Raises `UserError` that names what is wrong, and where.

    The inventory is read by Ansible itself, so that group variables, vaults and inventory plugins
    mean here what they mean in a run.
    """
    survey = survey_site(folder)
    if survey.mistakes:
        raise survey.mistakes[0]
    return survey.site


def survey_site(folder: Path) -> Survey:
    """Read the site in `folder`, and go on after a mistake in a node or a switch.

    Raises `UserError` when there is nothing to go on with: no inventory, or not one for Ansible.
    """
    inventory = folder / "inventory"
    check_is_site(folder)
    _check_syntax(inventory)
    listing = read_inventory(inventory)
    variables = listing.get("_meta", {}).get("hostvars", {})
    reader = _Reader(inventory)
    members = {group: _members(listing, group, inventory) for group in ("switches", "nodes")}
    switches = reader.each(
        members["switches"], lambda name: reader.switch(name, variables.get(name, {}))
    )
    reader.each([""], lambda _: reader.check_apart(switches.values(), variables))
    # A node of a switch that is not understood cannot be judged, and would only be blamed for it.
    spoilt = [name for name in members["switches"] if name not in switches]
    judged = [
        name
        for name in members["nodes"]
        if variables.get(name, {}).get("node_switch") not in spoilt
    ]
    nodes = reader.each(judged, lambda name: reader.node(name, variables.get(name, {}), switches))
    reader.each([""], lambda _: reader.check_unique(nodes.values()))
    first = variables.get(members["nodes"][0], {})
    sites = reader.each([""], lambda _: reader.site(folder, first, nodes, switches))
    policies = reader.each(sites, lambda _: reader.policy(first))
    site = replace(sites[""], policy=policies.get("", NO_POLICY)) if sites else None
    return Survey(inventory, site, nodes, switches, tuple(reader.mistakes), variables)


def _check_syntax(inventory: Path) -> None:
    """YAML mistakes get their line from us: Ansible wraps them in a page of text."""
    for path in sorted(inventory.rglob("*.y*ml")):
        text = path.read_text("utf-8", errors="replace")
        try:
            for _ in yaml.parse(text, Loader=yaml.SafeLoader):
                pass
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            raise UserError(f"{path}{line}: {getattr(error, 'problem', 'not YAML')}") from error


def _members(listing: dict[str, Any], group: str, inventory: Path) -> list[str]:
    """The hosts of a group and of the groups below it, in their order."""
    names: dict[str, None] = {}
    waiting, seen = [group], set()
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        entry = listing.get(current, {})
        names |= dict.fromkeys(entry.get("hosts", []))
        waiting += entry.get("children", [])
    if not names:
        raise UserError(f"{inventory}: there is no host in group `{group}`")
    return list(names)


class _Reader:
    """Takes typed values out of host variables; names host and variable when one is wrong."""

    def __init__(self, inventory: Path) -> None:
        self._inventory = inventory
        self.mistakes: list[UserError] = []

    def each(self, names: Iterable[str], read: Callable[[str], _Read]) -> dict[str, _Read]:
        """What `read` gives for each name; where it raises, the mistake is kept instead."""
        found = {}
        for name in names:
            try:
                found[name] = read(name)
            except UserError as mistake:
                self.mistakes.append(mistake)
        return found

    def site(
        self,
        folder: Path,
        variables: dict[str, Any],
        nodes: dict[str, Node],
        switches: dict[str, Switch],
    ) -> Site:
        where = "the site"
        url = re.compile(r"http://[^/\s]+(/\S*)?").fullmatch
        return Site(
            folder=folder,
            manager_address=self.address(variables, "piseduce_manager_address", where),
            image_url=self.text(variables, "piseduce_image_url", where, url).rstrip("/"),
            tftp_root=Path(self.text(variables, "piseduce_tftp_root", where)),
            nfs_boot_files=Path(self.text(variables, "piseduce_nfs_boot_files", where)),
            nodes=nodes,
            switches=switches,
            admins=self._admins(variables),
        )

    def policy(self, variables: dict[str, Any]) -> Policy:
        where = f"{self._inventory}: piseduce_policy"
        return Policy.parse(variables.get("piseduce_policy", {}), where)

    def _admins(self, variables: dict[str, Any]) -> frozenset[str]:
        admins = variables.get("piseduce_admins", [])
        if not isinstance(admins, list) or not all(isinstance(name, str) for name in admins):
            self._fail("the site", "piseduce_admins must be a list of login names")
        return frozenset(admins)

    def node(self, name: str, variables: dict[str, Any], switches: dict[str, Switch]) -> Node:
        where = f"node {name}"
        if not _HOSTNAME.fullmatch(name):
            self._fail(where, "a node's name becomes its hostname: a-z, 0-9 and -, at most 63")
        connection = variables.get("ansible_connection", "ssh")
        if connection != "ssh":
            # `local` would have the manager's own card written.
            self._fail(where, f"ansible_connection is {connection!r}; nodes are reached by ssh")
        switch_name = self.text(variables, "node_switch", where)
        if switch_name not in switches:
            self._fail(where, f"node_switch is {switch_name!r}, which is not in group `switches`")
        switch = switches[switch_name]
        port = self.integer(variables, "node_port", where)
        if not 1 <= port <= switch.port_count:
            self._fail(where, f"node_port is {port}; {switch.name} has {switch.port_count} ports")
        if port in switch.forbidden_ports:
            self._fail(where, f"node_port {port} is one of switch_forbidden_ports of {switch.name}")
        card = self.text(
            {"node_card_device": "/dev/mmcblk0"} | variables,
            "node_card_device",
            where,
            _DEVICE.fullmatch,
        )
        card_bytes = variables.get("node_card_bytes")
        if card_bytes is not None:
            card_bytes = self.integer(variables, "node_card_bytes", where)
        return Node(
            name=name,
            address=self.address(variables, "ansible_host", where),
            mac=self.text(variables, "node_mac", where, _MAC.fullmatch).lower(),
            serial=self.text(variables, "node_serial", where, _SERIAL.fullmatch),
            model=self.text(variables, "node_model", where),
            switch=switch_name,
            port=port,
            card_device=card,
            card_bytes=card_bytes,
        )

    def switch(self, name: str, variables: dict[str, Any]) -> Switch:
        where = f"switch {name}"
        # Without a default: a misspelt name would leave the uplink unprotected.
        forbidden = variables.get("switch_forbidden_ports")
        if not isinstance(forbidden, list) or not all(type(port) is int for port in forbidden):
            self._fail(where, "switch_forbidden_ports must be a list of port numbers ([] if none)")
        self._check_access(variables, where)
        return Switch(
            name=name,
            address=self.address(variables, "switch_address", where),
            port_count=self.integer(variables, "switch_port_count", where),
            forbidden_ports=frozenset(forbidden),
        )

    def _check_access(self, variables: dict[str, Any], where: str) -> None:
        """What SNMP needs: a community for v2c, a user for v3."""
        version = variables.get("switch_version", "v2c")
        if version not in ("v2c", "v3"):
            self._fail(where, f"switch_version is {version!r}; it must be v2c or v3")
        needed = "switch_community" if version == "v2c" else "switch_user"
        if not variables.get(needed):
            self._fail(where, f"{needed} is missing (switch_version is {version})")
        if "switch_udp_port" in variables:
            self.integer(variables, "switch_udp_port", where)

    def check_apart(self, switches: Iterable[Switch], variables: dict[str, dict[str, Any]]) -> None:
        """No port is described twice: what one description forbids the other would allow."""
        seen: list[tuple[Switch, tuple[Any, ...], range]] = []
        for switch in switches:
            own = variables.get(switch.name, {})
            place = (switch.address, own.get("switch_udp_port", 161), own.get("switch_admin_oid"))
            offset = own.get("switch_port_offset", 0)
            first = offset if isinstance(offset, int) else 0
            ports = range(first, first + switch.port_count)
            for other, there, theirs in seen:
                if there == place and max(ports[0], theirs[0]) <= min(ports[-1], theirs[-1]):
                    problem = f"its ports are also {other.name}'s: same switch_address and numbers"
                    self._fail(f"switch {switch.name}", problem)
            seen.append((switch, place, ports))

    def check_unique(self, nodes: Iterable[Node]) -> None:
        """No two nodes share what must be theirs alone."""
        for what, key in (
            ("ansible_host", lambda node: node.address),
            ("node_mac", lambda node: node.mac),
            ("node_serial", lambda node: node.serial),
            ("node_switch and node_port", lambda node: (node.switch, node.port)),
        ):
            owners: dict[Any, str] = {}
            for node in nodes:
                other = owners.setdefault(key(node), node.name)
                if other != node.name:
                    self._fail(f"node {node.name}", f"{what} is also that of {other}")

    def address(self, variables: dict[str, Any], name: str, where: str) -> str:
        text = self.text(variables, name, where)
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            self._fail(where, f"{name} is {text!r}, which is not an IPv4 address")

    def text(
        self,
        variables: dict[str, Any],
        name: str,
        where: str,
        check: Callable[[str], Any] = bool,
    ) -> str:
        value = variables.get(name)
        if value is None:
            self._fail(where, f"{name} is missing")
        if not isinstance(value, str):
            self._fail(where, f"{name} is {value!r}; it must be text (put it in quotes)")
        if not check(value):
            self._fail(where, f"{name} is {value!r}, which is not of the right form")
        return value

    def integer(self, variables: dict[str, Any], name: str, where: str) -> int:
        value = variables.get(name)
        if type(value) is not int or value < 1:
            self._fail(where, f"{name} is {value!r}; it must be a whole number above 0")
        return value

    def _fail(self, where: str, message: str) -> NoReturn:
        raise UserError(f"{self._inventory}: {where}: {message}")
