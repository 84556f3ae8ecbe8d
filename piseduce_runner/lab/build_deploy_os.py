"""The deploy OS: the Debian tree that nodes run from while their card is written."""

from pathlib import Path

from piseduce_runner.lab.build_tree import add_recipe, busybox_init, run


def build_deploy_os(target: Path, base: Path) -> None:
    """Build the tree at `target`: hostname `nfspi`, sshd for keys only; no key of any kind inside.

    A lab lays its own host key and authorized_keys over it.
    """
    # Hard links: neither tree is ever written to, and files of ours replace Debian's by new ones.
    run("cp", "--archive", "--link", base, target)
    add_recipe(target, "common")
    add_recipe(target, "deploy-os")
    busybox_init(target)
    for folder in ("mnt/piseduce/boot", "mnt/piseduce/root"):
        (target / folder).mkdir(parents=True)
    (target / "root/.ssh").mkdir(mode=0o700, exist_ok=True)  # Debian 13 has it
