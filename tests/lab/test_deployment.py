"""The main job on the lab: what is true of a node after a deployment, and of those that fail.

One deployment of four nodes serves most tests: two good ones, one without a card, one whose port
never comes on. Every claim of the command line is checked against the node itself.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cards import environment
from secret_watch import SecretWatch
from simulated_lab import CLI, SimulatedLab

GOOD = (1, 2)
NO_CARD, STUCK_OFF = 3, 4
PART_BYTES = 1024**3
PASSWORD = "correct 'horse' $battery \"staple\" ünïcödé"
STATES = """
boot_conf turn_off turn_on ssh_test env_copy env_check delete_partition create_partition
mount_partition resize_partition wait_resizing system_conf boot_files ssh_test user_conf
""".split()


@pytest.fixture(scope="module")
def lab(make_lab) -> SimulatedLab:
    """A lab of its own: two of its nodes are broken."""
    return make_lab("--nodes", "4", "--no-card", "node-3", "--stuck-off", "node-4")


@pytest.fixture(scope="module")
def user_key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("user") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def deploy(lab, user_key):
    """Runs `piseduce-run deploy` on nodes of the lab with our key and password."""

    def run(*words, options=()):
        return subprocess.run(
            [
                *lab_command(lab, *options), "deploy", *words, "--env", "debian-12",
                "--ssh-key", f"{user_key}.pub", "--password-stdin",
            ],
            env=lab.environment(), input=PASSWORD + "\n", capture_output=True, text=True,
            timeout=900,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def watch() -> SecretWatch:
    """Looks for the password all the while."""
    return SecretWatch(PASSWORD, PASSWORD.replace("'", "'\"'\"'"))


@pytest.fixture(scope="module")
def deployed(lab, deploy, watch):
    """The one deployment: the completed command."""
    nodes = [f"node-{index}" for index in (*GOOD, NO_CARD, STUCK_OFF)]
    watch.start()
    done = deploy(*nodes, "--part-size", "1gb")
    watch.stop()
    return done


@pytest.fixture(scope="module")
def status(lab, deployed) -> dict[str, dict]:
    output = subprocess.run(
        lab_command(lab, "--json", "status"), env=lab.environment(), capture_output=True, check=True
    ).stdout
    return {row["node"]: row for row in json.loads(output)["nodes"]}


def lab_command(lab: SimulatedLab, *words: str) -> list[str]:
    return [sys.executable, "-c", CLI, "--site", str(lab.site), *words]


def on_node(lab, index, command):
    return lab.ssh(index, command).stdout.strip()


def partition_files(device: str, folder: Path) -> dict[str, bytes]:
    """Every file of a FAT partition, by mtools."""
    folder.mkdir()
    subprocess.run(["mcopy", "-s", "-n", "-i", device, "::", folder], check=True)
    return folder_files(folder)


def folder_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_bad_input_is_one_line_and_touches_no_node(lab, tmp_path):
    image = lab.site / "environments" / "debian-12" / "image.img.zst"
    away = tmp_path / "image.img.zst"
    deploy = ["deploy", "node-1", "--env", "debian-12"]

    def refused(*words):
        done = subprocess.run(
            lab_command(lab, *words), env=lab.environment(), capture_output=True, text=True
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "its card has 4096 MiB" in refused(*deploy, "--part-size", "8gb")
    assert "smaller than the root partition" in refused(*deploy, "--part-size", "64mb")
    content = image.read_bytes()
    image.rename(away)
    try:
        assert "image.img.zst" in refused(*deploy)
        image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "damaged" in refused(*deploy)
    finally:
        away.replace(image)
    assert not (lab.site / "state").exists()
    assert lab.booted(1)[0] == "off"


def test_good_nodes_are_deployed_and_the_exit_status_tells_of_the_lost_ones(deployed, status):
    assert deployed.returncode == 1, deployed.stdout + deployed.stderr
    assert [status[f"node-{index}"]["status"] for index in GOOD] == ["deployed", "deployed"]
    assert [status[f"node-{index}"]["status"] for index in (NO_CARD, STUCK_OFF)] == ["lost"] * 2
    assert status["node-1"]["environment"] == "debian-12"


def test_a_node_without_a_card_is_lost_with_a_reason_that_an_admin_understands(status):
    row = status[f"node-{NO_CARD}"]
    assert row["state"] == "env_copy"
    assert "/dev/mmcblk0" in row["reason"]


def test_a_node_whose_port_stays_off_is_lost_with_what_the_switch_said(status):
    row = status[f"node-{STUCK_OFF}"]
    assert row["state"] == "turn_on"
    assert f"port {STUCK_OFF}" in row["reason"]


@pytest.mark.parametrize("index", GOOD)
def test_the_system_that_was_written_runs_under_the_nodes_name(lab, status, index):
    assert on_node(lab, index, "cat /etc/hostname; uname -n").split() == [f"node-{index}"] * 2
    assert on_node(lab, index, "id -un; getent passwd pi | cut -d: -f6").split() == [
        "root",
        "/home/pi",
    ]
    assert lab.booted(index)[0] == "card"
    host_key = on_node(lab, index, "cat /etc/ssh/ssh_host_*_key.pub")
    assert host_key.count("ssh-") == 1
    assert " ".join(host_key.split()[:2]) in (lab.site / "known_hosts").read_text()


@pytest.mark.parametrize("index", GOOD)
def test_the_root_file_system_fills_the_partition_of_the_asked_size(lab, status, index):
    assert (
        on_node(lab, index, "findmnt -n -o TARGET /dev/mmcblk0p2 || findmnt -n -o TARGET /") == "/"
    )
    size = int(on_node(lab, index, "blockdev --getsize64 /dev/mmcblk0p2"))
    assert size == PART_BYTES
    facts = on_node(lab, index, "dumpe2fs -h /dev/mmcblk0p2 2>/dev/null")
    fields = dict(line.split(":", 1) for line in facts.splitlines() if ":" in line)
    assert int(fields["Block count"]) * int(fields["Block size"]) == size


def test_the_keys_of_manager_and_user_work_and_root_has_no_password_login(lab, status, user_key):
    for user in ("pi", "root"):
        assert lab.ssh(1, "id -un", user=user, key=user_key).stdout.strip() == user
    settings = on_node(lab, 1, "sshd -T -C user=root,host=x,addr=127.0.0.1 2>/dev/null")
    assert "permitrootlogin yes" not in settings
    assert on_node(lab, 1, "getent shadow root | cut -d: -f2")[:1] in ("*", "!")


def test_the_password_is_the_default_users(lab, status):
    hashed = on_node(lab, 1, "getent shadow pi | cut -d: -f2")
    salt = hashed.split("$")[2]
    again = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"],
        input=PASSWORD, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert hashed == again


def test_the_login_lines_that_were_shown_work(deployed):
    lines = [line for line in deployed.stdout.splitlines() if line.startswith("log in as ")]
    assert len(lines) == 2
    for line in lines:
        user, _, command = line.removeprefix("log in as ").partition(": ")
        done = subprocess.run(
            [*shlex.split(command), "id", "-un"], capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.stdout.strip() == user, done.stderr


def test_every_state_is_in_the_journal_with_its_end(lab, status):
    output = lab_json(lab, "history", "node-1")
    assert [row["state"] for row in output["transitions"]] == STATES
    assert {row["outcome"] for row in output["transitions"]} == {"proven"}
    assert all(row["seconds"] >= 0 for row in output["transitions"])


def is_alive(pid: str) -> bool:
    return Path("/proc", pid).exists()


def lab_json(lab, *words):
    done = subprocess.run(
        lab_command(lab, "--json", *words), env=lab.environment(), capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_log_shows_ansibles_words_for_the_failed_state(lab, status):
    output = lab_json(lab, "log", f"node-{NO_CARD}")
    assert output["state"] == "env_copy"
    assert "/dev/mmcblk0" in output["text"]


def test_no_secret_and_no_process_is_left(lab, deployed, status):
    hashed = on_node(lab, 1, "getent shadow pi | cut -d: -f2")
    for path in (lab.site / "state").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PASSWORD.encode() not in content, path
            if path.suffix == ".log":
                assert hashed.encode() not in content, path
    assert PASSWORD not in deployed.stdout + deployed.stderr
    # A folder is named after its driver's process; another driver may be at work here.
    left = [f for f in Path("/run").glob("piseduce-[0-9]*") if not is_alive(f.name.split("-")[1])]
    assert left == []


def test_the_password_was_in_no_process_and_in_no_file_of_ansible_at_any_time(deployed, watch):
    assert any(command.endswith("ansible-playbook") for command in watch.commands_seen)
    assert watch.found == set()


def test_no_password_is_in_what_the_commands_show(lab, status):
    hashed = on_node(lab, 1, "getent shadow pi | cut -d: -f2")
    for words in (["status"], ["history"], ["log", "node-1", "--all"], ["env", "list"]):
        for options in ([], ["--json"]):
            done = subprocess.run(
                lab_command(lab, *options, *words),
                env=lab.environment(), capture_output=True, text=True, check=True,
            )  # fmt: skip
            for secret in (PASSWORD, hashed):
                assert secret not in done.stdout + done.stderr


def test_update_brings_the_newer_package_and_its_boot_file_to_the_tftp_folder(lab, status, deploy):
    done = deploy("node-2", "--update", "--replace", options=("--json",))
    assert done.returncode == 0, done.stdout + done.stderr
    cost = json.loads(done.stdout)["cost"]
    assert cost["runs"] == 3
    assert on_node(lab, 2, "dpkg-query -W -f '${Version}' pi-boot-sample") == "1.1"
    assert "1.1" in (lab.node_tftp(2) / "pi-boot-sample.txt").read_text()
    states = [row["state"] for row in lab_json(lab, "history", "node-2")["transitions"]]
    assert states[-6:] == [
        "boot_files", "ssh_test", "system_update", "boot_update", "ssh_test", "user_conf",
    ]  # fmt: skip


def test_the_tftp_folder_equals_the_boot_partition_and_both_file_systems_are_clean(
    lab, status, tmp_path
):
    for index in GOOD:
        on_node(lab, index, "sync")
        lab.power(index, False)
        lab.wait_booted(index, "off")
        device = lab.loop_device(index)
        on_card = partition_files(f"{device}p1", tmp_path / f"boot-{index}")
        assert on_card == folder_files(lab.node_tftp(index).resolve())
        assert "bootcode.bin" not in on_card
        assert b"init=" not in on_card["cmdline.txt"]
        subprocess.run(["fsck.vfat", "-n", f"{device}p1"], check=True, stdout=subprocess.DEVNULL)
        # A journal that waits to be replayed is clean: the power was cut from a running system.
        subprocess.run(["e2fsck", "-p", f"{device}p2"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["e2fsck", "-f", "-n", f"{device}p2"], check=True, capture_output=True)
    assert (
        environment(lab).disk_id
        in subprocess.run(
            ["sfdisk", "--dump", lab.loop_device(1)], capture_output=True, text=True, check=True
        ).stdout
    )
