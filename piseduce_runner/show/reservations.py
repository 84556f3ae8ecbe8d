"""Who has which node, from when until when."""

import time
from typing import Any

import click
from rich.text import Text

from piseduce_runner.show.text import local_time, new_console, new_table, print_json, utc_time
from piseduce_runner.store import Reservation


def reservation_fields(one: Reservation) -> dict[str, Any]:
    """One reservation in JSON: the fields are a promise to programs. `end` null: without an end.

    What was configured is told by its environment alone: keys and hashes are nobody's business.
    """
    environment = one.configuration["environment"] if one.configuration is not None else None
    return {
        "id": one.id,
        "node": one.node,
        "owner": one.owner,
        "start": utc_time(one.start),
        "end": utc_time(one.end),
        "configured": one.configuration is not None,
        "environment": environment,
    }


def reservations(as_json: bool, found: list[Reservation], nothing: str) -> None:
    """These reservations, by their start; `nothing` is what to say when there are none."""
    if as_json:
        print_json({"reservations": [reservation_fields(one) for one in found]})
        return
    if not found:
        click.echo(nothing)
        return
    table = new_table("NODE", "OWNER", "FROM", "UNTIL", "CONFIGURED")
    for one in found:
        fields = reservation_fields(one)
        table.add_row(
            Text(one.node),
            Text(one.owner),
            local_time(one.start),
            local_time(one.end) or "given back",
            Text(fields["environment"] or "no"),
        )
    new_console().print(table)


def period(one: Reservation) -> str:
    """From when until when, in words."""
    end = f"until {local_time(one.end)}" if one.end is not None else "on"
    return f"from {local_time(one.start)} {end}"


def now_what(made: list[Reservation]) -> None:
    """What people do with nodes that they have just reserved."""
    names = " ".join(dict.fromkeys(one.node for one in made))
    if all(one.start <= time.time() for one in made):
        click.echo(f"`piseduce-run deploy {names} --env ...` deploys now")
    click.echo(
        f"`piseduce-run configure {names} --env ...` has the agent deploy them when they are due;"
        f" `piseduce-run cancel {names}` gives them back"
    )
