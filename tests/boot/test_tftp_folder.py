"""The folder that a node boots from: complete, verified, changed in one step or not at all."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from .conftest import ModuleFailed, finish, processes_with, start_module

SERIAL = "1760325b"
FILES = {"config.txt": b"arm_64bit=1\n", "kernel8.img": bytes(3000), "overlays/a.dtbo": b"\x01\x02"}


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "it's a source"
    fill(folder, FILES)
    return folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "tftp"
    folder.mkdir()
    return folder


@pytest.fixture(params=["here", "node"])
def call(request, module, root, source):
    """Runs the module with a source on this machine, and with one behind SSH."""
    where = {}
    if request.param == "node":
        where["source_node"] = request.getfixturevalue("sshd").reach()

    def run(**changes):
        defaults = {
            "root": str(root),
            "serial": SERIAL,
            "source_folder": str(source),
            "timeout": 30,
        }
        return module("tftp_folder", **(defaults | where | changes))

    return run


def visible(root):
    """What is in the TFTP root but the lock file, as names."""
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


def test_the_folder_gets_exactly_the_contents_and_keeps_them(call, root):
    result = call()
    assert result["changed"]
    assert result["files"] == sorted(FILES)
    assert contents(root / SERIAL) == FILES
    again = call()
    assert not again["changed"]
    assert again["digest"] == result["digest"]


def test_only_a_folder_that_is_filled_is_settled(call, root):
    assert "remember" not in call(settles=True, check=True)
    assert "remember" not in call()
    assert call(settles=True)["remember"] == {"settled": True}
    assert "remember" not in call(settles=True, state="absent")


def test_a_change_of_the_source_replaces_all_and_leaves_nothing_behind(call, root, source):
    first = call()
    (source / "kernel8.img").unlink()
    fill(source, {"config.txt": b"other\n", "new/start4.elf": b"elf"})
    second = call()
    assert second["changed"]
    assert second["digest"] != first["digest"]
    assert contents(root / SERIAL) == contents(source)
    assert len(visible(root)) == 2  # the link and its version


def test_files_can_be_read_by_a_server_that_is_not_root(call, root, source):
    (source / "config.txt").chmod(0o600)
    (source / "overlays").chmod(0o700)
    call()
    assert (root / SERIAL / "config.txt").stat().st_mode & 0o777 == 0o644
    assert (root / SERIAL / "overlays").stat().st_mode & 0o777 == 0o755
    (root / SERIAL / "config.txt").chmod(0o600)
    assert call()["changed"]
    assert (root / SERIAL / "config.txt").stat().st_mode & 0o777 == 0o644


def test_check_mode_tells_the_change_and_makes_none(call, root):
    result = call(check=True, diff=True)
    assert result["changed"]
    assert "  config.txt\n" in result["diff"]["after"]
    assert result["diff"]["before"] == ""
    assert list(root.iterdir()) == []


def test_a_real_folder_is_replaced_in_one_step(call, root):
    fill(root / SERIAL, {"old": b"old"})
    assert call()["changed"]
    assert contents(root / SERIAL) == FILES
    assert len(visible(root)) == 2


def test_a_link_to_a_shared_folder_is_replaced_and_the_shared_folder_kept(call, root, tmp_path):
    shared = tmp_path / "template"
    fill(shared, FILES)
    (root / SERIAL).symlink_to(shared)
    assert call()["changed"]
    assert contents(shared) == FILES
    assert contents(root / SERIAL) == FILES
    assert (root / SERIAL).resolve().parent == root


def test_what_a_crash_left_behind_is_removed_and_other_nodes_are_left_alone(call, root):
    fill(root / f".{SERIAL}-dead0001", {"half": b"x"})
    (root / f".{SERIAL}-dead0001.link").symlink_to("nowhere")
    fill(root / ".0000000a-beef0001", {"theirs": b"x"})
    call()
    assert len(visible(root)) == 3
    assert contents(root / ".0000000a-beef0001") == {"theirs": b"x"}


@pytest.mark.parametrize("kind", ["device", "fifo", "socket", "link out", "broken link"])
def test_what_is_no_file_is_refused_and_the_old_folder_stays(call, root, source, kind):
    call()
    odd = source / "odd"
    if kind == "device":
        os.mknod(odd, 0o600 | 0o020000, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(odd)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(odd))
    elif kind == "link out":
        odd.symlink_to("/etc/shadow")
    else:
        odd.symlink_to("nothing")
    with pytest.raises(ModuleFailed, match="odd"):
        call()
    assert contents(root / SERIAL) == FILES
    assert len(visible(root)) == 2


def test_a_name_with_a_line_break_is_refused(call, root, source):
    (source / "two\nlines").write_text("x")
    with pytest.raises(ModuleFailed, match="name"):
        call()
    assert visible(root) == []


@pytest.mark.parametrize("limits", [{"max_bytes": 1000}, {"max_files": 2}])
def test_more_than_a_boot_partition_has_is_refused(call, root, limits):
    with pytest.raises(ModuleFailed, match="more than 2 files|larger than 1000 bytes"):
        call(**limits)
    assert visible(root) == []


def test_a_source_without_a_required_file_is_refused(call, root):
    with pytest.raises(ModuleFailed, match="no cmdline.txt"):
        call(required_files=["cmdline.txt"])
    assert visible(root) == []


def test_a_source_without_files_is_refused(call, root, tmp_path):
    (tmp_path / "empty" / "folders").mkdir(parents=True)
    call()
    with pytest.raises(ModuleFailed, match="there are no files"):
        call(source_folder=str(tmp_path / "empty"))
    assert contents(root / SERIAL) == FILES


def test_a_source_that_does_not_exist_is_named(call, tmp_path):
    with pytest.raises(ModuleFailed, match="/missing.*(not a folder|no such folder)"):
        call(source_folder=str(tmp_path / "missing"))


def test_a_folder_on_which_nothing_is_mounted_is_refused(call, root):
    with pytest.raises(ModuleFailed, match="nothing is mounted there"):
        call(source_mounted=True)
    assert visible(root) == []


@pytest.mark.parametrize("serial", ["1760325B", "1760325", "../../etc", "1760325b\n", ""])
def test_a_malformed_serial_is_refused(call, root, serial):
    with pytest.raises(ModuleFailed, match="8 lower-case hexadecimal digits"):
        call(serial=serial)
    assert visible(root) == []


def test_absent_removes_the_folder_and_all_versions(module, call, root):
    call()
    arguments = {"root": str(root), "serial": SERIAL, "state": "absent", "timeout": 30}
    assert module("tftp_folder", check=True, **arguments)["changed"]
    assert contents(root / SERIAL) == FILES
    assert module("tftp_folder", **arguments)["changed"]
    assert visible(root) == []
    assert not module("tftp_folder", **arguments)["changed"]


def test_absent_removes_what_a_crash_left_and_nothing_else(module, root):
    fill(root / f".{SERIAL}-dead0001", {"half": b"x"})
    (root / f".{SERIAL}-dead0001.link").symlink_to("nowhere")
    others = {".0000000a-beef0001/theirs": b"x", f"{SERIAL}0/theirs": b"x"}
    fill(root, others)
    arguments = {"root": str(root), "serial": SERIAL, "state": "absent", "timeout": 30}
    assert module("tftp_folder", **arguments)["changed"]
    assert contents(root) == others | {f".{SERIAL}.lock": b""}
    assert not module("tftp_folder", **arguments)["changed"]


def test_a_held_lock_is_waited_for_until_the_timeout(call, root):
    with (root / f".{SERIAL}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ModuleFailed, match="waiting for another process .* longer than 1 s"):
            call(timeout=1)
    assert call()["changed"]


def test_a_file_that_is_a_link_inside_the_source_is_copied_as_a_file(module, root, source):
    (source / "kernel.img").symlink_to("kernel8.img")
    arguments = {"root": str(root), "serial": SERIAL, "source_folder": str(source), "timeout": 30}
    assert module("tftp_folder", **arguments)["changed"]
    assert contents(root / SERIAL) == FILES | {"kernel.img": FILES["kernel8.img"]}
    assert not (root / SERIAL / "kernel.img").is_symlink()
    assert not module("tftp_folder", **arguments)["changed"]


class TestOnANode:
    @pytest.fixture
    def arguments(self, root, source):
        return {
            "root": str(root),
            "serial": SERIAL,
            "source_folder": str(source),
            "timeout": 30,
        }

    @pytest.fixture
    def intruding(self, start_sshd, tmp_path):
        """intruding(name, script) -> a node on which a program is another one."""

        def start(name, script):
            tools = tmp_path / "tools"
            tools.mkdir(exist_ok=True)
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
            return start_sshd(f"SetEnv PATH={tools}:/usr/bin:/bin").reach()

        return start

    def test_busybox_on_the_node_is_enough(self, module, intruding, arguments, root, tmp_path):
        node = intruding("find", 'exec busybox find "$@"')
        for name in ("tar", "sha256sum", "mountpoint"):
            intruding(name, f'exec busybox {name} "$@"')
        assert module("tftp_folder", source_node=node, **arguments)["changed"]
        assert contents(root / SERIAL) == FILES
        assert not module("tftp_folder", source_node=node, **arguments)["changed"]

    def test_a_mount_point_is_accepted_as_such(self, module, sshd, arguments, root):
        # /dev/shm is a mount point on every Linux system.
        folder = Path("/dev/shm")  # noqa: S108
        arguments |= {"source_folder": str(folder), "required_files": ["no-such-file"]}
        with pytest.raises(ModuleFailed, match="there is no no-such-file"):
            module("tftp_folder", source_node=sshd.reach(), source_mounted=True, **arguments)

    def test_hard_links_are_copied(self, module, sshd, arguments, root, source):
        (source / "second").hardlink_to(source / "config.txt")
        module("tftp_folder", source_node=sshd.reach(), **arguments)
        assert contents(root / SERIAL) == FILES | {"second": FILES["config.txt"]}

    @pytest.mark.parametrize(
        ("tar", "message"),
        [
            ("tar -cf - . | head -c 4096", "damaged|no archive"),
            ("tar -cf - .; exit 3", "ended with 3"),
            ("tar -cf - --exclude=config.txt .", "config.txt is missing"),
            ("tar -cPf - --transform 's,^./config,./../config,' .", "not the name of a boot file"),
            ("tar -cPf - /etc/hostname", "not the name of a boot file"),
            ("echo oops >&2; exit 1", "oops"),
            ("cat /dev/zero", "does not end"),
            ("yes a complaint >&2", "a complaint"),
        ],
    )
    def test_a_bad_archive_leaves_the_old_folder(
        self, module, intruding, arguments, root, tar, message
    ):
        fill(root / SERIAL, {"old": b"old"})
        node = intruding("tar", f"PATH=/usr/bin:/bin\n{tar}")
        with pytest.raises(ModuleFailed, match=message):
            module("tftp_folder", source_node=node, **(arguments | {"timeout": 5}))
        assert contents(root / SERIAL) == {"old": b"old"}
        assert visible(root) == [SERIAL]

    def test_an_archive_larger_than_its_list_is_cut_off(self, module, intruding, arguments, root):
        node = intruding("tar", "head -c 3000000 /dev/zero > big\nexec /bin/tar -cf - .")
        with pytest.raises(ModuleFailed, match="larger than 1000000 bytes"):
            module("tftp_folder", source_node=node, max_bytes=1000000, **arguments)
        assert visible(root) == []

    def test_a_link_in_the_archive_is_refused(self, module, intruding, arguments, root):
        node = intruding("tar", "ln -s /etc evil\n/bin/tar -cf - .; rm evil")
        with pytest.raises(ModuleFailed, match="evil is neither a file nor a folder"):
            module("tftp_folder", source_node=node, **arguments)
        assert visible(root) == []

    def test_a_list_that_ends_too_soon_is_not_believed(self, module, intruding, arguments, root):
        node = intruding("sha256sum", "exit 1")
        with pytest.raises(ModuleFailed, match="not complete|ended with 1"):
            module("tftp_folder", source_node=node, **arguments)
        assert visible(root) == []

    def test_another_system_is_refused(self, module, start_sshd, sshd, arguments, root):
        other = start_sshd()
        node = sshd.reach(port=other.port)
        with pytest.raises(ModuleFailed, match="host key differs"):
            module("tftp_folder", source_node=node, **arguments)
        assert visible(root) == []

    def test_a_node_that_hangs_is_given_up_and_leaves_no_process(
        self, module, intruding, arguments, root, tmp_path
    ):
        node = intruding("tar", f"echo $PPID > {tmp_path}/pid; exec sleep 1000")
        with pytest.raises(ModuleFailed, match="longer than 2 s"):
            module("tftp_folder", source_node=node, **(arguments | {"timeout": 2}))
        assert visible(root) == []
        assert processes_with("-p", str(node["port"])) == []


def test_two_at_once_end_with_one_complete_folder(root, tmp_path):
    sources = []
    for number in range(4):
        sources.append(tmp_path / f"source{number}")
        fill(sources[-1], {f"file{index}": bytes([number]) * 9999 for index in range(50)})
    running = [
        start_module(
            "tftp_folder",
            {"root": str(root), "serial": SERIAL, "source_folder": str(source), "timeout": 30},
        )
        for source in sources
    ]
    for child in running:
        assert finish(child)["changed"]
    assert contents(root / SERIAL) in [contents(source) for source in sources]
    assert len(visible(root)) == 2
