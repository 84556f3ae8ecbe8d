"""A site: the folder that describes one cluster. Reads its Ansible inventory, and checks it.

inventory/hosts.yml   nodes and switches (groups of these names) and the site's variables
environments/NAME/    the environments
keys/                 the manager's SSH key, and the host key of the deploy OS
processes.yml, roles/ optional: the site's own process table and roles
known_hosts           the host keys that the manager expects (written by the driver)
state/                the store and the logs
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import Process
from piseduce_runner.runner import read_inventory

# RFC 1123, section 2.1: letters, digits and hyphens, no hyphen at either end, at most 63.
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_SERIAL = re.compile(r"[0-9a-f]{8}")
_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [ -~]*)?")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9/_-]+")
# The name by which the deploy OS answers on every node.
NFS_HOSTNAME = "nfspi"


@dataclass(frozen=True)
class Node:
    """One Raspberry Pi. `serial` is the last 8 hex digits: the name of its TFTP folder."""

    name: str
    address: str
    mac: str
    serial: str
    model: str
    switch: str
    port: int
    card_device: str
    card_bytes: int | None


@dataclass(frozen=True)
class Switch:
    """One PoE switch; `forbidden_ports` lead to the manager or to other switches."""

    name: str
    address: str
    port_count: int
    forbidden_ports: frozenset[int]


@dataclass(frozen=True)
class Site:
    """A checked site. Paths are those of its folder."""

    folder: Path
    manager_address: str
    image_url: str
    tftp_root: Path
    nfs_boot_files: Path
    nodes: dict[str, Node]
    switches: dict[str, Switch]

    @property
    def inventory(self) -> Path:
        """The folder of the Ansible inventory."""
        return self.folder / "inventory"

    @property
    def environments(self) -> Path:
        """The folder of the environments."""
        return self.folder / "environments"

    @property
    def database(self) -> Path:
        """The store."""
        return self.folder / "state" / "piseduce.db"

    @property
    def logs(self) -> Path:
        """The folder of the nodes' logs."""
        return self.folder / "state" / "logs"

    @property
    def known_hosts(self) -> Path:
        """The host keys that the manager expects; see known_hosts.py."""
        return self.folder / "known_hosts"

    @property
    def manager_key(self) -> Path:
        """The manager's private SSH key."""
        return self.folder / "keys" / "manager_ed25519"

    @property
    def roles(self) -> list[Path]:
        """Where roles are searched: the site's own come first."""
        return role_folders(self.folder)

    def manager_public_key(self) -> str:
        """The manager's public SSH key, one line. Raises `UserError` when it is missing."""
        return _read_key(self.manager_key.with_suffix(".pub"))

    def nfs_host_key(self) -> str:
        """The public host key of the deploy OS, one line. Raises `UserError` when missing."""
        return _read_key(self.folder / "keys" / "nfs_host_key.pub")

    def check_ready(self) -> None:
        """Whether a deployment can begin: keys and folders are there. Raises `UserError`."""
        self.manager_public_key()
        self.nfs_host_key()
        if not os.access(self.manager_key, os.R_OK):
            raise UserError(f"{self.manager_key}: the manager's private key cannot be read")
        if self.manager_key.stat().st_mode & 0o077:
            raise UserError(f"{self.manager_key}: others can read it, so SSH refuses it; chmod 600")
        if not os.access(self.tftp_root, os.W_OK):
            raise UserError(f"piseduce_tftp_root {self.tftp_root}: no folder that we can write to")
        if not (self.nfs_boot_files / "cmdline.txt").is_file():
            raise UserError(f"piseduce_nfs_boot_files {self.nfs_boot_files}: no cmdline.txt in it")

    def choose_nodes(self, names: Iterable[str]) -> list[Node]:
        """The nodes of these names, each once. Raises `UserError` that lists the unknown ones."""
        unique = list(dict.fromkeys(names))
        unknown = [name for name in unique if name not in self.nodes]
        if unknown:
            raise UserError(f"unknown node: {', '.join(unknown)}; {self._hint(unknown[0])}")
        return [self.nodes[name] for name in unique]

    def _hint(self, unknown: str) -> str:
        # Never guess another number: at night a hint is taken, and the wrong board is written.
        letters = re.sub(r"[0-9]+", "0", unknown)
        close = [
            name
            for name in difflib.get_close_matches(unknown, self.nodes, 3)
            if re.sub(r"[0-9]+", "0", name) != letters
        ]
        return f"did you mean {close[0]}?" if close else "`piseduce-run status` lists the nodes"


def check_is_site(folder: Path) -> None:
    """Raises `UserError` when the folder is no site."""
    if not (folder / "inventory").is_dir():
        raise UserError(f"{folder} is no site: it has no folder inventory/")


def role_folders(site: Path) -> list[Path]:
    """Where the roles of a site are searched, in order."""
    return [site / "roles", paths.ansible_dir() / "roles"]


def load_site_processes(site: Path) -> dict[str, Process]:
    """The site's process table, or else ours. Raises `UserError` when it is wrong."""
    own = site / "processes.yml"
    table = own if own.exists() else paths.ansible_dir() / "playbooks" / "processes.yml"
    return load_processes(table, role_folders(site))


def load_site(folder: Path) -> Site:
    """Read and check the site in `folder`. Raises `UserError` that names what is wrong, and where.

    The inventory is read by Ansible itself, so that group variables, vaults and inventory plugins
    mean here what they mean in a run.
    """
    inventory = folder / "inventory"
    check_is_site(folder)
    _check_syntax(inventory)
    listing = read_inventory(inventory)
    variables = listing.get("_meta", {}).get("hostvars", {})
    reader = _Reader(inventory)
    switches = {
        name: reader.switch(name, variables.get(name, {}))
        for name in _members(listing, "switches", inventory)
    }
    nodes = {
        name: reader.node(name, variables.get(name, {}), switches)
        for name in _members(listing, "nodes", inventory)
    }
    reader.check_unique(nodes.values())
    first = variables[next(iter(nodes))]
    return Site(
        folder=folder,
        manager_address=reader.address(first, "piseduce_manager_address", "the site"),
        image_url=reader.text(
            first, "piseduce_image_url", "the site", re.compile(r"http://[^/\s]+(/\S*)?").fullmatch
        ).rstrip("/"),
        tftp_root=Path(reader.text(first, "piseduce_tftp_root", "the site")),
        nfs_boot_files=Path(reader.text(first, "piseduce_nfs_boot_files", "the site")),
        nodes=nodes,
        switches=switches,
    )


def _read_key(path: Path) -> str:
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path}: the key cannot be read: {reason}") from error
    if not _PUBLIC_KEY.fullmatch(text):
        raise UserError(f"{path}: not one line of a public SSH key (`ssh-ed25519 AAAA...`)")
    return text


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

    def node(self, name: str, variables: dict[str, Any], switches: dict[str, Switch]) -> Node:
        where = f"node {name}"
        if not _HOSTNAME.fullmatch(name):
            self._fail(where, "a node's name becomes its hostname: a-z, 0-9 and -, at most 63")
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
