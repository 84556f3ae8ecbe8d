"""Programs that know file systems and compression formats, run so that no image can hold us up."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from piseduce_runner.errors import UserError

PACKAGES = {  # command: Debian package
    "bzip2": "bzip2",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "gzip": "gzip",
    "mcopy": "mtools",
    "mdel": "mtools",
    "mdir": "mtools",
    "resize2fs": "e2fsprogs",
    "xz": "xz-utils",
    "zstd": "zstd",
}
# What they print is read; mtools refuses images whose geometry is unusual, unless told otherwise.
ENVIRONMENT = {"LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null"}
_SECONDS = 120  # none of them takes a second on a sound image


def require(*tools: str) -> None:
    """Raises UserError if one of these programs is not installed."""
    for tool in tools:
        if not shutil.which(tool):
            raise UserError(f"{tool} is not installed (Debian package {PACKAGES[tool]})")


def environment() -> dict[str, str]:
    """The environment that programs are started with."""
    # Debian keeps some of them where only root's PATH leads.
    return os.environ | ENVIRONMENT | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


@contextmanager
def running(
    command: Sequence[str], *, keep: int, seconds: float = _SECONDS
) -> Iterator["subprocess.Popen[bytes]"]:
    """A program whose standard output is read in the block, and which has ended after it.

    `keep` is a file descriptor that it shares with us. It is killed when the block is left early,
    or after so many `seconds`. What it complains of is thrown away.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[keep],
        env=environment(),
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    limit = threading.Timer(seconds, process.kill)
    limit.start()
    try:
        yield process
    finally:
        limit.cancel()
        process.kill()
        process.stdout.close()
        process.wait()


def output(command: Sequence[str], *, keep: int, limit: int) -> bytes:
    """The first `limit` bytes of what a program prints; nothing if it cannot do what it is told."""
    with running(command, keep=keep) as process:
        return process.stdout.read(limit)
