# SPDX-License-Identifier: MIT
"""A step of system_conf: Raspberry Pi OS without what its first boot does by itself.

Raspberry Pi OS of 2020 and later and its relatives are meant; what one of them does not have is
passed over. Sources: the packages raspberrypi-sys-mods (`firstboot`, `resize_early`,
`regenerate_ssh_host_keys`), raspi-config (`init_resize.sh`, `resize2fs_once`) and userconf-pi as
published by RPi-Distro; systemd.unit(5).
"""

from __future__ import annotations

import re

from ansible.module_utils.piseduce_linux import unit_folder
from ansible.module_utils.piseduce_wanted import Absent, Link

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

# Of the boot partition: flags and settings that the first boot would take and remove, so that it
# would not be what the manager has of it. A user's password is in userconf.txt, as a hash, and
# whatever is on this partition anybody can get by TFTP.
BOOT_FILES = (
    "ssh",
    "ssh.txt",
    "userconf",
    "userconf.txt",
    "firstrun.sh",
    "custom.toml",
    "wpa_supplicant.conf",
)


def raspberry_first_boot(system, _argument):
    """No resizing, no other host keys, no wizard, no settings that the Imager left."""
    system.boot.remove(*BOOT_FILES)
    system.kernel_arguments(lambda words: [w for w in words if not _is_first_boot(w)])
    root = system.root
    root.remove(*FIRST_BOOT_FILES)
    for level in "0123456S":
        folder = f"etc/rc{level}.d"
        for name in root.names(folder):
            if RUNLEVEL_SCRIPTS.fullmatch(name):
                root.want(Absent(f"{folder}/{name}"))
    for folder in root.names("etc/systemd/system"):
        if folder.endswith((".wants", ".requires")):
            for name in root.names(f"etc/systemd/system/{folder}"):
                if name in FIRST_BOOT_UNITS:
                    root.want(Absent(f"etc/systemd/system/{folder}/{name}"))
    for unit in FIRST_BOOT_UNITS:
        if unit_folder(root, unit) or root.exists(f"etc/systemd/system/{unit}"):
            root.want(Link(f"etc/systemd/system/{unit}", "/dev/null"))


def _is_first_boot(word):
    if word.startswith("init="):
        # Another init is the image's choice.
        return word.rpartition("/")[2] in ("init_resize.sh", "firstboot")
    # `resize` and `firstboot` are looked for by the initial RAM disk; systemd.run and its unit are
    # how the Raspberry Pi Imager runs a script once and reboots.
    return word in ("resize", "firstboot") or word.startswith(
        ("systemd.run=", "systemd.run_success_action=", "systemd.unit=kernel-command-line.target")
    )
