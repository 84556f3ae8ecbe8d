"""What each family's system_conf does to an image: on trees, without a card."""

import io
import os
import tarfile
from pathlib import Path

import ansible.module_utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piseduce_runner.families import find_family

MODULE_UTILS = str(Path(__file__).parents[2] / "module_utils")
if MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(MODULE_UTILS)

from ansible.module_utils.piseduce_card_tree import Tree  # noqa: E402
from ansible.module_utils.piseduce_linux import hosts_with  # noqa: E402
from ansible.module_utils.piseduce_mydata import Backup, Owner  # noqa: E402
from ansible.module_utils.piseduce_plan import System  # noqa: E402
from ansible.module_utils.piseduce_process import Failure, Hopeless  # noqa: E402
from ansible.module_utils.piseduce_steps import plan  # noqa: E402

MANAGER = "ssh-ed25519 AAAAmanager"
KEPT_KEY = b"the private key that the manager expects"
UNITS = "etc/systemd/system"
SSHD = {
    "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n",
    "usr/lib/systemd/system/ssh.service": "[Install]\n",
}
RASPBIAN = {
    **SSHD,
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 raspberrypi\n",
    "etc/ssh/ssh_host_rsa_key": "the image's\n",
    "usr/lib/systemd/system/userconfig.service": "[Unit]\n",
    "usr/lib/systemd/system/rpi-resize.service": "[Unit]\n",
    f"{UNITS}/multi-user.target.wants/userconfig.service": "",
}
BOOT = {"cmdline.txt": "root=PARTUUID=1-02 rootwait\n", "bootcode.bin": "b", "config.txt": "\n"}
CLOUD = {**SSHD, "etc/cloud/cloud.cfg": "system_info: {}\n"}
SEED = {"user-data": "#cloud-config\nssh_deletekeys: true\n", "meta-data": "instance-id: x\n"}
PICORE = {"tce/onboot.lst": "openssh.tcz\nmc.tcz\n", "tce/optional/openssh.tcz": "x"}
PICORE_BOOT = {
    **BOOT,
    "cmdline.txt": "root=/dev/ram0 tce=mmcblk0p2 norestore host=box\n",
    "cmdline3.txt": "root=/dev/ram0 tce=mmcblk0p2\n",
}


class Image:
    """An image's two partitions as folders, to be configured as often as wanted."""

    def __init__(self, folder, root, boot):
        self.root, self.boot = folder / "root", folder / "boot"
        for place, files in ((self.root, root), (self.boot, boot)):
            place.mkdir(parents=True)
            for name, content in files.items():
                path = place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def configure(self, steps, login="pi", hostname="node-7"):
        """Does what the steps want; returns the paths that differed."""
        with Tree(self.root) as root, Tree(self.boot, in_place=True) as boot:
            system = System(root, boot, hostname, login, MANAGER, self._host_key)
            plan(system, steps, ["bootcode.bin"])
            changed = []
            for tree, items in ((root, system.root.items), (boot, system.boot.items)):
                for item in items:
                    if not item.is_met(tree):
                        changed.append(item.path)
                        item.make(tree)
                    assert item.is_met(tree)
        return changed

    @staticmethod
    def _host_key(found):
        return (found if found == KEPT_KEY else b"a new key"), "ssh-ed25519 AAAAhost"

    def on_boot(self):
        return sorted(path.name for path in self.boot.iterdir())

    def text(self, path, place="root"):
        return (getattr(self, place) / path).read_text()


@pytest.fixture
def image(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("files of root's can only be made by root")
    return lambda root, boot=BOOT: Image(tmp_path, root, boot)


def steps(family):
    return list(find_family(None, family).system_conf)


# Raspberry Pi OS


def test_raspbian_has_the_nodes_name_key_and_no_first_boot(image):
    card = image(RASPBIAN, {**BOOT, "userconf.txt": "pi:$6$hash\n", "ssh": ""})
    card.configure(steps("raspbian"))
    assert card.text("etc/hostname") == "node-7\n"
    assert "127.0.1.1\tnode-7\n" in card.text("etc/hosts")
    assert card.text("root/.ssh/authorized_keys") == f"{MANAGER}\n"
    assert card.text("etc/ssh/ssh_host_ed25519_key.pub") == "ssh-ed25519 AAAAhost\n"
    assert not (card.root / "etc/ssh/ssh_host_rsa_key").exists()
    for unit in ("userconfig", "rpi-resize"):
        assert (card.root / f"{UNITS}/{unit}.service").readlink() == Path("/dev/null")
    assert not (card.root / f"{UNITS}/multi-user.target.wants/userconfig.service").exists()
    assert card.on_boot() == ["cmdline.txt", "config.txt"]
    assert card.configure(steps("raspbian")) == []


def test_raspbian_with_cloud_init_does_without_it(image):
    card = image({**RASPBIAN, **CLOUD}, {**BOOT, **SEED, "network-config": "wifi: secret\n"})
    card.configure(steps("raspbian"))
    assert (card.root / "etc/cloud/cloud-init.disabled").exists()
    assert card.on_boot() == ["cmdline.txt", "config.txt"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("root=/dev/mmcblk0p2 rootwait\n", "root=/dev/mmcblk0p2 rootwait\n"),
        ("root=A init=/usr/lib/raspi-config/init_resize.sh\n", "root=A\n"),
        ("root=A init=/usr/lib/raspberrypi-sys-mods/firstboot b\n", "root=A b\n"),
        ("root=A quiet resize splash\n", "root=A quiet splash\n"),
        ("root=A init=/sbin/other\n", "root=A init=/sbin/other\n"),
        ("root=A video=resize:1 noresize\n", "root=A video=resize:1 noresize\n"),
        (
            "root=A systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot "
            "systemd.unit=kernel-command-line.target b",
            "root=A b\n",
        ),
    ],
)
def test_the_command_line_loses_what_the_first_boot_would_do(image, before, after):
    card = image(SSHD, {"cmdline.txt": before})
    card.configure(["openssh", "raspberry_first_boot"])
    assert card.text("cmdline.txt", "boot") == after


@pytest.mark.parametrize("line", ["", "\n", "quiet\n", "root=/dev/nfs nfsroot=1.2.3.4:/nfs\n"])
def test_a_command_line_without_a_root_on_the_card_is_refused(image, line):
    with pytest.raises(Failure, match="names no root file system"):
        image(SSHD, {"cmdline.txt": line}).configure(["openssh", "root_on_card"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "127.0.1.1\tn\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\tn\n"),
        ("127.0.1.1 a\n::1 b\n127.0.1.1 c\n", "127.0.1.1\tn\n::1 b\n"),
        ("# 127.0.1.1 a\n127.0.1.10 b", "# 127.0.1.1 a\n127.0.1.10 b\n127.0.1.1\tn\n"),
    ],
)
def test_the_hosts_file_names_this_host_once(before, after):
    assert hosts_with(before, "n") == after
    assert hosts_with(after, "n") == after


# Ubuntu


def test_ubuntus_cloud_init_keeps_what_is_set_and_takes_this_for_a_new_machine(image):
    card = image({**CLOUD, "etc/cloud/cloud-init.disabled": ""}, {**BOOT, **SEED})
    card.configure(steps("ubuntu"), login="ubuntu")
    settings = card.text("etc/cloud/cloud.cfg.d/99-piseduce.cfg")
    assert "preserve_hostname: true" in settings
    assert "ssh_deletekeys: false" in settings
    assert not (card.root / "etc/cloud/cloud-init.disabled").exists()
    assert "hostname: node-7\n" in card.text("user-data", "boot")
    assert "ssh_deletekeys" not in card.text("user-data", "boot")
    assert card.text("meta-data", "boot").startswith("instance-id: piseduce-")
    assert "dhcp4: true" in card.text("network-config", "boot")
    assert card.configure(steps("ubuntu"), login="ubuntu") == []


def test_ubuntus_own_network_settings_stay(image):
    card = image(CLOUD, {**BOOT, "network-config": "version: 2\n"})
    card.configure(steps("ubuntu"))
    assert card.text("network-config", "boot") == "version: 2\n"


def test_an_ubuntu_without_cloud_init_is_refused(image):
    with pytest.raises(Failure, match="has no cloud-init"):
        image(SSHD).configure(steps("ubuntu"))


# piCore


def tgz(files):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return output.getvalue()


def backup_of(card):
    return Backup((card.root / "tce/mydata.tgz").read_bytes())


def test_picores_settings_are_in_its_backup(image):
    old = {
        "./etc/passwd": "root:x:0:0::/root:/bin/sh\ntc:x:1002:51::/home/tc:/bin/sh\n",
        "./usr/local/etc/ssh/ssh_host_rsa_key": "the image's",
        "opt/bootlocal.sh": "#!/bin/sh\necho started\n",
        "opt/.filetool.lst": "home\nopt/\n\nusr/local/etc\n",
        "home/tc/notes": "kept\n",
    }
    card = image({**PICORE, "tce/mydata.tgz": tgz(old)}, PICORE_BOOT)
    card.configure(steps("picore"), login="tc")
    backup = backup_of(card)
    assert backup.text("home/tc/.ssh/authorized_keys") == f"{MANAGER}\n"
    owners = {one.name: Owner(one.uid, one.gid) for one, _content in backup._members}
    assert owners["home/tc/.ssh"] == owners["home/tc/.ssh/authorized_keys"] == Owner(1002, 51)
    assert backup.read("usr/local/etc/ssh/ssh_host_ed25519_key") == b"a new key"
    assert backup.read("usr/local/etc/ssh/ssh_host_rsa_key") is None
    assert backup.text("opt/bootlocal.sh").splitlines()[1:] == [
        "echo started",
        "/usr/local/etc/init.d/openssh start",
    ]
    assert backup.text("opt/.filetool.lst").split() == [
        "home",
        "opt/",
        "usr/local/etc",
        "etc/shadow",
    ]
    assert backup.text("home/tc/notes") == "kept\n"


def test_picores_name_is_on_each_command_line_and_nothing_keeps_it_from_its_backup(image):
    card = image(PICORE, PICORE_BOOT)
    card.configure(steps("picore"), login="tc")
    assert card.text("cmdline.txt", "boot") == "root=/dev/ram0 tce=mmcblk0p2 host=node-7\n"
    assert card.text("cmdline3.txt", "boot") == "root=/dev/ram0 tce=mmcblk0p2 host=node-7\n"
    assert not (card.boot / "bootcode.bin").exists()
    assert "openssh start" in backup_of(card).text("opt/bootlocal.sh")


def test_picore_that_is_configured_stays_as_it_is(image):
    files = {"usr/local/etc/ssh/ssh_host_ed25519_key": KEPT_KEY.decode()}
    card = image({**PICORE, "tce/mydata.tgz": tgz(files)}, PICORE_BOOT)
    card.configure(steps("picore"), login="tc")
    assert card.configure(steps("picore"), login="tc") == []
    assert backup_of(card).read("usr/local/etc/ssh/ssh_host_ed25519_key") == KEPT_KEY


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tce/onboot.lst": "mc.tcz\n"}, "has no SSH server"),
        ({"tce/mydata.tgz": b"\x1f\x8b\x08 cut off"}, "mydata.tgz is damaged"),
        ({"tce/mydata.tgz": tgz({"a": "b"})[:-12]}, "mydata.tgz is damaged"),
        ({"tce/mydata.tgz.bfe": "x"}, "are encrypted"),
    ],
)
def test_a_picore_that_cannot_be_configured_is_refused(image, change, complaint):
    with pytest.raises(Failure, match=complaint):
        image({**PICORE, **change}, PICORE_BOOT).configure(steps("picore"), login="tc")


@given(st.binary(max_size=300))
def test_no_backup_makes_it_crash(data):
    for content in (data, tgz({"a": "b"})[:10] + data):
        try:
            Backup(content)
        except Failure as failure:
            assert "mydata.tgz" in str(failure)


# Steps with arguments, for families of one's own


def test_steps_with_arguments_do_what_they_say_and_see_each_others_work(image):
    card = image(SSHD, {**BOOT, "wifi.txt": "secret\n"})
    own = [
        "openssh",
        {"remove_files": {"boot": ["wifi.txt", "absent.txt"]}},
        {"kernel_arguments": {"add": ["cgroup_enable=memory"], "remove": ["rootwait"]}},
        {"write_files": {"root": {"etc/motd": "I am {{hostname}}\n"}}},
        "raspberry_first_boot",
    ]
    card.configure(own)
    assert not (card.boot / "wifi.txt").exists()
    assert card.text("cmdline.txt", "boot") == "root=PARTUUID=1-02 cgroup_enable=memory\n"
    assert card.text("etc/motd") == "I am node-7\n"
    assert card.configure(own) == []


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        (["openssh", {"remove_files": {"floppy": []}}], "needs {boot: "),
        (["openssh", {"remove_files": {"boot": "x"}}], "needs {boot: "),
        (["openssh", {"write_files": {"root": ["x"]}}], "needs {boot: {PATH"),
    ],
)
def test_arguments_that_are_none_are_hopeless(image, own, complaint):
    with pytest.raises(Hopeless, match=complaint):
        image(SSHD).configure(own)


def test_a_family_whose_steps_make_no_host_key_is_refused(image):
    with pytest.raises(Failure, match="no step .* has made an SSH host key"):
        image(SSHD).configure(["hostname"])
