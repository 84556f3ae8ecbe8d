"""A captured card: what is its users' and its machine's goes, and the image is small and sound."""

import os
import subprocess
from pathlib import Path

import pytest
from disk_images import BOOT_START, DISK_ID, MIB, RASPBIAN, ROOT_START, SECTOR, call, make

from piseduce_runner.errors import UserError
from piseduce_runner.images import captured
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.images.ext4_files import Ext4Files
from piseduce_runner.images.forget import forget, homes, locked
from piseduce_runner.images.steps import SILENT

CANARY = "c4n4ry"
ROOT_BYTES = 256 * MIB
USED = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\npi:x:1000:1000::/home/pi:/bin/bash\n"
    "db:x:99:99::/var/lib/db:/bin/sh\n",
    "etc/shadow": f"root:*:1::::::\npi:$6${CANARY}:1::::::\nopen::1::::::\n",
    "etc/shadow-": f"pi:$6${CANARY}:1::::::\n",
    "etc/machine-id": f"{CANARY}\n",
    "etc/ssh/sshd_config": "# kept\n",
    "etc/ssh/ssh_host_ed25519_key": CANARY,
    "root/.ssh/authorized_keys": CANARY,
    "root/.bash_history": CANARY,
    "home/pi/.ssh/authorized_keys": CANARY,
    "home/pi/.ssh/id_ed25519": CANARY,
    "home/pi/.ssh/deep/er/it's \"so": CANARY,
    "home/pi/.python_history": CANARY,
    "home/pi/.bashrc": "# kept\n",
    "home/pi/work/result": "kept\n",
    "var/lib/db/.mysql_history": CANARY,
    "var/lib/cloud/instances/i-1/user-data.txt": CANARY,
    "var/lib/cloud/seed/nocloud/user-data": CANARY,
    "var/lib/dhcp/dhclient.eth0.leases": CANARY,
    "var/lib/systemd/random-seed": CANARY,
    "var/log/journal/0123/system.journal": CANARY,
    "var/log/auth.log.1": CANARY,
    "var/log/dpkg.log": "kept\n",
}
KEPT = ("etc/ssh/sshd_config", "home/pi/.bashrc", "home/pi/work/result", "var/log/dpkg.log")


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """A card as it was used."""
    return make(
        tmp_path_factory.mktemp("card") / "disk",
        root=RASPBIAN | USED,
        boot={"userconf.txt": f"pi:{CANARY}", "user-data": CANARY},
        root_sectors=ROOT_BYTES // SECTOR,
    )


@pytest.fixture
def copy(disk, tmp_path) -> Path:
    """The folder with the two files that the role makes of the card."""
    folder = tmp_path / "copy"
    folder.mkdir()
    options = ("bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes", "status=none")
    start = ROOT_START * SECTOR
    call("dd", f"if={disk}", f"of={folder / captured.HEAD}", f"count={start}", *options)
    call("dd", f"if={disk}", f"of={folder / captured.ROOT}", f"skip={start}", *options)
    os.truncate(folder / captured.ROOT, ROOT_BYTES)
    return folder


def mark_dirty(copy: Path) -> None:
    """As a FAT is that was mounted when the power was cut."""
    with (copy / captured.HEAD).open("r+b") as file:
        file.seek(BOOT_START * SECTOR + 0x25)
        file.write(b"\1")


def test_of_a_captured_card_nothing_personal_is_in_the_environment(copy, tmp_path):
    mark_dirty(copy)
    image = captured.make_image(copy, SILENT)
    root = tmp_path / "environments"
    added = add_environment(image, root, Wishes("mine", "raspbian"))
    packed = root / "mine" / added.environment.image
    content = subprocess.run(["zstd", "-dc", packed], capture_output=True, check=True).stdout
    assert CANARY.encode() not in content
    assert added.environment.disk_id == DISK_ID
    assert added.environment.root_start_sector == ROOT_START
    assert added.environment.image_bytes < ROOT_BYTES
    assert added.notes == ()
    assert content[BOOT_START * SECTOR + 0x25] == 0
    whole = tmp_path / "whole"
    whole.write_bytes(content[ROOT_START * SECTOR :])
    call("e2fsck", "-fn", whole)
    files = Ext4Files(whole)
    for path in KEPT:
        assert files.read(f"/{path}") == USED[path].encode()
    assert files.read("/etc/machine-id") == b""
    assert [path.name for path in root.iterdir()] == ["mine"]


def test_passwords_are_locked_and_the_files_stay_whose_they_were(copy):
    root = copy / captured.ROOT
    call("debugfs", "-w", "-R", "set_inode_field /etc/shadow gid 42", root)
    call("debugfs", "-w", "-R", "set_inode_field /etc/shadow mode 0100640", root)
    files = Ext4Files(root)
    removed = forget(files)
    assert "/home/pi/.ssh/deep/er/it's \"so" in removed
    assert files.read("/etc/shadow") == b"root:*:1::::::\npi:*:1::::::\nopen:*:1::::::\n"
    entry = files.find("/etc/shadow")
    assert (entry.mode, entry.user, entry.group) == (0o100640, 0, 42)
    assert files.read("/etc/passwd") == USED["etc/passwd"].encode()
    assert forget(files) == []


def test_links_lead_to_nothing_that_is_removed_in_their_stead(copy):
    files = Ext4Files(copy / captured.ROOT)
    files.change(["rm /root/.bash_history", "symlink /root/.bash_history /etc/ssh/sshd_config"])
    assert "/root/.bash_history" in forget(files)
    assert files.read("/etc/ssh/sshd_config") == b"# kept\n"


def test_what_is_secret_in_a_home_goes_also_where_the_home_is_a_link(copy):
    files = Ext4Files(copy / captured.ROOT)
    files.remove(files.entries("/home/pi"))
    files.change(["mkdir /data", "mkdir /data/pi", "symlink /data/pi/.netrc /x"])
    files.change(["rmdir /home/pi", "symlink /home/pi /data/pi"])
    assert "/home/pi/.netrc" in forget(files)
    assert files.entries("/data/pi") == []


def test_a_name_that_cannot_be_handled_is_an_error_and_not_left(copy):
    files = Ext4Files(copy / captured.ROOT)
    with pytest.raises(UserError, match="cannot be handled"):
        files.entries("/a\nrm /etc")


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow"])
def test_what_is_no_system_with_users_is_refused(copy, path):
    files = Ext4Files(copy / captured.ROOT)
    files.change([f"rm {path}"])
    with pytest.raises(UserError, match=f"no file {path}"):
        forget(files)


def test_a_copy_that_holds_no_file_systems_is_refused_in_a_line(copy):
    (copy / captured.ROOT).write_bytes(bytes(MIB))
    with pytest.raises(UserError, match="cannot be repaired"):
        captured.make_image(copy, SILENT)
    (copy / captured.HEAD).write_bytes(bytes(MIB))
    with pytest.raises(UserError, match="no partition table"):
        captured.make_image(copy, SILENT)


def test_a_family_that_packs_its_secrets_is_refused():
    captured.check_family("raspbian")
    with pytest.raises(UserError, match="cannot be captured"):
        captured.check_family("picore")


def test_passwords_are_locked_wherever_they_are():
    before = b"a:$6$x:1\nb::1\nc:!$6$x:1\nd:*:1\ne:x:1\n\nodd"
    assert locked(before) == b"a:*:1\nb:*:1\nc:*:1\nd:*:1\ne:x:1\n\nodd"


def test_homes_are_plain_paths():
    text = b"a:x:1:1::/home/a:\nb:x:1:1::/home/a:\nc:x:1:1::../x:\nd:x:1:1::/a/../b:\nodd\n"
    assert homes(text) == ["/root", "/home/a"]
