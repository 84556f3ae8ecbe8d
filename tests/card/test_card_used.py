"""card_used: all that a copy of a card needs, and no card that is laid out in another way."""

import subprocess

import pytest

from . import image as images

SECRET = b"written a moment ago" * 500


@pytest.fixture
def used(run_module):
    def run(card):
        return run_module("card_used", device=card.device, timeout=60)

    return run


def test_a_copy_of_what_is_in_use_is_the_same_file_systems(written, used, namespace, tmp_path):
    mount = [*namespace, "mount", f"{written.device}p2", "/mnt"]
    subprocess.run(mount, check=True)
    script = "cp /dev/stdin /mnt/secret; sync -f /mnt; umount /mnt"
    subprocess.run([*namespace, "sh", "-c", script], input=SECRET, check=True)
    run = used(written)
    assert not run.failed, run.message
    head, root = run.result["parts"]
    assert (head["start"], root["start"]) == (0, images.ROOT_START * 512)
    assert root["end"] == (images.ROOT_START + images.ROOT_SECTORS) * 512
    copy = tmp_path / "copy"
    with copy.open("wb") as file:
        file.truncate(root["end"])
        for start, end in head["extents"] + root["extents"]:
            file.seek(start)
            file.write(written.read(start, end - start))
    assert run.result["used_bytes"] < root["end"] * 3 // 4
    content = copy.read_bytes()
    assert SECRET in content
    ext4 = tmp_path / "ext4"
    ext4.write_bytes(content[root["start"] :])
    images.call("e2fsck", "-fn", str(ext4))
    fat = tmp_path / "fat"
    fat.write_bytes(content[images.BOOT_START * 512 : head["end"]])
    images.call("fsck.vfat", "-n", str(fat))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("--delete", "2"), "the partitions 1;"),
        (("--part-type", "1", "83"), "the types 83 and 83"),
    ],
)
def test_another_layout_is_refused_for_good(written, used, change, complaint):
    option, *words = change
    command = ["sfdisk", "-q", "--no-reread", "--no-tell-kernel", option, written.device, *words]
    images.call(*command)
    run = used(written)
    assert run.hopeless
    assert complaint in run.message


def test_a_file_system_that_cannot_be_repaired_is_refused(written, used):
    written.overwrite(images.ROOT_START * 512 + 1024, bytes(1024))
    run = used(written)
    assert run.failed
    assert "no ext4 file system" in run.message
