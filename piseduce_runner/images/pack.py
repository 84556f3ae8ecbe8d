"""The files that nodes are served: the image compressed, and its block map; made in one pass.

Each byte is read once, hashed, and handed to zstd, so the digests are of the very bytes that are
compressed. Blocks that the map leaves out become zeros: what was deleted does not travel.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools
from piseduce_runner.images.block_map import Cutter, Range, write_block_map
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.scratch import check_room
from piseduce_runner.images.steps import Progress

# Nodes decompress all levels about equally fast. Beyond this one it gets slow and hardly smaller.
_LEVEL = "-6"
_WINDOW = 4 << 20  # bytes


def pack(
    image: ImageFile, ranges: list[Range], packed: Path, block_map: Path, progress: Progress
) -> None:
    """Write the compressed image `packed` and its `block_map`. Raises UserError if it cannot."""
    progress.step("compressing", image.size)
    with packed.open("xb") as target, tempfile.TemporaryFile() as said:
        zstd = subprocess.Popen(
            ["zstd", "--quiet", "-T0", _LEVEL, f"--stream-size={image.size}", "--stdout"],
            stdin=subprocess.PIPE,
            stdout=target,
            stderr=said,
            env=tools.environment(),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        digests: list[str] = []
        try:
            done = 0
            for window in _windows(image, ranges, digests):
                check_room(packed.parent, 0)
                zstd.stdin.write(window)
                done += len(window)
                progress.at(done)
            zstd.stdin.close()
            zstd.wait()
        except BrokenPipeError:
            zstd.wait()  # it says why
        finally:
            zstd.kill()
            zstd.wait()
            with suppress(BrokenPipeError):
                zstd.stdin.close()
        if zstd.returncode != 0:
            said.seek(0)
            lines = said.read(4000).decode(errors="replace").strip().splitlines()
            raise UserError(f"zstd failed: {lines[-1] if lines else zstd.returncode}")
    write_block_map(block_map, image.size, ranges, digests)


def _windows(image: ImageFile, ranges: list[Range], digests: list[str]) -> Iterator[bytearray]:
    """The image, window by window, zeros where no range is; appends each range's digest."""
    pieces, digest = Cutter(ranges), hashlib.sha256()
    for start in range(0, image.size, _WINDOW):
        end = min(start + _WINDOW, image.size)
        window = bytearray(end - start)
        for first, behind, complete in pieces.within(start, end):
            data = image.read(first, behind - first)
            if len(data) != behind - first:
                raise UserError(f"{image.name}: ends at byte {first + len(data)} while it is read")
            window[first - start : behind - start] = data
            digest.update(data)
            if complete:
                digests.append(digest.hexdigest())
                digest = hashlib.sha256()
        yield window


def sha256(file: Path) -> str:
    """Of a file, as 64 hex digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
