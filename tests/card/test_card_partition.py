"""card_partition: the table on the card and the kernel's view, before and after."""

from pathlib import Path

import pytest

from . import image as images
from .conftest import MIB

GROWN = 48 * MIB


@pytest.fixture
def partition(run_module):
    """Run card_partition on a card with the image's values."""

    def run(card, state, **options):
        options = {
            "disk_id": images.DISK_ID,
            "start_sector": images.ROOT_START,
            "image_sectors": images.ROOT_SECTORS,
            "timeout": 30,
            **options,
        }
        return run_module("card_partition", device=card.device, state=state, **options)

    return run


def entries(card):
    return {int(part["node"][-1]): part for part in card.table()["partitions"]}


def test_absent_takes_partition_2_from_the_card_and_from_the_kernel(written, partition):
    before = entries(written)
    run = partition(written, "absent")
    assert not run.failed, run.message
    assert run.result["changed"]
    assert entries(written) == {1: before[1]}
    assert written.table()["id"] == images.DISK_ID
    assert not Path(f"{written.device}p2").exists()
    assert Path(f"{written.device}p1").exists()


def test_absent_twice_changes_nothing(written, partition):
    partition(written, "absent")
    run = partition(written, "absent")
    assert not run.failed, run.message
    assert not run.result["changed"]


@pytest.mark.parametrize(
    ("size", "sectors"),
    [
        (GROWN, GROWN // 512),
        (GROWN - 1, GROWN // 512),
        (images.ROOT_SECTORS * 512, images.ROOT_SECTORS),
        (0, (96 * MIB - images.ROOT_START * 512) // 512),
    ],
)
def test_partition_is_made_as_large_as_asked_with_its_contents(written, partition, size, sectors):
    first = entries(written)[1]
    partition(written, "absent")
    run = partition(written, "present", size_bytes=size)
    assert not run.failed, run.message
    assert run.result["changed"]
    made = entries(written)
    assert made[1] == first
    assert made[2]["start"] == images.ROOT_START
    assert made[2]["size"] == sectors == run.result["sectors"]
    assert made[2]["type"] == "83"
    assert written.table()["id"] == images.DISK_ID
    device = f"{written.device}p2"
    assert int(images.call("blockdev", "--getsz", device).stdout) == sectors
    images.call("e2fsck", "-fn", device)


def test_present_twice_changes_nothing(written, partition):
    partition(written, "present", size_bytes=GROWN)
    run = partition(written, "present", size_bytes=GROWN)
    assert not run.failed, run.message
    assert not run.result["changed"]


def test_present_changes_the_size_of_an_existing_partition(written, partition):
    partition(written, "present", size_bytes=0)
    run = partition(written, "present", size_bytes=GROWN)
    assert not run.failed, run.message
    assert entries(written)[2]["size"] == GROWN // 512
    assert int(images.call("blockdev", "--getsz", f"{written.device}p2").stdout) == GROWN // 512


@pytest.mark.parametrize("state", ["absent", "present"])
def test_kernel_that_lags_behind_the_card_is_brought_in_line(written, partition, state):
    # An attempt that was cut off after the table was written, before the kernel was told.
    edit = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel")
    images.call(*edit, "--delete", written.device, "2")
    if state == "present":
        script = f"start={images.ROOT_START},size={GROWN // 512},type=83\n"
        images.call(*edit, "--append", written.device, input=script)
    run = partition(written, state, size_bytes=GROWN)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert Path(f"{written.device}p2").exists() == (state == "present")


def test_larger_than_the_card_is_refused_untouched(written, partition):
    before = written.read(0, 512)
    run = partition(written, "present", size_bytes=200 * MIB)
    assert run.failed
    assert "the card has room for" in run.message
    assert written.read(0, 512) == before


def test_smaller_than_the_image_is_refused_untouched(written, partition):
    before = written.read(0, 512)
    run = partition(written, "present", size_bytes=8 * MIB)
    assert run.failed
    assert "the image needs" in run.message
    assert written.read(0, 512) == before


def test_partition_in_the_way_is_refused(written, partition):
    script = f"start={100 * 2048 // 2},size=2048,type=83\n"
    edit = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--append")
    images.call(*edit, written.device, input=script)
    before = written.read(0, 512)
    run = partition(written, "present", size_bytes=0)
    assert run.failed
    assert "would overlap partition 3" in run.message
    assert written.read(0, 512) == before


@pytest.mark.parametrize("state", ["absent", "present"])
def test_card_without_the_image_is_refused_untouched(written, partition, state):
    before = written.read(0, 512)
    run = partition(written, state, disk_id="0x12345678")
    assert run.failed
    assert "the image is not on it" in run.message
    assert written.read(0, 512) == before


def test_blank_card_is_an_error(card, partition):
    run = partition(card, "absent")
    assert run.failed
    assert "reading the table" in run.message


@pytest.mark.parametrize("state", ["absent", "present"])
def test_check_mode_tells_and_changes_nothing(written, partition, state):
    before = written.read(0, 512)
    run = partition(written, state, size_bytes=GROWN, check=True)
    assert not run.failed, run.message
    assert run.result["changed"]
    old = f"partition 2: start {images.ROOT_START}, {images.ROOT_SECTORS} sectors, type 83\n"
    new = f"partition 2: start {images.ROOT_START}, {GROWN // 512} sectors, type 83\n"
    assert old in run.result["diff"]["before"]
    assert (new in run.result["diff"]["after"]) == (state == "present")
    assert written.read(0, 512) == before
    assert Path(f"{written.device}p2").exists()


def test_partition_in_use_elsewhere_is_not_touched(written, partition, namespace):
    images.call(*namespace, "mkdir", "/mnt/home")
    images.call(*namespace, "mount", "-o", "ro", f"{written.device}p2", "/mnt/home")
    run = partition(written, "absent")
    assert run.failed
    assert "mounted on /mnt/home" in run.message
    assert 2 in entries(written)
    images.call(*namespace, "umount", "/mnt/home")
