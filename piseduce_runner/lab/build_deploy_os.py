"""The deploy OS: the Debian tree that nodes run from while their card is written."""

from pathlib import Path

from piseduce_runner.lab.build_tree import Workshop, add_recipe, bootstrap, busybox_init

PACKAGES = [
    "busybox-static",
    "curl",
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "iproute2",
    "mtools",
    "openssh-server",
    "parted",
    "procps",
    "python3",
    "python3-fusepy",
    "rsync",
    "zstd",
]


def build_deploy_os(target: Path, workshop: Workshop) -> None:
    """Build the tree at `target`: hostname `nfspi`, sshd for keys only; no key of any kind inside.

    A lab lays its own host key and authorized_keys over it.
    """
    bootstrap(target, PACKAGES, workshop, "deploy-os.log")
    add_recipe(target, "common")
    add_recipe(target, "deploy-os")
    busybox_init(target)
    for folder in ("mnt/piseduce/boot", "mnt/piseduce/root", "root/.ssh"):
        (target / folder).mkdir(parents=True)
    (target / "root/.ssh").chmod(0o700)
