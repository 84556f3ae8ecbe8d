"""Faults of a node's system: each is seen from outside, and a good node is left when it is gone."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import cards
import pytest
from simulated_lab import SimulatedLab
from test_up_and_down import wait_until

from piseduce_runner.lab import procfs

NODE, CARD_NODE = 1, 2


@pytest.fixture(scope="module")
def module_lab(make_lab, tmp_path_factory) -> SimulatedLab:
    """node-1 runs the deploy OS, node-2 the system on its card."""
    lab = make_lab("--nodes", "2")
    image = tmp_path_factory.mktemp("image") / "good.img"
    cards.make_good_image(lab, f"node-{CARD_NODE}", image)
    cards.insert_image(lab, CARD_NODE, image)
    cards.insert_boot_files(lab, CARD_NODE, image)
    cards.insert_nfs_boot_files(lab, NODE)
    return lab


@pytest.fixture
def lab(module_lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The lab without faults, both nodes running."""
    for index in (NODE, CARD_NODE):
        module_lab.power(index, True)
    for index in (NODE, CARD_NODE):
        module_lab.wait_ssh(index)
    yield module_lab
    module_lab.clear_faults()


def restart(lab: SimulatedLab, index: int) -> None:
    lab.power(index, False)
    lab.wait_booted(index, "off")
    lab.power(index, True)


def banner(lab: SimulatedLab, index: int, seconds: float) -> bytes:
    """What the node's SSH server says first; TimeoutError: nothing for so long."""
    with socket.create_connection((lab.node(index).address, 22), timeout=60) as connection:
        connection.settimeout(seconds)
        return connection.recv(100)


def test_a_frozen_node_goes_on_when_it_is_thawed(lab):
    before = lab.boot_id(NODE)
    lab.fault("freeze", NODE)
    with pytest.raises(TimeoutError):
        banner(lab, NODE, 1)
    lab.clear_faults()
    lab.wait_ssh(NODE)
    assert lab.boot_id(NODE) == before


def test_a_power_cycle_ends_a_freeze(lab):
    lab.fault("freeze", NODE)
    restart(lab, NODE)
    lab.wait_ssh(NODE)
    wait_until(lambda: lab.folder.status()["faults"] == [])


def test_a_crashed_node_is_dead_until_a_power_cycle(lab):
    lab.ssh(CARD_NODE, "echo 1 > /root/synced; sync -f /root; echo 1 > /root/not-synced")
    lab.fault("crash", CARD_NODE)
    assert "kernel panic" in lab.wait_booted(CARD_NODE, "dead")
    assert lab.folder.status()["faults"] == []
    restart(lab, CARD_NODE)
    lab.wait_ssh(CARD_NODE)
    files = lab.ssh(CARD_NODE, "ls /root").stdout.split()
    assert "synced" in files
    assert "not-synced" not in files


def test_ssh_accepts_and_hangs(lab):
    lab.fault("ssh-hang", NODE)
    with pytest.raises(TimeoutError):
        banner(lab, NODE, 1)
    lab.clear_faults()
    assert banner(lab, NODE, 60).startswith(b"SSH-")


def test_ssh_is_refused(lab):
    lab.fault("ssh-refused", NODE)
    with pytest.raises(ConnectionRefusedError):
        banner(lab, NODE, 60)
    lab.clear_faults()
    assert banner(lab, NODE, 60).startswith(b"SSH-")


def asked_to_end(lab: SimulatedLab, index: int) -> bool:
    """Whether a SIGTERM waits for the node's init: `reboot` was asked for, and nothing follows."""
    namespace = procfs.namespace_id(lab.folder.namespace(index))
    for pid in procfs.processes_in({namespace}):
        fields = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        if fields["NSpid"].split()[1:] == ["1"]:
            return bool(int(fields["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_a_reboot_is_ignored_until_the_fault_is_cleared(lab):
    before = lab.boot_id(CARD_NODE)
    lab.fault("reboot-ignored", CARD_NODE)
    lab.ssh(CARD_NODE, "reboot")
    wait_until(lambda: asked_to_end(lab, CARD_NODE))
    assert lab.boot_id(CARD_NODE) == before
    log = lab.folder.board(f"node-{CARD_NODE}") / "log"
    length = len(log.read_text())
    lab.clear_faults()
    wait_until(lambda: "card" in log.read_text()[length:].partition("reboot")[2])


def test_a_board_hangs_in_its_reboot_until_a_power_cycle(lab):
    lab.fault("reboot-hang", NODE)
    lab.ssh(NODE, "reboot")
    assert "hangs in its reboot" in lab.wait_booted(NODE, "dead")
    restart(lab, NODE)
    lab.wait_booted(NODE, "nfs")


def test_the_old_system_on_the_card_answers_instead_of_the_deploy_os(lab):
    lab.fault("old-system", CARD_NODE)
    cards.insert_nfs_boot_files(lab, CARD_NODE)
    restart(lab, CARD_NODE)
    assert lab.wait_ssh(CARD_NODE) == f"node-{CARD_NODE}"
    lab.clear_faults()
    restart(lab, CARD_NODE)
    assert lab.wait_ssh(CARD_NODE) == "nfspi"
