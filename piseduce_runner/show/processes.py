"""The process table."""

from piseduce_runner.processes import Process
from piseduce_runner.show.text import (
    new_console,
    new_table,
    print_json,
)


def processes(as_json: bool, table: list[Process]) -> None:
    """The processes and their states."""
    if as_json:
        rows = [
            {
                "process": process.name,
                "description": process.description,
                "states": [
                    {
                        "state": state.name,
                        "phase": state.phase.value,
                        "timeout": state.timeout,
                        "reboots": state.reboots,
                        "only_if": state.only_if,
                    }
                    for state in process.states
                ],
            }
            for process in table
        ]
        print_json({"processes": rows})
        return
    for process in table:
        rows = new_table("STATE", "PHASE", "TIMEOUT", "NOTES")
        for state in process.states:
            notes = ["reboots the node"] if state.reboots else []
            notes += [f"only if {state.only_if} was asked for"] if state.only_if else []
            rows.add_row(state.name, state.phase.value, f"{state.timeout:g} s", ", ".join(notes))
        console = new_console()
        console.print(f"[bold]{process.name}[/bold]: {process.description}")
        console.print(rows)
