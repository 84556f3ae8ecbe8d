"""Modules on the card are killed in the midst of their work, and run again: SIGKILL at any instant
loses nothing that a second attempt does not mend."""

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from piseduce_runner.families import find_family

from . import image as images
from .conftest import MIB

GROWN = 64 * MIB
PARTITION = {
    "disk_id": images.DISK_ID,
    "start_sector": images.ROOT_START,
    "image_sectors": images.ROOT_SECTORS,
    "size_bytes": GROWN,
}
MANAGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0fWyDqzTJ0sCzUUa0x8Rj1h6oVtVqYw5Qy2VQ0m1aB"


@pytest.fixture
def hang(namespace, tmp_path):
    """hang(program, words): once it has done its work with these words, the program never ends.

    Returns a function that waits until that is so, and puts the program back in order.
    """

    def make(program, words):
        place = images.call("sh", "-c", f"command -v {program}").stdout.strip()
        real, flag, helper = (tmp_path / f"{program}.{part}" for part in ("real", "flag", "sh"))
        shutil.copy(place, real)
        helper.write_text(
            f'#!/bin/sh\ncase " $* " in *"{words}"*)\n{real} "$@" && touch {flag}\n'
            f'exec sleep 1000;;\nesac\nexec {real} "$@"\n'
        )
        helper.chmod(0o755)
        images.call(*namespace, "mount", "--bind", str(helper), os.path.realpath(place))

        def reached(process=None):
            while not flag.exists():
                assert process is None or process.poll() is None, process.communicate()
            images.call(*namespace, "umount", "--lazy", os.path.realpath(place))

        return reached

    return make


def kill(process):
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("program", "words"),
    [("sfdisk", "--delete"), ("sfdisk", "-N 2"), ("delpart", ""), ("partx", "--update")],
)
def test_partition_that_is_half_made_is_made(
    written, start_module, run_module, hang, program, words
):
    reached = hang(program, words)
    options = {"device": written.device, "state": "present", "timeout": 60, **PARTITION}
    process = start_module("card_partition", **options)
    reached(process)
    kill(process)
    run = run_module("card_partition", **options)
    assert not run.failed, run.message
    assert written.table()["partitions"][1]["size"] == GROWN // 512
    device = f"{written.device}p2"
    assert int(images.call("blockdev", "--getsz", device).stdout) == GROWN // 512
    images.call("e2fsck", "-fn", device)


@pytest.fixture
def larger(written, run_module):
    """A card whose root partition is larger than its file system."""
    run = run_module(
        "card_partition", device=written.device, state="present", timeout=60, **PARTITION
    )
    assert not run.failed, run.message
    return written


def test_mounting_that_is_cut_off_is_finished(larger, start_module, run_module, hang):
    reached = hang("mount", "ext4")
    options = {"device": larger.device, "state": "mounted", "timeout": 60}
    process = start_module("card_mount", **options)
    reached(process)
    kill(process)
    run = run_module("card_mount", **options)
    assert not run.failed, run.message


def test_check_that_is_cut_off_is_done_again_before_the_file_system_grows(
    larger, start_module, run_module, hang
):
    reached = hang("e2fsck", "-f")
    options = {"device": larger.device, "timeout": 60}
    process = start_module("card_resize", state="started", **options)
    reached(process)
    kill(process)
    for state in ("started", "finished"):
        run = run_module("card_resize", state=state, **options)
        assert not run.failed, run.message
    assert run.result["filesystem_bytes"] == GROWN


def opened_by(pid):
    """Paths that a process has open at the moment."""
    found = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(file.readlink()))
    return found


def test_resize2fs_of_an_attempt_whose_manager_died_is_waited_for(
    larger, start_module, run_module, hang, namespace
):
    reached = hang("resize2fs", "")
    options = {"device": larger.device, "timeout": 60}
    first = start_module("card_resize", state="started", **options)
    assert '"failed"' not in first.communicate()[0]
    reached()
    number = Path(larger.device).stat().st_rdev
    lock = f"/run/lock/piseduce-card-{os.major(number)}-{os.minor(number)}.lock"
    holder = int(images.call(*namespace, "cat", lock).stdout.split()[0])
    second = start_module("card_resize", state="started", **options)
    while lock not in opened_by(second.pid):
        assert second.poll() is None, second.communicate()
    os.kill(holder, signal.SIGKILL)
    output = second.communicate(timeout=60)[0]
    assert '"failed"' not in output, output


def test_mount_that_is_still_in_use_by_what_was_interrupted_is_released(
    larger, start_module, run_module, hang, namespace, tmp_path
):
    options = {"device": larger.device, "timeout": 60}
    run_module("card_mount", state="mounted", **options)
    user = subprocess.Popen(
        [*namespace, "sh", "-c", "cd /mnt/piseduce/root && echo in && read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert user.stdout.readline() == b"in\n"
    tries = tmp_path / "tries"
    real = tmp_path / "umount"
    shutil.copy("/usr/bin/umount", real)
    helper = tmp_path / "umount.sh"
    helper.write_text(f'#!/bin/sh\necho x >> {tries}\nexec {real} "$@"\n')
    helper.chmod(0o755)
    images.call(*namespace, "mount", "--bind", str(helper), "/usr/bin/umount")
    process = start_module("card_mount", state="unmounted", **options)
    while not tries.exists() or len(tries.read_text()) < 4:
        assert process.poll() is None, process.communicate()
    user.communicate()
    output = process.communicate(timeout=60)[0]
    images.call(*namespace, "sh", "-c", f"{real} --lazy /usr/bin/umount")
    assert '"failed"' not in output, output


# Before its call of this number, the module is gone.
DIE = """
import os, signal
from ansible.module_utils.piseduce_card_tree import Tree
def before(name, number):
    function, calls = getattr(Tree, name), []
    def die(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(Tree, name, die)
"""


@pytest.mark.parametrize(
    "step",
    ["before('write', 2)", "before('write', 5)", "before('remove', 3)", "before('sync', 2)"],
)
def test_system_that_is_half_configured_is_configured(written, start_module, run_module, step):
    run_module("card_mount", device=written.device, state="mounted", timeout=60)
    options = {
        "device": written.device,
        "steps": list(find_family(None, "raspbian").system_conf),
        "login": "pi",
        "hostname": "node-1",
        "manager_key": MANAGER,
        "timeout": 60,
    }
    process = start_module("system_conf", first=DIE + step, **options)
    assert process.wait(timeout=60) == -9
    run = run_module("system_conf", **options)
    assert not run.failed, run.message
    key = run.result["remember"]["host_key"]
    again = run_module("system_conf", **options, known_host_key=key)
    assert not again.result["changed"], again.result
    assert again.result["remember"] == {"host_key": key}
