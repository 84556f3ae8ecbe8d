# SPDX-License-Identifier: MIT
"""Folders of boot files: what is in one, and a copy of it, from here or from a node's archive.

A tree is a dict: path relative to the folder, with ``/`` -> sha256 as 64 hex digits, or an empty
string for a folder. Names that are not UTF-8 are kept as surrogates, see :func:`printable`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tarfile
from pathlib import Path

from ansible.module_utils.piseduce_process import Failure

_STEP = 1 << 20
_FILE_LINE = re.compile(r"([0-9a-f]{64}) [ *]\./(.+)")
_LONGEST = 8192  # bytes of a line: PATH_MAX, a digest, and room
_LONGEST_HEADER = 64 << 10  # bytes of a tar header of variable length; most hold one path
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755  # a TFTP server serves what everybody may read


class Truncated(Failure):
    """What came from the node ends too soon, or is damaged."""


class Limit:
    """How much a folder may hold: a boot partition has some hundred files and 50 to 500 MB."""

    def __init__(self, files, size):
        """:param files: number of files and folders; :param size: bytes"""
        self._files, self._size = files, size
        self._files_left, self._bytes_left = files, size

    def entry(self):
        """Count a file or folder; :raises Failure: there are too many."""
        self._files_left -= 1
        if self._files_left < 0:
            raise Failure(f"there are more than {self._files} files, which no boot partition has")

    def data(self, size):
        """Count bytes; :raises Failure: there are too many."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise Failure(f"the files are larger than {self._size} bytes together")


class _Member(tarfile.TarInfo):
    """A member whose headers are looked at before :mod:`tarfile` reads them.

    It reads some kinds of header whole, whatever size they claim, before anybody sees the member.
    """

    _VARIABLE = (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )

    def _proc_member(self, archive):  # meant to be overridden, says a comment in tarfile
        if self.type in self._VARIABLE and self.size > _LONGEST_HEADER:
            raise Failure(
                f"the archive from the node has a header of {self.size} bytes,"
                f" more than {_LONGEST_HEADER}"
            )
        if self.type == tarfile.XGLTYPE:  # tar writes it on request only; they would add up
            raise Failure("the archive from the node has a header for all its files")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_holes()
        return super()._proc_member(archive)

    def _refuse_holes(self, *_arguments):
        # A list of holes has no bound. Tar writes files with holes on request only.
        raise Failure("the archive from the node has a file with holes")

    # The three ways to say it in PAX headers.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_holes


def read_tree(folder, limit):
    """The tree of a folder on this machine. A link to a file inside counts as that file.

    :raises Failure: what it holds cannot be boot files, with the entry's name
    """
    return {path: _sha256(source) if source else "" for path, source in _entries(folder, limit)}


def copy_tree(folder, target, limit):
    """Copy what :func:`read_tree` reads into an existing, empty folder."""
    for path, source in _entries(folder, limit):
        destination = Path(target, path)
        if source is None:
            destination.mkdir(mode=_FOLDER_MODE)
            continue
        with source.open("rb") as reader, _created(destination) as writer:
            shutil.copyfileobj(reader, writer, _STEP)


def unpack_tree(stream, target, limit):
    """Unpack a tar archive into an existing, empty folder that nobody else writes to.

    :param stream: binary file, read to the archive's end
    :raises Failure: anything but files and folders with honest names
    :raises Truncated: the archive ends too soon, or is none
    """
    try:
        with tarfile.open(
            fileobj=stream,
            mode="r|",
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_Member,
        ) as archive:
            for member in archive:
                _unpack(archive, member, Path(target), limit)
                archive.members.clear()  # it keeps all members, and their headers, otherwise
        if len(stream.read(_STEP)) == _STEP:  # tar pads its archive by some kilobytes
            raise Failure("the archive from the node does not end")
    except RecursionError as error:  # tarfile calls itself for what follows such a header
        raise Failure("the archive from the node has headers upon headers, and no file") from error
    except (tarfile.TarError, EOFError) as error:
        raise Truncated(f"the archive from the node is damaged: {error}") from error


def parse_listing(stream, limit):
    """The tree in the output of :func:`listing_command`, a binary file.

    :raises Failure: there is something that is neither file nor folder
    :raises Truncated: the list ends too soon
    """
    tree = {}
    kind = None
    for raw in iter(lambda: stream.readline(_LONGEST), b""):
        line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
        if line in ("folders:", "others:", "files:", "end"):
            kind = line
        elif kind == "folders:" and line == ".":
            continue
        elif kind == "folders:" and line.startswith("./"):
            limit.entry()
            tree[_checked(line[2:])] = ""
        elif kind == "others:":
            raise Failure(f"{printable(line)} is neither a file nor a folder")
        elif kind == "files:" and (match := _FILE_LINE.fullmatch(line)):
            limit.entry()
            tree[_checked(match.group(2))] = match.group(1)
        else:
            raise Failure(f"a file's name cannot be understood: {printable(line)}")
    if kind != "end":
        raise Truncated("the node's list of files is not complete")
    return tree


def listing_command():
    """Shell command that lists the working directory; POSIX, and sha256sum as GNU or busybox."""
    return (
        "echo folders: && find . -type d && echo others: && find . ! -type d ! -type f"
        " && echo files: && find . -type f -exec sha256sum {} + && echo end"
    )


def digest(tree):
    """One sha256, as hex digits, over all paths and contents of a tree."""
    text = "".join(f"{content or 'folder'}  {path}\n" for path, content in sorted(tree.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def difference(wanted, copied):
    """Name what a copy that is not as wanted has first: a missing, a surplus, an altered file."""
    missing = sorted(set(wanted) - set(copied))
    surplus = sorted(set(copied) - set(wanted))
    other = sorted(path for path in set(wanted) & set(copied) if wanted[path] != copied[path])
    for paths, what in ((missing, "missing"), (surplus, "not in the list"), (other, "other bytes")):
        if paths:
            return f"{printable(paths[0])} is {what}, {len(paths)} of {len(wanted)} files"
    return "nothing"


def printable(name):
    """A name with whatever is not UTF-8 or not printable written as an escape."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def readable_by_all(folder):
    """Whether everybody may read every file and enter every folder: a TFTP server must."""
    for parent, _folders, files in os.walk(folder):
        if stat.S_IMODE(Path(parent).lstat().st_mode) & 0o555 != 0o555:
            return False
        if any(Path(parent, name).lstat().st_mode & 0o444 != 0o444 for name in files):
            return False
    return True


def _entries(folder, limit):
    """Yield ``(path, file to read or None for a folder)``, a folder before what is in it."""
    root = Path(folder)
    if not root.is_dir():
        raise Failure(f"{root} is not a folder")
    for parent, folders, files in os.walk(root, onerror=_raise):
        for name in sorted(folders + files):
            found = Path(parent, name)
            path = _checked(str(found.relative_to(root)))
            limit.entry()
            mode = found.lstat().st_mode
            if stat.S_ISDIR(mode):
                yield path, None
                continue
            source = _linked_file(found, root) if stat.S_ISLNK(mode) else found
            if not stat.S_ISREG(source.lstat().st_mode):
                raise Failure(f"{printable(str(found))} is neither a file nor a folder")
            limit.data(source.lstat().st_size)
            yield path, source


def _linked_file(link, root):
    try:
        target = Path(os.path.realpath(link, strict=True))
    except OSError as error:
        raise Failure(f"{printable(str(link))} is a link that leads nowhere") from error
    if root.resolve() not in target.parents:
        raise Failure(f"{printable(str(link))} is a link that leads out of {root}")
    if not target.is_file():
        raise Failure(f"{printable(str(link))} is a link to something that is not a file")
    return target


def _unpack(archive, member, target, limit):
    name = member.name.rstrip("/")
    if member.isdir() and name == ".":
        return
    path = _checked(name[2:] if name.startswith("./") else name)
    limit.entry()
    destination = target / path
    if member.isdir():
        destination.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        return
    if member.islnk():  # the second name of a file that came before
        linked = member.linkname
        first = target / _checked(linked[2:] if linked.startswith("./") else linked)
        limit.data(first.stat().st_size)
        shutil.copyfile(first, destination)
        return
    if not member.isreg():
        raise Failure(f"{printable(path)} is neither a file nor a folder")
    limit.data(member.size)
    with archive.extractfile(member) as reader, _created(destination) as writer:
        shutil.copyfileobj(reader, writer, _STEP)


def _checked(path):
    if any(part in ("", ".", "..") for part in path.split("/")) or _CONTROL.search(path):
        raise Failure(f"{printable(path)!r} is not the name of a boot file")
    return path


def _created(path):
    """Open a new file for writing; it must not exist, so that nothing is followed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE)
    return os.fdopen(descriptor, "wb")


def _sha256(path):
    total = hashlib.sha256()
    with path.open("rb") as reader:
        while data := reader.read(_STEP):
            total.update(data)
    return total.hexdigest()


def _raise(error):
    raise error
