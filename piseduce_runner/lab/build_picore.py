"""The piCore stand-in: busybox in a RAM disk, packages and a backup of the settings on the card.

Made of programs of the Debian tree. Layout as piCore's: the boot partition holds the RAM disk, the
second one the folder `tce` only.
"""

import re
import shutil
import subprocess
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.build_boot_files import (
    BOOTCODE_BYTES,
    deterministic_bytes,
    write_boot_files,
)
from piseduce_runner.lab.build_disk import MIB, Layout, write_image
from piseduce_runner.lab.build_tree import add_recipe, run

RAM_DISK = "rootfs-piCore-15.gz"
LAYOUT = Layout(
    disk_id=0xC0FFEE03,
    boot_label="PICORE",
    root_label="",
    root_uuid="0c0ffee0-0000-4000-8000-000000000005",
    root_bytes=32 * MIB,
    journal_mib=4,
)
COMMAND_LINE = (
    "zswap.compressor=lz4 console=tty1 root=/dev/ram0 rootwait quiet nortc loglevel=3 noembed "
    "tce=mmcblk0p2"
)
CONFIG = f"""\
# Options of the Raspberry Pi's firmware
[all]
arm_64bit=1
kernel=kernel8.img
initramfs {RAM_DISK} followkernel
"""
TC, STAFF = 1001, 50
# Its password is `piCore`, as in every image of piCore.
SHADOW = """\
root:*:19000:0:99999:7:::
sshd:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
tc:{}:19000:0:99999:7:::
"""
BOOT_LOCAL = "#!/bin/sh\n/usr/local/etc/init.d/openssh start\n"
# What each piece takes of the Debian tree. A library that is loaded by name is a piece of its own.
SUDO = ("usr/bin/sudo", "usr/libexec/sudo/sudoers.so")
SSH = ("usr/sbin/sshd", "usr/bin/ssh-keygen")
SSH_PARTS = ("usr/lib/openssh/sshd-session", "usr/lib/openssh/sshd-auth")  # OpenSSH 9.8 and later


def build_image(image: Path, base: Path) -> None:
    """Build the raw image from a Debian tree; `image`'s folder takes the scratch files."""
    boot, root = image.with_name("image-boot"), image.with_name("image-root")
    boot.mkdir()
    write_boot_files(boot, COMMAND_LINE, "picore")
    (boot / "cmdline3.txt").write_text(COMMAND_LINE + "\n", encoding="ascii")
    (boot / "config.txt").write_text(CONFIG, encoding="ascii")
    (boot / "bootcode.bin").write_bytes(deterministic_bytes("bootcode.bin", BOOTCODE_BYTES))
    ram_disk = image.with_name("ram-disk")
    _fill_ram_disk(ram_disk, base)
    _pack_ram_disk(ram_disk, boot / RAM_DISK)
    _fill_tce(root / "tce", base, image.with_name("package"), image.with_name("mydata"))
    write_image(image, boot, root, LAYOUT)


def _fill_ram_disk(tree: Path, base: Path) -> None:
    tree.mkdir()
    for folder in "bin sbin dev proc sys run mnt root home/tc usr/bin usr/lib/fat var".split():
        (tree / folder).mkdir(parents=True)
    shutil.copy(base / "usr/bin/busybox", tree / "bin/busybox")
    add_recipe(tree, "picore")
    _link_applets(tree)
    (tree / "etc/shadow").write_text(SHADOW.format(_hash("piCore")), encoding="ascii")
    (tree / "etc/shadow").chmod(0o640)
    (tree / "etc/sudoers").chmod(0o440)
    for program in SUDO:
        copy_program(base, program, tree, program)
    (tree / "usr/bin/sudo").chmod(0o4755)
    for module in base.glob("usr/lib/*/security/pam_permit.so"):
        path = str(module.relative_to(base))
        copy_program(base, path, tree, path.removeprefix("usr/"))
    _add_mcopy(tree, base)
    run("chown", "-R", f"{TC}:{STAFF}", tree / "home/tc")
    for name in ("opt", "opt/bootlocal.sh", "opt/bootsync.sh", "opt/.filetool.lst"):
        run("chown", f"0:{STAFF}", tree / name)
        (tree / name).chmod((tree / name).stat().st_mode | 0o020)


def _add_mcopy(tree: Path, base: Path) -> None:
    """For machines whose kernel has no vfat; with the code page that names on FAT are in."""
    copy_program(base, "usr/bin/mtools", tree, "usr/lib/fat/mcopy")
    for code_page in base.glob("usr/lib/*/gconv/IBM850.so"):
        origin = code_page.parent
        target = tree / origin.relative_to(base)
        target.mkdir(parents=True, exist_ok=True)
        for file in (code_page, origin / "gconv-modules", *origin.glob("gconv-modules.d/*")):
            place = target / file.relative_to(origin)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, place)


def _link_applets(tree: Path) -> None:
    """Every command of busybox, but where the recipe has one of its own."""
    listing = subprocess.run([tree / "bin/busybox", "--list"], capture_output=True, text=True)
    for name in listing.stdout.split():
        link = tree / ("sbin" if name in ("init", "reboot", "poweroff", "halt") else "bin") / name
        if not link.exists():
            link.symlink_to("/bin/busybox")


def copy_program(base: Path, program: str, tree: Path, place: str) -> None:
    """Copy a program or library of the tree `base` to a place in `tree`, and what it is linked to.

    The libraries come to where the loader looks for them.
    """
    needed = {place: f"/{program}"} | {path.lstrip("/"): path for path in _libraries(base, program)}
    for name, origin in needed.items():
        target = tree / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_inside(base, origin), target)
            target.chmod(0o755)


def _libraries(base: Path, program: str) -> list[str]:
    said = run("chroot", base, "/usr/bin/ldd", f"/{program}")
    return re.findall(r"(/\S+) \(0x", said)


def _inside(base: Path, path: str) -> Path:
    """The file that a path leads to within the tree, links followed as the tree sees them."""
    return base / run("chroot", base, "/usr/bin/realpath", path).strip().lstrip("/")


def _pack_ram_disk(tree: Path, target: Path) -> None:
    """As the kernel unpacks it: a cpio archive of the format newc, compressed by gzip."""
    command = "set -e; find . | busybox cpio -o -H newc | gzip -n -6"
    with target.open("wb") as file:
        done = subprocess.run(["sh", "-c", command], cwd=tree, stdout=file, stderr=subprocess.PIPE)
    if done.returncode or target.stat().st_size < MIB:
        raise UserError(f"building the lab's piCore failed: {done.stderr.decode().strip()}")


def _fill_tce(tce: Path, base: Path, package: Path, settings: Path) -> None:
    (tce / "optional").mkdir(parents=True)
    add_recipe(package, "picore-openssh")
    for program in SSH:
        copy_program(base, program, package, f"usr/local/{program.removeprefix('usr/')}")
    for program in SSH_PARTS:
        if (base / program).exists():
            copy_program(base, program, package, program)
    _tar(package, tce / "optional/openssh.tcz")
    (tce / "onboot.lst").write_text("openssh.tcz\n", encoding="ascii")
    for name, text in (("opt/bootlocal.sh", BOOT_LOCAL), ("opt/.filetool.lst", "opt\nhome\n")):
        file = settings / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
        file.chmod(0o775 if name.endswith(".sh") else 0o664)
    run("chown", "-R", f"0:{STAFF}", settings / "opt")
    _tar(settings, tce / "mydata.tgz")
    run("chown", "-R", f"{TC}:{STAFF}", tce)


def _tar(folder: Path, target: Path) -> None:
    run("tar", "-C", folder, "-czf", target, *sorted(path.name for path in folder.iterdir()))


def _hash(password: str) -> str:
    return run("openssl", "passwd", "-6", "-salt", "picore", password).strip()
