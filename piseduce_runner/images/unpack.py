"""From the file that a user has to the raw image in it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from piseduce_runner.errors import UserError
from piseduce_runner.images.archives import image_in_tar, image_in_zip
from piseduce_runner.images.decompress import HEAD, Decompressed, Format, Rest, Stream, format_of
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.partition_table import is_disk
from piseduce_runner.images.scratch import check_room
from piseduce_runner.images.steps import Progress

_STEP = 1 << 20
_HOLE = 64 << 10  # bytes; zeros are left out in pieces of this size
_LARGEST = 2 << 40  # bytes; what an MBR can describe


@contextmanager
def raw_image(file: Path, scratch: Path, progress: Progress) -> Iterator[ImageFile]:
    """The raw image in `file`, for the length of a block.

    What is packed is unpacked into a file without a name in the folder `scratch`; the system
    removes it, whatever happens to us. Raises UserError if there is no image, or not one only.
    """
    with _opened(file) as source:
        before = os.fstat(source.fileno())
        kind = format_of(os.pread(source.fileno(), HEAD, 0))
        if kind is Format.RAW:
            yield ImageFile(str(file), source.fileno(), before.st_size)
        else:
            with tempfile.TemporaryFile(dir=scratch, buffering=0) as target:
                _Unpacking(source, str(file), target, scratch, progress).run(kind)
                size = os.fstat(target.fileno()).st_size
                yield ImageFile(str(file), target.fileno(), size)
        after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(f"{file}: was changed by somebody while it was read; try again")


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # to open a pipe would wait
            raise UserError(f"{file}: not a file")
        source = file.open("rb")
    except FileNotFoundError:
        raise UserError(f"{file}: no such image file") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    with source:
        yield source


class _Unpacking:
    """Finds the image in a packed file, and writes it to `target`, with holes for its zeros."""

    def __init__(
        self, source: BinaryIO, name: str, target: BinaryIO, scratch: Path, progress: Progress
    ) -> None:
        self._source, self._name, self._target = source, name, target
        self._scratch, self._progress = scratch, progress
        self._packed_bytes = os.fstat(source.fileno()).st_size

    def run(self, kind: Format) -> None:
        """Unpack. Raises UserError."""
        self._progress.step("unpacking", self._packed_bytes)
        check_room(self._scratch, self._packed_bytes)  # it gets no smaller by being unpacked
        if kind is Format.ZIP:
            image_in_zip(self._source, self._name, self._write)
        elif kind is Format.TAR:
            image_in_tar(self._source, self._name, self._write)
        else:
            with Decompressed(self._source, kind, self._name) as stream:
                self._run_stream(stream)

    def _run_stream(self, stream: Decompressed) -> None:
        head = stream.read(HEAD)
        whole = Rest(head, stream)
        inner = format_of(head)
        if inner is Format.TAR:
            image_in_tar(whole, self._name, self._write)
        elif is_disk(head):
            self._write(whole, None)
        elif inner is Format.RAW:
            raise UserError(f"{self._name}: there is no disk image in it: no partition table")
        else:
            raise UserError(f"{self._name}: holds another packed file ({inner.value}); unpack it")

    def _write(self, content: Stream, size: int | None) -> None:
        """Write the image's content; `size` in bytes, None if it is not known yet."""
        check_room(self._scratch, size or self._packed_bytes)
        done = 0
        while data := content.read(_STEP):
            if done + len(data) > _LARGEST:
                raise UserError(f"{self._name}: its image is larger than any card: 2 TiB and more")
            if data.count(0) != len(data):
                check_room(self._scratch, 0)
                self._write_parts(done, data)
            done += len(data)
            # All programs and modules read the one open file, each in its own way.
            self._progress.at(os.lseek(self._source.fileno(), 0, os.SEEK_CUR))
        os.ftruncate(self._target.fileno(), done)

    def _write_parts(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), _HOLE):
            part = memoryview(data)[at : at + _HOLE]
            if data.count(0, at, at + _HOLE) != len(part):
                written = 0
                while written < len(part):
                    place = offset + at + written
                    written += os.pwrite(self._target.fileno(), part[written:], place)
