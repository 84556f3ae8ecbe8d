"""FAT for nodes whose kernel has no vfat: what is written is there, by its name, and clean."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system_copy import run_in_copy

from piseduce_runner.lab.build import ensure_artifacts
from piseduce_runner.lab.folder import cache_root

MTOOLS = os.environ | {"MTOOLS_SKIP_CHECK": "1"}
SERVE = "python3 /usr/lib/fat-fuse/mount.py"


@pytest.fixture(scope="module")
def deploy_os() -> Path:
    return ensure_artifacts(cache_root(), print).deploy_os


@pytest.fixture
def make_fat(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """make_fat(16 or 32) gives a loop device with an empty FAT; make_fat() one without."""
    loops = []

    def make(kind: int = 0) -> str:
        image = tmp_path / "fat.img"
        with image.open("wb") as file:
            file.truncate(40 << 20)
        if kind:
            size = [] if kind == 16 else ["-s", "1"]
            subprocess.run(["mkfs.vfat", "-F", str(kind), *size, image], check=True)
        loop = ["losetup", "--find", "--show", image]
        loops.append(
            subprocess.run(loop, check=True, capture_output=True, text=True).stdout.strip()
        )
        return loops[-1]

    yield make
    for loop in loops:
        subprocess.run(["losetup", "--detach", loop], check=True)


def files_on(device: str, target: Path) -> dict[str, str]:
    """Path -> SHA-256 of all that mtools finds on a FAT."""
    target.mkdir()
    copy = ["mcopy", "-s", "-n", "-i", device, "::/", target]
    subprocess.run(copy, check=True, env=MTOOLS, capture_output=True)
    return {
        str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in target.rglob("*")
        if path.is_file()
    }


def check(device: str) -> None:
    done = subprocess.run(["fsck.vfat", "-n", device], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", [16, 32])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_work_leaves_what_a_model_says_and_a_clean_file_system(
    kind: int, seed: int, deploy_os: Path, make_fat: Callable[..., str], tmp_path: Path
) -> None:
    device = make_fat(kind)
    (tmp_path / "shared").mkdir()
    shutil.copy(Path(__file__).with_name("fat_workout.py"), tmp_path / "shared")
    work = f"python3 /shared/fat_workout.py /mnt {seed} /shared/model.json"
    done = run_in_copy(deploy_os, f"{SERVE} {device} /mnt; {work}; umount /mnt", tmp_path)
    assert done.returncode == 0, done.stderr
    check(device)
    model = json.loads((tmp_path / "shared/model.json").read_text())
    assert files_on(device, tmp_path / "found") == model


def test_the_mount_names_its_device_and_shows_small_names_as_they_are(
    deploy_os: Path, make_fat: Callable[..., str], tmp_path: Path
) -> None:
    device = make_fat(32)
    source = tmp_path / "config.txt"
    source.write_text("arm_64bit=1\n")
    subprocess.run(["mcopy", "-i", device, source, "::config.txt"], check=True, env=MTOOLS)
    script = f"mount -t vfat {device} /mnt; ls /mnt; findmnt -n -o SOURCE,FSTYPE /mnt; umount /mnt"
    done = run_in_copy(deploy_os, script, tmp_path)
    name, mounted = done.stdout.splitlines()
    assert name == "config.txt"
    assert mounted.split() in ([device, "fuse.vfat"], [device, "vfat"])


def test_a_read_only_mount_cannot_be_written(
    deploy_os: Path, make_fat: Callable[..., str], tmp_path: Path
) -> None:
    script = f"{SERVE} {make_fat(32)} /mnt -o ro; ls -A /mnt; touch /mnt/x"
    done = run_in_copy(deploy_os, script, tmp_path)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_what_is_no_fat_is_refused_in_one_line_and_not_mounted(
    deploy_os: Path, make_fat: Callable[..., str], tmp_path: Path
) -> None:
    script = f"{SERVE} {make_fat()} /mnt || mountpoint /mnt"
    done = run_in_copy(deploy_os, script, tmp_path)
    assert done.stderr == "mount.vfat: no FAT boot sector\n"
    assert done.stdout == "/mnt is not a mountpoint\n"
