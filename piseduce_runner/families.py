"""Families: how a kind of system is recognised, configured and spoken to, as data.

A family is a file NAME.yml: ours are in `families/`, a site's own in `SITE/families/`. One of a
site's takes the place of ours of the same name. docs/families.md explains the keys.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.family_steps import check_steps
from piseduce_runner.policy import NO_POLICY, Policy
from piseduce_runner.processes import Process

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
NO_OS_RELEASE = "none"
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_SIGN_KEYS = ("os_release", "boot_has", "root_has")


@dataclass(frozen=True)
class Sign:
    """What tells that an image is of a family: `os_release` and, where given, any of the files.

    `os_release` are values of ID in os-release(5), `none` for a system without one.
    """

    os_release: tuple[str, ...]
    boot_has: tuple[str, ...] = ()
    root_has: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One family. Every field but `name` and `file` is a key of its file."""

    name: str
    file: Path
    description: str
    login: str  # the images' default user
    recognised_by: tuple[Sign, ...] = ()
    manager_login: str = "root"  # whom the manager logs in as on the deployed system
    python: str | None = "/usr/bin/python3"  # of the deployed system; None: it has none
    boot_directory: str | None = None  # where it mounts its boot partition; None: ask the image
    root_has: tuple[str, ...] = ("etc/os-release", "usr/lib/os-release")  # one of these
    boot_has: tuple[str, ...] = ("config.txt", "cmdline.txt")  # all of these
    never_on_boot: tuple[str, ...] = ("bootcode.bin",)
    system_conf: tuple[str | dict[str, Any], ...] = ()  # the steps of system_conf
    updates_with: str = "nothing"
    ready: str = ""  # a shell command that succeeds once the first boot is over
    reboot: str = "reboot"
    mount_boot: str = ""  # where the system does not mount its boot partition itself
    unmount_boot: str = ""
    roles: Mapping[str, str] = field(default_factory=dict, hash=False)  # role by state
    policy: Policy = NO_POLICY

    @property
    def variables(self) -> dict[str, Any]:
        """What roles get as `family`."""
        names = (
            "name", "login", "manager_login", "boot_has", "root_has", "never_on_boot",
            "system_conf", "updates_with", "ready", "reboot", "mount_boot", "unmount_boot",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def family_folders(site: Path | None) -> list[Path]:
    """Where families are looked for, in order."""
    ours = paths.ansible_dir() / "families"
    return [site / "families", ours] if site else [ours]


def load_families(site: Path | None = None) -> dict[str, Family]:
    """All families by name, a site's own first. Raises `UserError` with file and key."""
    found: dict[str, Family] = {}
    for folder in family_folders(site):
        for file in sorted(folder.glob("*.yml")):
            if file.stem not in found:
                found[file.stem] = read_family(file)
    return found


def find_family(site: Path | None, name: str) -> Family:
    """The family of that name. Raises `UserError` that lists what there is."""
    for folder in family_folders(site):
        file = folder / f"{name}.yml"
        if NAME.fullmatch(name) and file.is_file():
            return read_family(file)
    raise UserError(f"unknown family {name!r}; there are: {', '.join(sorted(load_families(site)))}")


def read_family(file: Path) -> Family:
    """Read and check one file. Raises `UserError` with file and key."""
    if not NAME.fullmatch(file.stem):
        raise UserError(f"{file}: a family's name is of the form {NAME.pattern}")
    try:
        values = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{file}{line}: {getattr(error, 'problem', None) or 'not YAML'}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a mapping of keys and values")
    return _family(file, values)


def with_roles(process: Process, family: Family, folders: list[Path]) -> Process:
    """The process with the family's roles in the place of the states' own.

    `folders` hold the roles. Raises `UserError` when there is no such role.
    """
    for role in family.roles.values():
        if not any((folder / role / "tasks" / "main.yml").is_file() for folder in folders):
            raise UserError(f"{family.file}: roles: there is no role {role!r}")
    states = (replace(one, role=family.roles.get(one.name, "")) for one in process.states)
    return replace(process, states=tuple(states))


def _family(file: Path, values: dict[Any, Any]) -> Family:
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _READERS:
            raise UserError(f"{file}: unknown key {key!r}; known: {', '.join(_READERS)}")
        try:
            read[key] = _READERS[key](value)
        except ValueError as error:
            raise UserError(f"{file}: {key}: {error}") from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
    for key in ("description", "login"):
        if key not in read:
            raise UserError(f"{file}: key {key!r} is missing")
    family = Family(file.stem, file, **read)
    if not family.system_conf and "system_conf" not in family.roles:
        raise UserError(f"{file}: it needs steps (system_conf) or a role (roles: system_conf)")
    if bool(family.mount_boot) != bool(family.unmount_boot):
        raise UserError(f"{file}: mount_boot and unmount_boot go together")
    return family


def _text(value: object, form: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        raise ValueError(f"expected a line of text, not {value!r}")
    if form and not form.fullmatch(value):
        raise ValueError(f"{value!r} is not of the form {form.pattern}")
    return value


def _path(value: object) -> str:
    path = PurePosixPath(_text(value))
    if not path.is_absolute() or ".." in path.parts or str(path) != value:
        raise ValueError(f"{value!r} is not a plain absolute path")
    return str(path)


def _list(value: object, of: Callable[[object], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, not {value!r}")
    return tuple(of(one) for one in value)


def _files(value: object) -> tuple[str, ...]:
    def relative(name: object) -> str:
        path = PurePosixPath(_text(name))
        if path.is_absolute() or ".." in path.parts or str(path) != name:
            raise ValueError(f"{name!r} is not a plain path below the partition's root")
        return str(path)

    return _list(value, relative)


def _sign(value: object) -> Sign:
    if not isinstance(value, dict) or not value.get("os_release"):
        raise ValueError(f"expected {{os_release: [...]}}, not {value!r}")
    for key in value:
        if key not in _SIGN_KEYS:
            raise ValueError(f"unknown key {key!r}; known: {', '.join(_SIGN_KEYS)}")
    return Sign(
        _list(value["os_release"], _text),
        _files(value.get("boot_has", [])),
        _files(value.get("root_has", [])),
    )


def _steps(value: object) -> tuple[str | dict[str, Any], ...]:
    """`hostname`, or `{remove_files: {boot: [...]}}`; the module says which there are."""

    def step(one: object) -> str | dict[str, Any]:
        if isinstance(one, dict) and len(one) == 1:
            _text(next(iter(one)), _ROLE)
            return one
        return _text(one, _ROLE)

    steps = _list(value, step)
    check_steps(steps)
    return steps


def _updates(value: object) -> str:
    if value not in ("apt", "nothing"):
        raise ValueError(f"{value!r} is neither apt nor nothing")
    return value


def _roles(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("expected a mapping of states and roles: {user_conf: user_conf_picore}")
    return {_text(state, _ROLE): _text(role, _ROLE) for state, role in value.items()}


_READERS: dict[str, Callable[[object], Any]] = {
    "description": _text,
    "recognised_by": partial(_list, of=_sign),
    "login": partial(_text, form=_LOGIN),
    "manager_login": partial(_text, form=_LOGIN),
    "python": lambda value: None if value is None else _path(value),
    "boot_directory": _path,
    "root_has": _files,
    "boot_has": _files,
    "never_on_boot": _files,
    "system_conf": _steps,
    "updates_with": _updates,
    "ready": _text,
    "reboot": _text,
    "mount_boot": _text,
    "unmount_boot": _text,
    "roles": _roles,
    "policy": partial(Policy.parse, source="policy"),
}
