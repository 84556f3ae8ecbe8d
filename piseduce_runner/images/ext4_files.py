"""Files of an ext4 file system that is mounted nowhere, read and changed by debugfs(8).

Nothing of such a file system is believed: it belongs to somebody else. Names are quoted, and those
that debugfs cannot be told (a line break) are an error, not passed over.
"""

import re
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from piseduce_runner.errors import UserError
from piseduce_runner.images import tools

# debugfs: ls -p.
_ENTRY = re.compile(r"/(\d+)/([0-7]{6})/(\d+)/(\d+)/(.*)/(\d*)/")
_SECONDS = 600
_LARGEST = 4 << 20  # bytes of a file that is read; the files meant have some thousand
_DEEPEST = 30  # folders


@dataclass(frozen=True)
class Entry:
    """What is in a folder. `path` begins with a slash; `mode` is that of stat(2)."""

    path: str
    mode: int
    user: int
    group: int
    size: int = field(default=0, compare=False)  # bytes

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


class Ext4Files:
    """The files in `image`, a file that holds an ext4 file system and nothing else."""

    def __init__(self, image: Path) -> None:
        self._image = image

    def entries(self, folder: str) -> list[Entry]:
        """What is in a folder, or in the one that a link leads to; nothing if there is none."""
        found = []
        for line in self._ask(f"ls -p {_quoted(_followed(folder))}").splitlines():
            if not line:
                continue
            match = _ENTRY.fullmatch(line)
            if match is None:
                raise UserError(f"{folder} on the card has a file with an impossible name")
            if match[5] not in (".", "..", ""):
                path = str(PurePosixPath(folder) / match[5])
                mode, user, group = int(match[2], 8), int(match[3]), int(match[4])
                found.append(Entry(path, mode, user, group, int(match[6] or 0)))
        return found

    def find(self, path: str) -> Entry | None:
        """What is at a path, links not followed."""
        place = PurePosixPath(path)
        siblings = self.entries(str(place.parent))
        return next((one for one in siblings if one.name == place.name), None)

    def read(self, path: str) -> bytes:
        """The contents of a file. Raises UserError if there is none, or a large one."""
        entry = self.find(path)
        if entry is None or not entry.is_file:
            raise UserError(f"the system on the card has no file {path}")
        if entry.size > _LARGEST:
            raise UserError(f"{path} on the card has {entry.size} bytes, which is too many")
        text = self._ask(f"cat {_quoted(path)}")
        return text.encode(errors="surrogateescape")

    def remove(self, entries: Iterable[Entry]) -> list[str]:
        """Remove these, folders with all that is in them; their paths. Raises UserError."""
        removed = [one for entry in entries for one in self._with_contents(entry, 0)]
        self.change(
            f"{'rmdir' if one.is_folder else 'rm'} {_quoted(_in_folder(one.path))}"
            for one in removed
        )
        folders = sorted({str(PurePosixPath(one.path).parent) for one in removed})
        left = {one.path for folder in folders for one in self.entries(folder)}
        for one in removed:
            if one.path in left:
                raise UserError(f"{one.path} on the card could not be removed")
        return [one.path for one in removed]

    def replace(self, entry: Entry, content: bytes) -> None:
        """Give a file these contents; its owner and its mode stay. Raises UserError."""
        place, path = PurePosixPath(entry.path), _quoted(entry.path)
        with tempfile.NamedTemporaryFile() as source:
            source.write(content)
            source.flush()
            self.change(
                [
                    f"cd {_quoted(str(place.parent))}",
                    f"rm {path}",
                    f"write {_quoted(source.name)} {_quoted(place.name)}",
                    f"set_inode_field {path} mode 0{entry.mode:o}",
                    f"set_inode_field {path} uid {entry.user}",
                    f"set_inode_field {path} gid {entry.group}",
                ]
            )
        if self.find(entry.path) != entry or self.read(entry.path) != content:
            raise UserError(f"{entry.path} on the card could not be written")

    def change(self, commands: Iterable[str]) -> None:
        """Give these commands to debugfs. Whether they worked is for the caller to see."""
        text = "".join(f"{command}\n" for command in commands)
        if text:
            self._run(["-w", "-f", "-"], text)

    def _with_contents(self, entry: Entry, depth: int) -> list[Entry]:
        """The entry, after all that is in it."""
        if depth > _DEEPEST:
            raise UserError(f"{entry.path} on the card lies too deep in folders")
        inside = self.entries(entry.path) if entry.is_folder else []
        return [*(one for each in inside for one in self._with_contents(each, depth + 1)), entry]

    def _ask(self, request: str) -> str:
        return self._run(["-R", request], None)

    def _run(self, options: list[str], text: str | None) -> str:
        with tempfile.TemporaryFile() as output:
            try:
                subprocess.run(
                    ["debugfs", *options, str(self._image)],
                    input=text.encode(errors="surrogateescape") if text else None,
                    stdin=None if text else subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                    env=tools.environment(),
                    timeout=_SECONDS,
                    start_new_session=True,  # Ctrl-C is ours to handle
                )
            except subprocess.TimeoutExpired:
                raise UserError(f"debugfs did not end within {_SECONDS} s") from None
            size = output.tell()
            if size > _LARGEST:
                raise UserError("a folder of the system on the card holds too much to be read")
            output.seek(0)
            return output.read().decode(errors="surrogateescape")


def _followed(folder: str) -> str:
    """A folder's path for debugfs, which does not follow a link at the end of a path."""
    return f"{folder.rstrip('/')}/."


def _in_folder(path: str) -> str:
    """The path of something in a folder that may be a link, for debugfs to remove it."""
    place = PurePosixPath(path)
    return f"{_followed(str(place.parent))}/{place.name}"


def _quoted(path: str) -> str:
    """As one word for debugfs (libss): between quotes, and quotes doubled."""
    if any(character < " " for character in path):
        raise UserError(f"{path!r} on the card has a name that cannot be handled")
    return '"' + path.replace('"', '""') + '"'
