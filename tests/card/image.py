"""A small operating-system image, as a Raspberry Pi's: MBR, a FAT partition, an ext4 partition."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

BOOT_START, BOOT_SECTORS = 8192, 16384
ROOT_START, ROOT_SECTORS = 24576, 49152
DISK_ID = "0xc0ffee01"

CMDLINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=c0ffee01-02 rootfstype=ext4 rootwait "
    "quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
)


def call(*command, **options):
    """Run a tool of the fixture; its failure is the test's error."""
    options.setdefault("check", True)
    return subprocess.run(command, capture_output=True, text=True, **options)


def raspbian_tree(root: Path) -> None:
    """Make a root tree with what a stock Raspberry Pi OS has that matters to the card's states."""
    files = {
        "etc/os-release": "ID=debian\nVERSION_ID=12\n",
        "etc/hostname": "raspberrypi\n",
        "etc/hosts": "127.0.0.1\tlocalhost\n::1\t\tlocalhost\n127.0.1.1\traspberrypi\n",
        "etc/fstab": "PARTUUID=c0ffee01-02 / ext4 defaults 0 1\n",
        "etc/ssh/sshd_config": "# sshd's configuration\nInclude /etc/ssh/sshd_config.d/*.conf\n",
        "etc/ssh/ssh_host_rsa_key": "the image's, the same on every card\n",
        "etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA the image's\n",
        "etc/init.d/resize2fs_once": "#!/bin/sh\n",
        "usr/lib/systemd/system/ssh.service": "[Install]\nWantedBy=multi-user.target\n",
        "usr/lib/systemd/system/regenerate_ssh_host_keys.service": "[Unit]\n",
        "usr/lib/systemd/system/userconfig.service": "[Unit]\n",
        "root/.bashrc": "# root's\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in (
        "etc/rc3.d",
        "etc/systemd/system/multi-user.target.wants",
        "boot/firmware",
        "dev",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/rc3.d/S01resize2fs_once").symlink_to("../init.d/resize2fs_once")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    for unit in ("regenerate_ssh_host_keys.service", "userconfig.service"):
        (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    # Something that does not compress, in more than one window.
    (root / "usr/lib/noise").write_bytes(os.urandom(6 << 20))


def boot_files(folder: Path) -> None:
    """Fill a folder with what the image's FAT partition holds."""
    (folder / "cmdline.txt").write_text(CMDLINE)
    (folder / "config.txt").write_text("arm_64bit=1\n")
    (folder / "bootcode.bin").write_bytes(os.urandom(50_000))
    (folder / "kernel8.img").write_bytes(os.urandom(3 << 20))


def make_raw_image(folder: Path) -> Path:
    """Make the raw image `image.img` in a folder, without mounting anything."""
    root, boot = folder / "root", folder / "boot"
    root.mkdir()
    boot.mkdir()
    raspbian_tree(root)
    boot_files(boot)
    image, fat, ext4 = folder / "image.img", folder / "p1", folder / "p2"
    os.truncate(os.open(image, os.O_CREAT | os.O_RDWR), (ROOT_START + ROOT_SECTORS) * 512)
    table = (
        f"label: dos\nlabel-id: {DISK_ID}\nstart={BOOT_START},size={BOOT_SECTORS},type=c,bootable\n"
        f"start={ROOT_START},size={ROOT_SECTORS},type=83\n"
    )
    call("sfdisk", "--quiet", str(image), input=table)
    os.truncate(os.open(fat, os.O_CREAT | os.O_RDWR), BOOT_SECTORS * 512)
    call("mkfs.vfat", "-F", "16", "-s", "1", "-n", "BOOTFS", str(fat))
    call("mcopy", "-i", str(fat), *map(str, sorted(boot.iterdir())), "::")
    os.truncate(os.open(ext4, os.O_CREAT | os.O_RDWR), ROOT_SECTORS * 512)
    call("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "rootfs", "-d", str(root), str(ext4))
    for part, start in ((fat, BOOT_START), (ext4, ROOT_START)):
        options = (f"of={image}", "bs=1M", f"seek={start * 512}", "oflag=seek_bytes")
        call("dd", f"if={part}", *options, "conv=notrunc,sparse", "status=none")
    return image


def publish(image: Path, folder: Path) -> dict:
    """Make an environment's folder of a raw image; returns what its environment.yml would say."""
    folder.mkdir()
    call("bmaptool", "create", "-o", str(folder / "image.bmap"), str(image))
    call("zstd", "-q", "-3", str(image), "-o", str(folder / "image.img.zst"))
    environment = {
        "image_bytes": image.stat().st_size,
        "block_map_sha256": hashlib.sha256((folder / "image.bmap").read_bytes()).hexdigest(),
        "disk_id": DISK_ID,
        "root_start_sector": ROOT_START,
        "root_sectors": ROOT_SECTORS,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    return environment


def mapped(environment_folder):
    """The block map's ranges as bmaptool wrote them: (start, end, digest)."""
    text = (environment_folder / "image.bmap").read_text()
    size = int(re.search(r"<ImageSize>\s*(\d+)", text)[1])
    for digest, first, last in re.findall(r'<Range chksum="(\w+)">\s*(\d+)(?:-(\d+))?', text):
        yield int(first) * 4096, min((int(last or first) + 1) * 4096, size), digest


def assert_holds_image(card, published):
    for start, end, digest in mapped(published / "debian"):
        assert hashlib.sha256(card.read(start, end - start)).hexdigest() == digest, start
