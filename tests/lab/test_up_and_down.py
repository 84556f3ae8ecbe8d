"""`lab up`, `lab status`, `lab down`: twice, crashed, side by side, and refused."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_lab import CLI, SimulatedLab

from piseduce_runner.lab import leftovers, network, procfs
from piseduce_runner.lab.folder import MARKER


@pytest.fixture
def other(lab_root: Path) -> Iterator[SimulatedLab]:
    """A lab that is not up yet; it is taken down after the test, whatever happened to it."""
    lab = SimulatedLab(lab_root, f"test-{secrets.token_hex(3)}")
    yield lab
    lab.down()
    assert_nothing_left(lab)


def assert_nothing_left(lab: SimulatedLab) -> None:
    assert leftovers.find(lab.folder) == []
    assert not lab.folder.path.exists()
    assert not Path(f"/run/piseduce-lab-{lab.folder.tag}.lock").exists()


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """A user's mistake: exit status 2 and one line with these words."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def supervisor_of(lab: SimulatedLab) -> int:
    marked = procfs.processes_marked(f"{MARKER}={lab.folder.path}")
    (pid,) = [
        pid
        for pid in marked
        if b"piseduce_runner.lab.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


def wait_until(condition, timeout: float = 60) -> None:
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, "it does not become true"
        time.sleep(0.02)


def test_status_shows_switches_and_nodes(lab):
    status = lab.status()
    assert set(status) == {"lab", "site", "network", "switches", "nodes", "faults"}
    assert status["lab"] == lab.name
    assert status["site"] == str(lab.site)
    assert status["faults"] == []
    (switch,) = status["switches"]
    assert set(switch) == {"name", "address", "udp_port", "ports"}
    assert len(status["nodes"]) == 4
    node = status["nodes"][1]
    assert node == {
        "node": "node-2",
        "address": lab.node(2).address,
        "mac": "dc:a6:32:00:00:02",
        "serial": "10000002",
        "switch": "switch-1",
        "port": 2,
        "power": "off",
        "booted": "off",
        "card_file": str(lab.node(2).card_file),
        "reason": "",
    }


def test_status_as_a_table_names_every_node(lab):
    shown = lab.run("lab", "status", "--name", lab.name).stdout
    for index in range(1, 5):
        assert f"node-{index}" in shown


def test_up_twice_is_harmless(lab):
    before = supervisor_of(lab)
    again = lab.up("--nodes", "4")
    assert "already up" in again.stdout
    assert supervisor_of(lab) == before


def test_up_with_other_settings_is_refused_and_changes_nothing(lab):
    before = lab.settings
    assert_one_line(lab.up("--nodes", "5", check=False), "already up", "nodes 4 (not 5)")
    assert lab.settings == before
    assert lab.folder.is_alive()


def test_two_labs_side_by_side(lab, other):
    other.up("--nodes", "1")
    networks = {lab.status()["network"], other.status()["network"]}
    assert len(networks) == 2
    other.down()
    assert_nothing_left(other)
    assert lab.folder.is_alive()
    assert len(lab.status()["nodes"]) == 4


def test_down_when_nothing_is_there_says_so(lab_root):
    done = SimulatedLab(lab_root, "never-was").down()
    assert "not up" in done.stdout


def test_status_when_nothing_is_there(lab_root):
    done = SimulatedLab(lab_root, "never-was").run(
        "lab", "status", "--name", "never-was", check=False
    )
    assert_one_line(done, "not up", "lab up")


def test_down_after_the_supervisor_was_killed(other):
    other.up("--nodes", "2")
    other.power(1, True)
    other.wait_booted(1, "dead")
    os.kill(supervisor_of(other), signal.SIGKILL)
    wait_until(lambda: not other.folder.is_alive())
    assert_one_line(other.up("--nodes", "2", check=False), "lab down")
    assert_one_line(
        other.run("lab", "status", "--name", other.name, check=False), "does not run any more"
    )
    other.down()
    assert_nothing_left(other)


def test_a_service_that_ended_is_shown_and_the_lab_is_not_called_up(other):
    other.up("--nodes", "1")
    pid = int((other.folder.manager / "dnsmasq.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not other.folder.status()["services"]["dnsmasq"])
    assert "dnsmasq has ended" in other.run("lab", "status", "--name", other.name).stdout
    assert_one_line(other.up("--nodes", "1", check=False), "dnsmasq", "lab down")


def test_down_after_everything_was_killed_but_orphans(other):
    """The supervisor and nginx's master cannot take anything along: the workers stay behind."""
    other.up("--nodes", "1")
    master = int((other.folder.manager / "nginx.pid").read_text())
    workers = procfs.children(master)
    assert workers
    for pid in (master, supervisor_of(other)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: procfs.is_zombie(master))
    assert not any(procfs.is_zombie(pid) for pid in workers)
    other.down()
    assert all(procfs.is_zombie(pid) for pid in workers)


def test_down_after_the_folder_was_deleted_by_hand(other):
    other.up("--nodes", "2")
    subprocess.run(["rm", "-r", other.folder.path], check=True)
    other.down()
    assert_nothing_left(other)


@pytest.mark.parametrize(
    "killed_at",
    ["settings.json", "manager/log/manager.yml.log", "manager/dnsmasq.conf", "supervisor.lock"],
)
def test_down_after_lab_up_was_killed_half_way(other, killed_at):
    process = subprocess.Popen(
        [sys.executable, "-c", CLI, "lab", "up", "--name", other.name, "--nodes", "2"],
        env=other.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until((other.folder.path / killed_at).exists)
    process.kill()
    process.wait()
    other.down()
    assert_nothing_left(other)


def test_up_that_fails_half_way_leaves_nothing(other, tmp_path):
    """The switch's UDP port is taken: only the supervisor notices, at the very end."""
    other.up("--nodes", "1")  # to learn its network
    settings = other.settings
    other.down()
    blocker = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.setsockopt(socket.IPPROTO_IP, 15, 1);"  # IP_FREEBIND
        f"s.bind(({settings.switch_address!r}, 161)); print('bound', flush=True); sys.stdin.read()"
    )
    taken = subprocess.Popen(
        [sys.executable, "-c", blocker], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert taken.stdout.readline() == b"bound\n"
        done = other.up("--nodes", "1", "--network", settings.network, check=False)
    finally:
        taken.communicate()
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "nothing is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_left(other)


def test_taken_network_is_refused(lab, other):
    done = other.up("--nodes", "1", "--network", lab.settings.network, check=False)
    assert_one_line(done, "is taken", "--network")
    assert_nothing_left(other)


@pytest.mark.parametrize("name", ["--name=UPPER", "--name=../x", "--name="])
def test_bad_names_are_refused(lab_root, name):
    done = SimulatedLab(lab_root, "x").run("lab", "up", name, check=False)
    assert_one_line(done, "--name")


def test_not_root_is_one_line(other):
    program = (
        "import os; from piseduce_runner.cli import main;"
        "os.setgid(65534); os.setuid(65534); main()"  # nobody
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "lab", "up", "--name", other.name],
        env=other.environment(),
        capture_output=True,
        text=True,
    )
    assert_one_line(done, "root")


def test_missing_commands_are_named_with_their_packages(other):
    """dnsmasq and nginx are hidden, for this one process."""
    hide = "for c in dnsmasq nginx; do mount --bind /dev/null $(readlink -f $(which $c)); done"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f'{hide}; exec "$@"', "sh"]
        + [sys.executable, "-c", CLI, "lab", "up", "--name", other.name],
        env=other.environment(),
        capture_output=True,
        text=True,
    )
    assert_one_line(done, "dnsmasq", "nginx", "dnsmasq-base", "nginx-light")
    assert_nothing_left(other)


def test_a_busybox_that_needs_libraries_is_refused(other, tmp_path):
    """Boards run it where there is nothing else; Debian has one of each kind."""
    script = tmp_path / "busybox"
    script.write_text('#!/bin/sh\nexec /bin/busybox "$@"\n')
    script.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CLI, "lab", "up", "--name", other.name],
        env=other.environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert_one_line(done, "statically", "busybox-static")


def test_a_full_disk_is_told_before_anything_is_built(other, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "small", tmp_path], check=True)
    try:
        small = SimulatedLab(tmp_path, other.name)
        assert_one_line(small.up("--nodes", "1", check=False), "not enough room")
        assert not small.folder.exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_manager_services_are_configured_by_the_playbook(lab):
    log = lab.folder.manager / "log" / "manager.yml.log"
    assert "Configure DHCP, DNS and TFTP for the nodes" in log.read_text()


def test_chosen_network_is_free(lab):
    taken = [str(found) for found, _ in network.networks_in_use()]
    assert lab.settings.network in taken
    assert network.choose("another", None) not in taken


def test_json_up_prints_the_status(lab):
    done = lab.run("--json", "lab", "up", "--name", lab.name, "--nodes", "4")
    assert json.loads(done.stdout)["lab"] == lab.name


def test_of_two_at_once_one_brings_the_lab_up(other):
    command = [sys.executable, "-c", CLI, "lab", "up", "--name", other.name, "--nodes", "1"]
    both = [
        subprocess.Popen(command, env=other.environment(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 2])
    for process, error in zip(both, errors, strict=True):
        if process.returncode:  # 0 twice: the second came when the first had ended
            assert "another command" in error
    assert other.folder.is_alive()
