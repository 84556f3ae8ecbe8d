"""Faults of network boot, of the cable and of the manager's services, as a node meets them."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import cards
import pytest
from simulated_lab import SimulatedLab

from piseduce_runner.lab.procfs import NETNS_FOLDER
from piseduce_runner.lab.settings import HTTP_PORT

NODE = 1
IMAGE = "environments/debian-12/image.img.zst"
# Asks TFTP for a file, waits for a second, prints the answer's first two bytes.
ASK_TFTP = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.settimeout(float(sys.argv[3]))
server.sendto(b"\\0\\1" + sys.argv[2].encode() + b"\\0octet\\0", (sys.argv[1], 69))
try:
    print(server.recv(2000)[:2].hex())
except TimeoutError:
    print("silence")
"""
# Sends 400 datagrams that look like TFTP to the manager's UDP port.
SEND_MANY = """
import socket, sys
way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(400):
    way.sendto(b"\\0\\4" + number.to_bytes(2, "big"), (sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def module_lab(make_lab) -> SimulatedLab:
    lab = make_lab("--nodes", "3")
    for index in (1, 2, 3):
        cards.insert_nfs_boot_files(lab, index)
    return lab


@pytest.fixture
def lab(module_lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The lab with every node off, and no fault set, before and after the test."""
    module_lab.power_off_everything()
    yield module_lab
    module_lab.clear_faults()


@pytest.fixture
def running(module_lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The lab with node-1 running the deploy OS, and no fault set, before and after the test."""
    module_lab.power(NODE, True)
    module_lab.wait_ssh(NODE)
    yield module_lab
    module_lab.clear_faults()


def in_network_of(lab: SimulatedLab, *command: object) -> subprocess.CompletedProcess:
    """Runs a command of this machine where node-1's cable ends."""
    place = f"--net={NETNS_FOLDER / lab.folder.namespace(NODE)}"
    words = ["nsenter", place, *map(str, command)]
    return subprocess.run(words, capture_output=True, timeout=150)


def ask_tftp(lab: SimulatedLab, seconds: float = 60) -> str:
    """How TFTP answers node-1: 0003 (data), 0005 (error), silence."""
    name = f"{lab.node(NODE).serial}/cmdline.txt"
    program = [sys.executable, "-c", ASK_TFTP, lab.settings.manager_address, name, seconds]
    return in_network_of(lab, *program).stdout.decode().strip()


def download(lab: SimulatedLab, path: str = IMAGE, seconds: float = 120):
    """A download by node-1; the completed curl, with the bytes that came."""
    url = f"http://{lab.settings.manager_address}:{HTTP_PORT}/{path}"
    return in_network_of(lab, "curl", "--silent", "--fail", "--max-time", seconds, url)


def restarted(lab: SimulatedLab) -> SimulatedLab:
    lab.power(NODE, False)
    lab.wait_booted(NODE, "off")
    lab.power(NODE, True)
    return lab


def test_boards_that_start_after_others_hang_in_network_boot(lab):
    lab.fault("boot-crowd", "switch-1", most=2, seconds=600)
    for index in (1, 2, 3):
        lab.power(index, True)
        lab.wait_booted(index, "nfs" if index < 3 else "dead")
    assert "hangs in network boot" in lab.booted(3)[1]
    lab.clear_faults()
    lab.power(3, False)
    lab.wait_booted(3, "off")
    lab.power(3, True)
    lab.wait_booted(3, "nfs")


def test_starts_that_are_far_enough_apart_are_no_crowd(lab):
    lab.fault("boot-crowd", "switch-1", most=1, seconds=0)
    for index in (1, 2):
        lab.power(index, True)
        lab.wait_booted(index, "nfs")


def test_a_share_of_the_tftp_datagrams_is_lost(running):
    """Of 400 datagrams on the way out, some are lost and some are not."""
    address = running.settings.manager_address
    running.fault("tftp-loss", NODE, percent=30)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((address, 0))
        here.settimeout(1)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        port = here.getsockname()[1]
        in_network_of(running, sys.executable, "-c", SEND_MANY, address, port)
        arrived = 0
        with contextlib.suppress(TimeoutError):
            while here.recv(10):
                arrived += 1
    assert 200 < arrived < 350
    running.fault("tftp-loss", NODE, percent=100)
    assert ask_tftp(running, 1) == "silence"
    assert running.wait_ssh(NODE) == "nfspi", "nothing else is lost"
    running.clear_faults()
    assert ask_tftp(running) == "0003"


def test_the_boot_files_are_missing_for_one_node_only(lab):
    lab.fault("tftp-missing", NODE)
    lab.power(NODE, True)
    lab.power(2, True)
    assert "cmdline.txt" in lab.wait_booted(NODE, "dead")
    lab.wait_booted(2, "nfs")
    assert (lab.node_tftp(NODE) / "cmdline.txt").exists()
    lab.clear_faults()
    restarted(lab).wait_booted(NODE, "nfs")


def test_tftp_of_the_manager_does_not_answer(running):
    running.fault("tftp-down", "manager")
    assert ask_tftp(running, 1) == "silence"
    running.clear_faults()
    assert ask_tftp(running) == "0003"


def test_another_mac_address(running):
    running.fault("wrong-mac", NODE)
    shown = in_network_of(running, "ip", "link", "show", "eth0").stdout.decode()
    assert "dc:a6:32:ff:ff:01" in shown
    running.clear_faults()
    restarted(running).wait_booted(NODE, "nfs")


def test_a_cut_cable(running):
    running.fault("link-cut", NODE)
    assert running.ssh(NODE, "true", check=False, connect_timeout=1).returncode == 255
    running.clear_faults()
    running.wait_ssh(NODE)


def test_a_slow_cable(running):
    show = ["tc", "qdisc", "show", "dev"]

    def both_ends() -> list[bytes]:
        at_the_switch = subprocess.check_output([*show, running.folder.link(NODE)])
        return [at_the_switch, in_network_of(running, *show, "eth0").stdout]

    running.fault("link-slow", NODE, rate="8M")
    assert all(b"tbf" in end and b"rate 8Mbit" in end for end in both_ends())
    running.clear_faults()
    assert not any(b"tbf" in end for end in both_ends())


def test_one_bit_of_the_image_flips_for_one_node_only(running):
    good = (running.site / IMAGE).read_bytes()
    description = (running.site / IMAGE).with_name("environment.yml").read_bytes()
    running.fault("image-corrupt", NODE, at=1000)
    came = download(running).stdout
    assert len(came) == len(good)
    assert came[:1000] == good[:1000]
    assert came[1000] == good[1000] ^ 1
    assert came[1001:] == good[1001:]
    assert download(running, "environments/debian-12/environment.yml").stdout == description
    running.clear_faults()
    assert download(running).stdout == good


def test_the_download_of_the_image_ends_early_once(running):
    good = (running.site / IMAGE).read_bytes()
    running.fault("image-short", NODE, times=1)
    short = download(running)
    assert short.returncode == 18, "curl: partial file"
    assert short.stdout == good[: len(good) // 2]
    assert download(running).stdout == good


def test_the_image_server_is_stopped_and_started(running):
    running.fault("http-down", "manager")
    assert download(running).returncode == 7, "curl: could not connect"
    running.clear_faults()
    assert download(running).returncode == 0
    assert running.folder.status()["services"] == {"dnsmasq": True, "nginx": True}


def test_the_image_server_accepts_and_says_nothing(running):
    running.fault("http-stall", "manager")
    done = download(running, seconds=1)
    assert (done.returncode, done.stdout) == (28, b""), "curl: timeout, after it had connected"
    running.clear_faults()
    assert download(running).returncode == 0
