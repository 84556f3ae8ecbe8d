"""card_mount: mounts that are proven to be the card's, and a release that leaves nothing behind."""

import subprocess

import pytest

from . import image as images


@pytest.fixture
def mount(run_module):
    def run(card, state, **options):
        return run_module("card_mount", device=card.device, state=state, timeout=60, **options)

    return run


def mounted(namespace):
    """Mount points below /mnt/piseduce, with type and source."""
    text = images.call(*namespace, "cat", "/proc/self/mountinfo").stdout
    lines = [line.split() for line in text.splitlines()]
    return {line[4]: line[-3:-1] for line in lines if line[4].startswith("/mnt/piseduce")}


def test_both_file_systems_are_mounted(written, mount, namespace):
    run = mount(written, "mounted")
    assert not run.failed, run.message
    assert run.result["changed"]
    found = mounted(namespace)
    assert set(found) == {"/mnt/piseduce/boot", "/mnt/piseduce/root"}
    assert found["/mnt/piseduce/root"] == ["ext4", f"{written.device}p2"]
    images.call(*namespace, "test", "-s", "/mnt/piseduce/boot/cmdline.txt")


def test_mounting_twice_changes_nothing(written, mount, namespace):
    mount(written, "mounted")
    run = mount(written, "mounted")
    assert not run.failed, run.message
    assert not run.result["changed"]
    assert len(mounted(namespace)) == 2


def test_released_card_is_clean_and_free(written, mount, namespace):
    mount(written, "mounted")
    images.call(*namespace, "touch", "/mnt/piseduce/root/file")
    run = mount(written, "unmounted")
    assert not run.failed, run.message
    assert run.result["changed"]
    assert not mounted(namespace)
    images.call("e2fsck", "-fn", f"{written.device}p2")
    images.call("fsck.vfat", "-n", f"{written.device}p1")


def test_with_the_boot_files_in_place_a_released_card_needs_only_a_restart(written, mount):
    assert "remember" not in mount(written, "mounted", settles=True).result
    assert "remember" not in mount(written, "unmounted", settles=True, check=True).result
    assert mount(written, "unmounted", settles=True).result["remember"] == {"settled": True}
    assert "remember" not in mount(written, "unmounted").result


def test_releasing_twice_changes_nothing(written, mount):
    mount(written, "unmounted")
    run = mount(written, "unmounted")
    assert not run.failed, run.message
    assert not run.result["changed"]


def test_mount_point_that_holds_something_else_is_an_error(written, mount, namespace):
    images.call(*namespace, "mkdir", "-p", "/mnt/piseduce/root")
    images.call(*namespace, "mount", "-t", "tmpfs", "other", "/mnt/piseduce/root")
    run = mount(written, "mounted")
    assert run.failed
    assert "other is mounted on /mnt/piseduce/root" in run.message


def test_file_system_without_a_system_is_an_error(written, mount, namespace):
    images.call("mkfs.ext4", "-q", "-F", f"{written.device}p2")
    run = mount(written, "mounted")
    assert run.failed
    assert "does not hold a system" in run.message


def test_wiped_file_system_is_an_error(written, mount):
    images.call("wipefs", "--all", f"{written.device}p2")
    written.overwrite(images.ROOT_START * 512, bytes(1 << 20))
    run = mount(written, "mounted")
    assert run.failed
    assert f"{written.device}p2" in run.message


def test_boot_partition_without_command_line_is_an_error(written, mount):
    images.call("mdel", "-i", f"{written.device}p1", "::cmdline.txt")
    run = mount(written, "mounted")
    assert run.failed
    assert "has no cmdline.txt" in run.message


def test_missing_partition_is_an_error(card, mount):
    run = mount(card, "mounted")
    assert run.failed
    assert "has no partition 2" in run.message


def test_release_of_a_card_in_use_fails(written, mount, namespace, start_module):
    mount(written, "mounted")
    user = subprocess.Popen(
        [*namespace, "sh", "-c", "cd /mnt/piseduce/root && echo there && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout.readline() == b"there\n"
    run = mount(written, "unmounted")
    user.communicate()
    assert run.failed
    assert "unmounting /mnt/piseduce/root" in run.message


def test_check_mode_changes_nothing(written, mount, namespace):
    run = mount(written, "mounted", check=True)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert not mounted(namespace)


def test_nothing_of_the_image_can_be_run(written, mount, namespace):
    mount(written, "mounted")
    text = images.call(*namespace, "cat", "/proc/self/mountinfo").stdout
    options = next(line for line in text.splitlines() if "/mnt/piseduce/root" in line).split()[5]
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
