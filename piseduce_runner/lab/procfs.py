"""What this machine's kernel knows of namespaces and processes, read from /proc."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

NETNS_FOLDER = Path("/run/netns")  # ip-netns(8)


def processes() -> Iterator[int]:
    """Numbers of all processes."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            yield int(path.name)


def namespace_id(name: str) -> str | None:
    """Identity of a named network namespace, as /proc/PID/ns/net shows it."""
    try:
        return f"net:[{(NETNS_FOLDER / name).stat().st_ino}]"
    except FileNotFoundError:
        return None


def processes_in(namespaces: set[str]) -> set[int]:
    """Processes within the network namespaces that have these identities."""
    found = set()
    for pid in processes():
        try:
            if str(Path(f"/proc/{pid}/ns/net").readlink()) in namespaces:
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile
    return found


def processes_marked(marker: str) -> set[int]:
    """Processes that have this NAME=VALUE in their environment."""
    wanted = marker.encode("utf-8", "surrogateescape")
    found = set()
    for pid in processes():
        try:
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended meanwhile
    return found


def processes_writing_below(folder: Path) -> set[int]:
    """Processes that have a file below `folder` open for writing."""
    found = set()
    for pid in processes():
        try:
            files = list(Path(f"/proc/{pid}/fd").iterdir())
            if any(_is_writable(file) for file in files if file.readlink().is_relative_to(folder)):
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it, or its file, has gone meanwhile
    return found


def _is_writable(file: Path) -> bool:
    """Whether /proc/PID/fd/N is open for writing: open(2)'s flags, in octal, in fdinfo."""
    info = (file.parents[1] / "fdinfo" / file.name).read_text("ascii")
    flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be reaped, or is gone altogether."""
    return _state(pid) in "ZX"


def may_run(pid: int) -> bool:
    """Whether a process is neither stopped by a signal, nor bound to be (D: after its I/O), nor
    has it ended.
    """
    return _state(pid) not in "TtDZX"


def name_of(pid: int) -> str:
    """The name of a process' program, at most 15 characters; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    """Children that the first thread of a process started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def mounts_of(pid: int) -> Iterator[tuple[str, str, str]]:
    """(device number, mount point, file system type) of each mount in a process' namespace.

    See proc(5), /proc/PID/mountinfo. ProcessLookupError or FileNotFoundError: no such process.
    """
    for line in Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-", 6) + 1]
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        yield fields[2], point, kind


def _state(pid: int) -> str:
    """The letter of proc(5), /proc/PID/stat; X, "dead", when there is nothing left at all."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return text.rpartition(")")[2].split()[0]
