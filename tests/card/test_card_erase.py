"""card_erase: nothing of the old user is left to read; what is not erased is not called so."""

import runpy
import subprocess

import ansible.module_utils
import pytest

from . import image as images
from .conftest import MIB, ROOT

SECRET = b"the old user's secret" * 200
TOP = 96 * MIB
FREE = images.ROOT_START * 512 + 20 * MIB
"""A place within the root file system that nothing uses."""


@pytest.fixture
def erase(run_module):
    def run(card, **options):
        return run_module("card_erase", **{"device": card.device, "timeout": 60} | options)

    return run


@pytest.fixture
def used(written, namespace):
    """A card that was in use: a user's file on it, and old bytes where nothing is in use."""
    mount = [*namespace, "mount", f"{written.device}p2", "/mnt"]
    subprocess.run(mount, check=True)
    script = "cp /dev/stdin /mnt/secret; sync -f /mnt; umount /mnt"
    subprocess.run([*namespace, "sh", "-c", script], input=SECRET, check=True)
    written.overwrite(FREE, SECRET)
    written.overwrite(TOP - 8 * MIB, SECRET)
    assert SECRET in written.path.read_bytes()
    return written


def contents(card):
    images.call("blockdev", "--flushbufs", card.device)
    return card.path.read_bytes()


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_discarded_card_is_blank_as_a_whole(used, erase, mode):
    run = erase(used, mode=mode)
    assert not run.failed, run.message
    assert (run.result["method"], run.result["discarded"]) == ("discard", "")
    assert contents(used) == bytes(TOP)
    assert not images.call("ls", "/dev").stdout.count(f"{used.device.removeprefix('/dev/')}p")
    again = erase(used, mode=mode)
    assert (again.result["changed"], again.result["method"]) == (False, "none")


def test_card_that_does_not_discard_loses_all_that_was_in_use(used, erase):
    run = erase(used, discard=False)
    assert not run.failed, run.message
    assert run.result["method"] == "used"
    left = contents(used)
    assert left.count(SECRET) == 2  # where nothing was in use
    assert left.replace(SECRET, bytes(len(SECRET))) == bytes(TOP)
    assert run.result["overwritten_bytes"] < 60 * MIB
    images.call("wipefs", "--no-act", used.device)


def test_full_leaves_nothing_anywhere(used, erase):
    run = erase(used, discard=False, mode="full")
    assert not run.failed, run.message
    assert run.result["method"] == "all"
    assert contents(used) == bytes(TOP)


def test_file_system_that_was_in_use_when_the_power_went_is_repaired_before_it_is_believed(
    used, erase, namespace
):
    """Blocks that only the journal knows of are in use too."""
    device = f"{used.device}p2"
    images.call(*namespace, "mount", device, "/mnt")
    # The journal is written, its contents are not yet in their places.
    script = "cp /dev/stdin /mnt/late && sync -f /mnt && blockdev --flushbufs " + device
    subprocess.run([*namespace, "sh", "-c", script], input=SECRET[::-1], check=True)
    snapshot = contents(used)
    images.call(*namespace, "umount", "/mnt")
    used.path.write_bytes(snapshot)
    images.call("blockdev", "--flushbufs", used.device)
    assert "needs_recovery" in images.call("dumpe2fs", "-h", device).stdout
    run = erase(used, discard=False)
    assert run.result.get("method") == "used", run.message
    assert SECRET[::-1] not in contents(used)


@pytest.mark.parametrize("state", ["damaged", "unknown", "half erased"])
def test_partition_of_which_nothing_is_known_is_overwritten_as_a_whole(used, erase, state):
    start = images.ROOT_START * 512
    if state == "damaged":
        used.overwrite(start + 4096, bytes(4096))  # group descriptors
        used.overwrite(start + 1024 + 0x68, b"\xff" * 16)
    elif state == "unknown":
        images.call("mkfs.vfat", "-F", "16", f"{used.device}p2")
    else:
        used.overwrite(start, bytes(MIB))
    run = erase(used, discard=False)
    assert run.result.get("method") == "used", run.message
    assert contents(used)[: start + images.ROOT_SECTORS * 512] == bytes(
        start + images.ROOT_SECTORS * 512
    )


def test_card_without_a_table_is_erased_as_a_whole(used, erase):
    used.overwrite(0, bytes(MIB))
    run = erase(used, discard=False)
    assert run.result.get("method") == "all", run.message
    assert contents(used) == bytes(TOP)


def test_erasure_that_was_cut_off_is_done_again(used, start_module, erase, progress, manager):
    module = start_module(
        "card_erase", device=used.device, timeout=60, discard=False, progress=progress
    )
    manager.recv(2000)  # it is at work
    module.kill()
    module.wait()
    run = erase(used, discard=False)
    assert not run.failed, run.message
    left = contents(used)
    assert left.replace(SECRET, bytes(len(SECRET))) == bytes(TOP)


@pytest.fixture
def erase_here(used, monkeypatch):
    """card_erase in this very process, so that the card's answers can be others."""
    module_utils = str(ROOT / "module_utils")
    if module_utils not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(module_utils)
    names = runpy.run_path(str(ROOT / "library" / "card_erase.py"))
    options = {"device": used.device, "timeout": 60, "mount_directory": "/mnt/piseduce"}
    options |= {"other_media": False, "mode": "quick", "discard": True, "progress": None}

    def erase(**answers):
        for name, answer in answers.items():
            monkeypatch.setitem(names["work"].__globals__, name, answer)
        return names["work"](options, False)

    return erase


def test_card_that_only_says_it_discarded_is_overwritten_as_a_whole(used, erase_here):
    result = erase_here(discard=lambda *_arguments: None)
    assert result["method"] == "all"
    assert "it was accepted, and old data is left at byte" in result["discarded"]
    assert contents(used) == bytes(TOP)


def test_card_that_refuses_to_discard_is_overwritten_where_it_was_in_use(used, erase_here):
    result = erase_here(discard=lambda *_arguments: "Operation not supported")
    assert (result["method"], result["discarded"]) == ("used", "Operation not supported")
    assert contents(used).count(SECRET) == 2


def test_card_that_does_not_keep_what_is_written_is_no_success(used, erase_here):
    with pytest.raises(Exception, match="old data is left at byte"):
        erase_here(
            discard=lambda *_arguments: "Operation not supported",
            overwrite=lambda *_arguments: None,
        )


def test_check_mode_reads_and_changes_nothing(used, erase, make_card):
    before = contents(used)
    assert erase(used, check=True).result["changed"]
    assert contents(used) == before
    blank = make_card()
    assert not erase(blank, check=True).result["changed"]


def test_card_in_use_elsewhere_is_not_touched(used, erase, namespace):
    images.call(*namespace, "mkdir", "/mnt/home")
    images.call(*namespace, "mount", "-o", "ro", f"{used.device}p2", "/mnt/home")
    run = erase(used)
    images.call(*namespace, "umount", "/mnt/home")
    assert run.failed
    assert "mounted on /mnt/home" in run.message
    assert SECRET in contents(used)


def test_read_only_card_is_refused(used, erase):
    images.call("blockdev", "--setro", used.device)
    run = erase(used)
    images.call("blockdev", "--setrw", used.device)
    assert run.failed
    assert "read-only" in run.message


def test_partition_is_not_a_card(used, erase):
    run = erase(used, device=f"{used.device}p2")
    assert run.failed
    assert "is a partition" in run.message
