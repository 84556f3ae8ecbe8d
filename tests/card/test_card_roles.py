"""The card's states one after the other, as the driver runs them: roles, contract, real Ansible."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from boot.conftest import free_port, make_key

from piseduce_runner.families import find_family

from . import image as images
from .conftest import MIB, ROOT

STATES = (
    "env_copy",
    "env_check",
    "delete_partition",
    "create_partition",
    "mount_partition",
    "resize_partition",
    "wait_resizing",
    "system_conf",
)
MANAGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0fWyDqzTJ0sCzUUa0x8Rj1h6oVtVqYw5Qy2VQ0m1aB"


@pytest.fixture
def contract(card, server, environment, progress):
    """What a role finds, as the driver gives it."""
    return {
        "ansible_connection": "local",
        # The node's own Python: modules may use nothing but its standard library.
        "ansible_python_interpreter": "/usr/bin/python3",
        "node_card_device": card.device,
        "deployment": {
            "environment": {
                **environment,
                "family": "raspbian",
                "login": "pi",
                "image": "image.img.zst",
                "block_map": "image.bmap",
            },
            "environment_url": f"{server.url}/debian",
            "part_bytes": 64 * MIB,
        },
        "family": find_family(None, "raspbian").variables,
        "node_memory": {},
        "state_timeout": 60,
        "progress": {name: progress[name] for name in ("address", "port", "token")},
        "site": {"manager_public_key": MANAGER},
    }


@pytest.fixture
def play(namespace, tmp_path, contract):
    """Run states on the node; returns the finished process."""

    def run(*states, **variables):
        inventory = tmp_path / "hosts.yml"
        hosts = {"node-1": {**contract, **variables}}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        playbook = tmp_path / "play.yml"
        play = {"hosts": "node-1", "gather_facts": False, "roles": list(states)}
        playbook.write_text(yaml.safe_dump([play]))
        return subprocess.run(
            [
                *namespace,
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--inventory",
                str(inventory),
                "-v",
                str(playbook),
            ],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            },
            capture_output=True,
            text=True,
        )

    return run


def test_states_make_a_system_on_the_card(card, play, namespace, manager):
    result = play(*STATES)
    assert result.returncode == 0, result.stdout + result.stderr
    sectors = images.call("blockdev", "--getsz", f"{card.device}p2").stdout
    assert int(sectors) == 64 * MIB // 512
    hostname = images.call(*namespace, "cat", "/mnt/piseduce/root/etc/hostname").stdout
    assert hostname == "node-1\n"
    first = json.loads(manager.recv(2000))
    assert (first["node"], first["percent"]) == ("node-1", 0)
    # Each state can be entered again where it may have been interrupted.
    again = play(*STATES[3:])
    assert again.returncode == 0, again.stdout + again.stderr
    over = play(*STATES)
    assert over.returncode == 0, over.stdout + over.stderr


@pytest.fixture
def reachable(namespace, tmp_path, contract):
    """The node's SSH server, and all that `boot_files` needs to reach it."""
    port, host_key = free_port(), make_key(tmp_path / "host_key")
    (tmp_path / "authorized_keys").write_text(make_key(tmp_path / "manager") + "\n")
    (tmp_path / "known_hosts").write_text(f"nfspi {host_key}\n")
    (tmp_path / "tftp").mkdir()
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "authorized_keys",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
    }
    (tmp_path / "sshd").write_text("".join(f"{name} {is_}\n" for name, is_ in settings.items()))
    images.call(*namespace, "mkdir", "/run/sshd")
    server = subprocess.Popen(
        [*namespace, shutil.which("sshd"), "-D", "-e", "-f", tmp_path / "sshd"],
        stderr=(tmp_path / "sshd.log").open("w"),
    )
    while "Server listening" not in (tmp_path / "sshd.log").read_text():
        assert server.poll() is None
    contract |= {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "node_serial": "0000aa01",
        "piseduce_tftp_root": str(tmp_path / "tftp"),
    }
    contract["site"] |= {
        "manager_key_file": str(tmp_path / "manager"),
        "known_hosts_file": str(tmp_path / "known_hosts"),
        "nfs_hostname": "nfspi",
    }
    yield tmp_path / "tftp" / "0000aa01"
    server.kill()
    server.wait()


def remembered(output):
    """What the tasks of a run with -v want remembered, in their order."""
    return [json.loads(found) for found in re.findall(r'"remember": ({[^}]*})', output)]


def test_boot_files_is_settled_before_the_restart_each_time(written, reachable, play, namespace):
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for _attempt in range(2):
        result = play("boot_files")
        assert result.returncode == 0, result.stdout + result.stderr
        assert remembered(result.stdout) == [{"settled": True}, {"boot_id": boot_id}]
        assert (reachable / "cmdline.txt").read_text() == images.CMDLINE
        found = images.call(*namespace, "findmnt", "--list", "--output", "TARGET").stdout
        assert "/mnt/piseduce" not in found


def test_boot_files_is_not_settled_while_the_card_is_in_use(
    written, reachable, play, run_module, namespace
):
    run_module("card_mount", device=written.device, state="mounted", timeout=60)
    user = subprocess.Popen(
        [*namespace, "sh", "-c", "cd /mnt/piseduce/root && echo in && cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout.readline() == b"in\n"
    result = play("boot_files")
    user.communicate()
    assert result.returncode == 2
    assert remembered(result.stdout) == []
    assert images.call(*namespace, "ls", "/run").stdout.count("rebooted") == 0


@pytest.mark.parametrize("policy", ["off", False])  # YAML 1.1 takes a bare `off` for false
def test_env_check_is_skipped_where_the_site_says_so(card, play, policy):
    result = play("env_check", piseduce_env_check=policy)
    assert result.returncode == 0, result.stdout
    assert "skipped=1" in result.stdout
    assert "the card was not read back, as this site wishes" in result.stdout


def test_erase_card_leaves_a_blank_card_twice(written, play):
    for _attempt in range(2):
        result = play("erase_card")
        assert result.returncode == 0, result.stdout + result.stderr
    images.call("blockdev", "--flushbufs", written.device)
    assert written.path.read_bytes() == bytes(96 * MIB)


def test_reason_of_a_failure_reaches_the_driver(card, play, contract):
    contract["deployment"]["part_bytes"] = 500 * MIB
    result = play("env_copy")
    assert result.returncode == 2
    assert f"the card {card.device} has {96 * MIB} bytes, the partitions asked for" in result.stdout


def test_missing_contract_is_named(play, contract):
    del contract["deployment"]["environment"]["block_map_sha256"]
    result = play("env_check")
    assert result.returncode == 2
    assert "block_map_sha256" in result.stdout
