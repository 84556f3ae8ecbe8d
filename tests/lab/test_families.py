"""Ubuntu and piCore on the lab: deployed with an update, restarted, and still what they were.

Raspberry Pi OS is in test_deployment.py. One lab, one deployment of each; every claim is checked
against the node itself.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from simulated_lab import CLI, SimulatedLab

PASSWORD = "correct 'horse' $battery \"staple\" \u00e9"
NODES = {"ubuntu": 1, "picore": 2}
ENVIRONMENTS = {"ubuntu": "ubuntu-24.04", "picore": "picore-15"}
LOGINS = {"ubuntu": ("ubuntu", "root"), "picore": ("tc",)}
# As whom, and what makes a command root's.
MANAGER = {"ubuntu": ("root", ""), "picore": ("tc", "sudo -n ")}


@pytest.fixture(scope="module")
def lab(make_lab) -> SimulatedLab:
    return make_lab("--nodes", "2")


@pytest.fixture(scope="module")
def user_key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("user") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path], check=True)
    return path


def piseduce(lab, *words, **options):
    command = [sys.executable, "-c", CLI, "--site", str(lab.site), *words]
    done = subprocess.run(
        command, env=lab.environment(), capture_output=True, text=True, timeout=600, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_node(lab, family, command):
    user, _sudo = MANAGER[family]
    return lab.ssh(NODES[family], command, user=user).stdout.strip()


@pytest.fixture(scope="module")
def deployed(lab, user_key):
    """Both nodes, side by side, each by a command of its own."""

    def deploy(family):
        words = ["deploy", f"node-{NODES[family]}", "--env", ENVIRONMENTS[family], "--update"]
        options = ["--ssh-key", f"{user_key}.pub", "--password-stdin", "--part-size", "1gb"]
        return piseduce(lab, *words, *options, input=PASSWORD + "\n")

    with ThreadPoolExecutor() as threads:
        return dict(zip(NODES, threads.map(deploy, NODES), strict=True))


@pytest.fixture(scope="module")
def restarted(lab, deployed):
    """Both nodes after `piseduce-run reboot`; their boot ids before it."""
    before = {
        family: on_node(lab, family, "cat /proc/sys/kernel/random/boot_id") for family in NODES
    }
    piseduce(lab, "reboot", "node-1", "node-2")
    return before


def assert_is_as_deployed(lab, family, user_key):
    _user, sudo = MANAGER[family]
    index = NODES[family]
    assert on_node(lab, family, "cat /etc/hostname; uname -n").split() == [f"node-{index}"] * 2
    for login in LOGINS[family]:
        assert lab.ssh(index, "id -un", user=login, key=user_key).stdout.strip() == login
    login = LOGINS[family][0]
    assert lab.ssh(index, "sudo -n id -un", user=login, key=user_key).stdout.strip() == "root"
    field = on_node(lab, family, f"{sudo}cat /etc/shadow | grep '^{login}:' | cut -d: -f2")
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", field.split("$")[2], "-stdin"],
        input=PASSWORD, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert field == again
    folder = {"ubuntu": "/etc/ssh", "picore": "/usr/local/etc/ssh"}[family]
    keys = on_node(lab, family, f"cat {folder}/ssh_host_*_key.pub").splitlines()
    assert len(keys) == 1
    assert " ".join(keys[0].split()[:2]) in (lab.site / "known_hosts").read_text()


@pytest.mark.parametrize("family", NODES)
def test_the_environment_was_recognised_and_its_node_is_deployed(lab, deployed, family):
    rows = json.loads(piseduce(lab, "--json", "status"))["nodes"]
    row = next(one for one in rows if one["node"] == f"node-{NODES[family]}")
    assert row["status"] == "deployed"
    known = json.loads(piseduce(lab, "--json", "env", "list"))["environments"]
    assert {one["name"]: one["family"] for one in known}[ENVIRONMENTS[family]] == family


@pytest.mark.parametrize("family", NODES)
def test_name_password_and_keys_are_what_was_asked_for(lab, deployed, user_key, family):
    assert_is_as_deployed(lab, family, user_key)


def test_ubuntus_cloud_init_has_run_and_undone_nothing(lab, deployed):
    assert on_node(lab, "ubuntu", "ls /var/lib/cloud/data").split() == [
        "instance-id.init",
        "instance-id.modules",
    ]
    assert "command=" not in on_node(lab, "ubuntu", "cat /root/.ssh/authorized_keys")
    assert "ubuntu" in on_node(lab, "ubuntu", ". /etc/os-release; echo $ID")


def test_the_update_brought_ubuntus_newer_package_and_no_bootcode(lab, deployed):
    assert on_node(lab, "ubuntu", "dpkg-query -W -f '${Version}' pi-boot-sample") == "1.1"
    folder = lab.node_tftp(NODES["ubuntu"])
    assert "1.1" in (folder / "pi-boot-sample.txt").read_text()
    assert not (folder / "bootcode.bin").exists()
    assert "bootcode.bin" not in on_node(lab, "ubuntu", "ls /boot/firmware").split()
    assert "hash" not in (folder / "user-data").read_text()


def test_picore_has_no_python_and_its_boot_files_came_over_ssh(lab, deployed):
    assert on_node(lab, "picore", "command -v python3 || echo none") == "none"
    folder = lab.node_tftp(NODES["picore"])
    assert "host=node-2" in (folder / "cmdline3.txt").read_text()
    assert not (folder / "bootcode.bin").exists()
    assert on_node(lab, "picore", "grep -c mmcblk0p1 /proc/mounts || true") == "0"


@pytest.mark.parametrize("family", NODES)
def test_all_is_still_there_after_a_power_cycle(lab, restarted, user_key, family):
    boot_id = on_node(lab, family, "cat /proc/sys/kernel/random/boot_id")
    assert boot_id != restarted[family]
    assert_is_as_deployed(lab, family, user_key)


def test_bootfiles_fetches_the_boot_files_of_both(lab, restarted):
    for index in NODES.values():
        (lab.node_tftp(index) / "config.txt").write_text("changed\n")
    piseduce(lab, "bootfiles", "node-1", "node-2")
    for index in NODES.values():
        assert "changed" not in (lab.node_tftp(index) / "config.txt").read_text()
