"""A cell of a card that forgets: what was written there reads back with one bit flipped."""

import os
import re
from pathlib import Path

from piseduce_runner.environments import list_environments
from piseduce_runner.errors import UserError

BLOCK = 4096
RANGE = re.compile(r"<Range[^>]*>\s*(\d+)(?:\s*-\s*(\d+))?\s*</Range>")
BLOCK_SIZE = re.compile(r"<BlockSize>\s*(\d+)\s*</BlockSize>")


class BadCell:
    """One byte of a card's file. `look` has to be called often: nothing says when it is written.

    `times`: so many writes are spoilt, 0: all. A block of zeros counts as erased, not as written.
    """

    def __init__(self, descriptor: int, at: int, times: int) -> None:
        self._descriptor = descriptor
        self._start = at - at % BLOCK
        self._place = at % BLOCK
        self._times = times
        self._spoilt = 0
        self._left = b""  # the block, as we have left it
        # What is there now is bad, too: otherwise the same bytes, written again, would not be seen.
        block = self._read()
        if any(block):
            self._flip(block)

    def look(self) -> None:
        """Spoils what was written since the last look."""
        block = self._read()
        if block == self._left or not any(block) or 0 < self._times <= self._spoilt:
            return
        self._spoilt += 1
        self._flip(block)

    def mend(self) -> None:
        """The cell remembers again what was written last."""
        block = self._read()
        if self._left and block == self._left:
            self._flip(block)

    def _read(self) -> bytes:
        return os.pread(self._descriptor, BLOCK, self._start)

    def _flip(self, block: bytes) -> None:
        byte = bytes([block[self._place] ^ 1])
        os.pwrite(self._descriptor, byte, self._start + self._place)
        self._left = block[: self._place] + byte + block[self._place + 1 :]


def place_in_image(environments: Path) -> int:
    """A byte of the card that the site's first environment writes: the midst of its longest range.

    UserError: the site has no environment.
    """
    good, _ = list_environments(environments)
    if not good:
        raise UserError(f"card-corrupt: {environments} has no environment; give at=")
    text = (good[0].folder / good[0].block_map).read_text("utf-8")
    ranges = [(int(first), int(last or first)) for first, last in RANGE.findall(text)]
    first, last = max(ranges, key=lambda found: found[1] - found[0])
    return (first + last) // 2 * int(BLOCK_SIZE.search(text)[1])
