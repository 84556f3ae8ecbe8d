"""What a compressed file holds, as a stream, from the program that knows its format."""

import os
import subprocess
import tempfile
from enum import Enum
from typing import BinaryIO, Protocol

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools
from piseduce_runner.images.partition_table import SECTOR

HEAD = SECTOR  # bytes that tell all formats apart
_LONGEST_COMPLAINT = 4000  # bytes


class Format(Enum):
    """How a file is packed, by its first bytes."""

    RAW = "raw"
    TAR = "tar"
    ZIP = "zip"
    XZ = "xz"
    GZIP = "gzip"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


# Memory is bounded: what a file's header asks for is for its author to say, not for us to obey.
COMMANDS = {
    Format.XZ: ("xz", "-dc", "-T0", "--memlimit-decompress=1GiB"),
    Format.GZIP: ("gzip", "-dc"),
    Format.ZSTD: ("zstd", "-dc", "-q"),
    Format.BZIP2: ("bzip2", "-dc"),
}
_MAGICS = (
    (0, b"\xfd7zXZ\x00", Format.XZ),
    (0, b"\x1f\x8b", Format.GZIP),
    (0, b"\x28\xb5\x2f\xfd", Format.ZSTD),
    (0, b"BZh", Format.BZIP2),
    (0, b"PK\x03\x04", Format.ZIP),
    (0, b"PK\x05\x06", Format.ZIP),  # an empty one
    (257, b"ustar", Format.TAR),
)


def format_of(head: bytes) -> Format:
    """The format of a file that begins with these bytes (`HEAD` of them)."""
    for offset, magic, kind in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return Format.RAW


class Stream(Protocol):
    """Bytes, one after the other."""

    def read(self, count: int) -> bytes:
        """So many bytes; fewer only at the end."""


class Rest:
    """A stream of which the first bytes have already been looked at."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self._head, self._stream = head, stream

    def read(self, count: int) -> bytes:
        """Of the head first."""
        head, self._head = self._head[:count], self._head[count:]
        return head + self._stream.read(count - len(head)) if len(head) < count else head


class Decompressed:
    """The contents of the compressed file `source`. Use it as a context.

    `read` raises UserError where the file turns out to be damaged, so an end is a good one.
    """

    def __init__(self, source: BinaryIO, kind: Format, name: str) -> None:
        self._source, self._name, self._command = source, name, COMMANDS[kind]
        tools.require(self._command[0])

    def __enter__(self) -> "Decompressed":
        os.lseek(self._source.fileno(), 0, os.SEEK_SET)
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdin=self._source.fileno(),
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=tools.environment(),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()
        self._said.close()

    def read(self, count: int) -> bytes:
        """So many bytes; fewer only at the end. Raises UserError if the file is damaged."""
        data = self._process.stdout.read(count)
        if len(data) < count and self._process.wait() != 0:
            self._said.seek(0)
            said = self._said.read(_LONGEST_COMPLAINT).decode(errors="replace")
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise UserError(
                f"{self._name}: damaged or truncated: "
                f"{lines[0] if lines else f'{self._command[0]} cannot read it'}"
            )
        return data
