# SPDX-License-Identifier: MIT
"""A step of system_conf: piCore, whose system is in RAM and whose settings are in an archive.

The second partition holds the folder `tce`: packages (`optional/*.tcz`, of which `onboot.lst` names
those loaded at boot) and `mydata.tgz`, which is unpacked over the root at each boot. Sources:
tinycorelinux/Core-scripts (tc-config, tce-setup, tc-restore.sh, filetool.sh, sethostname).
"""

from __future__ import annotations

from ansible.module_utils.piseduce_mydata import LONGEST, Backup, Owner
from ansible.module_utils.piseduce_process import Failure
from ansible.module_utils.piseduce_wanted import File

SSH = "usr/local/etc/ssh"
HOST_KEY = f"{SSH}/ssh_host_ed25519_key"
START_SSH = "/usr/local/etc/init.d/openssh start"
FILE_LIST = "opt/.filetool.lst"
BOOT_LOCAL = "opt/bootlocal.sh"
# What a backup has to hold for the next start to be the same system.
KEPT = ("opt", "home", "etc/shadow", SSH)
COMMAND_LINES = ("cmdline3.txt",)
TC, STAFF = Owner(1001, 50), 50  # the image's own, if its backup does not say otherwise


def picore(system, _argument):
    """Name, the manager's key for the default user, a host key, and an SSH server at each start."""
    name = _backup_name(system)
    backup = Backup(system.root.read(f"tce/{name}", LONGEST))
    owner = _owner(backup, system.login)
    _write_key(backup, system, owner)
    _write_ssh(backup, system)
    _keep(backup)
    system.kernel_arguments(lambda words: _command_line(words, system.hostname), *COMMAND_LINES)
    if backup.changed:
        system.root.want(File(f"tce/{name}", backup.pack(), 0o664, secret=True))


def _backup_name(system):
    """The archive's name, by the kernel's argument `mydata=`; refuses what cannot be configured."""
    packages = [line.split("#")[0].strip() for line in system.root.text("tce/onboot.lst").split()]
    if "openssh.tcz" not in packages or not system.root.exists("tce/optional/openssh.tcz"):
        raise Failure("the image has no SSH server: tce/onboot.lst does not load openssh.tcz")
    name = "mydata"
    for word in system.boot.text("cmdline.txt").split():
        if word.startswith("mydata="):
            name = word.partition("=")[2]
    if not name or "/" in name or name.startswith("."):
        raise Failure(f"the image's cmdline.txt has mydata={name!r}, which is no file's name")
    if system.root.exists(f"tce/{name}.tgz.bfe"):
        raise Failure(f"the image's settings are encrypted (tce/{name}.tgz.bfe)")
    return f"{name}.tgz"


def _owner(backup, login):
    for line in backup.text("etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[0] == login and (fields[2] + fields[3]).isdigit():
            return Owner(int(fields[2]), int(fields[3]))
    return TC


def _write_key(backup, system, owner):
    home = f"home/{system.login}"
    if home not in backup.names():
        backup.make_folder(home, 0o755, owner)
        backup.make_folder("home", 0o775, Owner(0, STAFF))
    backup.make_folder(f"{home}/.ssh", 0o700, owner)
    backup.write_text(f"{home}/.ssh/authorized_keys", f"{system.manager_key}\n", 0o600, owner)
    backup.remove(f"{home}/.ssh/authorized_keys2")


def _write_ssh(backup, system):
    for name in backup.names():
        if name.startswith(f"{SSH}/ssh_host_") and name not in (HOST_KEY, f"{HOST_KEY}.pub"):
            backup.remove(name)
    backup.write(HOST_KEY, system.give_host_key(backup.read(HOST_KEY)), 0o600)
    backup.write_text(f"{HOST_KEY}.pub", f"{system.host_key}\n")
    # Of each keyword the first value counts (sshd_config(5)).
    ours = [f"HostKey /{HOST_KEY}", "PermitRootLogin prohibit-password"]
    old = [line for line in backup.text(f"{SSH}/sshd_config").splitlines() if line not in ours]
    backup.write_text(f"{SSH}/sshd_config", "\n".join([*ours, *old]) + "\n")
    script = backup.text(BOOT_LOCAL) or "#!/bin/sh\n"
    if "init.d/openssh" not in script:
        script = script.rstrip("\n") + f"\n{START_SSH}\n"
    backup.write_text(BOOT_LOCAL, script, 0o775, Owner(0, STAFF))


def _keep(backup):
    """Name in .filetool.lst what the next backup has to hold."""
    lines = [line for line in backup.text(FILE_LIST).splitlines() if line.strip()]
    listed = {line.strip().strip("/") for line in lines}

    def is_listed(path):
        parts = path.split("/")
        return any("/".join(parts[:length]) in listed for length in range(1, len(parts) + 1))

    lines += [path for path in KEPT if not is_listed(path)]
    backup.write_text(FILE_LIST, "\n".join(lines) + "\n", 0o664, Owner(0, STAFF))


def _command_line(words, hostname):
    """The name, and nothing that keeps the settings from being restored."""
    kept = [word for word in words if word != "norestore" and not word.startswith("host=")]
    return [*kept, f"host={hostname}"]
