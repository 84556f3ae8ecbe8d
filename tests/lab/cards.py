"""Cards and TFTP folders as a deployment leaves them, made without one."""

import os
import shutil
import subprocess
from pathlib import Path

from simulated_lab import SimulatedLab

from piseduce_runner.environments import Environment, list_environments

WANTED = "etc/systemd/system/multi-user.target.wants"
MTOOLS = os.environ | {"MTOOLS_SKIP_CHECK": "1"}


def environment(lab: SimulatedLab) -> Environment:
    """The lab's environment of the family raspbian."""
    known, _ = list_environments(lab.site / "environments")
    return next(one for one in known if one.family == "raspbian")


def make_good_image(lab: SimulatedLab, hostname: str, image: Path) -> None:
    """The environment's raw image, configured: host name, manager's key, sshd on, no first boot."""
    packed = environment(lab)
    subprocess.run(
        ["zstd", "-q", "-d", "-f", "--sparse", packed.folder / packed.image, "-o", image],
        check=True,
    )
    loop = _output("losetup", "--find", "--show", image)
    mount_point = image.with_suffix(".mnt")
    mount_point.mkdir()
    try:
        _run("partx", "--update", loop)  # the loop device may have somebody's partitions
        _run("mount", f"{loop}p2", mount_point)
        try:
            _configure(lab, mount_point, hostname)
        finally:
            _run("umount", mount_point)
        words = _output("mtype", "-i", f"{loop}p1", "::cmdline.txt", env=MTOOLS).split()
        cmdline = image.with_suffix(".cmdline")
        cmdline.write_text(" ".join(word for word in words if not word.startswith("init=")) + "\n")
        _run("mcopy", "-o", "-i", f"{loop}p1", cmdline, "::cmdline.txt", env=MTOOLS)
        _run("blockdev", "--flushbufs", loop)
    finally:
        _run("partx", "--delete", loop)
        _run("losetup", "--detach", loop)


def _configure(lab: SimulatedLab, root: Path, hostname: str) -> None:
    (root / "etc/hostname").write_text(f"{hostname}\n")
    ssh = root / "root/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(lab.site / "keys/manager_ed25519.pub", ssh / "authorized_keys")
    (ssh / "authorized_keys").chmod(0o600)
    (root / WANTED / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    for script in root.glob("etc/rc3.d/S*resize2fs_once"):
        script.unlink()


def insert_image(lab: SimulatedLab, index: int, image: Path, length: int | None = None) -> None:
    """Writes the image (its first `length` bytes) to a node's blank card. The node is off."""
    erase_card(lab, index)
    device = lab.loop_device(index)
    count = [f"count={length}", "iflag=count_bytes"] if length is not None else []
    copy = ["dd", f"if={image}", f"of={device}", "bs=1M", "conv=sparse,fsync", "status=none"]
    _run(*copy, *count)


def erase_card(lab: SimulatedLab, index: int) -> None:
    """A card as it was bought: every byte is zero."""
    _run("blkdiscard", lab.loop_device(index))


def insert_boot_files(lab: SimulatedLab, index: int, image: Path) -> None:
    """Makes the node's TFTP folder equal to the image's boot partition."""
    target = lab.node_tftp(index)
    remove_boot_files(lab, index)
    target.mkdir()
    offset = environment(lab).boot_start_sector * 512
    _run("mcopy", "-s", "-i", f"{image}@@{offset}", "::", target, env=MTOOLS)


def insert_nfs_boot_files(lab: SimulatedLab, index: int) -> None:
    """Makes the node's TFTP folder equal to the template for the deploy OS."""
    remove_boot_files(lab, index)
    inventory = (lab.site / "inventory/hosts.yml").read_text()
    line = next(line for line in inventory.splitlines() if "piseduce_nfs_boot_files:" in line)
    shutil.copytree(line.split(":", 1)[1].strip(), lab.node_tftp(index))


def remove_boot_files(lab: SimulatedLab, index: int) -> None:
    shutil.rmtree(lab.node_tftp(index), ignore_errors=True)


def _run(*command: object, env: dict[str, str] | None = None) -> None:
    _output(*command, env=env)


def _output(*command: object, env: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()
