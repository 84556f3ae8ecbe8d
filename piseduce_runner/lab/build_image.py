"""The sample image: a small Debian with the layout and the first boot of Raspberry Pi OS."""

import tempfile
from pathlib import Path

from piseduce_runner.lab.build_apt import INSTALLED, build_package
from piseduce_runner.lab.build_boot_files import write_boot_files
from piseduce_runner.lab.build_disk import Layout, write_image
from piseduce_runner.lab.build_tree import add_recipe, busybox_init, run, run_in

DISK_ID = 0xC0FFEE01
LAYOUT = Layout(DISK_ID, "bootfs", "rootfs", "0c0ffee0-0000-4000-8000-000000000001")
# The last words are those of an image fresh from the Raspberry Pi Imager.
CMDLINE = (
    f"console=serial0,115200 console=tty1 root=PARTUUID={DISK_ID:08x}-02 rootfstype=ext4 "
    "fsck.repair=yes rootwait quiet init=/usr/lib/raspi-config/init_resize.sh"
)
FSTAB = f"""\
proc                  /proc           proc    defaults          0       0
PARTUUID={DISK_ID:08x}-01  /boot/firmware  vfat    defaults          0       2
PARTUUID={DISK_ID:08x}-02  /               ext4    defaults,noatime  0       1
"""
WANTED = "etc/systemd/system/multi-user.target.wants"


def build_image(image: Path, base: Path) -> None:
    """Build the raw image from a Debian tree; `image`'s folder takes the scratch files."""
    tree = image.with_name("image-root")
    boot = image.with_name("image-boot")
    run("cp", "--archive", "--reflink=auto", base, tree)
    _configure(tree)
    (tree / "boot/firmware").rename(boot)
    (tree / "boot/firmware").mkdir()
    write_image(image, boot, tree, LAYOUT)


def _configure(tree: Path) -> None:
    add_recipe(tree, "common")
    add_recipe(tree, "image")
    busybox_init(tree)
    (tree / "etc/fstab").write_text(FSTAB, encoding="ascii")
    (tree / "etc/sudoers.d/010_pi-nopasswd").chmod(0o440)
    # sshd waits for the flag file, host keys are made on the first boot, and so is the room.
    for name in ("ssh.service", "sshd.service"):
        for link in (tree / "etc/systemd/system").rglob(name):
            link.unlink()
    (tree / WANTED).mkdir(parents=True, exist_ok=True)
    for name in ("regenerate_ssh_host_keys.service", "sshswitch.service"):
        (tree / WANTED / name).symlink_to(f"/lib/systemd/system/{name}")
    (tree / "etc/rc3.d/S01resize2fs_once").symlink_to("../init.d/resize2fs_once")
    run_in(tree, "useradd", "--create-home", "--uid=1000", "--shell=/bin/bash", "pi")
    run_in(tree, "usermod", "--append", "--groups=sudo,video,plugdev", "pi")
    (tree / "boot/firmware").mkdir()
    write_boot_files(tree / "boot/firmware", CMDLINE, "card")
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as scratch:
        deb = build_package(INSTALLED, Path(scratch))
        run_in(tree, "dpkg", "--install", f"/{deb.relative_to(tree)}")
