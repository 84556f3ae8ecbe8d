"""The host keys that the manager expects, in OpenSSH's known_hosts form (sshd(8)).

One name per system, not per address: a node has one address and is two systems. The deploy OS is
`nfspi` on every node; a deployed system is its node's name, and its address for people who log in.
"""

import os
from pathlib import Path

from piseduce_runner.site import NFS_HOSTNAME, Node, Site


def write_known_hosts(site: Site, deployed_keys: dict[str, str]) -> None:
    """Write the site's known_hosts: the deploy OS, and the deployed systems' own keys by node."""
    lines = [f"{NFS_HOSTNAME} {site.nfs_host_key()}"]
    for name, key in sorted(deployed_keys.items()):
        node = site.nodes.get(name)
        if node is not None:
            lines.append(f"{name},{node.address} {key}")
    partial = site.known_hosts.with_suffix(f".{os.getpid()}.new")
    partial.write_text("\n".join(lines) + "\n", "utf-8")
    partial.replace(site.known_hosts)


def ssh_options(site: Site, name: str) -> list[str]:
    """Options for ssh(1) to reach the system that is known as `name`, and no other."""
    return [
        # Not the admin's own settings: an agent that is forwarded is lent to every node.
        *("-F", "none"),
        *("-o", "ForwardAgent=no"),
        *("-o", "IdentitiesOnly=yes"),
        *("-o", "UpdateHostKeys=no"),
        *("-o", f"HostKeyAlias={name}"),
        *("-o", f"UserKnownHostsFile={site.known_hosts}"),
        *("-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=yes"),
    ]


def login_line(site: Site, node: Node, user: str, key: Path | None = None) -> str:
    """What a person types to log in to a deployed node."""
    identity = f" -i {key}" if key else ""
    return f"ssh -o UserKnownHostsFile={site.known_hosts}{identity} {user}@{node.address}"
