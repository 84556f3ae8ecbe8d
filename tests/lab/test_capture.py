"""An environment made of a deployed node's card: another node runs it, and nobody else gets in."""

import json
import subprocess
from pathlib import Path

import pytest
from simulated_lab import SimulatedLab

USED, NEW = 1, 2


@pytest.fixture(scope="module")
def lab(make_lab) -> SimulatedLab:
    return make_lab("--nodes", "2")


def new_key(folder: Path) -> Path:
    path = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def old_key(tmp_path_factory) -> Path:
    return new_key(tmp_path_factory.mktemp("old"))


def run(lab, *words, check=True):
    return lab.run("--site", str(lab.site), *words, check=check)


def status(lab, name):
    rows = json.loads(run(lab, "--json", "status").stdout)["nodes"]
    return next(row for row in rows if row["node"] == name)


@pytest.fixture(scope="module")
def captured(lab, old_key):
    """Node 1 is deployed and used, and captured; what the command said."""
    key = ("--ssh-key", f"{old_key}.pub")
    run(lab, "deploy", "node-1", "--env", "debian-12", *key)
    lab.ssh(
        USED,
        "set -e; echo mine > /srv/marker; echo pi:password | chpasswd; useradd -m guest;"
        " cp -r /home/pi/.ssh /home/guest/; chown -R guest: /home/guest;"
        " echo secret > /root/.bash_history; echo 0123 > /etc/machine-id",
    )
    before = lab.boot_id(USED)
    said = json.loads(run(lab, "--json", "env", "capture", "node-1", "mine").stdout)
    return said | {"boot_id": before}


@pytest.fixture(scope="module")
def deployed(lab, captured, tmp_path_factory) -> Path:
    """Node 2 runs what was captured; the key of its user."""
    key = new_key(tmp_path_factory.mktemp("new"))
    run(lab, "deploy", "node-2", "--env", "mine", "--ssh-key", f"{key}.pub")
    return key


def test_the_environment_is_like_the_one_that_was_deployed_and_no_larger_than_needed(lab, captured):
    before, after = (
        json.loads(run(lab, "--json", "env", "show", name).stdout)["environment"]
        for name in ("debian-12", "mine")
    )
    for key in ("family", "login", "boot_directory", "disk_id", "root_start_sector"):
        assert after[key] == before[key]
    assert after["image_bytes"] < lab.node(USED).card_file.stat().st_size // 2
    assert captured["notes"] == []
    assert run(lab, "env", "check", "mine").returncode == 0
    assert not [f for f in (lab.site / "environments").iterdir() if f.name.startswith(".")]


def test_the_node_is_its_users_again_with_all_that_was_on_it(lab, captured, old_key):
    row = status(lab, "node-1")
    assert (row["status"], row["environment"]) == ("deployed", "debian-12")
    assert lab.boot_id(USED) != captured["boot_id"]
    assert lab.ssh(USED, "cat /srv/marker", user="pi", key=old_key).stdout == "mine\n"
    assert lab.ssh(USED, "id -un", user="guest", key=old_key).stdout == "guest\n"
    assert lab.ssh(USED, "cat /etc/machine-id").stdout == "0123\n"


def test_another_node_runs_it_as_a_node_of_its_own(lab, captured, deployed):
    assert lab.ssh(NEW, "cat /srv/marker", user="pi", key=deployed).stdout == "mine\n"
    assert lab.ssh(NEW, "cat /etc/hostname").stdout == "node-2\n"
    assert "0123" not in lab.ssh(NEW, "cat /etc/machine-id").stdout
    keys = [lab.ssh(index, "cat /etc/ssh/ssh_host_*_key.pub").stdout for index in (USED, NEW)]
    assert len(set(keys)) == 2


@pytest.mark.parametrize("user", ["root", "pi", "guest"])
def test_the_old_users_get_in_nowhere(lab, deployed, old_key, user):
    assert lab.ssh(NEW, "true", user=user, key=old_key, check=False).returncode == 255
    field = lab.ssh(NEW, f"getent shadow {user} | cut -d: -f2").stdout
    assert field.startswith(("*", "!"))
    assert lab.ssh(NEW, "cat /root/.bash_history", check=False).returncode != 0


def test_a_node_whose_card_is_refused_is_given_back_all_the_same(lab, deployed):
    """Somebody has made a third partition."""
    sfdisk = "sfdisk -q --no-reread --no-tell-kernel"
    lab.ssh(NEW, f"echo 'start=2048, size=2048, type=83' | {sfdisk} -N 3 /dev/mmcblk0; sync")
    done = run(lab, "env", "capture", "node-2", "other", check=False)
    assert done.returncode == 1
    assert "node-2 was not captured: capture_card: " in done.stderr
    assert "partitions 1, 2, 3" in done.stderr
    assert status(lab, "node-2")["status"] == "deployed"
    assert lab.ssh(NEW, "cat /srv/marker").stdout == "mine\n"
    names = [folder.name for folder in (lab.site / "environments").iterdir()]
    assert not [name for name in names if name.startswith(".") or name == "other"]
