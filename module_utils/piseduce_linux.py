# SPDX-License-Identifier: MIT
"""Steps of system_conf for systems whose root is on the card: name, keys, SSH server, files.

Sources: sshd_config(5), systemd.unit(5).
"""

from __future__ import annotations

import re

from ansible.module_utils.piseduce_process import Failure, Hopeless
from ansible.module_utils.piseduce_wanted import Absent, File, Folder, Link

SSHD_CONFIG = "etc/ssh/sshd_config"
SSHD_DROP_IN = "etc/ssh/sshd_config.d/00-piseduce.conf"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
UNIT_FOLDERS = ("usr/lib/systemd/system", "lib/systemd/system")
_INCLUDE_ALL = re.compile(r"Include\s+(/etc/ssh/)?sshd_config\.d/\*\.conf", re.IGNORECASE)


def hostname(system, _argument):
    """The node's name in /etc/hostname, and in /etc/hosts as 127.0.1.1."""
    system.root.write("etc/hostname", f"{system.hostname}\n")
    system.root.write("etc/hosts", hosts_with(system.root.text("etc/hosts"), system.hostname))


def root_key(system, _argument):
    """The manager's key, as the only one that root accepts."""
    system.root.want(
        Folder("root/.ssh", 0o700),
        File("root/.ssh/authorized_keys", f"{system.manager_key}\n".encode(), 0o600),
        Absent("root/.ssh/authorized_keys2"),
    )


def openssh(system, _argument):
    """A host key of its own, no password for root, and the server started at boot."""
    root = system.root
    config = root.read(SSHD_CONFIG)
    if config is None:
        raise Failure(f"the image has no SSH server: it has no {SSHD_CONFIG}")
    root.want(File(HOST_KEY, system.give_host_key(root.read(HOST_KEY)), 0o600, secret=True))
    root.write(f"{HOST_KEY}.pub", f"{system.host_key}\n")
    root.write(SSHD_DROP_IN, f"PermitRootLogin prohibit-password\nHostKey /{HOST_KEY}\n")
    _read_drop_in_first(root, config.decode(errors="surrogateescape"))
    keep = {HOST_KEY, f"{HOST_KEY}.pub"}
    for name in root.names("etc/ssh"):
        if name.startswith("ssh_host_") and f"etc/ssh/{name}" not in keep:
            root.want(Absent(f"etc/ssh/{name}"))
    _start_at_boot(root)


def root_on_card(system, _argument):
    """Refuse an image whose kernel would not find its root on the card."""

    def check(words):
        roots = [word for word in words if word.startswith("root=")]
        if not roots or "root=/dev/nfs" in roots:
            raise Failure("the image's cmdline.txt names no root file system on the card (root=)")
        return words

    system.kernel_arguments(check)


def kernel_arguments(system, argument):
    """`{add: [...], remove: [...]}`: words of the kernel command line."""
    add, remove = _lists("kernel_arguments", argument, "add", "remove")

    def change(words):
        kept = [word for word in words if word not in remove]
        return kept + [word for word in add if word not in kept]

    system.kernel_arguments(change)


def remove_files(system, argument):
    """`{boot: [...], root: [...]}`: files that must not be there."""
    boot, root = _lists("remove_files", argument, "boot", "root")
    system.boot.remove(*boot)
    system.root.remove(*root)


def write_files(system, argument):
    """`{boot: {PATH: TEXT}, root: {PATH: TEXT}}`; `{{hostname}}` in a text is the node's name."""
    for place in argument if isinstance(argument, dict) else {"": None}:
        texts = argument[place] if isinstance(argument, dict) else None
        if place not in ("boot", "root") or not isinstance(texts, dict):
            raise Hopeless("step write_files needs {boot: {PATH: TEXT}} or {root: {PATH: TEXT}}")
        for path, text in texts.items():
            plan = system.boot if place == "boot" else system.root
            plan.write(str(path), str(text).replace("{{hostname}}", system.hostname))


def hosts_with(text, name):
    """The text of /etc/hosts in which 127.0.1.1 is this host, and only this one."""
    line = f"127.0.1.1\t{name}"
    lines = text.splitlines()
    ours = [index for index, old in enumerate(lines) if old.split()[:1] == ["127.0.1.1"]]
    if not ours:
        return "\n".join([*lines, line]) + "\n"
    kept = [old for index, old in enumerate(lines) if index not in ours[1:]]
    kept[ours[0]] = line
    return "\n".join(kept) + "\n"


def unit_folder(root, name):
    """The folder that a unit's file is in, or None."""
    for folder in UNIT_FOLDERS:
        if root.read(f"{folder}/{name}") is not None:
            return folder
    return None


def _lists(step, argument, *keys):
    """The lists under these keys of a step's argument, empty where there is none."""
    is_mapping = isinstance(argument, dict) and argument and set(argument) <= set(keys)
    values = [argument.get(key, []) for key in keys] if is_mapping else []
    if not is_mapping or not all(isinstance(value, list) for value in values):
        raise Hopeless(f"step {step} needs {{{', '.join(f'{key}: [...]' for key in keys)}}}")
    return [[str(one) for one in value] for value in values]


def _read_drop_in_first(root, text):
    """Make sshd read our drop-in before anything else: of each keyword, the first value counts."""
    directives = [line.strip() for line in text.splitlines()]
    first = next((line for line in directives if line and not line.startswith("#")), "")
    ours = f"Include /{SSHD_DROP_IN}"
    if first != ours and not _INCLUDE_ALL.fullmatch(first):
        root.write(SSHD_CONFIG, f"{ours}\n{text}")


def _start_at_boot(root):
    """Make systemd start the SSH server, as `systemctl enable ssh` does; else nothing."""
    if not root.names(UNIT_FOLDERS[0]) and not root.names(UNIT_FOLDERS[1]):
        return
    folder = unit_folder(root, "ssh.service")
    if not folder:
        raise Failure("the image has no SSH server: it has no ssh.service")
    if root.link("etc/systemd/system/ssh.service") == "/dev/null":
        root.want(Absent("etc/systemd/system/ssh.service"))
    wants = "etc/systemd/system/multi-user.target.wants/ssh.service"
    if not (root.link(wants) or "").endswith("/ssh.service"):
        root.want(Link(wants, f"/{folder}/ssh.service"))
