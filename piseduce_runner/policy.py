"""Policy: how long a state may take, and what is done before its node is lost.

The process table gives every state its policy. A site, and an environment, may override parts of
it by the state's name; where they disagree, the environment's holds.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Expression, Facts, parse_timeout
from piseduce_runner.processes import Power, Process, Scope, State, Window

_MOST_RETRIES = 20
_WINDOW_KEYS = ("most", "seconds", "per")


def timeout_seconds(timeout: float | Expression, facts: Facts) -> float:
    """The seconds that a state may last. Raises `ValueError` when an expression gives none."""
    return timeout.seconds(facts) if isinstance(timeout, Expression) else timeout


@dataclass(frozen=True)
class Policy:
    """What is overridden, by state and key; `source` says where that stands, for errors."""

    source: str = ""
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, values: object, source: str) -> "Policy":
        """A policy from YAML: `{env_copy: {retries: 3}}`. Raises `UserError`."""
        if not isinstance(values, Mapping):
            raise UserError(f"{source}: it must be a mapping of states: {{env_copy: {{...}}}}")
        states = {str(name): _overrides(keys, f"{source}: {name}") for name, keys in values.items()}
        return cls(source, states)


NO_POLICY = Policy()


def apply(process: Process, *policies: Policy) -> Process:
    """The process with the policies' overrides; the later of two holds.

    A name that the process does not have is passed over: it may be another process's (see
    `check_states`). So is `power_cycle` in a process that cannot switch its nodes off and on.
    """
    powers = {state.power for state in process.states}
    can_cycle = Power.OFF in powers and Power.ON in powers
    return replace(
        process, states=tuple(_changed(state, policies, can_cycle) for state in process.states)
    )


def check_states(processes: Iterable[Process], *policies: Policy) -> None:
    """Whether each state that a policy names is in one of the processes. Raises `UserError`."""
    known = sorted({state.name for process in processes for state in process.states})
    for policy in policies:
        for name in policy.states:
            if name not in known:
                raise UserError(
                    f"{policy.source}: no process has a state {name!r}{_hint(name, known)}"
                )


def _changed(state: State, policies: tuple[Policy, ...], can_cycle: bool) -> State:
    values: dict[str, Any] = {}
    for policy in policies:
        values |= policy.states.get(state.name, {})
    if not can_cycle:
        values.pop("power_cycle", None)
    return replace(state, **values)


def _overrides(values: object, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping: {{retries: 2}}")
    result = {}
    for key, value in values.items():
        if key not in POLICY_KEYS:
            raise UserError(f"{where} has an unknown key {key!r}{_hint(str(key), POLICY_KEYS)}")
        try:
            result[key] = POLICY_KEYS[key](value)
        except ValueError as error:
            raise UserError(f"{where}: {key} is {value!r}: {error}") from None
    return result


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _retries(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_RETRIES:
        raise ValueError(f"it must be a whole number from 0 to {_MOST_RETRIES}")
    return value


def _power_cycle(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is neither true nor false")
    return value


def _window(value: object) -> Window | None:
    if value is None:
        return None
    example = "{most: 12, seconds: 1, per: switch}"
    if not isinstance(value, Mapping):
        raise ValueError(f"it must be a mapping like {example}")
    for key in value:
        if key not in _WINDOW_KEYS:
            raise ValueError(f"unknown key {key!r}; it is like {example}")
    most, seconds = value.get("most"), value.get("seconds")
    if most is None and seconds is None:
        raise ValueError(f"it needs most or seconds: {example}")
    if most is not None and (type(most) is not int or most < 1):
        raise ValueError(f"most is {most!r}; it must be a whole number of nodes above 0")
    if seconds is not None and not _is_pause(seconds):
        raise ValueError(f"seconds is {seconds!r}; it must be above 0 and at most 3600")
    per = value.get("per", Scope.SITE.value)
    if per not in [scope.value for scope in Scope]:
        raise ValueError(f"per is {per!r}; it must be switch or site")
    return Window(most or 0, float(seconds or 0), Scope(per))


def _is_pause(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 < value <= 3600


# The keys of a state that a policy may override; each takes a value of YAML, or raises ValueError.
POLICY_KEYS: dict[str, Callable[[object], Any]] = {
    "timeout": parse_timeout,
    "retries": _retries,
    "power_cycle": _power_cycle,
    "window": _window,
}
