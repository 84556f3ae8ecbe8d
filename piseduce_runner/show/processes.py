"""The process table."""

from typing import Any

from rich.markup import escape
from rich.text import Text

from piseduce_runner.expressions import Expression
from piseduce_runner.processes import Process, State, Window
from piseduce_runner.show.text import (
    new_console,
    new_table,
    print_json,
)

_COLUMNS = ("STATE", "PHASE", "TIMEOUT", "RETRIES", "POWER CYCLE", "DURABLE", "WINDOW", "NOTES")


def processes(as_json: bool, table: list[Process]) -> None:
    """The processes and their states."""
    if as_json:
        print_json({"processes": [_process_fields(process) for process in table]})
        return
    console = new_console()
    for process in table:
        rows = new_table(*_COLUMNS)
        for state in process.states:
            rows.add_row(*_state_row(process, state))
        title = f"[bold]{process.name}[/bold]: {escape(process.description)}"
        console.print(f"{title} (ends {process.ends.value})")
        console.print(rows)


def _process_fields(process: Process) -> dict[str, Any]:
    return {
        "process": process.name,
        "description": process.description,
        "ends": process.ends.value,
        "states": [_state_fields(process, state) for state in process.states],
    }


def _state_fields(process: Process, state: State) -> dict[str, Any]:
    return {
        "state": state.name,
        "phase": state.phase.value,
        "timeout": _timeout(state),
        "retries": state.retries,
        "again_from": _again_from(process, state),
        "power_cycle": state.power_cycle,
        "durable": state.durable,
        "window": _window_fields(state.window) if state.window else None,
        "reboots": state.reboots,
        "power": state.power.value if state.power else None,
        "only_if": state.only_if,
    }


def _window_fields(window: Window) -> dict[str, Any]:
    return {
        "most": window.most or None,
        "seconds": window.seconds or None,
        "per": window.per.value,
    }


def _state_row(process: Process, state: State) -> tuple[str | Text, ...]:
    timeout = _timeout(state)
    again_from = _again_from(process, state)
    notes = ["reboots the node"] if state.reboots else []
    notes += [f"only if {state.only_if} was asked for"] if state.only_if else []
    retries = f"{state.retries} from {again_from}" if again_from else str(state.retries)
    return (
        state.name,
        state.phase.value,
        Text(timeout if isinstance(timeout, str) else f"{timeout:g} s"),
        retries if state.retries else "",
        "yes" if state.power_cycle else "",
        "yes" if state.durable else "",
        _window_text(state.window) if state.window else "",
        ", ".join(notes),
    )


def _timeout(state: State) -> float | str:
    return state.timeout.text if isinstance(state.timeout, Expression) else state.timeout


def _again_from(process: Process, state: State) -> str | None:
    return None if state.again_from is None else process.states[state.again_from].name


def _window_text(window: Window) -> str:
    parts = [f"{window.most} at once"] if window.most else []
    parts += [f"{window.seconds:g} s apart"] if window.seconds else []
    return f"{', '.join(parts)} per {window.per.value}"
