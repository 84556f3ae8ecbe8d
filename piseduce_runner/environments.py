"""Environments: operating-system images, ready to be deployed.

An environment is a folder with the image (zstd), its block map (bmaptool's format) and
`environment.yml`, which says what the image is and how it is laid out. The package `images` makes
them. A family is a way to configure a system.
"""

import hashlib
import re
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path, PurePosixPath

import yaml

from piseduce_runner.errors import UserError
from piseduce_runner.families import NAME as FAMILY
from piseduce_runner.policy import NO_POLICY, Policy

DESCRIPTION = "environment.yml"
SECTOR = 512  # bytes; the unit of an MBR, whatever the device
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
DISK_ID = re.compile(r"0x[0-9a-f]{8}")
PRIMARY_PAIRS = [set(pair) for pair in combinations(range(1, 5), 2)]  # an MBR has four


@dataclass(frozen=True)
class Environment:
    """One environment. Every field but `folder` is a key of environment.yml."""

    folder: Path
    name: str  # the folder's name, and the last part of the image's URL
    family: str  # how the system is configured; see families.py
    login: str  # the image's default user
    boot_directory: str  # where the deployed system mounts its boot partition
    image: str  # file names, in `folder`
    block_map: str
    image_bytes: int  # uncompressed
    mapped_bytes: int  # of these, how many the block map says are in use
    compressed_bytes: int
    compressed_sha256: str
    block_map_sha256: str
    disk_id: str  # of the MBR, "0x" and 8 lower-case hex digits
    boot_partition: int  # number, from 1
    boot_start_sector: int  # sectors of 512 bytes
    boot_sectors: int
    root_partition: int
    root_start_sector: int
    root_sectors: int
    system: str = ""  # optional: its own name for itself, like "Debian GNU/Linux 12 (bookworm)"
    policy: Policy = NO_POLICY  # optional: what this image needs otherwise than the table says

    @property
    def variables(self) -> dict[str, str | int]:
        """The keys of environment.yml but `policy`, as roles and programs get them."""
        return {key: getattr(self, key) for key in _KEYS}


_KEYS = {
    field.name: field.type
    for field in fields(Environment)
    if field.name not in ("folder", "policy")
}
_OPTIONAL = {"system"}
_PATTERNS = {
    "name": NAME,
    "family": FAMILY,
    "login": LOGIN,
    "image": FILE_NAME,
    "block_map": FILE_NAME,
    "compressed_sha256": SHA256,
    "block_map_sha256": SHA256,
    "disk_id": DISK_ID,
}


def list_environments(root: Path) -> tuple[list[Environment], list[str]]:
    """All environments in the folder `root`, by name, and what is wrong with the damaged ones."""
    good: list[Environment] = []
    damaged: list[str] = []
    for folder in folders(root):
        try:
            good.append(load(folder))
        except UserError as error:
            damaged.append(str(error))
    return good, damaged


def folders(root: Path) -> list[Path]:
    """The folders of all environments, by name; hidden ones are somebody's work in hand."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def find(root: Path, name: str) -> Environment:
    """The environment `name` in the folder `root`. Raises UserError that lists what there is."""
    return load(folder_of(root, name))


def folder_of(root: Path, name: str) -> Path:
    """The folder of the environment `name`, which may be damaged.

    Raises UserError that lists what there is.
    """
    if not NAME.fullmatch(name) or not (root / name).is_dir():
        known = [folder.name for folder in folders(root)]
        raise UserError(
            f"unknown environment {name!r}; in {root}: {', '.join(known) or 'no environment'}"
        )
    return root / name


def load(folder: Path) -> Environment:
    """Read and check one environment. Raises UserError that names the file and what is wrong.

    The sizes of the image and the layout are checked; contents are not (see `verify_files`).
    """
    env = checked(folder, _read_mapping(folder / DESCRIPTION))
    for name in (env.image, env.block_map):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file, but {DESCRIPTION} names it")
    size = (folder / env.image).stat().st_size
    if size != env.compressed_bytes:
        raise UserError(
            f"{folder / env.image}: has {size} bytes, but {DESCRIPTION} says "
            f"{env.compressed_bytes}: the image is damaged or was replaced"
        )
    return env


def verify_files(env: Environment) -> None:
    """Compare the digests of the image and the block map. Raises UserError if one is damaged."""
    for name, expected in (
        (env.image, env.compressed_sha256),
        (env.block_map, env.block_map_sha256),
    ):
        if _sha256(env.folder / name) != expected:
            raise UserError(
                f"{env.folder / name}: its SHA-256 is not the one in {DESCRIPTION}: "
                "the file is damaged or was replaced"
            )


def checked(folder: Path, values: dict[str, object]) -> Environment:
    """The environment that `values`, the keys of environment.yml, describe.

    Raises UserError that names the file and the first key that is wrong.
    """
    file = folder / DESCRIPTION
    env = Environment(folder=folder, **_checked(file, values))
    _check_layout(file, env)
    return env


def _read_mapping(file: Path) -> dict[str, object]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file: {file.parent} is not an environment") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a mapping of keys and values")
    return values


def _checked(file: Path, values: dict[str, object]) -> dict[str, object]:
    """`values` if each key is there, known, of its type and well-formed; else UserError."""
    if unknown := [str(key) for key in values if key not in (*_KEYS, "policy")]:
        raise UserError(f"{file}: unknown key {unknown[0]!r}")
    for key, kind in _KEYS.items():
        if key not in values and key in _OPTIONAL:
            continue
        if key not in values:
            raise UserError(f"{file}: key {key!r} is missing")
        value = values[key]
        if type(value) is not kind:
            expected = "a whole number" if kind is int else "a text (in quotes)"
            raise UserError(f"{file}: {key} must be {expected}, not {value!r}")
        if kind is int and value <= 0:
            raise UserError(f"{file}: {key} must be positive, not {value}")
        if key in _PATTERNS and not _PATTERNS[key].fullmatch(value):
            raise UserError(f"{file}: {key}: {value!r} is not of the form {_PATTERNS[key].pattern}")
    if "policy" not in values:
        return values
    return values | {"policy": Policy.parse(values["policy"], f"{file}: policy")}


def _check_layout(file: Path, env: Environment) -> None:
    path = PurePosixPath(env.boot_directory)
    for found, problem in (
        (
            env.name != env.folder.name,
            f"name is {env.name!r}, but the folder's is {env.folder.name!r}",
        ),
        (
            not path.is_absolute() or ".." in path.parts or str(path) != env.boot_directory,
            f"boot_directory {env.boot_directory!r} is not a plain absolute path",
        ),
        (env.image == env.block_map, "image and block_map are the same file"),
        (env.mapped_bytes > env.image_bytes, "mapped_bytes is more than image_bytes"),
        (
            {env.boot_partition, env.root_partition} not in PRIMARY_PAIRS,
            "boot_partition and root_partition must be two of 1 to 4",
        ),
        (
            env.boot_start_sector + env.boot_sectors > env.root_start_sector,
            "the boot partition does not end before the root partition starts",
        ),
        (
            (env.root_start_sector + env.root_sectors) * SECTOR > env.image_bytes,
            "the root partition does not end within the image",
        ),
    ):
        if found:
            raise UserError(f"{file}: {problem}")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
