"""card_resize: the file system fills its partition, or it is said what has to be done."""

import json
import os
import re
import select
from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB

GROWN = 64 * MIB
OUTCOME = "/run/piseduce/resize.json"


@pytest.fixture
def grown(written, run_module):
    """A card whose root partition is larger than its file system, everything mounted."""
    run = run_module(
        "card_partition",
        device=written.device,
        state="present",
        disk_id=images.DISK_ID,
        start_sector=images.ROOT_START,
        image_sectors=images.ROOT_SECTORS,
        size_bytes=GROWN,
        timeout=30,
    )
    assert not run.failed, run.message
    run = run_module("card_mount", device=written.device, state="mounted", timeout=30)
    assert not run.failed, run.message
    return written


@pytest.fixture
def resize(run_module):
    def run(card, state, **options):
        options = {"timeout": 60, **options}
        return run_module("card_resize", device=card.device, state=state, **options)

    return run


def filesystem_bytes(card):
    text = images.call("dumpe2fs", "-h", f"{card.device}p2").stdout
    blocks, size = (
        int(re.search(rf"{name}:\s+(\d+)", text)[1]) for name in ("Block count", "Block size")
    )
    return blocks * size


def test_file_system_fills_the_partition_and_is_mounted_again(grown, resize, namespace):
    assert filesystem_bytes(grown) == images.ROOT_SECTORS * 512
    started = resize(grown, "started")
    assert not started.failed, started.message
    assert started.result["changed"]
    finished = resize(grown, "finished")
    assert not finished.failed, finished.message
    assert finished.result["filesystem_bytes"] == GROWN
    assert filesystem_bytes(grown) == GROWN
    images.call(*namespace, "test", "-f", "/mnt/piseduce/root/etc/os-release")
    images.call(*namespace, "test", "-f", "/mnt/piseduce/boot/cmdline.txt")
    images.call(*namespace, "umount", "/mnt/piseduce/root")
    images.call("e2fsck", "-fn", f"{grown.device}p2")


def test_both_states_can_be_run_again(grown, resize):
    for state in ("started", "finished"):
        resize(grown, state)
    for state in ("started", "finished", "finished"):
        run = resize(grown, state)
        assert not run.failed, run.message
    assert not run.result["changed"]
    assert filesystem_bytes(grown) == GROWN


def test_finished_without_a_start_says_what_to_do(grown, resize):
    run = resize(grown, "finished")
    assert run.failed
    assert "no resizing was started since this system was booted" in run.message
    assert "resize_partition must run again" in run.message


def test_finished_is_proven_by_the_file_system_after_a_reboot(grown, resize, namespace):
    resize(grown, "started")
    resize(grown, "finished")
    images.call(*namespace, "umount", "/mnt/piseduce/root", "/mnt/piseduce/boot")
    images.call(*namespace, "rm", OUTCOME)
    run = resize(grown, "finished")
    assert not run.failed, run.message
    assert run.result["changed"]


@pytest.fixture
def slow_resize2fs(namespace, tmp_path):
    """Replace resize2fs by one that waits until `go` is written to; returns that pipe."""
    pipe = tmp_path / "go"
    os.mkfifo(pipe)
    helper = tmp_path / "resize2fs"
    helper.write_text(f"#!/bin/sh\nread line < {pipe}\n$line\nexec /usr/bin/env echo done\n")
    helper.chmod(0o755)
    images.call(*namespace, "mount", "--bind", str(helper), "/usr/sbin/resize2fs")
    return pipe


def watcher(card):
    """Process id in the card's lock file: the process that watches resize2fs."""
    number = Path(card.device).stat().st_rdev
    return f"/run/lock/piseduce-card-{os.major(number)}-{os.minor(number)}.lock"


def holder(namespace, card):
    return int(images.call(*namespace, "cat", watcher(card)).stdout.split()[0])


def end_of(pidfd):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000), "the process did not end"
    os.close(pidfd)


def test_card_is_locked_while_it_grows(grown, resize, slow_resize2fs, run_module, namespace):
    assert not resize(grown, "started").failed
    run = run_module("card_mount", device=grown.device, state="mounted", timeout=8)
    assert run.failed
    assert f"locked by process {holder(namespace, grown)} (resize2fs)" in run.message
    slow_resize2fs.write_text("true\n")


def test_waiting_ends_at_its_deadline(grown, resize, slow_resize2fs):
    assert not resize(grown, "started").failed
    run = resize(grown, "finished", timeout=2)
    assert run.failed
    assert "waiting for resize2fs took longer than 2 s" in run.message
    slow_resize2fs.write_text("true\n")


def test_resize2fs_that_takes_too_long_is_ended(grown, resize, slow_resize2fs):
    assert not resize(grown, "started", limit=1).failed
    run = resize(grown, "finished")
    assert run.failed
    assert "resize2fs took longer than 1 s and was ended" in run.message
    assert "resize_partition must run again" in run.message


def test_failure_of_resize2fs_is_reported_with_its_words(grown, resize, slow_resize2fs):
    assert not resize(grown, "started").failed
    slow_resize2fs.write_text("exec ls /nonexistent\n")
    run = resize(grown, "finished")
    assert run.failed
    assert "resize2fs failed (exit status 2)" in run.message
    assert "/nonexistent" in run.message


def test_success_that_is_none_is_found(grown, resize, slow_resize2fs):
    assert not resize(grown, "started").failed
    slow_resize2fs.write_text("true\n")
    run = resize(grown, "finished")
    assert run.failed
    assert f"has {images.ROOT_SECTORS * 512} bytes, its partition {GROWN}" in run.message


def test_watcher_that_was_killed_takes_resize2fs_along_and_can_be_started_again(
    grown, resize, slow_resize2fs, namespace
):
    assert not resize(grown, "started").failed
    pid = holder(namespace, grown)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    child = os.pidfd_open(int(children[0]))
    # It holds the lock itself, should it ever survive the one that watches it.
    opened = [str(file.readlink()) for file in Path(f"/proc/{children[0]}/fd").iterdir()]
    assert any(path.endswith(watcher(grown)) for path in opened)
    os.kill(pid, 9)
    end_of(child)
    run = resize(grown, "finished")
    assert run.failed
    assert "cut off before its end; resize_partition must run again" in run.message
    images.call(*namespace, "umount", "/usr/sbin/resize2fs")
    for state in ("started", "finished"):
        run = resize(grown, state)
        assert not run.failed, run.message
    assert filesystem_bytes(grown) == GROWN


def test_outcome_of_another_partition_size_does_not_count(grown, resize, namespace):
    text = json.dumps({"state": "done", "partition_bytes": 1, "seconds": 0.1, "message": ""})
    images.call(*namespace, "mkdir", "-p", "/run/piseduce")
    images.call(*namespace, "tee", OUTCOME, input=text)
    run = resize(grown, "finished")
    assert run.failed
    assert "no resizing was started" in run.message


def test_file_system_larger_than_its_partition_is_refused(grown, resize, run_module):
    for state in ("started", "finished"):
        assert not resize(grown, state).failed
    run_module(
        "card_partition",
        device=grown.device,
        state="present",
        disk_id=images.DISK_ID,
        start_sector=images.ROOT_START,
        image_sectors=images.ROOT_SECTORS,
        size_bytes=GROWN - 8 * MIB,
        timeout=30,
    )
    run = resize(grown, "started")
    assert run.failed
    assert "larger than its partition" in run.message


def test_damage_that_cannot_be_repaired_is_an_error(grown, resize, run_module):
    run_module("card_mount", device=grown.device, state="unmounted", timeout=30)
    # Without the root folder's inode nothing has a place.
    images.call("debugfs", "-w", "-R", "clri <2>", f"{grown.device}p2")
    run = resize(grown, "started")
    assert run.failed
    assert "image must be written again (env_copy)" in run.message


def test_check_mode_tells_and_changes_nothing(grown, resize):
    run = resize(grown, "started", check=True)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert filesystem_bytes(grown) == images.ROOT_SECTORS * 512
