"""Whatever is given as an image is one, or is refused; no crash, no hang, no stray file."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path

import disk_images
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piseduce_runner.errors import UserError
from piseduce_runner.images.add import Wishes, add_environment
from piseduce_runner.images.ext4 import read_ext4
from piseduce_runner.images.fat import read_fat, used_of_fat
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import read_table
from piseduce_runner.images.steps import SILENT
from piseduce_runner.images.unpack import raw_image

SECTORS = 64
EXAMPLES = settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=list(HealthCheck)
)
NUMBERS = st.one_of(st.integers(0, SECTORS), st.integers(0, 2**32 - 1))
ENTRY = st.builds(
    lambda status, kind, start, sectors: struct.pack("<B3xB3xII", status, kind, start, sectors),
    st.sampled_from([0, 0x80, 0x80, 1]),
    st.sampled_from([0, 0x0C, 0x83, 0xEE, 0x05]),
    NUMBERS,
    NUMBERS,
)


def image_of(content: bytes) -> ImageFile:
    """An image in memory."""
    descriptor = os.memfd_create("image")
    os.write(descriptor, content)
    return ImageFile("fuzz.img", descriptor, len(content))


def explored(content: bytes) -> None:
    """Read all that is read before any program is asked."""
    image = image_of(content)
    try:
        for part in read_table(image).partitions:
            assert 0 < part.first_byte < part.end_byte <= image.size
            fat = read_fat(image, part)
            if fat is not None:
                for start, end in used_of_fat(image, part, fat):
                    assert part.first_byte <= start < end <= part.end_byte
            read_ext4(image, part)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        os.close(image.descriptor)


@EXAMPLES
@given(st.lists(ENTRY, min_size=4, max_size=4), st.binary(max_size=SECTORS * 512))
def test_any_mbr_is_read_or_refused(entries: list[bytes], rest: bytes) -> None:
    sector = bytes(446) + b"".join(entries) + b"\x55\xaa"
    explored((sector + rest).ljust(SECTORS * 512, b"\0"))


@EXAMPLES
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=16), NUMBERS, NUMBERS), max_size=4),
    st.sampled_from([0, 1, 4, 128, 2**32 - 1]),
    st.sampled_from([0, 128, 4096, 2**31]),
    st.one_of(st.just(2), st.integers(0, 2**64 - 1)),
    st.sampled_from([0, 91, 92, 512, 2**32 - 1]),
)
def test_any_gpt_is_read_or_refused(
    parts: list, count: int, size: int, entries_at: int, header_bytes: int
) -> None:
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", kind, b"", first, last, 0, b"") for kind, first, last in parts
    ).ljust(16384, b"\0")
    known = entries[: count * size] if count * size <= len(entries) else b""
    fields = [b"EFI PART", 65536, header_bytes, 0, 0, 1, 63, 34, 60, b"", entries_at, count, size]
    layout = "<8sIIIIQQQQ16sQIII"
    header = struct.pack(layout, *fields, zlib.crc32(known)).ljust(512, b"\0")
    crc = zlib.crc32(header[:header_bytes])
    header = header[:16] + struct.pack("<I", crc) + header[20:]
    protective = struct.pack("<B3xB3xII", 0, 0xEE, 1, SECTORS - 1)
    sector = bytes(446) + protective + bytes(48) + b"\x55\xaa"
    explored((sector + header + entries).ljust(SECTORS * 512, b"\0"))


BOOT_SECTOR = st.builds(
    lambda *fields: struct.pack("<3x8xHBHBHHBHHHIIIH", *fields).ljust(510, b"\0") + b"\x55\xaa",
    *(st.sampled_from([512, 1024, 4096, 3]), st.sampled_from([1, 2, 128, 0])),
    *(st.integers(0, 8), st.integers(0, 3), st.integers(0, 512), st.integers(0, 60)),
    *(st.just(0xF8), st.integers(0, 4), st.just(0), st.just(0), st.just(0)),
    *(NUMBERS, NUMBERS, st.sampled_from([0, 0x80])),
)


@EXAMPLES
@given(BOOT_SECTOR, st.binary(max_size=8192))
def test_any_fat_is_read_or_passed_over(boot_sector: bytes, table: bytes) -> None:
    entry = struct.pack("<B3xB3xII", 0, 0x0C, 1, SECTORS - 1)
    sector = bytes(446) + entry + bytes(48) + b"\x55\xaa"
    explored((sector + boot_sector + table).ljust(SECTORS * 512, b"\0"))


# Archives


@cache
def tiny_disk() -> bytes:
    entry = struct.pack("<B3xB3xII", 0, 0x0C, 1, 3)
    return (bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(2048, b"d")


@cache
def packed(kind: str) -> bytes:
    if kind == "zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../disk.img", tiny_disk())
        return file.getvalue()
    if kind.startswith("tar"):
        file = io.BytesIO()
        layout = tarfile.PAX_FORMAT if kind == "tar, pax" else tarfile.GNU_FORMAT
        with tarfile.open(fileobj=file, mode="w", format=layout) as archive:
            member = tarfile.TarInfo("../" + "long" * 40)
            member.size = len(tiny_disk())
            archive.addfile(member, io.BytesIO(tiny_disk()))
        return file.getvalue()
    if kind == "zst":
        return subprocess.run(["zstd"], input=tiny_disk(), capture_output=True, check=True).stdout
    return {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}[kind](tiny_disk())


KINDS = ("zip", "tar", "tar, pax", "zst", "xz", "gz", "bz2")
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "repeat"]),
        st.integers(0, 4096),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 12])),
    ),
    min_size=1,
    max_size=4,
)


def changed(content: bytes, changes: list) -> bytes:
    for what, place, data in changes:
        at = place % (len(content) + 1)
        if what == "set":
            content = content[:at] + data + content[at + len(data) :]
        elif what == "cut":
            content = content[:at] + content[at + len(data) :]
        elif what == "insert":
            content = content[:at] + data + content[at:]
        else:
            content = content + content[at:]
    return content


@settings(EXAMPLES, max_examples=150)
@given(st.sampled_from(KINDS), CHANGES)
def test_any_archive_is_unpacked_or_refused_and_writes_nowhere(kind: str, changes: list) -> None:
    with tempfile.TemporaryDirectory() as place:
        scratch, file = Path(place, "site", "scratch"), Path(place, "packed")
        scratch.mkdir(parents=True)
        file.write_bytes(changed(packed(kind), changes))
        try:
            with raw_image(file, scratch, SILENT) as image:
                assert image.read(0, image.size) is not None
        except UserError as error:
            assert "\n" not in str(error)
        assert sorted(Path(place).rglob("*")) == [file, scratch.parent, scratch]


# File systems


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("raw") / "disk.img"
    return disk_images.make(file, disk_images.SMALL).read_bytes()


BOOT, ROOT = 8192 * 512, 16384 * 512
PLACES = st.one_of(
    st.integers(446, 511),
    st.integers(BOOT, BOOT + 64),  # the FAT's parameters
    st.integers(ROOT + 1024, ROOT + 1024 + 400),  # the superblock
    st.integers(ROOT + 2048, ROOT + 2048 + 64),  # the group descriptors
)


@settings(EXAMPLES, max_examples=25)
@given(changes=st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=3))
def test_any_damage_of_file_systems_ends_well_or_in_one_line(image: bytes, changes: list) -> None:
    content = bytearray(image)
    for place, value in changes:
        content[place] = value
    with tempfile.TemporaryDirectory() as place:
        file, root = Path(place, "disk.img"), Path(place, "environments")
        file.write_bytes(content)
        try:
            add_environment(file, root, Wishes("sample", family="raspbian"))
            expected = ["sample"]
        except UserError as error:
            assert "\n" not in str(error)
            expected = []
        assert [entry.name for entry in root.iterdir()] == expected
