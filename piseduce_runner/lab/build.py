"""What the lab's nodes run: the deploy OS, the sample environment and what belongs to them.

Each part is built once and kept under a digest of what it is made from: the files of its recipe
(code and data) and the host's Debian release. Parts appear complete or not at all.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.lab import (
    build_apt,
    build_base,
    build_boot_files,
    build_deploy_os,
    build_image,
    build_picore,
    build_sources,
    build_tree,
    build_ubuntu,
)
from piseduce_runner.lab.build_sources import Release

PACKAGE = Path(build_tree.__file__).resolve().parent
SCRATCH = ".building-"
UBUNTU, PICORE = "ubuntu-24.04", "picore-15"
NEEDED_BYTES = 2 * 1024**3  # two trees, the raw image, downloads
TOOLS = {  # command: Debian package
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "zstd": "zstd",
    "openssl": "openssl",
    "busybox": "busybox-static",
}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Artifacts:
    """Folders that are read and never written to: several labs share them."""

    deploy_os: Path  # root tree
    nfs_boot_files: Path  # template of a TFTP folder
    environment: Path  # of an environment, e.g. debian-12
    apt_repository: Path
    ubuntu: Path  # of an environment
    picore: Path  # of an environment

    @property
    def environments(self) -> tuple[Path, ...]:
        """The folders of all environments."""
        return (self.environment, self.ubuntu, self.picore)


@dataclass(frozen=True)
class _Part:
    title: str
    place: Path  # in the cache
    build: Callable[[Path], None]  # gets the new folder's path
    from_base: bool = False


def ensure_artifacts(cache: Path, report: Report) -> Artifacts:
    """The artifacts, from the folder `cache` or built into it (root, and a Debian mirror, needed).

    Safe if several processes ask at once: one builds, the others wait. `report` gets a line of text
    per step. Raises UserError if the host cannot build them, with the place of the log.
    """
    cache = cache.absolute()
    release = build_sources.host_release()
    base, *parts = _parts(cache, release)
    with _umask(0o022), _lock(cache, report):  # other users' daemons serve these files
        missing = [part for part in parts if not part.place.is_dir()]
        if any(part.from_base for part in missing) and not base.place.is_dir():
            missing.insert(0, base)
        if missing:
            _check_host(cache)
        for part in missing:
            _build(part, report)
    deploy_os, boot_files, environment, apt, ubuntu, picore = (part.place for part in parts)
    return Artifacts(
        deploy_os,
        boot_files,
        environment / _environment_name(release),
        apt,
        ubuntu / UBUNTU,
        picore / PICORE,
    )


def _parts(cache: Path, release: Release) -> tuple[_Part, ...]:
    """The base, then the artifacts in the order of `Artifacts`."""
    name = _environment_name(release)
    debian = ("build_base.py", "build_sources.py", "build_tree.py")
    package = ("build_apt.py", "build_boot_files.py", "recipe/pi-boot-sample.postinst")
    environment = ("build_disk.py", "../environments.py", "../families.py", "../images")

    def place(name: str, *recipe: str) -> Path:
        return cache / f"{name}-{_digest(recipe, release)}"

    base = place("base", *debian)
    return (
        _Part(
            f"Debian {release.codename}",
            base,
            lambda target: build_base.build_base(target, release, cache / "base.log"),
        ),
        _Part(
            "the deploy OS",
            place("deploy-os", *debian, "recipe/common", "recipe/deploy-os", "build_deploy_os.py"),
            lambda target: build_deploy_os.build_deploy_os(target, base),
            from_base=True,
        ),
        _Part(
            "the network boot files",
            place("boot-files", "build_boot_files.py"),
            build_boot_files.build_nfs_boot_files,
        ),
        _Part(
            f"the sample environment {name}",
            place(
                "environment",
                *(*debian, "recipe/common", *package, *environment),
                *("build_image.py", "recipe/image"),
            ),
            lambda target: _environment(target, base, name, build_image.build_image),
            from_base=True,
        ),
        _Part("the APT repository", place("apt", *package), build_apt.build_repository),
        _Part(
            f"the sample environment {UBUNTU}",
            place(
                "ubuntu",
                *(*debian, "recipe/common", *package, *environment),
                *("build_ubuntu.py", "recipe/ubuntu"),
            ),
            lambda target: _environment(target, base, UBUNTU, build_ubuntu.build_image),
            from_base=True,
        ),
        _Part(
            f"the sample environment {PICORE}",
            place(
                "picore",
                *(*debian, "build_boot_files.py", *environment),
                *("build_picore.py", "recipe/picore", "recipe/picore-openssh"),
            ),
            lambda target: _environment(target, base, PICORE, build_picore.build_image),
            from_base=True,
        ),
    )


def _environment(
    target: Path, base: Path, name: str, build_raw: Callable[[Path, Path], None]
) -> None:
    """Made as an admin makes one: what it is, is found in the image."""
    target.mkdir()
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        image = Path(scratch, "image.img")
        build_raw(image, base)
        add_environment(image, target, Wishes(name))


def _environment_name(release: Release) -> str:
    return f"debian-{release.version}"


def _digest(recipe: tuple[str, ...], release: Release) -> str:
    """Digest of all that decides what a part will be, but for the packages of the day.

    `recipe` names files and folders below this package.
    """
    digest = hashlib.sha256(f"{release.codename} {os.uname().machine}".encode())
    for name in recipe:
        for file in build_tree.recipe_files(PACKAGE / name):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"\n{file.relative_to(PACKAGE.parent)} {content}".encode())
    if "../families.py" in recipe:  # what an image is taken for is in these files
        for file in sorted((paths.ansible_dir() / "families").glob("*.yml")):
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(part: _Part, report: Report) -> None:
    started = time.monotonic()
    report(f"building {part.title}")
    cache = part.place.parent
    for leftover in cache.glob(f"{SCRATCH}*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)  # a tool of it may just be ending
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=cache))
    try:
        part.build(scratch / part.place.name)
        build_tree.run("sync", "-f", scratch)  # complete after a crash of the machine, too
        (scratch / part.place.name).rename(part.place)
    except OSError as error:
        raise UserError(f"building {part.title} failed: {error}") from error
    finally:
        shutil.rmtree(scratch)
    report(f"built {part.title} in {time.monotonic() - started:.0f} s")


def _check_host(cache: Path) -> None:
    if os.geteuid() != 0:
        raise UserError("building the lab's systems needs root (their files have owners)")
    if missing := sorted({TOOLS[tool] for tool in TOOLS if not shutil.which(tool)}):
        raise UserError(f"missing packages: apt-get install {' '.join(missing)}")
    free = shutil.disk_usage(cache).free
    if free < NEEDED_BYTES:
        raise UserError(
            f"{cache}: {free // 1024**2} MiB free, "
            f"building the lab's systems needs {NEEDED_BYTES // 1024**2} MiB"
        )


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _lock(cache: Path, report: Report) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that builds the lab's systems")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
