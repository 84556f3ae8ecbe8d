# SPDX-License-Identifier: MIT
"""Tiny Core's backup, `mydata.tgz`: what of the system in RAM is kept over a restart.

A gzipped tar archive, unpacked over the root at each boot by `tc-restore.sh`, written anew by
`filetool.sh -b` from what /opt/.filetool.lst names. Source: tinycorelinux/Core-scripts.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import zlib
from collections import namedtuple

from ansible.module_utils.piseduce_process import Failure

# Bytes, packed and unpacked: the deploy OS holds both in memory. Packages are not in it.
LONGEST, LARGEST = 64 << 20, 128 << 20

Owner = namedtuple("Owner", "uid gid")
ROOT = Owner(0, 0)


class Backup:
    """The contents of a `mydata.tgz`, changed in memory.

    :param data: the file's bytes; None for one that is not there
    :raises Failure: it is damaged, or larger than memory should hold
    """

    def __init__(self, data):
        self._members = []  # (tarfile.TarInfo, bytes or None), in their order
        self.changed = data is None
        if data is not None:
            self._load(data)

    def _load(self, data):
        try:
            # To its end, where gzip's checksum is.
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                plain = packed.read(LARGEST + 1)
            if len(plain) > LARGEST:
                raise Failure(f"mydata.tgz holds more than {LARGEST >> 20} MiB")
            with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
                for member in archive:
                    content = archive.extractfile(member).read() if member.isreg() else None
                    self._members.append((member, content))
        except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
            raise Failure(f"mydata.tgz is damaged: {error}") from error

    def read(self, path):
        """Contents of a regular file, None if there is none."""
        found = self._find(path)
        return found[1] if found else None

    def text(self, path):
        """Text of a file; an empty one if there is none."""
        return (self.read(path) or b"").decode("utf-8", "surrogateescape")

    def names(self):
        """The paths of all members, relative to the root."""
        return [_name(member) for member, _content in self._members]

    def write(self, path, data, mode=0o644, owner=ROOT):
        """Have a file with these contents, this mode and owner."""
        found = self._find(path)
        if found and found[0].isreg() and _has(found[0], mode, owner) and found[1] == data:
            return
        member = _new(path, mode, owner)
        member.size = len(data)
        self._put(path, member, data)

    def write_text(self, path, text, mode=0o644, owner=ROOT):
        """As :meth:`write`."""
        self.write(path, text.encode("utf-8", "surrogateescape"), mode, owner)

    def make_folder(self, path, mode, owner):
        """Have a folder with this mode and owner; what is in it stays."""
        found = self._find(path)
        if found and found[0].isdir() and _has(found[0], mode, owner):
            return
        member = _new(path, mode, owner)
        member.type = tarfile.DIRTYPE
        # Before what is in it, or the modes of a folder that is made for a file would win.
        self._put(path, member, None, first=True)

    def remove(self, path):
        """Have nothing at a path."""
        kept = [pair for pair in self._members if _name(pair[0]) != path]
        self.changed = self.changed or len(kept) != len(self._members)
        self._members = kept

    def pack(self):
        """The archive's bytes."""
        output = io.BytesIO()
        # The time in gzip's header would make each one differ.
        with (
            gzip.GzipFile(fileobj=output, mode="wb", compresslevel=6, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
        ):
            for member, content in self._members:
                archive.addfile(member, None if content is None else io.BytesIO(content))
        return output.getvalue()

    def _find(self, path):
        # Of two with the same path the later one is what is on the disk in the end.
        return next((pair for pair in reversed(self._members) if _name(pair[0]) == path), None)

    def _put(self, path, member, content, first=False):
        self.remove(path)
        self._members.insert(0 if first else len(self._members), (member, content))
        self.changed = True


def _name(member):
    name = member.name
    while name.startswith("./"):
        name = name[2:]
    return name.strip("/")


def _new(path, mode, owner):
    member = tarfile.TarInfo(path)
    member.mode, member.mtime = mode, int(time.time())
    member.uid, member.gid = owner
    return member


def _has(member, mode, owner):
    return member.mode & 0o7777 == mode and (member.uid, member.gid) == owner
