"""Small sites for tests: two nodes on one switch."""

import copy
from pathlib import Path

import yaml

NODE = {
    "ansible_host": "192.0.2.1",
    "node_mac": "dc:a6:32:00:00:01",
    "node_serial": "10000001",
    "node_model": "RPI4B4G",
    "node_switch": "switch-1",
    "node_port": 1,
}
INVENTORY = {
    "all": {
        "vars": {
            "piseduce_manager_address": "127.0.0.1",
            "piseduce_image_url": "http://127.0.0.1:8000/environments/",
        },
        "children": {
            "nodes": {
                "hosts": {
                    "node-1": NODE,
                    "node-2": NODE
                    | {
                        "ansible_host": "192.0.2.2",
                        "node_mac": "dc:a6:32:00:00:02",
                        "node_serial": "10000002",
                        "node_port": 2,
                        "node_card_bytes": 512 * 1024**2,
                    },
                }
            },
            "switches": {
                "vars": {"switch_port_count": 8},
                "hosts": {
                    "switch-1": {
                        "switch_address": "192.0.2.252",
                        "switch_community": "private",
                        "switch_forbidden_ports": [8],
                    }
                },
            },
        },
    }
}


def write_site(folder: Path, change=lambda inventory: None) -> Path:
    """A site in `folder`; `change` may spoil its inventory first."""
    inventory = copy.deepcopy(INVENTORY)
    for name in ("tftp", "nfs-boot"):
        (folder / name).mkdir(parents=True)
    (folder / "nfs-boot" / "cmdline.txt").write_text("root=/dev/nfs\n")
    inventory["all"]["vars"] |= {
        "piseduce_tftp_root": str(folder / "tftp"),
        "piseduce_nfs_boot_files": str(folder / "nfs-boot"),
    }
    change(inventory)
    (folder / "inventory").mkdir(parents=True)
    (folder / "inventory" / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "keys").mkdir()
    (folder / "keys" / "nfs_host_key.pub").write_text("ssh-ed25519 AAAAnfs\n")
    (folder / "keys" / "manager_ed25519.pub").write_text("ssh-ed25519 AAAAmanager\n")
    (folder / "keys" / "manager_ed25519").write_text("a private key\n")
    (folder / "keys" / "manager_ed25519").chmod(0o600)
    return folder


def node(inventory, name="node-1"):
    return inventory["all"]["children"]["nodes"]["hosts"][name]


def switch(inventory):
    return inventory["all"]["children"]["switches"]["hosts"]["switch-1"]
