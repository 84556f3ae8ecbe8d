"""What a machine must have before anything of a lab is built."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.build import TOOLS

# Commands that a running lab uses, and their Debian packages (`TOOLS`: to build what it runs).
COMMANDS = {
    "busybox": "busybox-static",
    "chroot": "coreutils",
    "cp": "coreutils",
    "delpart": "util-linux",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "losetup": "mount",
    "mount": "mount",
    "nft": "nftables",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "partx": "util-linux",
    "pivot_root": "util-linux",
    "setpriv": "util-linux",
    "ssh-keygen": "openssh-client",
    "tc": "iproute2",
    "unshare": "util-linux",
}
APPLETS = ("chroot", "env", "nslookup", "tftp", "udhcpc", "umount", "wget")  # of busybox
GIB = 1 << 30
BUILD_BYTES = 3 * GIB  # deploy OS, sample image and what they are made of
LAB_BYTES = GIB // 2
NODE_BYTES = GIB // 2  # what a deployment really writes to a sparse card


def check_machine(cache: Path, root: Path, nodes: int) -> None:
    """Raises UserError, in one line, for the first thing that is missing."""
    check_root()
    _check_commands()
    _check_busybox()
    _check_kernel()
    _check_space(cache, BUILD_BYTES if not cache.exists() else 0)
    _check_space(root, LAB_BYTES + nodes * NODE_BYTES)


def check_root() -> None:
    """Raises UserError unless we are root; also lets commands of the system be found."""
    if os.geteuid() != 0:
        raise UserError("the lab makes network namespaces and mounts: run it as root (sudo)")
    # `su` without a login leaves them out.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _check_commands() -> None:
    needed = COMMANDS | TOOLS
    missing = {name: package for name, package in needed.items() if not shutil.which(name)}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise UserError(f"missing commands: {', '.join(missing)}; install: {packages}")


def _check_busybox() -> None:
    """The busybox that boards use must have its applets, and run where there are no libraries."""
    program = shutil.which("busybox")
    have = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    lacking = [applet for applet in APPLETS if applet not in have]
    with tempfile.TemporaryDirectory() as empty:
        shutil.copy(program, empty)
        alone = subprocess.run(["chroot", empty, "/busybox", "true"], capture_output=True)
    if lacking or alone.returncode:
        what = f"has no {', '.join(lacking)}" if lacking else "is not statically linked"
        raise UserError(f"{program} {what}; install: busybox-static")


def _check_kernel() -> None:
    for file, what in (
        ("/dev/loop-control", "loop devices"),
        ("/dev/fuse", "FUSE"),
        ("/proc/self/ns/pid", "PID namespaces"),
        ("/proc/self/ns/net", "network namespaces"),
    ):
        if not Path(file).exists():
            raise UserError(f"this kernel has no {what} ({file} does not exist)")


def _check_space(folder: Path, needed: int) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"not enough room at {folder}: {needed / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free"
        )
