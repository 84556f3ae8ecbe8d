"""card_write: what is not the card, or not free, is not touched."""

import fcntl
import os
from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB
from .image import assert_holds_image


def test_card_mounted_elsewhere_is_not_touched(
    card, run_module, copy_options, namespace, published
):
    run_module("card_write", device=card.device, **copy_options)
    images.call(*namespace, "mkdir", "-p", "/mnt/home")
    images.call(*namespace, "mount", "-o", "ro", f"{card.device}p2", "/mnt/home")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "mounted on /mnt/home" in run.message
    images.call(*namespace, "umount", "/mnt/home")
    assert_holds_image(card, published)


def test_too_small_card_is_refused_untouched(make_card, run_module, copy_options):
    card = make_card(24 * MIB)
    card.overwrite(0, b"still here")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.hopeless
    assert f"has {24 * MIB} bytes, the image needs {copy_options['image_bytes']}" in run.message
    assert card.read(0, 10) == b"still here"


def test_card_too_small_for_the_partitions_asked_for_is_refused(card, run_module, copy_options):
    card.overwrite(0, b"still here")
    run = run_module("card_write", device=card.device, minimum_bytes=97 * MIB, **copy_options)
    assert run.hopeless
    assert f"the partitions asked for need {97 * MIB}" in run.message
    assert card.read(0, 10) == b"still here"


def test_read_only_card_is_named_as_such(card, run_module, copy_options):
    images.call("blockdev", "--setro", card.device)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.hopeless
    assert "read-only" in run.message


def test_missing_card_is_named_as_such(run_module, copy_options):
    run = run_module("card_write", device="/dev/mmcblk7", **copy_options)
    assert run.hopeless
    assert "/dev/mmcblk7 does not exist" in run.message


def test_a_file_is_not_a_card(run_module, copy_options, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 512)
    run = run_module("card_write", device=str(tmp_path / "file"), **copy_options)
    assert run.hopeless
    assert "not a block device" in run.message


def test_a_partition_is_not_a_card(card, run_module, copy_options):
    run_module("card_write", device=card.device, **copy_options)
    run = run_module("card_write", device=f"{card.device}p2", **copy_options)
    assert run.hopeless
    assert "is a partition" in run.message


def test_disk_of_the_running_system_is_refused(run_module, copy_options):
    disk = Path("/").stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(disk)}:{os.minor(disk)}").resolve()
    if not name.exists():
        pytest.skip("the root of this machine is on no block device")
    device = f"/dev/{(name.parent if (name / 'partition').exists() else name).name}"
    for options in ({}, {"other_media": True}):
        run = run_module("card_write", device=device, check=True, **options, **copy_options)
        assert run.failed
        assert "not an SD card" in run.message or "running system's root" in run.message


def test_second_writer_is_told_who_holds_the_card(
    card, start_module, run_module, server, copy_options, published
):
    server.stall_after = 1000
    first = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    copy_options["timeout"] = 8
    second = run_module("card_write", device=card.device, **copy_options)
    assert second.failed
    assert f"locked by process {first.pid} (card_write)" in second.message
    server.resume.set()
    first.wait()


def test_device_that_another_program_holds_is_not_touched(card, run_module, copy_options):
    card.overwrite(0, b"still here")
    descriptor = os.open(card.device, os.O_RDONLY | os.O_EXCL)
    try:
        run = run_module("card_write", device=card.device, **copy_options)
    finally:
        os.close(descriptor)
    assert run.failed and not run.hopeless
    assert "in use" in run.message
    assert card.read(0, 10) == b"still here"


def test_lock_of_another_program_on_the_device_is_respected(card, run_module, copy_options):
    copy_options["timeout"] = 8
    with Path(card.device).open("rb") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed and not run.hopeless
    assert "locked by another program" in run.message


def test_missing_tool_is_named(card, copy_options, namespace, run_module):
    images.call(*namespace, "mount", "--bind", "/dev/null", "/usr/bin/zstd")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "zstd" in run.message
