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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piseduce_runner.environments import create_from_raw_image
from piseduce_runner.errors import UserError
from piseduce_runner.lab import (
    build_apt,
    build_boot_files,
    build_deploy_os,
    build_image,
    build_sources,
    build_tree,
)
from piseduce_runner.lab.build_sources import Release
from piseduce_runner.lab.build_tree import Workshop

PACKAGE = Path(build_tree.__file__).resolve().parent
SCRATCH = ".building-"
NEEDED_BYTES = 2 * 1024**3  # two trees, the raw image, downloads
TOOLS = {  # command: Debian package
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "sfdisk": "fdisk",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "zstd": "zstd",
    "bmaptool": "bmap-tools",
}
Report = Callable[[str], None]


@dataclass(frozen=True)
class Artifacts:
    """Folders that are read and never written to: several labs share them."""

    deploy_os: Path  # root tree
    nfs_boot_files: Path  # template of a TFTP folder
    environment: Path  # of an environment, e.g. debian-12
    apt_repository: Path


@dataclass(frozen=True)
class _Part:
    name: str
    title: str
    recipe: tuple[str, ...]  # files and folders below this package, for the digest
    build: Callable[[Path, Workshop], None]


def ensure_artifacts(cache: Path, report: Report) -> Artifacts:
    """The artifacts, from the folder `cache` or built into it (root, and a Debian mirror, needed).

    Safe if several processes ask at once: one builds, the others wait. `report` gets a line of text
    per step. Raises UserError if the host cannot build them, with the place of the log.
    """
    release = build_sources.host_release()
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache, report):
        places = {part: cache / f"{part.name}-{_digest(part, release)}" for part in _parts(release)}
        missing = {part: place for part, place in places.items() if not place.is_dir()}
        if missing:
            _check_host(cache)
            _build_all(missing, Workshop(release, cache), report)
    deploy_os, boot_files, environment, apt = places.values()
    return Artifacts(deploy_os, boot_files, environment / _environment_name(release), apt)


def _parts(release: Release) -> tuple[_Part, ...]:
    tree = ("build_tree.py", "build_sources.py", "recipe/common")
    package = ("build_apt.py", "build_boot_files.py", "recipe/pi-boot-sample.postinst")
    return (
        _Part(
            "deploy-os",
            "the deploy OS",
            (*tree, "build_deploy_os.py", "recipe/deploy-os"),
            build_deploy_os.build_deploy_os,
        ),
        _Part("boot-files", "the network boot files", ("build_boot_files.py",), _boot_files),
        _Part(
            "environment",
            f"the sample environment {_environment_name(release)}",
            (
                *tree,
                *package,
                "build_image.py",
                "recipe/image",
                "../environments.py",
                "../disk_image.py",
            ),
            _environment,
        ),
        _Part("apt", "the APT repository", package, _apt),
    )


def _boot_files(target: Path, workshop: Workshop) -> None:
    build_boot_files.build_nfs_boot_files(target)


def _environment(target: Path, workshop: Workshop) -> None:
    target.mkdir()
    image = target / "image.img"
    build_image.build_image(image, workshop)
    name = _environment_name(workshop.release)
    create_from_raw_image(
        image,
        target / name,
        name=name,
        family="raspbian",
        login="pi",
        boot_directory="/boot/firmware",
    )
    image.unlink()


def _apt(target: Path, workshop: Workshop) -> None:
    build_apt.build_repository(target)


def _environment_name(release: Release) -> str:
    return f"debian-{release.version}"


def _digest(part: _Part, release: Release) -> str:
    """Digest of all that decides what the part will be, but for the packages of the day."""
    digest = hashlib.sha256(f"{release.codename} {os.uname().machine}".encode())
    for name in part.recipe:
        for file in build_tree.recipe_files(PACKAGE / name):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"\n{file.relative_to(PACKAGE.parent)} {content}".encode())
    return digest.hexdigest()[:16]


def _build_all(missing: dict[_Part, Path], workshop: Workshop, report: Report) -> None:
    """Build the parts side by side: each of the two large ones keeps one processor busy."""
    for leftover in workshop.cache.glob(f"{SCRATCH}*"):  # of a killed build: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)  # its mmdebstrap may still be writing
    mask = os.umask(0o022)  # other users' daemons serve these files
    try:
        with ThreadPoolExecutor(max_workers=2) as pool:
            jobs = [pool.submit(_build_one, *item, workshop, report) for item in missing.items()]
        for job in jobs:
            job.result()
    finally:
        os.umask(mask)


def _build_one(part: _Part, place: Path, workshop: Workshop, report: Report) -> None:
    started = time.monotonic()
    report(f"building {part.title}")
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{part.name}-", dir=workshop.cache))
    try:
        part.build(scratch / place.name, workshop)
        build_tree.run("sync", "-f", scratch)  # complete after a crash of the machine, too
        (scratch / place.name).rename(place)
    except OSError as error:
        raise UserError(f"building {part.title} failed: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(f"{part.title}: built in {time.monotonic() - started:.0f} s")


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
def _lock(cache: Path, report: Report) -> Iterator[None]:
    with (cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that builds the lab's systems")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
