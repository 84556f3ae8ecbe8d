"""The roles of the manager's and the deployed system's states, run by Ansible against a node."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from piseduce_runner.families import find_family

from .conftest import PROJECT, make_key

HOSTNAME = Path("/etc/hostname").read_text().strip()
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
HASH = "$6$saltsalt$" + "Ab1./" * 17

PLAYBOOK = """
- hosts: nodes
  gather_facts: false
  strategy: free
  roles: [{role}]
"""


class Node:
    """A system with an SSH server and everything that the contract of roles says of a node."""

    def __init__(self, system, folder):
        self.system, self.folder = system, folder
        self.tftp = folder / "tftp"
        self.tftp.mkdir()
        manager_key = make_key(folder / "manager")
        system.run("ssh-keygen", "-A")
        system.run("ip", "link", "set", "lo", "up")
        host_key = (system.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        (folder / "known_hosts").write_text(f"{HOSTNAME} {host_key}\n")
        keys = system.root / "root/.ssh/authorized_keys"
        keys.parent.mkdir(mode=0o700, exist_ok=True)
        keys.write_text(manager_key + "\n")
        # What it would do to the real machine is none of a test's business.
        reboot = system.root / "usr/sbin/reboot"
        reboot.unlink(missing_ok=True)
        reboot.write_text("#!/bin/sh\necho rebooted >> /rebooted\n")
        reboot.chmod(0o755)
        self.variables = {
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(folder / "manager"),
            "ansible_ssh_common_args": (
                f"-o UserKnownHostsFile={folder}/known_hosts -o HostKeyAlias={HOSTNAME}"
            ),
            "node_serial": "0000aa01",
            "piseduce_tftp_root": str(self.tftp),
            "piseduce_nfs_boot_files": str(folder / "nfs-boot"),
            "family": find_family(None, "raspbian").variables,
            "node_memory": {},
            "state_timeout": 60,
            "state_phase": "deployed",
            "deployment": {
                "environment": {"login": "pi", "boot_directory": "/boot/firmware"},
                "update": True,
                "password_hash": HASH,
                "ssh_keys": [manager_key],
            },
            "site": {
                "manager_public_key": manager_key,
                "manager_key_file": str(folder / "manager"),
                "known_hosts_file": str(folder / "known_hosts"),
                "nfs_hostname": "nfspi",
            },
        }
        self.sshd = subprocess.Popen(
            [*system.inside, shutil.which("sshd"), "-D", "-e"],
            stdin=subprocess.DEVNULL,
            stderr=(folder / "sshd.log").open("w"),
        )
        while "Server listening" not in (folder / "sshd.log").read_text():
            assert self.sshd.poll() is None

    def play(self, role, *options, **changes):
        """Runs a role as the runner does; returns (exit status, all output)."""
        localhost = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }
        hosts = {HOSTNAME: self.variables | changes}
        inventory = {"all": {"hosts": {"localhost": localhost}}, "nodes": {"hosts": hosts}}
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        (self.folder / "play.yml").write_text(PLAYBOOK.format(role=role))
        ended = subprocess.run(
            [
                *("nsenter", f"--net=/proc/{self.system.holder.pid}/ns/net"),
                *(Path(sys.executable).with_name("ansible-playbook"), "-i"),
                *(self.folder / "inventory.json", *options, self.folder / "play.yml"),
            ],
            # Connections of its own each time: the paths here are too long for a shared one.
            env=os.environ
            | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_SSH_ARGS": "-C"},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        return ended.returncode, ended.stdout + ended.stderr

    def succeeds(self, role, *options, **changes):
        """Runs a role that must succeed; returns how many of its tasks changed something."""
        status, output = self.play(role, *options, **changes)
        assert status == 0, output
        return int(output.rsplit("changed=", 1)[1].split()[0])


@pytest.fixture
def node(system, tmp_path):
    running = Node(system, tmp_path)
    yield running
    running.sshd.kill()
    running.sshd.wait()


def fill(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.txt", "cmdline.txt"):
        (folder / name).write_text(content)


def remembered(output):
    """What the tasks of a run with -v want remembered, in their order."""
    return [json.loads(found) for found in re.findall(r'"remember": ({[^}]*})', output)]


def test_boot_conf_gives_the_node_the_deploy_systems_files_once(node):
    fill(node.folder / "nfs-boot", "nfs")
    assert node.succeeds("boot_conf") == 1
    assert (node.tftp / "0000aa01/cmdline.txt").read_text() == "nfs"
    assert node.succeeds("boot_conf") == 0


def test_boot_conf_refuses_a_folder_that_no_node_could_boot_from(node):
    (node.folder / "nfs-boot").mkdir()
    (node.folder / "nfs-boot/config.txt").write_text("x")
    status, output = node.play("boot_conf")
    assert status != 0
    assert "there is no cmdline.txt, so these are not a node's boot files" in output
    assert not (node.tftp / "0000aa01").exists()


def test_ssh_test_accepts_the_deployed_system(node):
    assert node.succeeds("ssh_test") == 0


def test_ssh_test_does_not_take_it_for_the_deploy_system(node):
    status, output = node.play("ssh_test", state_phase="nfs", state_timeout=8)
    assert status != 0
    assert "did not answer as 'nfspi'" in output
    assert "no host key for it" in output


def test_ssh_test_does_not_accept_the_start_that_it_knows(node):
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    status, output = node.play("ssh_test", node_memory={"boot_id": boot_id}, state_timeout=8)
    assert status != 0
    assert "the node has not restarted" in output


def test_boot_update_copies_the_mounted_boot_partition_and_restarts_the_node(node):
    firmware = node.system.root / "boot/firmware"
    firmware.mkdir(parents=True)
    node.system.run("mount", "-t", "tmpfs", "firmware", "/boot/firmware")
    fill(firmware, "card")
    assert node.succeeds("boot_update") == 2
    assert (node.tftp / "0000aa01/cmdline.txt").read_text() == "card"
    while not (node.system.root / "rebooted").exists():
        pass
    status, output = node.play("boot_update", "-v")
    assert (status, "changed=1" in output) == (0, True), output  # the restart
    assert remembered(output) == [{"settled": True}, {"boot_id": BOOT_ID}]


def test_boot_update_refuses_a_folder_on_which_nothing_is_mounted(node):
    fill(node.system.root / "boot/firmware", "stale")
    status, output = node.play("boot_update")
    assert status != 0
    assert "/boot/firmware" in output
    assert "nothing is mounted there" in output
    assert not (node.tftp / "0000aa01").exists()
    assert not (node.system.root / "rebooted").exists()


def test_update_boot_files_copies_the_mounted_boot_partition_and_restarts_nothing(node):
    firmware = node.system.root / "boot/firmware"
    fill(firmware, "stale")
    status, output = node.play("update_boot_files")
    assert (status, "nothing is mounted there" in output) == (2, True), output
    node.system.run("mount", "-t", "tmpfs", "firmware", "/boot/firmware")
    fill(firmware, "changed")
    assert node.succeeds("update_boot_files") == 1
    assert (node.tftp / "0000aa01/cmdline.txt").read_text() == "changed"
    assert node.succeeds("update_boot_files") == 0
    assert not (node.system.root / "rebooted").exists()


def test_destroying_takes_the_nodes_boot_files_away_without_the_node(node):
    fill(node.folder / "nfs-boot", "nfs")
    node.succeeds("boot_conf")
    node.sshd.kill()
    fill(node.tftp / ".0000aa01-dead0001", "half")
    fill(node.tftp / "0000aa02", "another's")
    assert node.succeeds("destroying") == 1
    assert sorted(path.name for path in node.tftp.iterdir()) == [".0000aa01.lock", "0000aa02"]
    assert node.succeeds("destroying") == 0


def test_network_boot_removes_bootcode_and_tells_of_a_boot_order_that_is_wrong(node):
    node.variables["node_card_device"] = "/dev/null"
    firmware = node.system.root / "boot/firmware"
    fill(firmware, "files")
    (firmware / "bootcode.bin").write_text("boots from the card")
    eeprom = node.system.root / "usr/bin/rpi-eeprom-config"
    eeprom.write_text("#!/bin/sh\necho '[all]'\necho BOOT_UART=0\necho BOOT_ORDER=0xF41\n")
    eeprom.chmod(0o755)
    status, said = node.play("network_boot", "-v")
    assert status == 0, said
    assert "removed bootcode.bin from its boot partition; its EEPROM tries the SD card" in said
    assert "(BOOT_ORDER=0xf41)" in said
    assert sorted(path.name for path in firmware.iterdir()) == ["cmdline.txt", "config.txt"]

    eeprom.write_text("#!/bin/sh\necho BOOT_ORDER=0xf12\n")
    status, said = node.play("network_boot", "-v")
    assert '"remember": {}' in said


def test_network_boot_ends_well_without_the_node(node):
    node.variables["node_card_device"] = "/dev/null"
    node.sshd.kill()
    node.sshd.wait()
    status, said = node.play("network_boot", "-v")
    assert status == 0, said
    assert "how it boots was not looked at" in said


@pytest.mark.parametrize("role", ["system_update", "boot_update"])
def test_without_a_wish_for_updates_nothing_is_done(node, role):
    deployment = node.variables["deployment"] | {"update": False}
    assert node.succeeds(role, deployment=deployment) == 0
    assert not (node.system.root / "rebooted").exists()


def test_system_update_removes_bootcode_and_finds_nothing_left(node):
    (node.system.root / "etc/apt/sources.list").write_text("")
    node.system.run("sh", "-c", "rm -rf /var/lib/apt/lists/* /etc/apt/sources.list.d")
    bootcode = node.system.root / "boot/firmware/bootcode.bin"
    bootcode.parent.mkdir(parents=True, exist_ok=True)
    bootcode.write_text("x")
    assert node.succeeds("system_update") == 1
    assert not bootcode.exists()
    assert node.succeeds("system_update") == 0


def test_user_conf_lets_users_in_and_shows_no_secret(node):
    node.system.run("useradd", "--create-home", "pi")
    status, output = node.play("user_conf", "-vvv", "--diff")
    assert status == 0, output
    assert "saltsalt" not in output
    assert HASH in node.system.run("getent", "shadow", "pi")
    login = ["ssh", "-o", f"UserKnownHostsFile={node.folder}/known_hosts", "-o", "BatchMode=yes"]
    login += ["-o", f"HostKeyAlias={HOSTNAME}", "-i", node.folder / "manager"]
    for user in ("pi", "root"):
        who = subprocess.run(
            ["nsenter", f"--net=/proc/{node.system.holder.pid}/ns/net"]
            + [*login, f"{user}@127.0.0.1", "id", "-un"],
            capture_output=True,
            text=True,
        )
        assert who.stdout == f"{user}\n", who.stderr
    assert node.succeeds("user_conf") == 0


def test_user_conf_says_why_it_fails(node):
    status, output = node.play("user_conf")
    assert status != 0
    assert "there is no user 'pi' on this system" in output
    assert "saltsalt" not in output
