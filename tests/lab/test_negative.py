"""What must not work: a board that is not given everything never runs the deployed system.

The first test is the positive control: the same card and the same TFTP folder, undamaged.
"""

import os
from collections.abc import Callable
from pathlib import Path

import cards
import pytest
from simulated_lab import SimulatedLab

NODE = 1


@pytest.fixture(scope="module")
def good_image(lab: SimulatedLab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("image") / "good.img"
    cards.make_good_image(lab, f"node-{NODE}", image)
    return image


@pytest.fixture
def deployed(idle_lab: SimulatedLab, good_image: Path) -> SimulatedLab:
    """The lab with node-1 off, and everything in place for it to boot from its card."""
    cards.insert_image(idle_lab, NODE, good_image)
    cards.insert_boot_files(idle_lab, NODE, good_image)
    return idle_lab


def assert_dead(lab: SimulatedLab, why: str) -> None:
    """The board is on and ends up dead for this reason, and nobody answers at its address."""
    lab.power(NODE, True)
    assert why in lab.wait_booted(NODE, "dead")
    assert lab.hostname_over_ssh(NODE) is None


def test_good_card_and_folder_boot_the_deployed_system(deployed):
    deployed.power(NODE, True)
    deployed.wait_booted(NODE, "card")
    assert deployed.wait_ssh(NODE) == f"node-{NODE}"
    root = deployed.ssh(NODE, "findmnt -n -o SOURCE /; cat /proc/cmdline").stdout
    assert "p2" in root
    assert "root=PARTUUID=" in root


def test_blank_card(deployed):
    cards.erase_card(deployed, NODE)
    assert_dead(deployed, "no partition has PARTUUID")


def test_blank_card_and_root_by_device_name(deployed):
    cmdline = deployed.node_tftp(NODE) / "cmdline.txt"
    cmdline.write_text("root=/dev/mmcblk0p2 rootwait\n")
    cards.erase_card(deployed, NODE)
    assert_dead(deployed, "no such partition")


def test_wiped_superblock(deployed):
    device = deployed.loop_device(NODE)
    offset = cards.environment(deployed).root_start_sector * 512
    descriptor = os.open(device, os.O_WRONLY)
    os.pwrite(descriptor, bytes(64 << 10), offset)
    os.fsync(descriptor)
    os.close(descriptor)
    assert_dead(deployed, "unable to mount root file system")


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_truncated_image(deployed, good_image, share):
    environment = cards.environment(deployed)
    start, length = environment.root_start_sector * 512, environment.root_sectors * 512
    cards.insert_image(deployed, NODE, good_image, start + int(length * share) // 512 * 512)
    deployed.power(NODE, True)
    deployed.wait_booted(NODE, "dead")
    assert deployed.hostname_over_ssh(NODE) is None


def test_missing_cmdline(deployed):
    (deployed.node_tftp(NODE) / "cmdline.txt").unlink()
    assert_dead(deployed, "cmdline.txt")


def test_missing_kernel(deployed):
    (deployed.node_tftp(NODE) / "kernel8.img").unlink()
    assert_dead(deployed, "kernel8.img")


def test_missing_tftp_folder(deployed):
    cards.remove_boot_files(deployed, NODE)
    assert_dead(deployed, "cmdline.txt")


def test_wrong_mac(deployed):
    """The board has been exchanged: its MAC address is not the one that the manager knows."""
    deployed.fault("wrong-mac", NODE)
    try:
        assert_dead(deployed, "no answer to DHCP")
    finally:
        deployed.clear_faults()


@pytest.fixture(scope="module")
def broken_switch(make_lab: Callable[..., SimulatedLab], good_image: Path) -> SimulatedLab:
    """A lab whose switch never powers node-1, and always powers node-2."""
    lab = make_lab("--nodes", "2", "--stuck-off", "node-1", "--stuck-on", "node-2")
    lab.wait_booted(2, "dead")  # on from the beginning, with nothing to boot
    for index in (1, 2):
        cards.insert_image(lab, index, good_image)
        cards.insert_boot_files(lab, index, good_image)
    return lab


def test_port_that_stays_off(broken_switch):
    broken_switch.power(1, True)
    assert broken_switch.detection(1) == 2, "the switch must not claim to deliver power"
    assert broken_switch.hostname_over_ssh(1) is None
    assert broken_switch.booted(1) == ("off", "")


def test_port_that_stays_on(broken_switch):
    broken_switch.power(2, False)
    assert broken_switch.detection(2) == 3, "the switch must not claim that power has gone"
    broken_switch.power(2, True)
    assert broken_switch.hostname_over_ssh(2) is None, "without power cycle there is no new boot"
    assert broken_switch.booted(2)[0] == "dead"


def test_no_card(make_lab, good_image):
    lab = make_lab("--nodes", "1", "--no-card", "node-1")
    cards.insert_boot_files(lab, 1, good_image)
    lab.power(1, True)
    assert "no card" in lab.wait_booted(1, "dead")
    assert lab.hostname_over_ssh(1) is None
    assert lab.status()["nodes"][0]["card_file"] is None
