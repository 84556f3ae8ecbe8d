# SPDX-License-Identifier: MIT
"""Steps of system_conf: an image with cloud-init, which keeps it or loses it.

cloud-init reads `user-data`, `meta-data` and `network-config` from the boot partition (its data
source NoCloud). Sources: cloud-init's documentation of NoCloud, of its modules (set hostname,
ssh, users and groups, growpart, resizefs) and of disabling it; ubuntu-raspi-settings.
"""

from __future__ import annotations

import hashlib

from ansible.module_utils.piseduce_process import Failure

FOLDER = "etc/cloud"
SETTINGS = "etc/cloud/cloud.cfg.d/99-piseduce.cfg"
SEED = ("user-data", "meta-data", "network-config")

USER_DATA = """\
#cloud-config
# Written by PiSeduce. What the image itself wants belongs into its /etc/cloud/cloud.cfg.d.
# Its user, password and keys are set over SSH once it runs: anybody can read this file by TFTP.
hostname: {hostname}
ssh_pwauth: true
"""
# The last word on what must not be undone, whatever user-data says afterwards: these keys are not
# in ours. The image's own files of this folder come before it.
SETTINGS_TEXT = """\
# Written by PiSeduce: name, host key and root's keys are set already, and so is the partition.
preserve_hostname: true
manage_etc_hosts: false
ssh_deletekeys: false
ssh_genkeytypes: []
disable_root: false
growpart: {mode: "off"}
resize_rootfs: false
"""
NETWORK = """\
# Written by PiSeduce.
version: 2
ethernets:
  eth0:
    dhcp4: true
    optional: true
"""


def without_cloud_init(system, _argument):
    """It does not run, and what it was told is gone from the boot partition."""
    if not system.root.names(FOLDER):
        return
    system.root.write(f"{FOLDER}/cloud-init.disabled", "")
    system.boot.remove(*SEED)


def cloud_init(system, _argument):
    """It runs as at a first boot, and undoes nothing of what is set on the card.

    The image's `network-config` stays. `user-data` and `meta-data` are replaced: the instance's id
    is new with each host key, so cloud-init takes each deployment for another machine.
    """
    if not system.root.names(FOLDER):
        raise Failure("the image has no cloud-init: it has no /etc/cloud")
    if not system.host_key:
        raise Failure("the step cloud_init comes after the one that makes the host key")
    system.root.remove(f"{FOLDER}/cloud-init.disabled")
    system.root.write(SETTINGS, SETTINGS_TEXT)
    instance = hashlib.sha256(system.host_key.encode()).hexdigest()[:12]
    system.boot.write("user-data", USER_DATA.format(hostname=system.hostname))
    system.boot.write(
        "meta-data", f"instance-id: piseduce-{instance}\nlocal-hostname: {system.hostname}\n"
    )
    if system.boot.read("network-config") is None:
        system.boot.write("network-config", NETWORK)
