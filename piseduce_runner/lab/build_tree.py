"""Making a system's tree: our own files over Debian's, commands in it, tools around it."""

import os
import shutil
import subprocess
from pathlib import Path

from piseduce_runner.errors import UserError

RECIPE = Path(__file__).resolve().parent / "recipe"


def run(*command: object, stdin: str = "") -> str:
    """Run a tool and return what it printed. Raises UserError with its last words."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            f"building the lab's systems failed: {words[0]} ended with {done.returncode}: {last}"
        )
    return done.stdout


def add_recipe(tree: Path, name: str) -> None:
    """Copy the files of recipe/NAME over `tree`. Files that start with `#!` are made executable."""
    origin = RECIPE / name
    for source in recipe_files(origin):
        target = tree / source.relative_to(origin)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755 if source.read_bytes()[:2] == b"#!" else 0o644)


def recipe_files(place: Path) -> list[Path]:
    """The files at or below `place`, in a fixed order, without what Python leaves behind."""
    if place.is_file():
        return [place]
    files = (path for path in place.rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix != ".pyc")


def busybox_init(tree: Path) -> None:
    """Make busybox the init and the commands that talk to it."""
    for command in ("init", "reboot", "poweroff", "halt"):
        link = tree / "usr/sbin" / command
        link.unlink(missing_ok=True)
        link.symlink_to("/bin/busybox")


def run_in(tree: Path, *command: str) -> None:
    """Run a command in the tree (chroot). Raises UserError."""
    run("chroot", tree, "/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command)
