"""The Ubuntu stand-in: the Debian tree with the names, the layout and the first boot of Ubuntu."""

import shutil
import tempfile
from pathlib import Path

import yaml

from piseduce_runner.lab.build_apt import INSTALLED, build_package
from piseduce_runner.lab.build_boot_files import deterministic_bytes, write_boot_files
from piseduce_runner.lab.build_disk import Layout, write_image
from piseduce_runner.lab.build_tree import add_recipe, busybox_init, run, run_in

LAYOUT = Layout(
    disk_id=0xC0FFEE02,
    boot_label="system-boot",
    root_label="writable",
    root_uuid="0c0ffee0-0000-4000-8000-000000000003",
)
COMMAND_LINE = (
    "console=serial0,115200 multipath=off dwc_otg.lpm_enable=0 console=tty1 root=LABEL=writable "
    "rootfstype=ext4 rootwait fixrtc"
)
CONFIG = """\
# Options of the Raspberry Pi's firmware
[all]
kernel=vmlinuz
cmdline=cmdline.txt
initramfs initrd.img followkernel
arm_64bit=1
"""
# As in Ubuntu's own image: a well-known password, SSH with passwords.
SEED = {
    "user-data": """\
#cloud-config
chpasswd:
  expire: true
  users:
  - name: ubuntu
    password: ubuntu
    type: text
ssh_pwauth: true
""",
    "meta-data": "instance-id: cloud-image\n",
    "network-config": "version: 2\nethernets:\n  eth0:\n    dhcp4: true\n    optional: true\n",
}


def build_image(image: Path, base: Path) -> None:
    """Build the raw image from a Debian tree; `image`'s folder takes the scratch files."""
    tree, boot = image.with_name("image-root"), image.with_name("image-boot")
    run("cp", "--archive", "--reflink=auto", base, tree)
    add_recipe(tree, "common")
    add_recipe(tree, "ubuntu")
    busybox_init(tree)
    (tree / "etc/sudoers.d/90-cloud-init-users").chmod(0o440)
    # PyYAML for the stand-in of cloud-init: Debian's package of it is not in the tree.
    modules = tree / "usr/lib/python3/dist-packages/yaml"
    shutil.copytree(
        Path(yaml.__file__).parent, modules, ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    for name in ("ssh.service", "sshd.service"):
        for link in (tree / "etc/systemd/system").rglob(name):
            link.unlink()
    (tree / "boot/firmware").mkdir()
    _install_sample_package(tree)
    (tree / "boot/firmware").rename(boot)
    (tree / "boot/firmware").mkdir()
    write_boot_files(boot, COMMAND_LINE, "ubuntu")
    (boot / "kernel8.img").rename(boot / "vmlinuz")
    (boot / "initrd.img").write_bytes(deterministic_bytes("initrd.img", 2_000_000))
    (boot / "config.txt").write_text(CONFIG, encoding="ascii")
    for name, text in SEED.items():
        (boot / name).write_text(text, encoding="ascii")
    write_image(image, boot, tree, LAYOUT)


def _install_sample_package(tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as scratch:
        deb = build_package(INSTALLED, Path(scratch))
        run_in(tree, "dpkg", "--install", f"/{deb.relative_to(tree)}")
