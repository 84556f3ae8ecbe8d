"""Writes the lab's site: what /etc/piseduce is for a real cluster. Also the lab's own keys."""

import secrets
import shutil
from pathlib import Path
from typing import Any

import yaml

from piseduce_runner.lab.build import Artifacts
from piseduce_runner.lab.folder import LabFolder, write_atomically
from piseduce_runner.lab.network import run
from piseduce_runner.lab.settings import HTTP_PORT, MODEL, SWITCH, Settings

UDP_PORT = 161


def write_site(lab: LabFolder, settings: Settings, artifacts: Artifacts) -> dict[str, str]:
    """Inventory, environments and keys; also the layer that the lab adds to the deploy OS.

    Returns who may access the switch, as keyword arguments of `switch.Access`.
    """
    for folder in (lab.site / "inventory", lab.site / "environments", lab.manager / "log"):
        folder.mkdir(parents=True)
    (lab.site / "keys").mkdir(mode=0o700)
    access = {
        "read_community": "public",
        "write_community": "private",
        "user": "admin",
        "auth_protocol": "sha",
        "auth_password": secrets.token_hex(12),
        "priv_protocol": "aes",
        "priv_password": secrets.token_hex(12),
    }
    inventory = _inventory(lab, settings, artifacts, access)
    text = "# Written by `piseduce-run lab up`.\n" + yaml.safe_dump(inventory, sort_keys=False)
    write_atomically(lab.site / "inventory" / "hosts.yml", text, mode=0o600)
    # Copies: what happens to a lab's environment must not happen to the next lab's.
    for environment in artifacts.environments:
        target = lab.site / "environments" / environment.name
        run("cp", "--recursive", "--reflink=auto", str(environment), str(target))
    _write_keys(lab)
    return access


def _inventory(
    lab: LabFolder, settings: Settings, artifacts: Artifacts, access: dict[str, str]
) -> dict[str, Any]:
    manager = settings.manager_address
    switch = {
        "switch_address": settings.switch_address,
        "switch_udp_port": UDP_PORT,
        "switch_version": "v2c",
        "switch_community": access["write_community"],
        "switch_port_count": settings.port_count,
        "switch_forbidden_ports": [settings.port_count],
    }
    nodes = {
        node.name: {
            "ansible_host": node.address,
            "node_mac": node.mac,
            "node_serial": node.serial,
            "node_model": MODEL,
            "node_switch": SWITCH,
            "node_port": node.port,
            "node_card_bytes": settings.card_size,
        }
        for node in settings.all_nodes()
    }
    site = {
        # These boards have no capacitors that must run empty.
        "turn_off_rest_seconds": 0.2,
        "piseduce_manager_address": manager,
        "piseduce_tftp_root": str(lab.tftp),
        "piseduce_nfs_boot_files": str(artifacts.nfs_boot_files),
        "piseduce_image_url": f"http://{manager}:{HTTP_PORT}/environments",
        # For playbooks/manager.yml
        "manager_dir": str(lab.manager),
        "manager_interface": lab.bridge,
        "manager_network": settings.network,
        "manager_dnsmasq_install": False,
        "manager_nginx_install": False,
        # The lab's folder may lie where other users cannot go.
        "manager_dnsmasq_user": "root",
        "manager_nginx_user": "root",
        "manager_nginx_folders": [{"path": "/apt/", "folder": str(artifacts.apt_repository)}],
    }
    groups = {"nodes": {"hosts": nodes}, "switches": {"hosts": {SWITCH: switch}}}
    return {"all": {"vars": site, "children": groups}}


def _write_keys(lab: LabFolder) -> None:
    keys = lab.site / "keys"
    manager_key = keys / "manager_ed25519"
    _make_key(manager_key, f"pimaster of {lab.name}")
    ssh = _folder(lab.layer, "etc/ssh", 0o755)
    host_key = ssh / "ssh_host_ed25519_key"
    _make_key(host_key, "nfspi")
    kind, key, *_ = host_key.with_suffix(".pub").read_text("ascii").split()
    (keys / "nfs_host_key.pub").write_text(f"{kind} {key}\n", encoding="ascii")
    _folder(lab.layer, "root", 0o700)
    authorized = _folder(lab.layer, "root/.ssh", 0o700) / "authorized_keys"
    shutil.copyfile(manager_key.with_suffix(".pub"), authorized)
    authorized.chmod(0o600)
    (lab.layer / "etc/hostname").write_text("nfspi\n", encoding="ascii")


def _make_key(file: Path, comment: str) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file))


def _folder(root: Path, name: str, mode: int) -> Path:
    """A folder whose mode, and its parents' below `root`, do not depend on the umask."""
    folder = root
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for part in Path(name).parts:
        folder = folder / part
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    folder.chmod(mode)
    return folder
