"""Adding environments: what is found in an image, and what is refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import disk_images
import pytest
from disk_images import MIB, SECTOR, Recipe, call

from piseduce_runner.environments import load
from piseduce_runner.errors import UserError
from piseduce_runner.families import load_families
from piseduce_runner.images import add as images
from piseduce_runner.images.add import Wishes, add_environment, name_of
from piseduce_runner.images.steps import SILENT
from piseduce_runner.images.survey import survey
from piseduce_runner.images.unpack import raw_image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disk_images.make(tmp_path_factory.mktemp("raw") / "Raspios 12_lite.img")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "environments").mkdir()
    return tmp_path / "environments"


def is_refused(image: Path, site: Path, complaint: str, wishes: Wishes = images.NO_WISHES) -> None:
    before = sorted(site.iterdir())
    with pytest.raises(UserError, match=complaint) as caught:
        add_environment(image, site, wishes)
    assert "\n" not in str(caught.value)
    assert sorted(site.iterdir()) == before


# What is found


def test_an_image_needs_no_explanation(image: Path, site: Path) -> None:
    env = add_environment(image, site).environment
    assert env == load(site / "raspios-12_lite")
    assert (env.family, env.login, env.boot_directory) == ("raspbian", "pi", "/boot/firmware")
    assert env.system == "Debian GNU/Linux 12 (bookworm)"
    assert env.disk_id == disk_images.DISK_ID
    assert (env.boot_partition, env.boot_start_sector) == (1, disk_images.BOOT_START)
    assert (env.root_partition, env.root_start_sector) == (2, disk_images.ROOT_START)
    assert env.image_bytes == image.stat().st_size


def test_what_is_said_of_an_image_counts(image: Path, site: Path) -> None:
    wishes = Wishes("ours", family="raspbian", login="student", boot_directory="/boot")
    env = add_environment(image, site, wishes).environment
    assert (env.name, env.login, env.boot_directory) == ("ours", "student", "/boot")


RASPBIAN_11 = {
    "etc/os-release": "PRETTY_NAME='Raspbian GNU/Linux 11 (bullseye)'\nID=raspbian\n",
    "etc/fstab": "PARTUUID=1-01  /boot  vfat  defaults  0  2\n",
}


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(root=disk_images.UBUNTU), ("ubuntu", "ubuntu", "/boot/firmware")),
        (Recipe(root=RASPBIAN_11), ("raspbian", "pi", "/boot")),
        (Recipe(root={"tce/mydata.tgz": ""}), ("picore", "tc", "/mnt/mmcblk0p1")),
        (
            Recipe(root={"a": ""}, boot={"CMDLINE3.TXT": "", "mydata.tgz": ""}),
            ("picore", "tc", "/mnt/mmcblk0p1"),
        ),
    ],
)
def test_the_family_is_told_by_what_is_in_the_image(
    recipe: Recipe, expected: tuple, tmp_path: Path
) -> None:
    path = disk_images.make(tmp_path / "raspbian.img", recipe)  # whatever its name says
    with raw_image(path, tmp_path, SILENT) as image:
        found = survey(image, load_families().values())
        assert (found.family.name, found.family.login, found.boot_directory) == expected


def test_a_sites_own_family_is_asked_before_ours(tmp_path: Path, site: Path) -> None:
    (site.parent / "families").mkdir()
    (site.parent / "families" / "student_os.yml").write_text(
        "description: ours\nlogin: student\nsystem_conf: [openssh]\n"
        "recognised_by: [{os_release: [debian], root_has: [home/pi/.profile]}]\n"
    )
    image = disk_images.make(tmp_path / "disk.img")
    env = add_environment(image, site).environment
    assert (env.family, env.login) == ("student_os", "student")


def test_an_image_of_no_known_family_needs_to_be_told(tmp_path: Path, site: Path) -> None:
    root = {"etc/os-release": 'ID=plan9\nPRETTY_NAME="Plan\x1b[31m 9"\n', "boot/firmware/": ""}
    image = disk_images.make(tmp_path / "disk.img", root=root)
    is_refused(image, site, r"of no family that is known \(Plan\[31m 9\); .* \(--family\)")
    env = add_environment(image, site, Wishes(family="raspbian")).environment
    assert (env.family, env.login, env.boot_directory) == ("raspbian", "pi", "/boot/firmware")


def test_a_family_that_contradicts_the_image_is_taken_and_told_of(
    tmp_path: Path, site: Path
) -> None:
    image = disk_images.make(tmp_path / "disk.img", root=disk_images.UBUNTU)
    added = add_environment(image, site, Wishes(family="raspbian"))
    assert added.environment.login == "pi"
    assert added.notes == ("looks like ubuntu (Ubuntu 24.04.1 LTS), taken as raspbian as asked",)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("2024-07-04-Raspios.img.xz", "2024-07-04-raspios"),
        ("ubuntu 24.04+arm.img.gz", "ubuntu-24.04-arm"),
        ("backup.tar.gz", "backup"),
        ("..hidden_.tgz", "hidden"),
        ("system", "system"),
    ],
)
def test_the_name_comes_from_the_files(file: str, name: str) -> None:
    assert name_of(Path("/some/where", file)) == name


# What is refused


def not_an_image(place: Path) -> None:
    place.write_text("hello\n" * 1000)


def only_a_file_system(place: Path) -> None:
    os.truncate(os.open(place, os.O_CREAT | os.O_RDWR), 16 * MIB)
    call("mkfs.vfat", place)


def gpt(place: Path) -> None:
    table = "label: gpt\nstart=8192, size=8192\nstart=16384, size=32768\n"
    disk_images.partition(place, Recipe(table=table, behind=64))


def damaged_gpt(place: Path) -> None:
    gpt(place)
    with place.open("r+b") as file:
        file.seek(2 * SECTOR + 60)
        file.write(b"\xff")


def one_partition(place: Path) -> None:
    disk_images.partition(place, Recipe(table="label: dos\nstart=2048, size=16384, type=c\n"))


def no_file_systems(place: Path) -> None:
    disk_images.partition(place, Recipe())


def no_root(place: Path) -> None:
    disk_images.make(place)
    with place.open("r+b") as file:
        file.seek(disk_images.ROOT_START * SECTOR)
        file.write(bytes(4096))


def root_first(place: Path) -> None:
    table = Recipe.table.replace("start={boot_start}", "2: start={boot_start}")
    table = table.replace("start={root_start}", "1: start={root_start}")
    disk_images.make(place, table=table)


def third_behind(place: Path) -> None:
    table = Recipe.table + "start=49152, size=2048, type=83\n"
    disk_images.make(place, table=table, behind=2048)


def two_roots(place: Path) -> None:
    table = Recipe.table + "start=49152, size=32768, type=83\n"
    disk_images.make(place, table=table, behind=32768)
    with place.open("r+b") as file:
        file.seek(disk_images.ROOT_START * SECTOR)
        content = file.read(32768 * SECTOR)
        file.seek(49152 * SECTOR)
        file.write(content)


def truncated(place: Path) -> None:
    os.truncate(disk_images.make(place), 20 * MIB)


def odd_end(place: Path) -> None:
    os.truncate(disk_images.make(place), Recipe().sectors * SECTOR + 100)


def overlapping(place: Path) -> None:
    disk_images.partition(place, Recipe())
    with place.open("r+b") as file:
        file.seek(446 + 16 + 8)  # the second entry's first sector
        file.write((9000).to_bytes(4, "little"))


def larger_than_its_partition(place: Path) -> None:
    disk_images.make(place)
    with place.open("r+b") as file:
        file.seek(446 + 16 + 12)
        file.write((20000).to_bytes(4, "little"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (not_an_image, "not a disk image: it has no partition table"),
        (Path.touch, "not a disk image: it has no partition table"),
        (only_a_file_system, "not a disk image: its partition table is empty or none"),
        (Path.mkdir, "not a file"),
        (lambda place: None, "no such image file"),
        (gpt, r"table is GPT \(1 unknown, 2 unknown\): the states .* only know MBR"),
        (damaged_gpt, "its GPT is damaged: the entries do not match their CRC"),
        (one_partition, r"found 1 partition \(unknown\)"),
        (no_file_systems, "no boot partition: none holds a FAT file system"),
        (no_root, "no root partition: none holds a ext4 file system"),
        (root_first, "boots from partition 2 and has its root in 1; only 1 and 2 can be deployed"),
        (third_behind, "partition 3 lies behind the root partition, which could not grow"),
        (two_roots, "cannot tell which is the root partition: 2, 3 hold ext4 file systems"),
        (truncated, "truncated: its partitions end at 25165824 bytes, the image has only 20971520"),
        (odd_end, "truncated: 25165924 bytes are no whole number of sectors"),
        (overlapping, "its partitions overlap"),
        (larger_than_its_partition, "its root file system is larger than its partition"),
    ],
)
def test_what_cannot_be_deployed_is_refused_in_one_line_and_leaves_nothing(
    make: Callable[[Path], None], complaint: str, tmp_path: Path, site: Path
) -> None:
    image = tmp_path / "bad.img"
    make(image)
    is_refused(image, site, rf"bad\.img: .*{complaint}", Wishes(family="raspbian"))


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        (Wishes(name="../etc"), "'../etc' cannot be an environment's name"),
        (Wishes(name=""), "'' cannot be an environment's name"),
        (Wishes(name="a" * 101), "cannot be an environment's name"),
        (Wishes(family="plan9"), "unknown family 'plan9'; there are: .*raspbian"),
        (Wishes(login="pi; reboot"), "'pi; reboot' cannot be a user's name"),
        (Wishes(boot_directory="boot"), "boot_directory 'boot' is not a plain absolute path"),
    ],
)
def test_a_bad_wish_is_refused(wishes: Wishes, complaint: str, image: Path, site: Path) -> None:
    is_refused(image, site, complaint, wishes)


def test_a_name_that_is_taken_is_refused_and_the_environment_left_alone(
    image: Path, site: Path
) -> None:
    (site / "raspios-12_lite").mkdir()
    is_refused(image, site, r"there is an environment of this name; take another \(--name\)")


def test_a_missing_tool_is_named_with_its_package(
    image: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "debugfs" else tool)
    is_refused(image, site, r"debugfs is not installed \(Debian package e2fsprogs\)")


def test_a_compressor_that_fails_is_told_of(
    image: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "tools" / "zstd"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'zstd: error 70: it is broken' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    is_refused(image, site, "^zstd failed: zstd: error 70: it is broken$")


def test_an_image_that_changes_meanwhile_is_refused(
    image: Path, site: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copy(image, tmp_path / "disk.img"))

    class Meddler:
        def step(self, title: str, total: int) -> None:
            os.utime(copy)

        def at(self, done: int) -> None:
            pass

    with pytest.raises(UserError, match="was changed by somebody while it was read"):
        add_environment(copy, site, progress=Meddler())
    assert list(site.iterdir()) == []


# Room


def test_a_full_disk_is_told_of_before_it_is_full(
    image: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(site)

    class Full:
        f_bavail, f_frsize = 1000, real.f_frsize

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    is_refused(
        image, site, r"not enough space in .*environments: 64 MiB are needed, 3 MiB are free"
    )
