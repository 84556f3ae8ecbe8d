"""Reads the process table.

The table is data (`playbooks/processes.yml`, or a site's own `processes.yml`). It is read and
checked here before anything runs; a mistake is reported with its file and line.
"""

import difflib
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from yaml.constructor import SafeConstructor

from piseduce_runner.argument_specs import load_argument_spec
from piseduce_runner.errors import UserError
from piseduce_runner.policy import POLICY_KEYS
from piseduce_runner.processes import CONDITIONS, Ends, Phase, Power, Process, State

_STATE_KEYS = ("again_from", "durable", "reboots", "only_if", "power", *POLICY_KEYS)
_Choice = TypeVar("_Choice", bound=Enum)


def load_processes(table: Path, roles: Iterable[Path]) -> dict[str, Process]:
    """Read the process table and check it against the roles that exist.

    `roles` are the folders that hold roles, searched in order. Raises `UserError` with the
    file, the line and what is wrong.
    """
    return _TableReader(table, tuple(roles)).read()


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
        fields = self._fields(node, what, ("phases",), ("description", "ends"))
        states: list[State] = []
        nodes: list[yaml.Node] = []
        for phase_node in self._sequence(fields["phases"], f"{what}: phases"):
            phase_fields = self._fields(phase_node, f"{what}: a phase", ("phase", "states"), ())
            phase = self._choice(phase_fields["phase"], Phase, "phase")
            for state_node in self._sequence(phase_fields["states"], f"phase {phase.value}"):
                states.append(self._state(state_node, phase, states))
                nodes.append(state_node)
        if not states:
            self._fail(node, f"{what} has no states")
        description = self._text(fields["description"]) if "description" in fields else ""
        ends = self._choice(fields["ends"], Ends, "end") if "ends" in fields else Ends.DEPLOYED
        self._check_power_cycles(what, states, nodes)
        return Process(key.value, description, tuple(states), ends)

    def _state(self, node: yaml.Node, phase: Phase, earlier: list[State]) -> State:
        fields = self._fields(node, "a state", ("state", "timeout"), _STATE_KEYS)
        name = self._text(fields["state"])
        self._check_role(fields["state"], name)
        only_if = self._text(fields["only_if"]) if "only_if" in fields else None
        if only_if is not None and only_if not in CONDITIONS:
            self._fail(
                fields["only_if"],
                f"unknown condition {only_if!r} of state {name}; known: {', '.join(CONDITIONS)}",
            )
        durable = "durable" in fields and self._boolean(fields["durable"])
        if durable and "power" in fields:
            self._fail(
                fields["durable"], f"{name} is durable and has power, which a power cycle undoes"
            )
        state = State(
            position=len(earlier),
            name=name,
            phase=phase,
            durable=durable,
            reboots="reboots" in fields and self._boolean(fields["reboots"]),
            power=self._power(fields["power"], name, earlier) if "power" in fields else None,
            only_if=only_if,
            **{
                key: self._policy_value(fields[key], key, name)
                for key in POLICY_KEYS
                if key in fields
            },
        )
        if "again_from" in fields:
            again_from = self._again_from(fields["again_from"], state, earlier)
            state = replace(state, again_from=again_from)
        return state

    def _policy_value(self, node: yaml.Node, key: str, state: str) -> Any:
        # A timeout stays text, or YAML would read 1:30 as a number of base 60.
        is_text = key == "timeout" and isinstance(node, yaml.ScalarNode)
        try:
            value = node.value if is_text else SafeConstructor().construct_object(node, deep=True)
            return POLICY_KEYS[key](value)
        except (ValueError, yaml.YAMLError) as error:
            problem = getattr(error, "problem", None) or error
            shown = f" is {node.value!r}" if isinstance(node, yaml.ScalarNode) else ""
            self._fail(node, f"{key} of {state}{shown}: {problem}")

    def _again_from(self, node: yaml.Node, state: State, earlier: list[State]) -> int:
        name = self._text(node)
        what = f"again_from of {state.name} is {name!r}"
        same_phase = takewhile(lambda other: other.phase is state.phase, reversed(earlier))
        found = [other for other in same_phase if other.name == name]
        if not found:
            self._fail(node, f"{what}, which is no earlier state of its phase")
        if len(found) > 1:
            self._fail(node, f"{what}, which is ambiguous: its phase has that state twice before")
        restarts = [s for s in earlier[found[0].position :] if s.reboots]
        if restarts:
            self._fail(node, f"{what}, but since then {restarts[0].name} has restarted the node")
        if found[0].only_if not in (None, state.only_if):
            self._fail(node, f"{what}, which is passed over unless {found[0].only_if} is asked for")
        return found[0].position

    def _power(self, node: yaml.Node, name: str, earlier: list[State]) -> Power:
        power = self._choice(node, Power, "power")
        before = {state.power: state.name for state in earlier}
        if power in before:
            self._fail(node, f"{name} has power {power.value}, and so has {before[power]} before")
        if power is Power.ON and Power.OFF not in before:
            self._fail(node, f"{name} has power on, but no state before it has power off")
        return power

    def _check_power_cycles(self, what: str, states: list[State], nodes: list[yaml.Node]) -> None:
        power_states = [state for state in states if state.power]
        for state, node in zip(states, nodes, strict=True):
            if not state.power_cycle:
                continue
            if len(power_states) < 2:
                self._fail(
                    node,
                    f"{state.name} has power_cycle, but {what} has no states with power off and on",
                )
            for other in power_states:
                if other.only_if not in (None, state.only_if):
                    self._fail(
                        node,
                        f"{state.name} has power_cycle, but {other.name} is passed over unless"
                        f" {other.only_if} is asked for",
                    )

    def _check_role(self, node: yaml.Node, name: str) -> None:
        if name not in self._role_names:
            close = difflib.get_close_matches(name, self._role_names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self._fail(node, f"unknown state {name!r}: there is no role of that name{hint}")
        if not any((f / name / "tasks" / "main.yml").is_file() for f in self._role_folders):
            self._fail(node, f"state {name!r} has no role: {name}/tasks/main.yml does not exist")
        load_argument_spec(name, self._role_folders)

    def _choice(self, node: yaml.Node, choices: type[_Choice], what: str) -> _Choice:
        name = self._text(node)
        try:
            return choices(name)
        except ValueError:
            known = ", ".join(choice.value for choice in choices)
            self._fail(node, f"unknown {what} {name!r}; known: {known}")

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
