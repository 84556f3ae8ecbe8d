"""Reads the process table.

The table is data (`playbooks/processes.yml`, or a site's own `processes.yml`). It is read and
checked here before anything runs; a mistake is reported with its file and line.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from piseduce_runner.errors import UserError
from piseduce_runner.processes import CONDITIONS, Phase, Process, State


def load_processes(table: Path, roles: Iterable[Path]) -> dict[str, Process]:
    """Read the process table and check it against the roles that exist.

    `roles` are the folders that hold roles, searched in order. Raises `UserError` with the
    file, the line and what is wrong.
    """
    return _TableReader(table, tuple(roles)).read()


def load_argument_spec(role: str, folders: Iterable[Path]) -> dict[str, Any]:
    """The options that the role's `main` entry point documents; none when it documents none.

    Raises `UserError` when the file is not what Ansible expects.
    """
    folder = next((folder / role for folder in folders if (folder / role).is_dir()), None)
    for name in ("argument_specs.yml", "argument_specs.yaml") if folder else ():
        path = folder / "meta" / name
        if path.is_file():
            try:
                content = yaml.safe_load(path.read_text("utf-8"))
                options = content["argument_specs"].get("main", {}).get("options", {})
            except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
                raise UserError(f"{path}: it holds no argument_specs that can be read") from error
            except AttributeError as error:
                raise UserError(f"{path}: argument_specs or main is no mapping") from error
            if not isinstance(options, dict):
                raise UserError(f"{path}: the options of main are no mapping")
            return options
    return {}


class _TableReader:
    """Walks the YAML nodes rather than plain data, since only nodes know their lines."""

    def __init__(self, table: Path, role_folders: tuple[Path, ...]) -> None:
        self._table = table
        self._role_folders = role_folders
        self._role_names = sorted(
            {path.name for folder in role_folders if folder.is_dir() for path in folder.iterdir()}
        )

    def read(self) -> dict[str, Process]:
        try:
            root = yaml.compose(self._table.read_text("utf-8"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(f"{self._table}: cannot be read: {reason}") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "not YAML"
            raise UserError(f"{self._table}{line}: {problem}") from error
        if root is None:
            raise UserError(f"{self._table}: the table is empty; it needs a process `deploy`")
        processes = {
            key.value: self._process(key, value) for key, value in self._mapping(root, "the table")
        }
        if not processes:
            self._fail(root, "the table is empty; it needs a process `deploy`")
        return processes

    def _process(self, key: yaml.Node, node: yaml.Node) -> Process:
        what = f"process {key.value!r}"
        fields = self._fields(node, what, required=("phases",), optional=("description",))
        states: list[State] = []
        for phase_node in self._sequence(fields["phases"], f"{what}: phases"):
            phase_fields = self._fields(phase_node, f"{what}: a phase", ("phase", "states"), ())
            phase = self._phase(phase_fields["phase"])
            for state_node in self._sequence(phase_fields["states"], f"phase {phase.value}"):
                states.append(self._state(state_node, phase, len(states)))
        if not states:
            self._fail(node, f"{what} has no states")
        description = self._text(fields["description"]) if "description" in fields else ""
        return Process(key.value, description, tuple(states))

    def _phase(self, node: yaml.Node) -> Phase:
        name = self._text(node)
        try:
            return Phase(name)
        except ValueError:
            known = ", ".join(phase.value for phase in Phase)
            self._fail(node, f"unknown phase {name!r}; phases are {known}")

    def _state(self, node: yaml.Node, phase: Phase, position: int) -> State:
        fields = self._fields(node, "a state", ("state", "timeout"), ("reboots", "only_if"))
        name = self._text(fields["state"])
        self._check_role(fields["state"], name)
        only_if = self._text(fields["only_if"]) if "only_if" in fields else None
        if only_if is not None and only_if not in CONDITIONS:
            self._fail(
                fields["only_if"],
                f"unknown condition {only_if!r} of state {name}; known: {', '.join(CONDITIONS)}",
            )
        return State(
            position,
            name,
            phase,
            timeout=self._timeout(fields["timeout"], name),
            reboots="reboots" in fields and self._boolean(fields["reboots"]),
            only_if=only_if,
        )

    def _check_role(self, node: yaml.Node, name: str) -> None:
        if name not in self._role_names:
            close = difflib.get_close_matches(name, self._role_names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self._fail(node, f"unknown state {name!r}: there is no role of that name{hint}")
        if not any((f / name / "tasks" / "main.yml").is_file() for f in self._role_folders):
            self._fail(node, f"state {name!r} has no role: {name}/tasks/main.yml does not exist")
        load_argument_spec(name, self._role_folders)

    def _timeout(self, node: yaml.Node, state: str) -> float:
        text = self._text(node)
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 7 * 24 * 3600:
            self._fail(node, f"timeout of {state} is {text!r}; it must be seconds, above 0")
        return seconds

    def _fields(
        self, node: yaml.Node, what: str, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> dict[str, yaml.Node]:
        fields: dict[str, yaml.Node] = {}
        for key, value in self._mapping(node, what):
            if key.value not in required + optional:
                known = ", ".join(required + optional)
                self._fail(key, f"{what} has an unknown key {key.value!r}; known: {known}")
            fields[key.value] = value
        for name in required:
            if name not in fields:
                self._fail(node, f"{what} has no {name!r}")
        return fields

    def _mapping(self, node: yaml.Node, what: str) -> list[tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{what} must be a mapping (key: value)")
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key, f"{what} has a key that is not a plain word")
            if key.value in seen:
                self._fail(key, f"{what} has {key.value!r} twice")
            seen.add(key.value)
        return node.value

    def _sequence(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self._fail(node, f"{what} must be a list")
        return node.value

    def _boolean(self, node: yaml.Node) -> bool:
        text = self._text(node)
        if text not in ("true", "false"):
            self._fail(node, f"{text!r} is neither true nor false")
        return text == "true"

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._fail(node, "a plain value is expected here")
        return node.value

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise UserError(f"{self._table}:{node.start_mark.line + 1}: {message}")
