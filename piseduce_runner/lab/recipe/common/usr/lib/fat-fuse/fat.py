"""Reads FAT16 and FAT32 (Microsoft's "FAT: General Overview of On-Disk Format", 1.03)."""

import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

ENTRY = 32  # bytes of a directory entry
END, DELETED, KANJI = 0x00, 0xE5, 0x05
VOLUME, DIRECTORY, LONG_NAME = 0x08, 0x10, 0x0F
# Windows NT's bits in byte 12: this 8.3 name is meant in lower case.
LOWER_BASE, LOWER_EXTENSION = 0x08, 0x10


@dataclass(frozen=True)
class Entry:
    """A file or folder. The root folder of FAT16 has no cluster: -1."""

    name: str
    is_folder: bool
    size: int  # bytes; 0 for folders
    cluster: int
    mtime: float  # seconds since the epoch


class Volume:
    """A FAT file system, read from a device or image. Call `forget` when somebody has written."""

    def __init__(self, device: Path) -> None:
        self.file = os.open(device, os.O_RDWR)
        boot = os.pread(self.file, 512, 0)
        if boot[510:512] != b"\x55\xaa":
            raise ValueError("no FAT boot sector")
        sector, per_cluster, reserved, fats, roots, small = struct.unpack_from("<HBHBHH", boot, 11)
        fat_sectors = struct.unpack_from("<H", boot, 22)[0] or struct.unpack_from("<I", boot, 36)[0]
        total = small or struct.unpack_from("<I", boot, 32)[0]
        if sector not in (512, 1024, 2048, 4096) or not per_cluster or not fats or not fat_sectors:
            raise ValueError("no FAT boot sector")
        self.cluster_bytes = sector * per_cluster
        self._fat_start, self._fat_bytes = reserved * sector, fat_sectors * sector
        self._roots = ((reserved + fats * fat_sectors) * sector, roots * ENTRY)
        root_sectors = (roots * ENTRY + sector - 1) // sector
        data = reserved + fats * fat_sectors + root_sectors
        self._data_start = data * sector
        self.clusters = (total - data) // per_cluster
        if self.clusters < 4085:
            raise ValueError("FAT12 is not supported")
        self._wide = self.clusters >= 65525
        root = struct.unpack_from("<I", boot, 44)[0] if self._wide else -1
        self._root = Entry("", True, 0, root, 0.0)
        self.forget()

    def forget(self) -> None:
        """Read the allocation table and folders anew when they are next needed."""
        self._table: tuple[int, ...] = ()
        self._folders: dict[int, dict[str, Entry]] = {}
        self._chains: dict[int, list[int]] = {}

    def find(self, path: str) -> Entry | None:
        """The entry at an absolute path, without regard to case, or None."""
        entry = self._root
        for part in filter(None, path.split("/")):
            if not entry.is_folder:
                return None
            found = self.entries(entry).get(part.casefold())
            if found is None:
                return None
            entry = found
        return entry

    def entries(self, folder: Entry) -> dict[str, Entry]:
        """What is in a folder: case-folded name -> entry, without `.` and `..`."""
        if folder.cluster not in self._folders:
            if folder.cluster == -1:
                content = os.pread(self.file, self._roots[1], self._roots[0])
            else:
                content = self.read(
                    folder, 0, len(self._chain(folder.cluster)) * self.cluster_bytes
                )
            self._folders[folder.cluster] = {e.name.casefold(): e for e in _parse(content)}
        return self._folders[folder.cluster]

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; a file ends at its size."""
        if not entry.is_folder:
            size = max(0, min(size, entry.size - offset))
        if not size:
            return b""
        chain = self._chain(entry.cluster)
        first, last = offset // self.cluster_bytes, (offset + size - 1) // self.cluster_bytes
        pieces = [
            os.pread(self.file, count * self.cluster_bytes, self._at(start))
            for start, count in _runs(chain[first : last + 1])
        ]
        skip = offset - first * self.cluster_bytes
        return b"".join(pieces)[skip : skip + size]

    def free_clusters(self) -> int:
        """How many clusters nobody uses."""
        return self._fat()[2 : self.clusters + 2].count(0)

    def _fat(self) -> tuple[int, ...]:
        if not self._table:
            raw = os.pread(self.file, self._fat_bytes, self._fat_start)
            kind, width = ("I", 4) if self._wide else ("H", 2)
            self._table = struct.unpack(f"<{len(raw) // width}{kind}", raw)
        return self._table

    def _chain(self, cluster: int) -> list[int]:
        if cluster not in self._chains:
            fat, chain, at = self._fat(), [], cluster
            mask = 0x0FFFFFFF if self._wide else 0xFFFF
            while 2 <= at < self.clusters + 2:
                if len(chain) > self.clusters:
                    raise ValueError("a cluster chain has a loop")
                chain.append(at)
                at = fat[at] & mask
            self._chains[cluster] = chain
        return self._chains[cluster]

    def _at(self, cluster: int) -> int:
        return self._data_start + (cluster - 2) * self.cluster_bytes


def _runs(clusters: list[int]) -> list[tuple[int, int]]:
    """Neighbouring clusters as (first, count), so that they are read at once."""
    runs: list[tuple[int, int]] = []
    for cluster in clusters:
        if runs and cluster == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((cluster, 1))
    return runs


def _parse(content: bytes) -> list[Entry]:
    entries = []
    parts: list[bytes] = []  # of a long name, last part first
    checksum = -1
    for at in range(0, len(content), ENTRY):
        raw = content[at : at + ENTRY]
        if raw[0] == END:
            break
        if raw[0] == DELETED:
            parts = []
        elif raw[11] & 0x3F == LONG_NAME:
            if raw[0] & 0x40 or raw[13] != checksum:
                parts, checksum = [], raw[13]
            parts.append(raw[1:11] + raw[14:26] + raw[28:32])
        else:
            if not raw[11] & VOLUME and raw[0:1] != b".":
                whole = parts and checksum == _checksum(raw[:11])
                entries.append(_entry(raw, _long_name(parts) if whole else _short_name(raw)))
            parts = []
    return entries


def _entry(raw: bytes, name: str) -> Entry:
    high, clock, day, low, size = struct.unpack_from("<HHHHI", raw, 20)
    return Entry(name, bool(raw[11] & DIRECTORY), size, high << 16 | low, _epoch(day, clock))


def _epoch(day: int, clock: int) -> float:
    fields = (
        *(1980 + (day >> 9), day >> 5 & 15, day & 31),
        *(clock >> 11, clock >> 5 & 63, (clock & 31) * 2, 0, 0, -1),
    )
    return time.mktime(fields)


def _long_name(parts: list[bytes]) -> str:
    return b"".join(reversed(parts)).decode("utf-16-le", "replace").split("\0")[0].rstrip("\uffff")


def _short_name(raw: bytes) -> str:
    start = b"\xe5" if raw[0] == KANJI else raw[0:1]
    base = (start + raw[1:8]).decode("cp437").rstrip()
    extension = raw[8:11].decode("cp437").rstrip()
    if raw[12] & LOWER_BASE:
        base = base.lower()
    if raw[12] & LOWER_EXTENSION:
        extension = extension.lower()
    return f"{base}.{extension}" if extension else base


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total
