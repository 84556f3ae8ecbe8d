"""Where nodes are, and whose."""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from piseduce_runner.planner import Status
from piseduce_runner.show.hints import hint
from piseduce_runner.show.reservations import reservation_fields
from piseduce_runner.show.text import (
    how_far,
    local_time,
    new_console,
    new_table,
    print_json,
    status_text,
    utc_time,
)
from piseduce_runner.store import Deployment, Reservation, Store

_OF_DEPLOYMENT = ("process", "state", "percent", "rate", "environment", "attempt", "since")


def node_fields(
    node: str, held: Deployment | None, reservation: Reservation | None = None
) -> dict[str, Any]:
    """One node of `--json status`: the fields are a promise to programs.

    `reservation` is the one that holds the node now.
    """
    now = time.time()
    row: dict[str, Any] = {"node": node, "status": "reserved" if reservation else "free"}
    row |= dict.fromkeys(_OF_DEPLOYMENT) | {"reason": ""}
    if held is not None:
        row |= {name: getattr(held, name) for name in _OF_DEPLOYMENT}
        row |= {"status": held.status.value, "since": utc_time(held.since)}
        row["reason"] = _reason(held, now)
    owner = reservation.owner if reservation else held.owner if held else None
    return row | {
        "owner": owner,
        "reservation": reservation_fields(reservation) if reservation else None,
        "hint": hint(held, reservation, now),
    }


def _reason(held: Deployment, now: float) -> str:
    if held.status is not Status.IN_PROGRESS:
        return held.reason
    if not held.is_claimed(now):
        gone = f"{held.claim} has gone" if held.claim else held.reason or "nobody drives it"
        return f"interrupted: {gone}"
    return f"{held.cancel_asked_by} has asked to cancel" if held.cancel_asked_by else held.reason


def node_rows(
    names: Iterable[str], held: dict[str, Deployment], store: Store | None
) -> list[dict[str, Any]]:
    """The fields of these nodes; `held` is what is on them."""
    now = time.time()
    return [
        node_fields(name, held.get(name), store.reservation_at(name, now) if store else None)
        for name in names
    ]


def status(as_json: bool, rows: list[dict[str, Any]]) -> None:
    """Where every node is, and what to do about those that need somebody."""
    if as_json:
        print_json({"nodes": rows})
        return
    new_console().print(node_table(rows))
    for row in rows:
        if row["hint"]:
            click.echo(f"{row['node']}: {row['hint']}")


def node_table(rows: list[dict[str, Any]]) -> Table:
    """A line for each node."""
    columns = ("NODE", "STATUS", "STATE", "ENVIRONMENT", "OWNER", "UNTIL", "SINCE", "REASON")
    table = new_table(*columns)
    for row in rows:
        reservation = row["reservation"]
        table.add_row(
            Text(row["node"]),
            status_text(row["status"]),
            Text(_state(row)),
            Text(row["environment"] or (reservation and reservation["environment"]) or ""),
            Text(row["owner"] or ""),
            _local(reservation["end"]) or "given back" if reservation else "",
            _local(row["since"]),
            Text(row["reason"]),
        )
    return table


def _state(row: dict[str, Any]) -> str:
    if row["status"] == "reserved":
        return "configured" if row["reservation"]["configured"] else "not configured"
    done = f" {how_far(row['percent'], row['rate'])}" if row["percent"] is not None else ""
    return f"{row['state']}{done}" if row["state"] else ""


def _local(utc: str | None) -> str:
    return local_time(datetime.fromisoformat(utc).timestamp()) if utc else ""
