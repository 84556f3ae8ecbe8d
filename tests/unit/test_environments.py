"""Environments: read strictly. How they are made: see test_images_add.py."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import raw_image
import yaml

from piseduce_runner.environments import (
    Environment,
    find,
    list_environments,
    load,
    verify_files,
)
from piseduce_runner.errors import UserError
from piseduce_runner.images.add import Wishes, add_environment

ARGUMENTS = {
    "name": "sample-1.0",
    "family": "raspbian",
    "login": "pi",
    "boot_directory": "/boot/firmware",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_image.make_raw_image(tmp_path_factory.mktemp("raw") / "disk.img")


@pytest.fixture(scope="module")
def made(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environments") / "sample-1.0"
    return add_environment(image, folder.parent, Wishes(**ARGUMENTS)).environment


@pytest.fixture
def folder(made: Environment, tmp_path: Path) -> Path:
    """A copy of the environment that a test may damage."""
    return Path(shutil.copytree(made.folder, tmp_path / made.name))


def change(folder: Path, **values: object) -> None:
    """Rewrite environment.yml with other values; None removes the key."""
    file = folder / "environment.yml"
    content = yaml.safe_load(file.read_text()) | values
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))


def test_an_environment_describes_its_image(made: Environment, image: Path) -> None:
    packed = (made.folder / "image.img.zst").read_bytes()
    block_map = (made.folder / "image.bmap").read_bytes()
    assert made == Environment(
        folder=made.folder,
        **ARGUMENTS,
        image="image.img.zst",
        block_map="image.bmap",
        image_bytes=raw_image.SECTORS * 512,
        mapped_bytes=made.mapped_bytes,
        compressed_bytes=len(packed),
        compressed_sha256=hashlib.sha256(packed).hexdigest(),
        block_map_sha256=hashlib.sha256(block_map).hexdigest(),
        disk_id=raw_image.DISK_ID,
        boot_partition=1,
        boot_start_sector=raw_image.BOOT_START,
        boot_sectors=raw_image.BOOT_SECTORS,
        root_partition=2,
        root_start_sector=raw_image.ROOT_START,
        root_sectors=raw_image.ROOT_SECTORS,
    )
    unpacked = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True).stdout
    assert unpacked == image.read_bytes()


def test_others_may_read_an_environment_whatever_the_umask(image: Path, tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        folder = add_environment(image, tmp_path, Wishes(**ARGUMENTS)).environment.folder
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


def test_sound_files_pass_verification(folder: Path) -> None:
    verify_files(load(folder))


@pytest.mark.parametrize("name", ["image.img.zst", "image.bmap"])
def test_a_flipped_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    env = load(folder)  # sizes are right
    with pytest.raises(UserError, match=rf"{name}: its SHA-256 is not the one"):
        verify_files(env)


# Bad environments


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"login": None}, "key 'login' is missing"),
        ({"image_bytes": "26214400"}, "image_bytes must be a whole number, not '26214400'"),
        ({"boot_partition": True}, "boot_partition must be a whole number, not True"),
        ({"boot_sectors": 16384.0}, "boot_sectors must be a whole number, not 16384.0"),
        ({"disk_id": 0x5EED0001}, r"disk_id must be a text \(in quotes\), not 1592590337"),
        ({"disk_id": "0x5EED0001"}, "disk_id: '0x5EED0001' is not of the form"),
        ({"root_sectors": 0}, "root_sectors must be positive, not 0"),
        ({"mapped_bytes": -1}, "mapped_bytes must be positive, not -1"),
        ({"name": "Sample"}, "name: 'Sample' is not of the form"),
        ({"name": "other"}, "name is 'other', but the folder's is 'sample-1.0'"),
        ({"family": "plan 9"}, "family: 'plan 9' is not of the form"),
        ({"image": "../image.img.zst"}, "image: '../image.img.zst' is not of the form"),
        ({"block_map": "image.img.zst"}, "image and block_map are the same file"),
        ({"compressed_sha256": "abc"}, "compressed_sha256: 'abc' is not of the form"),
        ({"mapped_bytes": 26214401}, "mapped_bytes is more than image_bytes"),
        ({"root_partition": 1}, "must be two of 1 to 4"),
        ({"root_partition": 5}, "must be two of 1 to 4"),
        ({"boot_sectors": 16385}, "boot partition does not end before the root partition starts"),
        ({"root_sectors": 32769}, "root partition does not end within the image"),
    ],
)
def test_a_wrong_description_is_refused_with_the_file_and_the_key(
    values: dict[str, object], complaint: str, folder: Path
) -> None:
    change(folder, **values)
    with pytest.raises(UserError, match=rf"sample-1\.0/environment\.yml: .*{complaint}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"name: [", "not YAML"),
        (b"\xff\xfe", "not YAML"),
        (b"- name\n", "expected a mapping"),
        (b"", "expected a mapping"),
    ],
)
def test_a_description_that_is_no_mapping_is_refused(
    content: bytes, complaint: str, folder: Path
) -> None:
    (folder / "environment.yml").write_bytes(content)
    with pytest.raises(UserError, match=rf"environment\.yml: {complaint}") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_description_is_no_environment(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is not an environment"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["image.img.zst", "image.bmap"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file, but environment\.yml names it"):
        load(folder)


def test_a_truncated_image_is_found_without_reading_it(folder: Path) -> None:
    size = (folder / "image.img.zst").stat().st_size
    os.truncate(folder / "image.img.zst", size - 1)
    complaint = rf"image\.img\.zst: has {size - 1} bytes, but environment\.yml says {size}"
    with pytest.raises(UserError, match=complaint):
        load(folder)


# Many


def test_environments_are_listed_by_name_without_work_in_hand(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "another")
    change(folder.parent / "another", name="another")
    (folder.parent / ".sample-1.0.x7y").mkdir()
    (folder.parent / "notes.txt").touch()
    good, damaged = list_environments(folder.parent)
    assert [env.name for env in good] == ["another", "sample-1.0"]
    assert damaged == []


def test_a_damaged_environment_is_told_of_and_hides_no_other(folder: Path) -> None:
    (folder.parent / "broken").mkdir()
    good, damaged = list_environments(folder.parent)
    assert [env.name for env in good] == ["sample-1.0"]
    (problem,) = damaged
    assert "broken is not an environment" in problem


def test_a_site_without_environments_has_none(tmp_path: Path) -> None:
    assert list_environments(tmp_path / "environments") == ([], [])


def test_an_environment_is_found_by_its_name(folder: Path) -> None:
    assert find(folder.parent, "sample-1.0") == load(folder)


@pytest.mark.parametrize("name", ["sample", "../sample-1.0", "", "sample-1.0/"])
def test_an_unknown_name_is_refused_with_those_there_are(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"unknown environment .*: sample-1\.0$"):
        find(folder.parent, name)
