"""system_conf: what is in the card's system afterwards, and what an image cannot make it do."""

import pytest

from piseduce_runner.families import find_family

from . import image as images

MANAGER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0fWyDqzTJ0sCzUUa0x8Rj1h6oVtVqYw5Qy2VQ0m1aB manager"
ROOT = "/mnt/piseduce/root"
BOOT = "/mnt/piseduce/boot"
STEPS = list(find_family(None, "raspbian").system_conf)


@pytest.fixture
def mounted(written, run_module):
    run = run_module("card_mount", device=written.device, state="mounted", timeout=30)
    assert not run.failed, run.message
    return written


@pytest.fixture
def configure(run_module):
    def run(card, **options):
        options = {
            "steps": STEPS,
            "login": "pi",
            "hostname": "node-7",
            "manager_key": MANAGER,
            "timeout": 60,
            **options,
        }
        return run_module("system_conf", device=card.device, **options)

    return run


@pytest.fixture
def on_card(namespace):
    """Run a shell command in the namespace of the mounts; returns what it says."""

    def run(command, check=True):
        return images.call(*namespace, "sh", "-c", command, check=check).stdout

    return run


def test_system_is_the_nodes_own(mounted, configure, on_card):
    run = configure(mounted)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert on_card(f"cat {ROOT}/etc/hostname") == "node-7\n"
    hosts = on_card(f"cat {ROOT}/etc/hosts")
    assert hosts == "127.0.0.1\tlocalhost\n::1\t\tlocalhost\n127.0.1.1\tnode-7\n"
    assert on_card(f"cat {ROOT}/root/.ssh/authorized_keys") == f"{MANAGER}\n"
    modes = on_card(f"stat -c '%a %u' {ROOT}/root/.ssh {ROOT}/root/.ssh/authorized_keys")
    assert modes == "700 0\n600 0\n"


def test_only_the_remembered_host_key_is_offered(mounted, configure, on_card):
    run = configure(mounted)
    remembered = run.result["remember"]["host_key"]
    assert remembered.startswith("ssh-ed25519 AAAA")
    key = f"{ROOT}/etc/ssh/ssh_host_ed25519_key"
    assert on_card(f"ssh-keygen -y -f {key}").split()[:2] == remembered.split()
    assert on_card(f"stat -c %a {key}") == "600\n"
    names = on_card(f"ls {ROOT}/etc/ssh").split()
    assert [name for name in names if name.startswith("ssh_host_")] == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
    ]


def test_sshd_takes_the_configuration(mounted, configure, on_card, namespace):
    configure(mounted)
    # sshd itself says what it makes of it: its configuration is that of the card here.
    images.call(*namespace, "mount", "--bind", f"{ROOT}/etc/ssh", "/etc/ssh")
    images.call(*namespace, "mkdir", "-p", "/run/sshd")
    said = on_card("/usr/sbin/sshd -T").lower().splitlines()
    assert "permitrootlogin without-password" in said
    assert [line for line in said if line.startswith("hostkey ")] == [
        "hostkey /etc/ssh/ssh_host_ed25519_key"
    ]
    images.call(*namespace, "umount", "/etc/ssh")


def test_first_boot_changes_nothing_any_more(mounted, configure, on_card):
    configure(mounted)
    units = f"{ROOT}/etc/systemd/system"
    assert on_card(f"ls {ROOT}/etc/rc3.d {ROOT}/etc/init.d").split() == [
        f"{ROOT}/etc/init.d:",
        f"{ROOT}/etc/rc3.d:",
    ]
    assert on_card(f"ls {units}/multi-user.target.wants").split() == ["ssh.service"]
    for unit in ("regenerate_ssh_host_keys", "userconfig"):
        assert on_card(f"readlink {units}/{unit}.service") == "/dev/null\n"
    words = on_card(f"cat {BOOT}/cmdline.txt")
    assert words == (
        "console=serial0,115200 console=tty1 root=PARTUUID=c0ffee01-02 rootfstype=ext4 rootwait "
        "quiet\n"
    )
    assert "bootcode" not in on_card(f"ls {BOOT}").lower()


def test_file_systems_are_clean_afterwards(mounted, configure, run_module):
    configure(mounted)
    run_module("card_mount", device=mounted.device, state="unmounted", timeout=30)
    images.call("e2fsck", "-fn", f"{mounted.device}p2")
    images.call("fsck.vfat", "-n", f"{mounted.device}p1")
    text = images.call("mtype", "-i", f"{mounted.device}p1", "::cmdline.txt").stdout
    assert "firstboot" not in text


def test_second_run_with_the_remembered_key_changes_nothing(mounted, configure):
    first = configure(mounted)
    second = configure(mounted, known_host_key=first.result["remember"]["host_key"])
    assert not second.failed, second.message
    assert not second.result["changed"], second.result["changed_paths"]
    assert second.result["remember"] == first.result["remember"]


def test_key_of_another_deployment_is_replaced(mounted, configure):
    first = configure(mounted)
    second = configure(mounted, known_host_key=MANAGER)
    assert second.result["changed"]
    assert second.result["remember"] != first.result["remember"]


def test_check_mode_changes_nothing_and_shows_no_secret(mounted, configure, on_card):
    run = configure(mounted, check=True)
    assert not run.failed, run.message
    assert run.result["changed"]
    assert run.result["remember"] == {}
    assert "PRIVATE KEY" not in run.output
    changes = {one["before_header"]: one for one in run.result["diff"]}
    assert changes[f"{ROOT}/etc/hostname"]["before"] == "raspberrypi\n"
    assert changes[f"{ROOT}/etc/hostname"]["after"] == "node-7\n"
    assert on_card(f"cat {ROOT}/etc/hostname") == "raspberrypi\n"
    assert "rsa" in on_card(f"ls {ROOT}/etc/ssh")


def test_card_that_is_not_mounted_is_an_error(written, configure):
    run = configure(written)
    assert run.failed
    assert "mount_partition must run again" in run.message


@pytest.mark.parametrize("hostname", ["", "-a", "a_b", "a.b", "A", "x" * 64, "a\nb", "../x"])
def test_bad_host_name_is_refused(mounted, configure, on_card, hostname):
    run = configure(mounted, hostname=hostname)
    assert run.failed
    assert "is not a host name" in run.message
    assert on_card(f"cat {ROOT}/etc/hostname") == "raspberrypi\n"


@pytest.mark.parametrize("key", ["", "hello", f"{MANAGER}\n{MANAGER}", 'command="x" ' + MANAGER])
def test_bad_manager_key_is_refused(mounted, configure, key):
    run = configure(mounted, manager_key=key)
    assert run.failed
    assert "not a public SSH key" in run.message


def hostile(on_card, command):
    """Change the image's root before it is configured."""
    on_card(f"cd {ROOT} && {command}")


@pytest.mark.parametrize(
    "command",
    [
        "rm etc/hostname && ln -s /mnt/outside/file etc/hostname",
        "rm etc/hostname && ln -s ../../../../../mnt/outside/file etc/hostname",
        "mkdir -p etc/ssh/x && rm -rf root && ln -s /mnt/outside root",
        "ln -s /mnt/outside root/.ssh",
        "mkdir root/.ssh && ln -s /mnt/outside/file root/.ssh/authorized_keys",
        "ln -s /mnt/outside etc/ssh/sshd_config.d",
        "ln -s /mnt/outside/file etc/ssh/ssh_host_ed25519_key",
        "rm -r etc/systemd && ln -s /mnt/outside etc/systemd",
        "rm -r etc/systemd/system && ln -s ../../../../mnt/outside etc/systemd/system",
        "mv etc etc2 && ln -s /mnt/outside etc; cp -a etc2/. /mnt/outside-copy; true",
        "ln -s /mnt/outside/file etc/ssh/.ssh_host_ed25519_key.piseduce",
    ],
)
def test_links_in_an_image_lead_nowhere_outside(mounted, configure, on_card, namespace, command):
    on_card("mkdir /mnt/outside && echo outside > /mnt/outside/file && mkdir /mnt/outside-copy")
    hostile(on_card, command)
    configure(mounted)  # It may succeed or refuse, as long as it stays on the card.
    assert on_card("ls -A /mnt/outside; cat /mnt/outside/file") == "file\noutside\n"


def test_link_in_the_place_of_a_file_is_replaced_not_followed(mounted, configure, on_card):
    hostile(on_card, "rm etc/hostname && ln -s os-release etc/hostname")
    run = configure(mounted)
    assert not run.failed, run.message
    assert on_card(f"cat {ROOT}/etc/hostname") == "node-7\n"
    assert "ID=debian" in on_card(f"cat {ROOT}/etc/os-release")


def test_folder_in_the_place_of_a_file_is_an_error(mounted, configure, on_card):
    hostile(on_card, "rm etc/hostname && mkdir etc/hostname")
    run = configure(mounted)
    assert run.failed
    assert "etc/hostname on the card is a folder" in run.message


def test_loop_of_links_is_an_error(mounted, configure, on_card):
    hostile(on_card, "mv etc/ssh etc/ssh2 && ln -s ssh etc/ssh")
    run = configure(mounted)
    assert run.failed
    assert "loop of links" in run.message


def test_pipe_in_the_place_of_a_file_does_not_hang(mounted, configure, on_card):
    hostile(on_card, "rm etc/hosts && mkfifo etc/hosts")
    run = configure(mounted)
    assert not run.failed, run.message
    assert on_card(f"cat {ROOT}/etc/hosts") == "127.0.1.1\tnode-7\n"


def test_image_without_ssh_server_is_an_error(mounted, configure, on_card):
    hostile(on_card, "rm etc/ssh/sshd_config")
    run = configure(mounted)
    assert run.failed
    assert "the image has no SSH server" in run.message


def test_old_settings_of_sshd_do_not_win(mounted, configure, on_card, namespace):
    hostile(on_card, "printf 'PermitRootLogin yes\\n' > etc/ssh/sshd_config")
    run = configure(mounted)
    assert not run.failed, run.message
    images.call(*namespace, "mount", "--bind", f"{ROOT}/etc/ssh", "/etc/ssh")
    images.call(*namespace, "mkdir", "-p", "/run/sshd")
    assert "permitrootlogin without-password" in on_card("/usr/sbin/sshd -T").lower()
    images.call(*namespace, "umount", "/etc/ssh")


def test_other_keys_of_root_are_gone(mounted, configure, on_card):
    hostile(
        on_card,
        "mkdir -p root/.ssh && echo ssh-ed25519 AAAA stranger | tee root/.ssh/authorized_keys "
        "> root/.ssh/authorized_keys2 && chmod 777 root/.ssh",
    )
    configure(mounted)
    assert on_card(f"ls -A {ROOT}/root/.ssh") == "authorized_keys\n"
    assert on_card(f"cat {ROOT}/root/.ssh/authorized_keys") == f"{MANAGER}\n"
    assert on_card(f"stat -c %a {ROOT}/root/.ssh") == "700\n"


def test_masked_ssh_service_is_enabled(mounted, configure, on_card):
    hostile(on_card, "ln -s /dev/null etc/systemd/system/ssh.service")
    run = configure(mounted)
    assert not run.failed, run.message
    units = f"{ROOT}/etc/systemd/system"
    assert on_card(f"test -e {units}/ssh.service || echo gone") == "gone\n"
    target = on_card(f"readlink {units}/multi-user.target.wants/ssh.service")
    assert target == "/usr/lib/systemd/system/ssh.service\n"


def test_cloud_init_is_disabled_where_it_is(mounted, configure, on_card):
    hostile(on_card, "mkdir etc/cloud && echo x > etc/cloud/cloud.cfg")
    configure(mounted)
    assert on_card(f"test -e {ROOT}/etc/cloud/cloud-init.disabled && echo there") == "there\n"


def test_private_key_of_the_last_attempt_is_not_left_anywhere(mounted, configure, on_card):
    configure(mounted)
    assert on_card("ls -A /run | grep piseduce", check=False) == ""
    assert on_card(f"ls -A {ROOT}/etc/ssh | grep piseduce", check=False) == ""
