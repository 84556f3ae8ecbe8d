"""A raw disk image, open for reading."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

SECTOR = 512  # bytes; the unit of partition tables on SD cards
_STEP = 1 << 20


@dataclass(frozen=True)
class ImageFile:
    """An open image. `name` is what messages call it; `size` is in bytes."""

    name: str
    descriptor: int
    size: int

    @property
    def path(self) -> str:
        """Its path for a child that shares the descriptor.

        It holds none of the characters in which mtools (`@`) and e2fsprogs (`?`) see the end of a
        file's name, whatever the file is called.
        """
        return f"/proc/self/fd/{self.descriptor}"

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from `offset` on; fewer only at the end of the image."""
        parts = []
        while count > 0 and (part := os.pread(self.descriptor, min(count, _STEP), offset)):
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    def data(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What is not a hole between two offsets, as (offset, bytes) of 1 MiB at most."""
        while start < end:
            try:
                start = max(start, os.lseek(self.descriptor, start, os.SEEK_DATA))
            except OSError:  # ENXIO: holes only, up to the end
                return
            if start >= end:
                return
            part = self.read(start, min(_STEP, end - start))
            if not part:
                return
            yield start, part
            start += len(part)
