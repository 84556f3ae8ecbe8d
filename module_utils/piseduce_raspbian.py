# SPDX-License-Identifier: MIT
"""The raspbian family: what a Debian-like system for the Pi needs, to be a node of the cluster.

Computes what is wanted, changes nothing. Raspberry Pi OS of 2020 and later and its relatives are
meant; what one of them does not have is passed over. Sources: the packages raspberrypi-sys-mods
(`firstboot`, `resize_early`, `regenerate_ssh_host_keys`), raspi-config (`init_resize.sh`,
`resize2fs_once`) and userconf-pi as published by RPi-Distro; sshd_config(5); cloud-init's
documentation on disabling it.
"""

from __future__ import annotations

import re

from ansible.module_utils.piseduce_process import Failure
from ansible.module_utils.piseduce_wanted import Absent, File, Folder, Link

# Units that would make the first boot grow the partition, make other SSH host keys, or wait for
# someone at a screen. A link to /dev/null tells systemd never to start one (systemd.unit(5)).
FIRST_BOOT_UNITS = (
    "regenerate_ssh_host_keys.service",
    "resize2fs_once.service",
    "rpi-resize.service",
    "userconfig.service",
)
FIRST_BOOT_FILES = (
    "etc/init.d/resize2fs_once",
    # A banner saying that SSH may not work before the wizard has run.
    "etc/ssh/sshd_config.d/rename_user.conf",
)
RUNLEVEL_SCRIPTS = re.compile(r"[SK][0-9]{2}(resize2fs_once|regenerate_ssh_host_keys)")

# Of p1: what would make a Pi 3 boot from the card, and flags that the first boot would remove, so
# that the boot partition would not be what the manager has of it.
BOOT_FILES = ("bootcode.bin", "ssh", "ssh.txt")

UNIT_FOLDERS = ("usr/lib/systemd/system", "lib/systemd/system")
SSHD_CONFIG = "etc/ssh/sshd_config"
SSHD_DROP_IN = "etc/ssh/sshd_config.d/00-piseduce.conf"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
_INCLUDE_ALL = re.compile(r"Include\s+(/etc/ssh/)?sshd_config\.d/\*\.conf", re.IGNORECASE)


def wanted_on_root(tree, hostname, manager_key, private_key, public_key):
    """What is wanted on the root file system: list of items of :mod:`piseduce_wanted`.

    :param tree: the root file system
    :param hostname: the node's name
    :param manager_key: the manager's public key, one line
    :param private_key: the SSH host key to be used, bytes
    :param public_key: its public half, ``ssh-ed25519 AAAA...``
    :raises Failure: the image has no SSH server
    """
    hosts = (tree.read("etc/hosts") or b"").decode(errors="surrogateescape")
    items = [
        File("etc/hostname", f"{hostname}\n".encode()),
        File("etc/hosts", hosts_with(hosts, hostname).encode(errors="surrogateescape")),
        Folder("root/.ssh", 0o700),
        File("root/.ssh/authorized_keys", f"{manager_key}\n".encode(), 0o600),
        Absent("root/.ssh/authorized_keys2"),
        File(HOST_KEY, private_key, 0o600, secret=True),
        File(f"{HOST_KEY}.pub", f"{public_key}\n".encode()),
        File(SSHD_DROP_IN, f"PermitRootLogin prohibit-password\nHostKey /{HOST_KEY}\n".encode()),
    ]
    items += _sshd_config(tree)
    keep = {HOST_KEY, f"{HOST_KEY}.pub"}
    for name in tree.names("etc/ssh"):
        if name.startswith("ssh_host_") and f"etc/ssh/{name}" not in keep:
            items.append(Absent(f"etc/ssh/{name}"))
    return items + _first_boot(tree) + _ssh_service(tree)


def wanted_on_boot(tree):
    """What is wanted on the boot file system; as :func:`wanted_on_root`.

    :raises Failure: it has no kernel command line, or one without a root
    """
    line = tree.read("cmdline.txt")
    if line is None:
        raise Failure("the boot partition has no cmdline.txt")
    items = [Absent(name) for name in BOOT_FILES if tree.status(name)]
    items.append(File("cmdline.txt", boot_arguments(line)))
    return items


def hosts_with(text, hostname):
    """The text of /etc/hosts in which 127.0.1.1 is this host, and only this one."""
    line = f"127.0.1.1\t{hostname}"
    lines = text.splitlines()
    ours = [index for index, old in enumerate(lines) if old.split()[:1] == ["127.0.1.1"]]
    if not ours:
        return "\n".join([*lines, line]) + "\n"
    kept = [old for index, old in enumerate(lines) if index not in ours[1:]]
    kept[ours[0]] = line
    return "\n".join(kept) + "\n"


def boot_arguments(data):
    """The kernel command line without what makes the first boot resize, reboot or ask.

    ``init=`` goes only if it is one of the first-boot scripts; another one is the image's choice.
    """
    text = data.decode(errors="surrogateescape")
    kept = [word for word in text.split() if not _is_first_boot(word)]
    if not any(word.startswith("root=") and word != "root=/dev/nfs" for word in kept):
        raise Failure("the image's cmdline.txt names no root file system on the card (root=...)")
    if kept == text.split():
        return data
    return (" ".join(kept) + "\n").encode(errors="surrogateescape")


def _is_first_boot(word):
    if word.startswith("init="):
        return word.rpartition("/")[2] in ("init_resize.sh", "firstboot")
    # `resize` and `firstboot` are looked for by the initial RAM disk; systemd.run and its unit are
    # how the Raspberry Pi Imager runs a script once and reboots.
    return word in ("resize", "firstboot") or word.startswith(
        ("systemd.run=", "systemd.run_success_action=", "systemd.unit=kernel-command-line.target")
    )


def _sshd_config(tree):
    """Make sshd read our drop-in before anything else: of each keyword, the first value counts."""
    found = tree.read(SSHD_CONFIG)
    if found is None:
        raise Failure(f"the image has no SSH server: it has no {SSHD_CONFIG}")
    text = found.decode(errors="surrogateescape")
    directives = [line.strip() for line in text.splitlines()]
    first = next((line for line in directives if line and not line.startswith("#")), "")
    ours = f"Include /{SSHD_DROP_IN}"
    if first == ours or _INCLUDE_ALL.fullmatch(first):
        return []
    return [File(SSHD_CONFIG, f"{ours}\n{text}".encode(errors="surrogateescape"))]


def _first_boot(tree):
    items = [Absent(path) for path in FIRST_BOOT_FILES if tree.status(path)]
    for level in "0123456S":
        folder = f"etc/rc{level}.d"
        for name in tree.names(folder):
            if RUNLEVEL_SCRIPTS.fullmatch(name):
                items.append(Absent(f"{folder}/{name}"))
    for folder in tree.names("etc/systemd/system"):
        if not folder.endswith((".wants", ".requires")):
            continue
        for name in tree.names(f"etc/systemd/system/{folder}"):
            if name in FIRST_BOOT_UNITS:
                items.append(Absent(f"etc/systemd/system/{folder}/{name}"))
    for unit in FIRST_BOOT_UNITS:
        if _has_unit(tree, unit) or tree.status(f"etc/systemd/system/{unit}"):
            items.append(Link(f"etc/systemd/system/{unit}", "/dev/null"))
    if tree.names("etc/cloud"):
        # It would make its own host keys and grow the partition.
        items.append(File("etc/cloud/cloud-init.disabled", b""))
    return items


def _ssh_service(tree):
    """Make systemd start the SSH server, as `systemctl enable ssh` does; else nothing."""
    if not tree.names(UNIT_FOLDERS[0]) and not tree.names(UNIT_FOLDERS[1]):
        return []
    folder = _has_unit(tree, "ssh.service")
    if not folder:
        raise Failure("the image has no SSH server: it has no ssh.service")
    items = []
    if tree.link("etc/systemd/system/ssh.service") == "/dev/null":
        items.append(Absent("etc/systemd/system/ssh.service"))
    wants = "etc/systemd/system/multi-user.target.wants/ssh.service"
    if not (tree.link(wants) or "").endswith("/ssh.service"):
        items.append(Link(wants, f"/{folder}/ssh.service"))
    return items


def _has_unit(tree, name):
    """The folder that a unit's file is in, or None."""
    for folder in UNIT_FOLDERS:
        if tree.read(f"{folder}/{name}") is not None:
            return folder
    return None
