"""Where nodes are."""

import time
from typing import Any

from rich.table import Table
from rich.text import Text

from piseduce_runner.planner import Status
from piseduce_runner.show.text import (
    local_time,
    new_console,
    new_table,
    print_json,
    status_text,
    utc_time,
)
from piseduce_runner.site import Site
from piseduce_runner.store import Deployment


def node_fields(node: str, held: Deployment | None) -> dict[str, Any]:
    """One node of `--json status`: the fields are a promise to programs."""
    if held is None:
        names = ("process", "state", "percent", "environment", "owner", "attempt", "since")
        return {"node": node, "status": "free"} | dict.fromkeys(names) | {"reason": ""}
    reason = held.reason
    if held.status is Status.IN_PROGRESS and not held.is_claimed(time.time()):
        gone = f"{held.claim} has gone" if held.claim else reason or "nobody drives it"
        reason = f"interrupted: {gone}; `piseduce-run agent --once` goes on with it"
    return {
        "node": node,
        "status": held.status.value,
        "process": held.process,
        "state": held.state,
        "percent": held.percent,
        "environment": held.environment,
        "owner": held.owner,
        "attempt": held.attempt,
        "since": utc_time(held.since),
        "reason": reason,
    }


def status(as_json: bool, site: Site, deployments: dict[str, Deployment]) -> None:
    """Where every node of the site is."""
    rows = [node_fields(name, deployments.get(name)) for name in site.nodes]
    if as_json:
        print_json({"nodes": rows})
        return
    new_console().print(node_table(rows, deployments))


def node_table(rows: list[dict[str, Any]], deployments: dict[str, Deployment]) -> Table:
    table = new_table("NODE", "STATUS", "STATE", "ENVIRONMENT", "OWNER", "SINCE", "REASON")
    for row in rows:
        percent = f" {row['percent']} %" if row["percent"] is not None else ""
        table.add_row(
            Text(row["node"]),
            status_text(row["status"]),
            Text(f"{row['state']}{percent}" if row["state"] else ""),
            Text(row["environment"] or ""),
            Text(row["owner"] or ""),
            local_time(held.since if (held := deployments.get(row["node"])) else None),
            Text(row["reason"]),
        )
    return table
