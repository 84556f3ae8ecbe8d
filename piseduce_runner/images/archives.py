"""The one disk image in an archive. Names in archives are for messages only: nothing is unpacked
by name, and what is an image is told by its first sector.
"""

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from piseduce_runner.errors import UserError
from piseduce_runner.images.decompress import HEAD, Rest, Stream
from piseduce_runner.images.partition_table import is_disk

_MOST_MEMBERS = 10_000
_LONGEST_HEADERS = 4 << 20  # bytes between two files of a tar archive; a name takes 1536
_LONGEST_PADDING = 1 << 20  # bytes behind the end of a tar archive
_STEP = 1 << 20
# What `tarfile` and `zipfile` raise for files that are no good archives.
_DAMAGES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a way to compress that it does not know
    RuntimeError,  # encrypted; also RecursionError, for headers upon headers
    ArithmeticError,
    LookupError,
    ValueError,
    MemoryError,
)
Write = Callable[[Stream, int], None]
"""Takes the image's content, and its size in bytes."""


def image_in_zip(file: BinaryIO, name: str, write: Write) -> None:
    """Give the only image in the archive `file` to `write`. Raises UserError if there is none."""
    with _damages(name), zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check_number(name, len(members))
        images = [member for member in members if is_disk(_zip_head(archive, member))]
        if not images:
            raise UserError(f"{name}: there is no disk image in this archive")
        if len(images) > 1:
            raise _two(name, images[0].filename, images[1].filename)
        with archive.open(images[0]) as content:
            write(content, images[0].file_size)


def _zip_head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as content:
        return content.read(HEAD)


def image_in_tar(stream: Stream, name: str, write: Write) -> None:
    """Give the only image in a tar archive to `write`; reads the archive to its end.

    Raises UserError if there is none.
    """
    reader = _Bounded(stream, name)
    found = None
    with _damages(name), tarfile.open(fileobj=reader, mode="r|", errors="replace") as archive:
        number = 0
        for member in archive:
            archive.members.clear()  # it keeps them all otherwise
            number += 1
            _check_number(name, number)
            if not member.isreg():
                continue
            with reader.unbounded(), archive.extractfile(member) as content:
                head = content.read(HEAD)
                if is_disk(head):
                    if found is not None:
                        raise _two(name, found, member.name)
                    found = member.name
                    write(Rest(head, content), member.size)
                while content.read(_STEP):
                    pass
    if len(stream.read(_LONGEST_PADDING)) == _LONGEST_PADDING:
        raise UserError(f"{name}: damaged archive: it goes on behind its end")
    if found is None:
        raise UserError(f"{name}: there is no disk image in this archive")


class _Bounded:
    """A stream that gives so much at most for what lies between two files.

    `tarfile` reads headers of any length and number into memory.
    """

    def __init__(self, stream: Stream, name: str) -> None:
        self._stream, self._name = stream, name
        self._left: int | None = _LONGEST_HEADERS

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise UserError(
                    f"{self._name}: damaged archive: a file's headers have more than "
                    f"{_LONGEST_HEADERS >> 20} MiB"
                )
        return data

    @contextmanager
    def unbounded(self) -> Iterator[None]:
        self._left = None
        yield
        self._left = _LONGEST_HEADERS


@contextmanager
def _damages(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise UserError(f"{name}: damaged archive: {' '.join(str(error).split())}") from error
    except OSError as error:
        # `bz2` raises it without a number; an offset below zero is the other one.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{name}: damaged archive: {error}") from error


def _check_number(name: str, members: int) -> None:
    if members > _MOST_MEMBERS:
        raise UserError(f"{name}: this archive holds more than {_MOST_MEMBERS} files")


def _two(name: str, one: str, other: str) -> UserError:
    return UserError(f"{name}: holds two disk images, {one!r} and {other!r}; give only one")
