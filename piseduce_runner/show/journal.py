"""Where nodes have been: the journal, and the logs."""

from pathlib import Path

import click
from rich.text import Text

from piseduce_runner.show.text import (
    duration,
    local_time,
    new_console,
    new_table,
    print_json,
    utc_time,
)
from piseduce_runner.store import Transition


def history(as_json: bool, transitions: list[Transition]) -> None:
    """The journal, oldest first."""
    if as_json:
        rows = [
            {
                "deployment": one.deployment,
                "node": one.node,
                "process": one.process,
                "state": one.state,
                "attempt": one.attempt,
                "started": utc_time(one.started),
                "seconds": None if one.ended is None else round(one.ended - one.started, 3),
                "outcome": one.outcome.value if one.outcome else None,
                "reason": one.reason,
                "log": one.log,
            }
            for one in transitions
        ]
        print_json({"transitions": rows})
        return
    table = new_table("#", "STARTED", "NODE", "STATE", "TOOK", "OUTCOME", "REASON")
    for one in transitions:
        took = "" if one.ended is None else duration(one.ended - one.started)
        outcome = one.outcome.value if one.outcome else "under way"
        colour = {"proven": "green", "failed": "red"}.get(outcome, "yellow")
        table.add_row(
            str(one.deployment),
            local_time(one.started),
            one.node,
            one.state,
            took,
            Text(outcome, style=colour),
            Text(one.reason.removeprefix(f"{one.state}: ")),
        )
    new_console().print(table)


def log(as_json: bool, last: Transition, all_states: bool) -> None:
    """What Ansible said during a node's last state, or during its whole deployment."""
    path = Path(last.log)
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    if not all_states:
        head, mark, tail = text.rpartition("--- ")
        text = mark + tail if mark else head + tail
    if as_json:
        print_json({"node": last.node, "state": last.state, "file": last.log, "text": text})
        return
    click.echo(f"{last.node}, {last.state}, from {path}")
    click.echo(text or "Ansible had said nothing yet.", nl=not text.endswith("\n"))
    if last.reason:
        click.echo(f"reason: {last.reason}")
