"""Reads what a user asks of the faults: names, targets and parameters, each checked."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from piseduce_runner.errors import UserError
from piseduce_runner.lab.faults.parameters import Value
from piseduce_runner.lab.faults.table import FAULTS, Fault, Target
from piseduce_runner.lab.settings import SWITCH, Settings

MANAGER = "manager"


@dataclass(frozen=True)
class Wish:
    """A fault to be set, where, and with which parameters (all of them)."""

    fault: Fault
    targets: tuple[str, ...]
    parameters: dict[str, Value]


def read_wish(name: str, words: Iterable[str], settings: Settings) -> Wish:
    """The wish that `FAULT TARGET... KEY=VALUE...` means in a lab. UserError: it means none."""
    fault = known_fault(name)
    words = list(dict.fromkeys(words))
    given = [word for word in words if "=" in word]
    parameters = _read_parameters(fault, given)
    targets = tuple(word for word in words if "=" not in word)
    for target in targets:
        check_target(fault, target, settings)
    if not targets:
        targets = _only_target(fault)
    return Wish(fault, targets, parameters)


def known_fault(name: str) -> Fault:
    """The fault of that name. UserError: there is none; a close one is suggested."""
    if name in FAULTS:
        return FAULTS[name]
    close = difflib.get_close_matches(name, FAULTS, n=1)
    hint = f"did you mean {close[0]}?" if close else "see: piseduce-run lab fault list --available"
    raise UserError(f"unknown fault: {name}; {hint}")


def check_target(fault: Fault | None, target: str, settings: Settings) -> None:
    """UserError unless the lab has `target`, and `fault` (if any) can be set on it."""
    nodes = {node.name for node in settings.all_nodes()}
    if target in nodes:
        kind = Target.NODE
    elif target == SWITCH:
        kind = Target.SWITCH
    elif target == MANAGER:
        kind = Target.MANAGER
    else:
        raise UserError(
            f"unknown node or switch: {target}; "
            f"this lab has {_node_names(settings)}, {SWITCH} and {MANAGER}"
        )
    if fault and kind not in _accepted(fault):
        raise UserError(f"{fault.name} is set on a {fault.target.value}, {target} is none")


def _accepted(fault: Fault) -> tuple[Target, ...]:
    return (Target.SWITCH, Target.NODE) if fault.target is Target.PORT else (fault.target,)


def _node_names(settings: Settings) -> str:
    return "node-1" if settings.nodes == 1 else f"node-1 to node-{settings.nodes}"


def _only_target(fault: Fault) -> tuple[str, ...]:
    """Where there is only one of its kind, it need not be said."""
    match fault.target:
        case Target.SWITCH:
            return (SWITCH,)
        case Target.MANAGER:
            return (MANAGER,)
    raise UserError(f"{fault.name}: say on which {fault.target.value}")


def _read_parameters(fault: Fault, given: list[str]) -> dict[str, Value]:
    known = {parameter.name: parameter for parameter in fault.parameters}
    values: dict[str, Value] = {}
    for word in given:
        name, _, text = word.partition("=")
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{fault.name} {word}: unknown parameter; {has}")
        if name in values:
            raise UserError(f"{fault.name} {name}: given twice")
        values[name] = known[name].read(text, fault.name)
    for parameter in fault.parameters:
        if parameter.default is None and parameter.name not in values:
            raise UserError(f"{fault.name}: {parameter.name}= has to be given ({parameter.about})")
    return {
        parameter.name: values.get(parameter.name, parameter.default)
        for parameter in fault.parameters
    }
