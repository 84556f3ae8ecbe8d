"""Hazards 4 to 7: the original took errors for success, and destroyed before it had another."""

import queue
import sys

import disk_images
import pytest
from bench import DEPLOY, PROCESSES
from boot.conftest import ModuleFailed
from card import image as images

from piseduce_runner import planner
from piseduce_runner.environments import list_environments
from piseduce_runner.errors import UserError
from piseduce_runner.images.add import add_environment
from piseduce_runner.planner import Entered, Failed, ImpossibleEvent, Proven, Status
from piseduce_runner.processes import Phase, State
from piseduce_runner.runner import AnsibleRunner
from piseduce_runner.runs import Batch, RunEnded, StateFailed, StateProven

SERIAL = "10000001"


def test_hazard_04_a_node_that_ssh_does_not_reach_has_failed(tmp_path, sshd):
    """A real run: one node's SSH server is gone, the other node is not touched by that."""
    sshd.stop()
    tasks = tmp_path / "roles" / "fine" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text("- name: Do it\n  ansible.builtin.command: 'true'\n")
    (tmp_path / "hosts.yml").write_text("nodes: {hosts: {gone: {}, there: {}}}\n")
    python = {"ansible_python_interpreter": sys.executable}
    gone = {"ansible_host": "127.0.0.1", "ansible_port": sshd.port}
    batch = Batch(
        (State(0, "fine", Phase.NFS, timeout=60),),
        {"gone": python | gone, "there": python | {"ansible_connection": "local"}},
        {"gone": {0: 60.0}, "there": {0: 60.0}},
        {"gone": tmp_path / "gone.log", "there": tmp_path / "there.log"},
    )
    events = queue.SimpleQueue()
    run = AnsibleRunner(tmp_path / "hosts.yml", [tmp_path / "roles"]).start(batch, events.put)
    for node in batch.nodes:
        run.enter(node, 0)
    seen = []
    while not seen or not isinstance(seen[-1], RunEnded):
        seen.append(events.get(timeout=120))
    (failed,) = [event for event in seen if isinstance(event, StateFailed)]
    assert failed.node == "gone"
    assert "Connection refused" in failed.reason
    assert [event.node for event in seen if isinstance(event, StateProven)] == ["there"]


def test_hazard_04_a_system_that_was_not_configured_is_no_success(written, configure):
    run = configure(written)
    assert run.failed
    assert "mount_partition must run again" in run.message


def test_hazard_04_no_state_begins_before_those_in_front_of_it_are_proven():
    record = planner.begin(DEPLOY, "node-1", frozenset())
    planner.apply(record, Entered(0, 60.0), 0.0)
    for position in record.plan[1:]:
        ahead = planner.replace(record, plan=record.plan[position:])
        with pytest.raises(ImpossibleEvent, match="needs boot_conf"):
            planner.apply(ahead, Entered(position, 60.0), 0.0)


def test_hazard_05_the_exit_status_of_the_partitioning_counts(written, run_module, namespace):
    images.call(*namespace, "mount", "--bind", "/bin/false", "/usr/sbin/sfdisk")
    run = run_module(
        "card_partition", device=written.device, state="absent", disk_id=images.DISK_ID, timeout=30
    )
    assert run.failed
    assert "exit status 1" in run.message


@pytest.mark.parametrize("stand_in", ["/bin/false", "/bin/true"])
def test_hazard_05_a_resize2fs_that_fails_or_only_says_that_it_is_done_is_found(
    grown, resize, namespace, stand_in
):
    images.call(*namespace, "mount", "--bind", stand_in, "/usr/sbin/resize2fs")
    assert not resize(grown, "started").failed
    run = resize(grown, "finished")
    assert run.failed
    assert "resize2fs failed (exit status 1)" in run.message or "its partition" in run.message


def test_hazard_05_an_image_that_cannot_be_taken_in_is_not_offered(tmp_path):
    image = disk_images.make(tmp_path / "raspios.img", disk_images.SMALL)
    with image.open("r+b") as file:
        file.truncate(image.stat().st_size - (4 << 20))
    site = tmp_path / "environments"
    site.mkdir()
    with pytest.raises(UserError, match=r"raspios\.img"):
        add_environment(image, site)
    assert list_environments(site) == ([], [])


# Boot files


def fill(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.fixture
def swap(module, tmp_path):
    """swap(**options): tftp_folder on a root where the node has the deploy OS's files."""
    root = tmp_path / "tftp"
    root.mkdir()
    template = fill(tmp_path / "nfs-boot", config_txt="nfs", cmdline_txt="root=/dev/nfs")
    same = {"root": str(root), "serial": SERIAL, "timeout": 20}
    module("tftp_folder", source_folder=str(template), **same)

    def run(**options):
        return module(
            "tftp_folder", required_files=["config.txt", "cmdline.txt"], **same, **options
        )

    run.folder, run.template = root / SERIAL, template
    return run


def test_hazard_06_boot_files_are_swapped_in_not_wiped(swap, sshd, tmp_path):
    good = fill(tmp_path / "card-boot", config_txt="card", cmdline_txt="root=PARTUUID")
    unfinished = fill(tmp_path / "unfinished", config_txt="card")
    before = contents(swap.template)
    for source in (unfinished, tmp_path / "not-there"):
        with pytest.raises(ModuleFailed):
            swap(source_folder=str(source), source_node=sshd.reach())
        assert contents(swap.folder) == before
    sshd.stop()
    with pytest.raises(ModuleFailed, match="connection refused"):
        swap(source_folder=str(good), source_node=sshd.reach())
    assert contents(swap.folder) == before
    swap(source_folder=str(good))
    assert contents(swap.folder) == contents(good)


def lost_in(position, process=DEPLOY):
    """A node that went well until this state, and is lost in it."""
    record = planner.begin(process, "node-1", frozenset())
    while record.state.position != position:
        record = planner.apply(record, Entered(record.state.position, 60.0), 0.0)
        record = planner.apply(record, Proven(record.state.position), 1.0)
    record = planner.apply(record, Entered(position, 60.0), 0.0)
    record = planner.apply(record, Failed(position, "broken", hopeless=True), 1.0)
    assert record.status is Status.LOST
    return record


def resumed(position):
    return [DEPLOY.states[p].name for p in planner.resume(lost_in(position)).plan]


NFS = [state.position for state in DEPLOY.states if state.phase is Phase.NFS]


@pytest.mark.parametrize("position", NFS, ids=lambda position: DEPLOY.states[position].name)
def test_hazard_06_whoever_goes_back_to_the_network_boot_gets_its_files_first(position):
    names = resumed(position)
    assert names[:4] == ["boot_conf", "turn_off", "turn_on", "ssh_test"]
    assert "boot_files" in names


def test_hazard_06_a_failed_restart_does_not_fetch_the_boot_files_again():
    """Once they are in place, a power cycle is the restart."""
    boot_files = next(s for s in DEPLOY.states if s.name == "boot_files")
    record = planner.replace(lost_in(boot_files.position), settled=True)
    names = [DEPLOY.states[p].name for p in planner.resume(record).plan]
    assert names == ["turn_off", "turn_on", "ssh_test", "user_conf"]


# Mounts


def test_hazard_07_what_another_node_left_in_the_mount_points_is_not_taken_for_the_card(
    written, configure, namespace
):
    leftovers = (
        "mkdir -p /mnt/piseduce/boot /mnt/piseduce/root/etc/ssh /mnt/piseduce/root/root && "
        "cd /mnt/piseduce && touch boot/config.txt boot/kernel.img boot/a boot/b && "
        "echo root=/dev/mmcblk0p2 > boot/cmdline.txt && touch root/etc/fstab root/etc/hostname"
    )
    images.call(*namespace, "sh", "-c", leftovers)
    run = configure(written)
    assert run.failed
    assert "mount_partition must run again" in run.message
    assert images.call(*namespace, "cat", "/mnt/piseduce/root/etc/hostname").stdout == ""


def test_hazard_07_a_mount_that_fails_is_a_failure_and_nothing_goes_on_without_it(
    written, run_module, configure, namespace
):
    images.call("wipefs", "--all", f"{written.device}p2")
    run = run_module("card_mount", device=written.device, state="mounted", timeout=60)
    assert run.failed
    assert f"{written.device}p2" in run.message
    assert configure(written).failed
    assert "/mnt/piseduce/root" not in images.call(*namespace, "cat", "/proc/self/mounts").stdout


@pytest.mark.parametrize("position", NFS, ids=lambda position: DEPLOY.states[position].name)
def test_hazard_07_the_card_is_mounted_again_after_a_power_cycle(position):
    names = resumed(position)
    assert "mount_partition" in names
    on_mounts = [n for n in names if n in ("resize_partition", "system_conf", "boot_files")]
    assert all(names.index("mount_partition") < names.index(name) for name in on_mounts)


def test_hazard_07_no_process_goes_on_with_mounts_of_an_earlier_boot():
    for process in PROCESSES.values():
        for state in process.states:
            assert not (state.durable and state.name == "mount_partition")
