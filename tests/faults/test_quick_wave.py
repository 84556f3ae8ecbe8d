"""Four nodes at once, each struck by something else: all lost for the true reason, all deployed.

node-1's plug is pulled while its card is written, and its port stays dead; node-2's card flips a
bit; node-3 stands still in resize_partition; the switch lies about node-4.
"""

import subprocess
from dataclasses import dataclass, field

import pytest
from driven_lab import PATIENCE, DrivenLab
from test_up_and_down import wait_until

from piseduce_runner.lab.faults.bad_cell import place_in_image

NODES = [f"node-{index}" for index in (1, 2, 3, 4)]
PULLED, CORRUPT, FROZEN, LIED = NODES
# What a site writes that knows its machines: these boards answer at once or never.
POLICY = {
    "turn_on": {"timeout": 12, "retries": 0},
    "env_copy": {"retries": 0},
    "env_check": {"power_cycle": False},
    "resize_partition": {"timeout": 20, "retries": 0, "power_cycle": False},
}
# Stands in the place of e2fsck on the deploy OS, and only ends when resize_partition did not ask.
SLOW_E2FSCK = """
cp /usr/sbin/e2fsck /run/e2fsck
cat > /run/slow-e2fsck <<'END'
#!/bin/sh
case " $* " in *" -f "*) touch /run/checking; exec sleep 3600;; esac
exec /run/e2fsck "$@"
END
chmod +x /run/slow-e2fsck
mount --bind /run/slow-e2fsck /usr/sbin/e2fsck
"""


@dataclass
class Wave:
    """What was seen: after the faults, and after the reboots without them."""

    lost: dict[str, dict] = field(default_factory=dict)
    keys_on_deploy_os: str = ""
    rebooted: subprocess.CompletedProcess | None = None


@pytest.fixture(scope="module")
def driven(make_lab) -> DrivenLab:
    driven = DrivenLab(make_lab("--nodes", "4"))
    driven.set_policy(POLICY)
    return driven


@pytest.fixture(scope="module")
def wave(driven) -> Wave:
    lab, seen = driven.lab, Wave()
    lab.fault("snmp-lie", LIED)
    lab.fault("card-corrupt", CORRUPT, times=0)
    lab.fault("card-slow", PULLED, rate="4M")
    lab.fault("card-slow", FROZEN, rate="4M")
    with driven.running("deploy", *NODES, "--env", "debian-12") as command:
        driven.wait_state(FROZEN, "env_copy")
        lab.ssh(3, SLOW_E2FSCK)
        seen.keys_on_deploy_os = lab.ssh(
            3, "grep -rlE 'PRIVATE KEY' /etc /root /home /srv /var 2>/dev/null", check=False
        ).stdout
        lab.clear_faults("card-slow", FROZEN)
        driven.wait_for(PULLED, lambda held: held.state == "env_copy" and (held.percent or 0) > 0)
        lab.fault("port-stuck-off", PULLED)
        lab.power(1, False)
        driven.wait_state(FROZEN, "resize_partition")
        wait_until(lambda: lab.ssh(3, "test -e /run/checking", check=False).returncode == 0)
        lab.fault("freeze", FROZEN)
        output, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1, output
    seen.lost = driven.status()
    lab.clear_faults()
    flip_bit(driven, 2)  # the card forgets no more, but what it has forgotten is gone
    seen.rebooted = subprocess.run(
        driven.command("reboot", *NODES), env=lab.environment(), capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    return seen


def flip_bit(driven: DrivenLab, index: int) -> None:
    """In the midst of what the copy wrote to the node's card."""
    at = place_in_image(driven.lab.site / "environments")
    with driven.lab.node(index).card_file.open("r+b") as card:
        card.seek(at)
        byte = card.read(1)[0]
        card.seek(at)
        card.write(bytes([byte ^ 1]))


def outcomes(driven, node: str) -> list[tuple[str, str]]:
    return [(line.state, line.outcome.value) for line in driven.journal(node)]


def reasons(driven, node: str) -> list[str]:
    return [line.reason for line in driven.journal(node) if line.outcome.value == "failed"]


def test_each_node_is_lost_and_an_admin_reads_why(wave):
    assert {row["status"] for row in wave.lost.values()} == {"lost"}
    states = {node: row["state"] for node, row in wave.lost.items()}
    assert states == {
        PULLED: "turn_on", CORRUPT: "env_check", FROZEN: "resize_partition", LIED: "turn_on",
    }  # fmt: skip
    assert all(row["hint"] for row in wave.lost.values())


def test_the_pulled_plug_is_told_by_ssh_and_then_by_the_port(wave, driven):
    copy, on = reasons(driven, PULLED)[:2]
    assert "Write the image's mapped blocks to the card" in copy
    assert "does not answer over SSH" in copy
    assert "Power the node's port" in on
    assert "port 1" in on
    assert wave.lost[PULLED]["reason"] == on


def test_the_flipped_bit_is_told_with_its_bytes(wave):
    reason = wave.lost[CORRUPT]["reason"]
    assert "Read the card back" in reason
    assert "bytes" in reason and "differ" in reason


def test_the_frozen_node_is_told_with_its_deadline_and_what_it_was_doing(wave):
    reason = wave.lost[FROZEN]["reason"]
    assert "Start growing the root file system" in reason
    assert "20 s" in reason or "does not answer over SSH" in reason


def test_the_lie_of_the_switch_is_told_with_its_port(wave):
    reason = wave.lost[LIED]["reason"]
    assert "Power the node's port" in reason
    assert "port 4" in reason


def test_without_the_faults_a_reboot_of_each_ends_deployed(wave, driven):
    assert wave.rebooted.returncode == 0, wave.rebooted.stdout + wave.rebooted.stderr
    assert {row["status"] for row in driven.status().values()} == {"deployed"}
    for index in range(1, 5):
        assert driven.lab.booted(index)[0] == "card"
        assert driven.lab.hostname_over_ssh(index) == f"node-{index}"


BOOT = ["boot_conf", "turn_off", "turn_on", "ssh_test"]
PARTITION = ["delete_partition", "create_partition", "mount_partition", "resize_partition"]
REST = ["wait_resizing", "system_conf", "boot_files", "ssh_test", "user_conf"]


@pytest.mark.parametrize(
    ("node", "story"),
    [
        (
            PULLED,
            [*BOOT, "env_copy!", "boot_conf", "turn_off", "turn_on!"]
            + [*BOOT, "env_copy", "env_check", *PARTITION, *REST],
        ),
        (
            CORRUPT,
            [*BOOT, "env_copy", "env_check!", "env_copy", "env_check!"]
            + [*BOOT, "env_check!", "env_copy", "env_check", *PARTITION, *REST],
        ),
        (
            FROZEN,
            [*BOOT, "env_copy", "env_check", *PARTITION[:-1], "resize_partition!"]
            + [*BOOT, "mount_partition", "resize_partition", *REST],
        ),
        (
            LIED,
            ["boot_conf", "turn_off", "turn_on!"]
            + [*BOOT, "env_copy", "env_check", *PARTITION, *REST],
        ),
    ],
)
def test_the_journal_tells_the_story(wave, driven, node, story):
    told = [state if end == "proven" else f"{state}!" for state, end in outcomes(driven, node)]
    assert told == story


def test_the_journal_tells_who_asked(wave, driven):
    for node in NODES:
        acts = driven.ask(lambda store, node=node: store.acts(node))
        assert [act.what for act in acts] == ["deploy", "reboot"]


def test_hazard_24_on_the_deploy_os_lies_no_key_but_its_own_host_key(wave):
    assert wave.keys_on_deploy_os.split() == ["/etc/ssh/ssh_host_ed25519_key"]
