"""Debian trees: mmdebstrap with the host's sources, a shared store of packages, our own files."""

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.lab.build_sources import Release, debian_sources, host_apt_options

RECIPE = Path(__file__).resolve().parent / "recipe"
# Nobody reads manuals on a simulated node, and every megabyte is copied to every card.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Workshop:
    """What the builds of one cache share."""

    release: Release
    cache: Path

    @property
    def debs(self) -> Path:
        """Downloaded packages, for this build and the next."""
        return self.cache / "debs"


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


def bootstrap(tree: Path, packages: list[str], workshop: Workshop, log_name: str) -> None:
    """Install Debian with `packages` into the new folder `tree`, without its build traces.

    What mmdebstrap says goes to the file `log_name` in the cache. Raises UserError with
    mmdebstrap's own complaint if it fails.
    """
    release, log = workshop.release, workshop.cache / log_name
    workshop.debs.mkdir(exist_ok=True)
    store = shlex.quote(str(workshop.debs))
    sources = tree.with_name(tree.name + ".sources")
    sources.write_text(debian_sources(release.codename), encoding="utf-8")
    options = tree.with_name(tree.name + ".apt.conf")
    options.write_text(host_apt_options(), encoding="utf-8")
    archives = '"$1"/var/cache/apt/archives'
    command = [
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        f"--include={','.join(packages)}",
        "--aptopt=APT::Install-Recommends false",
        "--aptopt=Acquire::Languages none",
        f"--aptopt={options}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        # Hard links: whole files, never half a copy, though trees are built side by side.
        f"--setup-hook=mkdir -p {archives}; cp -l {store}/*.deb {archives}/ 2>/dev/null || true",
        "--skip=essential/unlink",
        f"--customize-hook=cp -l -n {archives}/*.deb {store}/",
        release.codename,
        str(tree),
        str(sources),
    ]
    # C.UTF-8: the only locale that every tree has.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        ).returncode
    if status != 0:
        raise UserError(
            f"building the lab's Debian failed: {_complaint(log)} (all of it: {log}); "
            "can this machine reach its Debian mirror (apt-get update)?"
        )
    _forget_the_build(tree)
    sources.unlink()
    options.unlink()


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


def _complaint(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E: ")]
    return (errors or lines or ["it said nothing"])[0].removeprefix("E: ")


def _forget_the_build(tree: Path) -> None:
    """Remove what belongs to this host or this build: sources, settings, caches, keys, logs."""
    for pattern in (
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
        "etc/apt/sources.list.d/*",
        "etc/apt/sources.list",
        "etc/ssh/ssh_host_*",
        "etc/resolv.conf",
        "var/cache/apt/*.bin",
        "var/cache/apt/archives/*.deb",
        "var/lib/apt/lists/*_*",
        "var/lib/dpkg/*-old",
        "var/cache/debconf/*-old",
    ):
        for file in tree.glob(pattern):
            file.unlink()
    for file in (tree / "var/log").rglob("*"):
        if file.is_file():
            file.unlink()
    (tree / "etc/machine-id").write_text("")
    # A regular file: whoever does the node's DHCP writes the name server into it.
    (tree / "etc/resolv.conf").write_text("")
