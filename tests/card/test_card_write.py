"""card_write: what is on the card afterwards, and every way in which it says no."""

import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB


def mapped(environment_folder):
    """The block map's ranges as bmaptool wrote them: (start, end, digest)."""
    text = (environment_folder / "image.bmap").read_text()
    size = int(re.search(r"<ImageSize>\s*(\d+)", text)[1])
    for digest, first, last in re.findall(r'<Range chksum="(\w+)">\s*(\d+)(?:-(\d+))?', text):
        yield int(first) * 4096, min((int(last or first) + 1) * 4096, size), digest


def assert_holds_image(card, published):
    for start, end, digest in mapped(published / "debian"):
        assert hashlib.sha256(card.read(start, end - start)).hexdigest() == digest, start


def test_card_holds_the_image_and_the_kernel_its_partitions(
    card, run_module, copy_options, published
):
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert_holds_image(card, published)
    assert (
        images.call("blkid", "-o", "value", "-s", "LABEL", f"{card.device}p2").stdout == "rootfs\n"
    )
    images.call("e2fsck", "-fn", f"{card.device}p2")
    images.call("fsck.vfat", "-n", f"{card.device}p1")


def test_holes_of_the_image_are_not_written(card, run_module, copy_options, published):
    run = run_module("card_write", device=card.device, **copy_options)
    total = sum(end - start for start, end, _ in mapped(published / "debian"))
    assert run.result["mapped_bytes"] == total
    assert total <= run.result["written_bytes"] < total * 1.2 < copy_options["image_bytes"]
    # Allocated on a sparse file means written.
    assert card.path.stat().st_blocks * 512 < total * 1.2 + MIB


def test_old_contents_are_discarded(card, run_module, copy_options):
    end = card.path.stat().st_size - MIB
    card.overwrite(end, b"secret of the last user")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.result["discarded"] == ""
    assert card.read(end, 6) == bytes(6)


def test_second_run_begins_again(card, run_module, copy_options, published):
    run_module("card_write", device=card.device, **copy_options)
    start, end, _ = list(mapped(published / "debian"))[-1]
    card.overwrite(start, b"\xff" * 512)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.result["changed"]
    assert_holds_image(card, published)


def test_partitions_of_the_last_system_are_not_seen_any_more(card, run_module, copy_options):
    script = "label: dos\nstart=2048,size=4096,type=83\nstart=8192,size=4096,type=83\nstart=16384\n"
    images.call("sfdisk", "--quiet", "--no-reread", card.device, input=script)
    images.call("partx", "--update", card.device)
    assert Path(f"{card.device}p3").exists()
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert not Path(f"{card.device}p3").exists()
    assert int(images.call("blockdev", "--getsz", f"{card.device}p2").stdout) == images.ROOT_SECTORS


def test_partitions_are_dropped_though_their_table_is_gone(card, run_module, copy_options):
    script = "label: dos\nstart=2048,size=4096,type=83\nstart=8192,size=4096,type=83\n"
    images.call("sfdisk", "--quiet", "--no-reread", card.device, input=script)
    images.call("partx", "--update", card.device)
    card.overwrite(0, bytes(512))
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message


def test_what_an_earlier_attempt_left_mounted_is_unmounted(
    card, run_module, copy_options, namespace
):
    run_module("card_write", device=card.device, **copy_options)
    images.call(*namespace, "mkdir", "-p", "/mnt/piseduce/root")
    images.call(*namespace, "mount", f"{card.device}p2", "/mnt/piseduce/root")
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert run.result["unmounted"] == ["/mnt/piseduce/root"]


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
    assert run.failed
    assert f"has {24 * MIB} bytes, the image needs {copy_options['image_bytes']}" in run.message
    assert card.read(0, 10) == b"still here"


def test_card_too_small_for_the_partitions_asked_for_is_refused(card, run_module, copy_options):
    card.overwrite(0, b"still here")
    run = run_module("card_write", device=card.device, minimum_bytes=97 * MIB, **copy_options)
    assert run.failed
    assert f"the partitions asked for need {97 * MIB}" in run.message
    assert card.read(0, 10) == b"still here"


def test_read_only_card_is_named_as_such(card, run_module, copy_options):
    images.call("blockdev", "--setro", card.device)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "read-only" in run.message


def test_missing_card_is_named_as_such(run_module, copy_options):
    run = run_module("card_write", device="/dev/mmcblk7", **copy_options)
    assert run.failed
    assert "/dev/mmcblk7 does not exist" in run.message


def test_a_file_is_not_a_card(run_module, copy_options, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 512)
    run = run_module("card_write", device=str(tmp_path / "file"), **copy_options)
    assert run.failed
    assert "not a block device" in run.message


def test_a_partition_is_not_a_card(card, run_module, copy_options):
    run_module("card_write", device=card.device, **copy_options)
    run = run_module("card_write", device=f"{card.device}p2", **copy_options)
    assert run.failed
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


def test_missing_image_names_the_address_and_the_status(card, run_module, copy_options):
    run = run_module("card_write", device=card.device, image="none.zst", **copy_options)
    assert run.failed
    assert "/debian/none.zst" in run.message
    assert "404" in run.message


def test_manager_that_does_not_answer_is_named(card, run_module, copy_options):
    copy_options["url"] = "http://127.0.0.1:9/debian"
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot fetch http://127.0.0.1:9/debian/image.bmap" in run.message


@pytest.fixture
def own(published, tmp_path, copy_options, server):
    """A copy of the environment that a test may damage."""
    folder = tmp_path / "debian"
    shutil.copytree(published / "debian", folder)
    copy_options["url"] = f"{server.url}/own/debian"
    return folder


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_block_map_of_another_image_is_refused(card, run_module, copy_options, own):
    damage(own / "image.bmap", 300)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "image.bmap is damaged" in run.message


def test_truncated_download_is_an_error(card, run_module, copy_options, own):
    data = (own / "image.img.zst").read_bytes()
    (own / "image.img.zst").write_bytes(data[: len(data) // 2])
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot decompress" in run.message


def test_damaged_download_is_an_error_and_leaves_no_partitions(card, run_module, copy_options, own):
    data = (own / "image.img.zst").read_bytes()
    damage(own / "image.img.zst", len(data) * 3 // 4)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "cannot decompress" in run.message or "differs from the block map" in run.message
    assert card.read(0, 512) == bytes(512)


def republish(own, image):
    (own / "image.img.zst").unlink()
    images.call("zstd", "-q", str(image), "-o", str(own / "image.img.zst"))


def test_image_that_is_not_the_block_maps_is_an_error(
    card, run_module, copy_options, own, tmp_path, published, raw_image
):
    other = shutil.copy(raw_image, tmp_path / "other.img")
    start = list(mapped(published / "debian"))[-1][0]
    damage(Path(other), start)
    republish(own, other)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert f"differs from the block map in bytes {start} to" in run.message
    assert card.read(0, 512) == bytes(512)


@pytest.mark.parametrize("change", [-MIB, MIB])
def test_image_of_another_length_is_an_error(
    card, run_module, copy_options, own, tmp_path, raw_image, change
):
    other = Path(shutil.copy(raw_image, tmp_path / "other.img"))
    os.truncate(other, copy_options["image_bytes"] + change)
    republish(own, other)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert ("more bytes than" if change > 0 else "its block map says") in run.message


def test_card_that_fails_in_the_middle_is_an_error_with_its_place(
    make_card, run_module, copy_options, namespace
):
    # The file behind the device runs out of room: the device answers with I/O errors from there on.
    images.call(*namespace, "mkdir", "/run/small")
    images.call(*namespace, "mount", "-t", "tmpfs", "-o", "size=8m", "none", "/run/small")
    card = make_card(path="/run/small/card", prefix=namespace)
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "writing the card failed at byte" in run.message
    assert "Input/output error" in run.message or "No space" in run.message


def test_second_writer_is_told_who_holds_the_card(
    card, start_module, run_module, server, copy_options, published
):
    server.stall_after = 1000
    first = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
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
    assert run.failed
    assert "in use" in run.message
    assert card.read(0, 10) == b"still here"


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_end(pidfd):
    """Wait until the process behind a pidfd has ended; it is not our child, so no exit status."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(20_000), "a child outlived its module"
    os.close(pidfd)


def test_stalled_server_ends_at_the_deadline_with_all_children(
    card, start_module, server, copy_options
):
    server.stall_after = 1000
    copy_options["timeout"] = 3
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    assert len(children) == 2
    output = json.loads(module.communicate(timeout=30)[0])
    assert "writing the card took longer than 3 s (0 % were done)" in output["msg"]
    for child in children:
        wait_for_end(child)


def test_killed_module_leaves_no_child_and_no_lock(
    card, start_module, run_module, server, copy_options
):
    server.stall_after = 1000
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    module.kill()
    for child in children:
        wait_for_end(child)
    server.stall_after = None
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message


def test_module_ends_when_the_manager_hangs_up(card, start_module, server, copy_options):
    server.stall_after = 1000
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    children = [os.pidfd_open(child) for child in children_of(module.pid)]
    module.stdout.close()
    module.wait(timeout=30)
    for child in children:
        wait_for_end(child)


def test_interrupted_copy_has_no_partitions_and_the_next_one_is_complete(
    card, start_module, run_module, server, copy_options, published
):
    run_module("card_write", device=card.device, **copy_options)
    server.stall_after = (published / "debian" / "image.img.zst").stat().st_size // 2
    module = start_module("card_write", device=card.device, **copy_options)
    assert server.stalled.wait(30)
    module.send_signal(signal.SIGKILL)
    module.wait()
    assert card.read(0, 512) == bytes(512)
    server.stall_after = None
    run = run_module("card_write", device=card.device, **copy_options)
    assert not run.failed, run.message
    assert_holds_image(card, published)


def test_progress_is_sent_and_ends_with_hundred(card, run_module, copy_options, progress, manager):
    run = run_module("card_write", device=card.device, progress=progress, **copy_options)
    assert not run.failed, run.message
    percents = []
    while not percents or percents[-1] != 100:
        message = json.loads(manager.recv(2000))
        assert message["token"] == "a-token"  # noqa: S105
        assert message["node"] == "node-1"
        percents.append(message["percent"])
    assert percents[0] == 0
    assert percents == sorted(percents)
    assert message["rate"] > 0


def test_progress_without_listener_is_no_error(card, run_module, copy_options, progress, manager):
    manager.close()
    run = run_module("card_write", device=card.device, progress=progress, **copy_options)
    assert not run.failed, run.message


def test_check_mode_writes_nothing(card, run_module, copy_options):
    card.overwrite(0, b"still here")
    run = run_module("card_write", device=card.device, check=True, **copy_options)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert card.read(0, 10) == b"still here"


def test_lock_of_another_program_on_the_device_is_respected(card, run_module, copy_options):
    with Path(card.device).open("rb") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "locked by another program" in run.message


def test_missing_tool_is_named(card, copy_options, namespace, run_module):
    images.call(*namespace, "mount", "--bind", "/dev/null", "/usr/bin/zstd")
    run = run_module("card_write", device=card.device, **copy_options)
    assert run.failed
    assert "zstd" in run.message
