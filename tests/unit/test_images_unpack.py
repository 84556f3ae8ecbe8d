"""Images in all their packings: what is in them, what is refused, and what is left behind."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import disk_images
import pytest
from disk_images import MIB, call

from piseduce_runner.errors import UserError
from piseduce_runner.images.add import NO_WISHES, Wishes, add_environment


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disk_images.make(tmp_path_factory.mktemp("raw") / "disk.img", disk_images.SMALL)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site" / "environments").mkdir(parents=True)
    return tmp_path / "site" / "environments"


def filtered(*command: str) -> Callable[[Path, Path], None]:
    def pack(image: Path, target: Path) -> None:
        with image.open("rb") as source, target.open("wb") as packed:
            subprocess.run(command, stdin=source, stdout=packed, check=True)

    return pack


def zipped(image: Path, target: Path, name: str = "disk.img") -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", "read me")
        archive.write(image, name)


def tarred(image: Path, target: Path, name: str = "disk.img") -> None:
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        archive.add(Path(__file__), "a/README.txt")
        archive.add(image, name)
        archive.add(Path(__file__), "b/README.txt")


def tarred_with_holes(image: Path, target: Path) -> None:
    call("tar", "--sparse", "-czf", target, "-C", image.parent, image.name)


PACKERS = {
    "img": shutil.copy,
    "xz": filtered("xz", "-0", "-T2", "--block-size=4MiB"),
    "gz": filtered("gzip", "-1"),
    "zst": filtered("zstd", "-q", "-1"),
    "bz2": filtered("bzip2", "-1"),
    "zip": zipped,
    "tar.gz": tarred,
    "tar.gz, holes": tarred_with_holes,
    "tar": lambda image, target: call("tar", "-cf", target, "-C", image.parent, image.name),
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_an_image_is_the_same_however_it_is_packed(
    pack: Callable[[Path, Path], None], image: Path, site: Path, tmp_path: Path
) -> None:
    file = tmp_path / "no ending that says anything"
    pack(image, file)
    env = add_environment(file, site, Wishes("sample")).environment
    packed = (env.folder / env.image).read_bytes()
    unpacked = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True).stdout
    assert env.image_bytes == image.stat().st_size
    assert unpacked == map_only(image.read_bytes(), env.folder / env.block_map)
    assert [entry.name for entry in site.iterdir()] == ["sample"]


def map_only(content: bytes, block_map: Path) -> bytes:
    kept = bytearray(len(content))
    for first, last in re.findall(r"> (\d+)(?:-(\d+))? </Range>", block_map.read_text()):
        part = slice(int(first) * 4096, (int(last or first) + 1) * 4096)
        kept[part] = content[part]
    return bytes(kept)


def is_refused(file: Path, site: Path, complaint: str) -> None:
    around = sorted(site.parent.parent.rglob("*"))
    with pytest.raises(UserError, match=complaint) as caught:
        add_environment(file, site, Wishes("sample"))
    assert "\n" not in str(caught.value)
    assert sorted(site.parent.parent.rglob("*")) == around


@pytest.mark.parametrize("ending", ["xz", "gz", "zst", "bz2", "zip", "tar.gz"])
def test_a_truncated_file_is_refused(ending: str, image: Path, site: Path, tmp_path: Path) -> None:
    file = tmp_path / f"disk.{ending}"
    PACKERS[ending](image, file)
    os.truncate(file, file.stat().st_size * 2 // 3)
    is_refused(file, site, rf"disk\.{ending}: damaged")


@pytest.mark.parametrize("ending", ["xz", "gz", "zst", "bz2", "zip", "tar.gz"])
def test_a_flipped_bit_is_found(ending: str, image: Path, site: Path, tmp_path: Path) -> None:
    file = tmp_path / f"disk.{ending}"
    PACKERS[ending](image, file)
    with file.open("r+b") as damaged:
        damaged.seek(file.stat().st_size // 4)  # in what does not compress
        byte = damaged.read(1)[0] ^ 0x10
        damaged.seek(-1, os.SEEK_CUR)
        damaged.write(bytes([byte]))
    is_refused(file, site, rf"disk\.{ending}: damaged")


def two_zipped(image: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(image, "a.img")
        archive.write(image, "folder/b.bin")


def two_tarred(image: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        archive.add(image, "a.img")
        archive.add(image, "folder/b.bin")


def none_zipped(image: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("disk.img", "not an image, whatever its name says" * 100)


def none_tarred(image: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        archive.add(Path(__file__), "disk.img")


def empty_zip(image: Path, target: Path) -> None:
    zipfile.ZipFile(target, "w").close()


def packed_twice(image: Path, target: Path) -> None:
    filtered("gzip", "-1")(image, target.with_name("once"))
    filtered("zstd", "-q")(target.with_name("once"), target)
    target.with_name("once").unlink()


def text(image: Path, target: Path) -> None:
    filtered("gzip")(Path(__file__), target)


def truncated_inside(image: Path, target: Path) -> None:
    short = Path(shutil.copy(image, target.with_name("short")))
    os.truncate(short, 9 * MIB)
    filtered("gzip", "-1")(short, target)
    short.unlink()


def endless_headers(image: Path, target: Path) -> None:
    """A tar archive with a header of 1 GiB, most of it zeros."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    plain = target.with_name("plain")
    plain.write_bytes(header.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(plain, 512 + 8 * MIB)
    filtered("zstd", "-q", "-1")(plain, target)
    plain.unlink()


def many_files(image: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz", compresslevel=1) as archive:
        for number in range(10_001):
            archive.addfile(tarfile.TarInfo(str(number)), io.BytesIO())


@pytest.mark.parametrize(
    ("pack", "complaint"),
    [
        (two_zipped, "holds two disk images, 'a.img' and 'folder/b.bin'; give only one"),
        (two_tarred, "holds two disk images, 'a.img' and 'folder/b.bin'; give only one"),
        (none_zipped, "there is no disk image in this archive"),
        (none_tarred, "there is no disk image in this archive"),
        (empty_zip, "there is no disk image in this archive"),
        (packed_twice, r"holds another packed file \(gzip\); unpack it"),
        (text, "there is no disk image in it: no partition table"),
        (truncated_inside, "truncated: its partitions end at 16777216 bytes, the image has only"),
        (endless_headers, "damaged archive: a file's headers have more than 4 MiB"),
        (many_files, "this archive holds more than 10000 files"),
    ],
)
def test_what_holds_no_single_image_is_refused_and_leaves_nothing(
    pack: Callable[[Path, Path], None], complaint: str, image: Path, site: Path, tmp_path: Path
) -> None:
    file = tmp_path / "packed"
    pack(image, file)
    is_refused(file, site, f"packed: {complaint}")


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../../outside.img", "/outside-of-all.img", "..\\outside\n.img"])
def test_names_in_an_archive_are_never_written_to(
    pack: Callable[..., None], name: str, image: Path, site: Path, tmp_path: Path
) -> None:
    file = tmp_path / "packed"
    pack(image, file, name)
    before = set(tmp_path.rglob("*"))
    env = add_environment(file, site, Wishes("sample")).environment
    made = {env.folder, *env.folder.iterdir()}
    assert set(tmp_path.rglob("*")) == before | made
    assert not Path("/outside-of-all.img").exists()


def test_an_image_that_does_not_fit_is_refused_before_it_is_unpacked(
    site: Path, tmp_path: Path, image: Path
) -> None:
    free = os.statvfs(site).f_bavail * os.statvfs(site).f_frsize
    large = tmp_path / "large.img"
    shutil.copy(image, large)
    os.truncate(large, (free // MIB + 1000) * MIB)
    file = tmp_path / "large.tar"
    call("tar", "--sparse", "-cf", file, "-C", tmp_path, "large.img")
    is_refused(file, site, "not enough space in .*environments: .* MiB are needed")


# Interruptions


START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever runs the tests may ignore it
from pathlib import Path
from piseduce_runner.images.add import Wishes, add_environment
class Waiting:
    def step(self, title, total):
        self.title = title
    def at(self, done):
        if self.title == sys.argv[3]:
            print("here", flush=True)
            sys.stdin.read()
add_environment(Path(sys.argv[1]), Path(sys.argv[2]), Wishes("sample"), Waiting())
"""


@pytest.fixture
def start(image: Path, site: Path, tmp_path: Path):
    """Start an `add` that waits in the midst of a step; returns its process."""
    file = tmp_path / "disk.xz"
    PACKERS["xz"](image, file)
    started = []

    def begin(step: str):
        command = [sys.executable, "-c", START, str(file), str(site), step]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"here\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_a_killed_one_leaves_at_most_a_hidden_folder_which_the_next_removes(
    start, image: Path, site: Path
) -> None:
    killed, working = start("unpacking"), start("compressing")
    assert len(list(site.glob(".sample.new-*"))) == 2
    killed.kill()
    killed.wait()
    add_environment(image, site, Wishes("another"))
    # The one that is still at work keeps its own.
    assert len(list(site.glob(".sample.new-*"))) == 1
    working.stdin.close()
    assert working.wait() == 0
    assert sorted(entry.name for entry in site.iterdir()) == ["another", "sample"]


@pytest.mark.parametrize("step", ["unpacking", "compressing"])
def test_ctrl_c_leaves_nothing(start, step: str, site: Path) -> None:
    process = start(step)
    process.send_signal(signal.SIGINT)
    assert process.wait() != 0
    assert list(site.iterdir()) == []


def test_hidden_folders_of_others_stay(image: Path, site: Path) -> None:
    for name in (".git", ".sample.new-", ".Sample.new-abcdefgh"):
        (site / name).mkdir()
    add_environment(image, site, NO_WISHES)
    assert len(list(site.iterdir())) == 4
