"""An ext4 file system in a file of its own: checked, repaired, and made as small as is sensible."""

import re
import signal
import subprocess
import threading
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools

_MIB = 1 << 20
SLACK = 64 * _MIB
"""Bytes that stay free: what a system writes before its file system has grown on another card."""
_SECONDS = 3600
_STEP = 1 << 16  # bytes
_MINIMUM = re.compile(r"Estimated minimum size of the filesystem: (\d+)")
_REPAIRED = (0, 1, 2)  # e2fsck(8), EXIT CODE


def repair(image: Path) -> None:
    """Check all of the file system, and repair it. Raises UserError if that cannot be done."""
    status, said = _run("e2fsck", "-f", "-y", image)
    if status not in _REPAIRED:
        raise UserError(f"the card's root file system cannot be repaired: {said}")


def shrink(image: Path, block_bytes: int, blocks: int) -> int:
    """Make the file system in `image` small; its size in blocks then, of `blocks` before.

    The file ends with it. Raises UserError if it is not sound afterwards.
    """
    status, said = _run("resize2fs", "-P", image, longest=4000)
    match = _MINIMUM.search(said)
    if status != 0 or match is None:
        raise UserError(f"resize2fs does not say how small the file system can be: {said}")
    wanted = int(match[1]) + int(match[1]) // 20 + SLACK // block_bytes
    if wanted < blocks:
        status, said = _run("resize2fs", image, str(wanted))
        if status != 0:
            raise UserError(f"the file system could not be made smaller: {said}")
        blocks = wanted
    status, said = _run("e2fsck", "-f", "-n", image)
    if status != 0:
        raise UserError(f"the file system is not sound after it was made smaller: {said}")
    return blocks


def _run(*command: str | Path, longest: int = 300) -> tuple[int, str]:
    """Exit status of a program, and the end of what it said.

    Of a file system made to that end, e2fsck(8) says more than there is memory for.
    """
    child = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=tools.environment(),
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    limit = threading.Timer(_SECONDS, child.kill)
    limit.start()
    said = b""
    try:
        while data := child.stdout.read1(_STEP):
            said = (said + data)[-_STEP:]
        status = child.wait()
    finally:
        limit.cancel()
        child.kill()
        child.stdout.close()
        child.wait()
    if status == -signal.SIGKILL:
        raise UserError(f"{command[0]} did not end within {_SECONDS} s")
    return status, " ".join(said.decode(errors="replace").split())[-longest:]
