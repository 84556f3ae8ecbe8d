"""Random work on a mounted FAT, checked against a model: fat_workout.py DIRECTORY SEED MODEL.

Runs in the deploy OS. Writes what must be there in the end as JSON: path -> SHA-256 of the file.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import sys
from pathlib import Path

NAMES = ("config.txt", "cmdline.txt", "Mixed.Case", "a long name with blanks.dat", "UPPER.TXT", "x")


def main(directory: Path, seed: int, model: Path) -> None:
    rng = random.Random(seed)  # noqa: S311 (repeatable, not secret)
    want: dict[str, bytes] = {}
    folders = [directory, directory / "overlays"]
    folders[1].mkdir()
    (folders[1] / "README").write_bytes(b"kept")
    want[str(folders[1] / "README")] = b"kept"
    for _ in range(120):
        path = rng.choice(folders) / rng.choice(NAMES)
        action = rng.choice((create, append, overwrite, replace, remove, change_time))
        action(rng, path, want)
    for path, content in want.items():
        assert Path(path).read_bytes() == content, path
    unlinked_while_open(directory / "gone", rng)
    impossible(directory)
    refuses(errno.ENOTEMPTY, folders[1].rmdir)
    full(directory)
    digests = {
        str(Path(path).relative_to(directory)): hashlib.sha256(content).hexdigest()
        for path, content in want.items()
    }
    model.write_text(json.dumps(digests))


def create(rng, path, want):
    want[str(path)] = rng.randbytes(rng.choice((0, 1, 511, 4096, 70_000)))
    path.write_bytes(want[str(path)])


def append(rng, path, want):
    more = rng.randbytes(1000)
    with path.open("ab") as file:
        file.write(more)
    want[str(path)] = want.get(str(path), b"") + more


def overwrite(rng, path, want):
    if content := want.get(str(path)):
        at = rng.randrange(len(content))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"changed")
            file.truncate(at + 7)
            os.fsync(file.fileno())
        want[str(path)] = content[:at] + b"changed"


def replace(rng, path, want):
    """As editors and Ansible do: write a new file, rename it over the old one."""
    new = path.with_name(f".{path.name}.new")
    want[str(path)] = rng.randbytes(2000)
    new.write_bytes(want[str(path)])
    new.replace(path)


def remove(rng, path, want):
    if want.pop(str(path), None) is not None:
        path.unlink()
        assert not path.exists()


def change_time(rng, path, want):
    if str(path) in want:
        os.utime(path, (1_600_000_000, 1_600_000_000))
        assert path.stat().st_mtime == 1_600_000_000


def unlinked_while_open(path, rng):
    with path.open("wb") as file:
        file.write(b"nobody will read this")
        path.unlink()
    assert not path.exists()


def impossible(directory):
    """What the kernel's vfat refuses, this one must refuse, or roles that would fail pass here."""
    file = directory / "plain"
    file.write_bytes(b"")
    for attempt in (
        lambda: file.chmod(0o600),
        lambda: os.chown(file, 1000, 1000),
        lambda: os.link(file, directory / "link"),
        lambda: (directory / "symlink").symlink_to("plain"),
    ):
        refuses(errno.EPERM, attempt)
    file.unlink()


def refuses(number, attempt):
    try:
        attempt()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError(f"{attempt} was possible")


def full(directory):
    """More than there is room for fails with ENOSPC and leaves the rest alone."""
    free = shutil.disk_usage(directory).free
    refuses(errno.ENOSPC, lambda: (directory / "huge").write_bytes(b"\1" * (free + 100_000)))
    (directory / "huge").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
