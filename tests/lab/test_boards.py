"""Boards: power only by SNMP, real boots, reboots, pulled plugs, and a world of their own."""

import os
import subprocess
from pathlib import Path

import cards
import pytest
import yaml
from simulated_lab import SimulatedLab

from piseduce_runner.lab import procfs
from piseduce_runner.lab.switch_ports import ADMIN

NODE = 2


@pytest.fixture
def nfs_lab(idle_lab: SimulatedLab) -> SimulatedLab:
    """The lab with node-2 running the deploy OS, and a blank card in it."""
    cards.erase_card(idle_lab, NODE)
    cards.insert_nfs_boot_files(idle_lab, NODE)
    idle_lab.power(NODE, True)
    idle_lab.wait_booted(NODE, "nfs")
    assert idle_lab.wait_ssh(NODE) == "nfspi"
    return idle_lab


@pytest.fixture(scope="module")
def good_image(lab: SimulatedLab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = tmp_path_factory.mktemp("image") / "good.img"
    cards.make_good_image(lab, f"node-{NODE}", image)
    return image


@pytest.fixture
def card_lab(idle_lab: SimulatedLab, good_image: Path) -> SimulatedLab:
    """The lab with node-2 running the system on its card."""
    cards.insert_image(idle_lab, NODE, good_image)
    cards.insert_boot_files(idle_lab, NODE, good_image)
    idle_lab.power(NODE, True)
    idle_lab.wait_booted(NODE, "card")
    assert idle_lab.wait_ssh(NODE) == f"node-{NODE}"
    return idle_lab


def processes_of(lab: SimulatedLab, index: int) -> set[int]:
    identity = procfs.namespace_id(lab.folder.namespace(index))
    return {pid for pid in procfs.processes_in({identity}) if not procfs.is_zombie(pid)}


def test_deploy_os_shows_the_host_key_that_the_site_knows(nfs_lab):
    known = (nfs_lab.site / "keys/nfs_host_key.pub").read_text().split()[:2]
    done = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", nfs_lab.node(NODE).address],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-2:] == known


def test_power_off_leaves_no_process(nfs_lab):
    assert processes_of(nfs_lab, NODE)
    nfs_lab.power(NODE, False)
    nfs_lab.wait_booted(NODE, "off")
    assert processes_of(nfs_lab, NODE) == set()
    assert nfs_lab.hostname_over_ssh(NODE) is None


def test_each_boot_has_its_own_boot_id(nfs_lab):
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    first = nfs_lab.boot_id(NODE)
    nfs_lab.power(NODE, False)
    nfs_lab.power(NODE, True)
    nfs_lab.wait_booted(NODE, "nfs")
    nfs_lab.wait_ssh(NODE)
    assert len({machine, first, nfs_lab.boot_id(NODE)}) == 3


@pytest.mark.parametrize("last", [True, False])
def test_flapping_port_ends_with_one_board_or_none(idle_lab, last):
    cards.insert_nfs_boot_files(idle_lab, NODE)
    for _ in range(15):
        idle_lab.power(NODE, not last)
        idle_lab.power(NODE, last)
    idle_lab.wait_booted(NODE, "nfs" if last else "off")
    if last:
        assert idle_lab.wait_ssh(NODE) == "nfspi"
    inits = [pid for pid in processes_of(idle_lab, NODE) if _is_first(pid)]
    assert len(inits) == (1 if last else 0)


def _is_first(pid: int) -> bool:
    """Whether a process is PID 1 of a PID namespace of its own."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1] == "1" and len(line.split()) > 2
    return False


def test_both_versions_of_snmp_work(idle_lab):
    plan = yaml.safe_load(idle_lab.folder.plan_file.read_text())["access"]
    name = ".".join(map(str, (*ADMIN, 1, NODE)))
    done = subprocess.run(
        *[
            ["snmpget", "-v3", "-l", "authPriv", "-u", plan["user"], "-a", "SHA", "-x", "AES"]
            + ["-A", plan["auth_password"], "-X", plan["priv_password"], "-Oqvn"]
            + [idle_lab.settings.switch_address, name]
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == idle_lab.snmp("snmpget", "public", name) == "2"


def test_reader_cannot_power_a_node(idle_lab):
    name = ".".join(map(str, (*ADMIN, 1, NODE)))
    with pytest.raises(subprocess.CalledProcessError):
        idle_lab.snmp("snmpset", "public", name, "i", "1")
    assert idle_lab.booted(NODE)[0] == "off"


def test_node_sees_its_card_and_no_other_disk(nfs_lab):
    listed = nfs_lab.ssh(NODE, "lsblk --noheadings --list --bytes --output SIZE,TYPE").stdout
    assert listed.split() == [str(4 << 30), "loop"]
    size = nfs_lab.ssh(NODE, "blockdev --getsize64 /dev/mmcblk0").stdout
    assert int(size) == 4 << 30
    # Loop devices that came after the node's boot are others' business: not looked at here.
    disks = [path.name for path in Path("/sys/block").iterdir() if "loop" not in path.name]
    places = ["/dev/*", *(f"/dev/.kernel/{disk}" for disk in disks)]
    read = "[ -b $f ] && dd if=$f of=/dev/null count=1 2>/dev/null && echo $f"
    found = nfs_lab.ssh(NODE, f"for f in {' '.join(places)}; do {read}; done; true").stdout
    assert found.split() == ["/dev/mmcblk0"]


def test_new_partitions_appear_in_the_node(nfs_lab):
    script = (
        "echo 'start=2048,size=4096,type=83' | sfdisk -q --no-reread --no-tell-kernel /dev/mmcblk0"
        " && partx -a /dev/mmcblk0 && blockdev --getsize64 /dev/mmcblk0p1"
    )
    assert nfs_lab.ssh(NODE, script).stdout.strip() == str(4096 * 512)


def test_node_cannot_harm_the_machine(nfs_lab):
    attempts = [
        "date -s 2001-01-01",
        "echo 1 > /proc/sys/vm/overcommit_memory",
        "[ -f /proc/sysrq-trigger ]",  # /dev/null lies over it
    ]
    for attempt in attempts:
        assert nfs_lab.ssh(NODE, attempt, check=False).returncode != 0, attempt
    nfs_lab.ssh(NODE, "echo 1 > /proc/sys/net/ipv4/ip_forward")  # its own


def test_pulled_plug_loses_what_was_not_flushed_to_the_device(nfs_lab):
    # A process holds the device: the last one to close it flushes it.
    nfs_lab.ssh(
        NODE,
        "exec 9< /dev/mmcblk0; sleep 1000 > /dev/null 2>&1 &"
        "printf flushed | dd of=/dev/mmcblk0 bs=512 seek=8 conv=fsync,notrunc status=none;"
        "printf forgotten | dd of=/dev/mmcblk0 bs=512 seek=800 conv=notrunc status=none",
    )
    nfs_lab.power(NODE, False)
    nfs_lab.wait_booted(NODE, "off")
    with Path(nfs_lab.loop_device(NODE)).open("rb") as device:
        device.seek(8 * 512)
        assert device.read(7) == b"flushed"
        device.seek(800 * 512)
        assert device.read(9) == bytes(9)


def test_pulled_plug_loses_files_that_were_not_synced(card_lab):
    card_lab.ssh(NODE, "echo 1 > /root/synced; sync -f /root; echo 1 > /root/not-synced")
    card_lab.power(NODE, False)
    card_lab.power(NODE, True)
    card_lab.wait_booted(NODE, "card")
    card_lab.wait_ssh(NODE)
    found = card_lab.ssh(NODE, "ls /root").stdout.split()
    assert "synced" in found
    assert "not-synced" not in found


@pytest.mark.parametrize("command", ["reboot", "busybox reboot", "shutdown -r now"])
def test_reboot_goes_through_network_boot_and_keeps_the_card(card_lab, command):
    before = card_lab.boot_id(NODE)
    card_lab.ssh(NODE, f"echo 1 > /root/written; echo 1 > /boot/firmware/written.txt; {command}")
    log = card_lab.folder.board(f"node-{NODE}") / "log"
    card_lab.wait_rebooted(NODE, before)
    assert log.read_text().rpartition("reboot")[2].count("network boot from") == 1
    card_lab.ssh(NODE, "test -e /root/written && test -e /boot/firmware/written.txt")


def test_file_systems_are_clean_after_a_shutdown(card_lab):
    card_lab.ssh(NODE, "echo 1 > /root/written; echo 1 > /boot/firmware/written.txt; halt")
    assert "halted" in card_lab.wait_booted(NODE, "dead")
    card_lab.power(NODE, False)
    card_lab.wait_booted(NODE, "off")
    device = card_lab.loop_device(NODE)
    for check in (["fsck.vfat", "-n", f"{device}p1"], ["e2fsck", "-f", "-n", f"{device}p2"]):
        done = subprocess.run(check, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "recover" not in done.stdout.lower()


def test_unconfigured_image_does_not_come_up(idle_lab, good_image, tmp_path):
    """Its cmdline.txt has an init= of its own, which the board obeys as a kernel does."""
    cards.insert_image(idle_lab, NODE, good_image)
    cards.insert_boot_files(idle_lab, NODE, good_image)
    cmdline = idle_lab.node_tftp(NODE) / "cmdline.txt"
    words = cmdline.read_text().strip() + " init=/usr/lib/raspi-config/init_resize.sh\n"
    cmdline.write_text(words)
    idle_lab.power(NODE, True)
    assert "halted" in idle_lab.wait_booted(NODE, "dead")


def test_deployed_system_reaches_the_apt_repository(card_lab):
    done = card_lab.ssh(NODE, "apt-get update && apt-cache policy pi-boot-sample")
    assert "http://pimaster:8000/apt" in done.stdout


def test_killed_board_process_is_a_dead_board(nfs_lab):
    inits = [pid for pid in processes_of(nfs_lab, NODE) if _is_first(pid)]
    os.kill(inits[0], 9)
    assert "init ended" in nfs_lab.wait_booted(NODE, "dead")


def test_a_board_does_not_hold_the_mounts_of_the_machine(idle_lab, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "busy", tmp_path], check=True)
    try:
        cards.remove_boot_files(idle_lab, NODE)
        idle_lab.power(NODE, True)
        idle_lab.wait_booted(NODE, "dead")
        (init,) = [pid for pid in processes_of(idle_lab, NODE) if _is_first(pid)]
        held = [point for _, point, _ in procfs.mounts_of(init)]
        assert "/" in held
        assert str(tmp_path) not in held
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_network_of_a_board_starts_afresh(nfs_lab):
    nfs_lab.ssh(NODE, "ip link add left type bridge && ip address add 192.0.2.99/32 dev eth0")
    before = nfs_lab.boot_id(NODE)
    nfs_lab.ssh(NODE, "reboot")
    nfs_lab.wait_rebooted(NODE, before)
    shown = nfs_lab.ssh(NODE, "ip -brief address").stdout
    assert "left" not in shown
    assert "192.0.2.99" not in shown
    assert nfs_lab.node(NODE).address in shown


def test_slow_lab_is_really_limited(make_lab):
    slow = make_lab(
        *("--nodes", "1", "--card-rate", "5M", "--link-rate", "100M", "--boot-time", "0.5")
    )
    link = subprocess.run(
        ["tc", "qdisc", "show", "dev", slow.folder.link(1)], capture_output=True, text=True
    )
    assert "tbf" in link.stdout
    assert "rate 100Mbit" in link.stdout
    number = Path("/sys/block", Path(slow.loop_device(1)).name, "dev").read_text().strip()
    limits = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
    if limits.exists():
        assert f"{number} {5 << 20}" in limits.read_text().splitlines()
    cards.insert_nfs_boot_files(slow, 1)
    slow.power(1, True)
    assert slow.wait_ssh(1) == "nfspi"
    slow.down()
    if limits.exists():
        assert not [line for line in limits.read_text().splitlines() if line.startswith(number)]
