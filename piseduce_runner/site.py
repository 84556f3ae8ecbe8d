"""A site: the folder that describes one cluster. Its inventory is read in site_reader.py.

inventory/hosts.yml   nodes and switches (groups of these names) and the site's variables
environments/NAME/    the environments
keys/                 the manager's SSH key, and the host key of the deploy OS
processes.yml, roles/, families/ optional: the site's own process table, roles and families
known_hosts           the host keys that the manager expects (written by the driver)
state/                the store and the logs
"""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.families import Family, with_roles
from piseduce_runner.policy import NO_POLICY, Policy, apply, check_states
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import Process

_PUBLIC_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [ -~]*)?")
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
class SiteFolder:
    """Where things lie in a site's folder, whatever its inventory says."""

    folder: Path

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
    def agent_lock(self) -> Path:
        """Held by the site's agent; see agent_lock.py."""
        return self.folder / "state" / "agent.lock"

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
        return read_public_key(self.manager_key.with_suffix(".pub"))

    def nfs_host_key(self) -> str:
        """The public host key of the deploy OS, one line. Raises `UserError` when missing."""
        return read_public_key(self.folder / "keys" / "nfs_host_key.pub")


@dataclass(frozen=True)
class Site(SiteFolder):
    """A checked site."""

    manager_address: str
    image_url: str
    tftp_root: Path
    nfs_boot_files: Path
    nodes: dict[str, Node]
    switches: dict[str, Switch]
    policy: Policy = NO_POLICY
    admins: frozenset[str] = frozenset()

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
            raise UserError(
                f"unknown node: {', '.join(unknown) or repr('')}; {self._hint(unknown[0])}"
            )
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
    """Raises `UserError` when the folder is no site, `PermissionError` when it is closed to us."""
    inventory = folder / "inventory"
    if not inventory.is_dir():
        raise UserError(f"{folder} is no site: it has no folder inventory/")
    with os.scandir(inventory):  # where it is closed, Ansible would answer with a page of text
        pass


def role_folders(site: Path) -> list[Path]:
    """Where the roles of a site are searched, in order."""
    return [site / "roles", paths.ansible_dir() / "roles"]


def load_site_processes(site: Path) -> dict[str, Process]:
    """The site's process table, or else ours. Raises `UserError` when it is wrong."""
    own = site / "processes.yml"
    table = own if own.exists() else paths.ansible_dir() / "playbooks" / "processes.yml"
    return load_processes(table, role_folders(site))


def site_processes(
    site: Site, *policies: Policy, family: Family | None = None
) -> dict[str, Process]:
    """The site's process table, changed by the family, the site's policy and then the given ones.

    Raises `UserError` when the table is wrong, when a policy names a state that it does not have,
    or a family a role that there is not.
    """
    table = load_site_processes(site.folder)
    check_states(table.values(), site.policy, *policies)
    if family is not None:
        table = {name: with_roles(process, family, site.roles) for name, process in table.items()}
        policies = (family.policy, site.policy, *policies)
    else:
        policies = (site.policy, *policies)
    return {name: apply(process, *policies) for name, process in table.items()}


def read_public_key(path: Path) -> str:
    """The public SSH key in a file, one line. Raises `UserError` when there is none."""
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{path}: the key cannot be read: {reason}") from error
    if not _PUBLIC_KEY.fullmatch(text):
        raise UserError(f"{path}: not one line of a public SSH key (`ssh-ed25519 AAAA...`)")
    return text
