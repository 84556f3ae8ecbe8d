"""What people and programs see: tables by rich on a terminal, plain lines elsewhere, or JSON."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from piseduce_runner import planner
from piseduce_runner.deployment import Request
from piseduce_runner.driver import NodeView
from piseduce_runner.environments import Environment
from piseduce_runner.known_hosts import login_line
from piseduce_runner.planner import Status
from piseduce_runner.processes import Process
from piseduce_runner.site import Site
from piseduce_runner.store import Deployment, Transition
from piseduce_runner.usage import Usage

_COLOURS = {"deployed": "green", "lost": "red", "in_progress": "yellow", "free": "dim"}
_MIB = 1024**2


def _console() -> Console:
    """A terminal's own width; elsewhere lines are as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def _local_time(epoch: float | None) -> str:
    """For people: the manager's own clock, as in the logs."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch)) if epoch is not None else ""


def _time(epoch: float | None) -> str | None:
    """For programs: ISO 8601, in UTC."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _seconds(duration: float) -> str:
    if duration < 120:
        return f"{duration:.1f} s" if duration < 10 else f"{duration:.0f} s"
    minutes, seconds = divmod(int(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _status_text(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, ""))


def node_fields(node: str, held: Deployment | None) -> dict[str, Any]:
    """One node of `--json status`: the fields are a promise to programs."""
    if held is None:
        names = ("process", "state", "percent", "environment", "owner", "attempt", "since")
        return {"node": node, "status": "free"} | dict.fromkeys(names) | {"reason": ""}
    reason = held.reason
    if held.status is Status.IN_PROGRESS and not held.is_claimed(time.time()):
        reason = f"interrupted: {held.claim} has gone; deploy the node again"
    return {
        "node": node,
        "status": held.status.value,
        "process": held.process,
        "state": held.state,
        "percent": held.percent,
        "environment": held.environment,
        "owner": held.owner,
        "attempt": held.attempt,
        "since": _time(held.since),
        "reason": reason,
    }


def status(as_json: bool, site: Site, deployments: dict[str, Deployment]) -> None:
    """Where every node of the site is."""
    rows = [node_fields(name, deployments.get(name)) for name in site.nodes]
    if as_json:
        _print_json({"nodes": rows})
        return
    _console().print(_node_table(rows, deployments))


def _node_table(rows: list[dict[str, Any]], deployments: dict[str, Deployment]) -> Table:
    table = _table("NODE", "STATUS", "STATE", "ENVIRONMENT", "OWNER", "SINCE", "REASON")
    for row in rows:
        percent = f" {row['percent']} %" if row["percent"] is not None else ""
        table.add_row(
            Text(row["node"]),
            _status_text(row["status"]),
            Text(f"{row['state']}{percent}" if row["state"] else ""),
            Text(row["environment"] or ""),
            Text(row["owner"] or ""),
            _local_time(held.since if (held := deployments.get(row["node"])) else None),
            Text(row["reason"]),
        )
    return table


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
                "started": _time(one.started),
                "seconds": None if one.ended is None else round(one.ended - one.started, 3),
                "outcome": one.outcome.value if one.outcome else None,
                "reason": one.reason,
                "log": one.log,
            }
            for one in transitions
        ]
        _print_json({"transitions": rows})
        return
    table = _table("#", "STARTED", "NODE", "STATE", "TOOK", "OUTCOME", "REASON")
    for one in transitions:
        took = "" if one.ended is None else _seconds(one.ended - one.started)
        outcome = one.outcome.value if one.outcome else "under way"
        colour = {"proven": "green", "failed": "red"}.get(outcome, "yellow")
        table.add_row(
            str(one.deployment),
            _local_time(one.started),
            one.node,
            one.state,
            took,
            Text(outcome, style=colour),
            Text(one.reason.removeprefix(f"{one.state}: ")),
        )
    _console().print(table)


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
        _print_json({"node": last.node, "state": last.state, "file": last.log, "text": text})
        return
    click.echo(f"{last.node}, {last.state}, from {path}")
    click.echo(text or "Ansible had said nothing yet.", nl=not text.endswith("\n"))
    if last.reason:
        click.echo(f"reason: {last.reason}")


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
        _print_json({"processes": rows})
        return
    for process in table:
        rows = _table("STATE", "PHASE", "TIMEOUT", "NOTES")
        for state in process.states:
            notes = ["reboots the node"] if state.reboots else []
            notes += [f"only if {state.only_if} was asked for"] if state.only_if else []
            rows.add_row(state.name, state.phase.value, f"{state.timeout:g} s", ", ".join(notes))
        console = _console()
        console.print(f"[bold]{process.name}[/bold]: {process.description}")
        console.print(rows)


def environments(as_json: bool, known: list[Environment], damaged: list[str]) -> None:
    """The environments of a site, and what is wrong with those that cannot be used."""
    if as_json:
        _print_json({"environments": [one.variables for one in known], "damaged": damaged})
        return
    table = _table("NAME", "FAMILY", "LOGIN", "IMAGE", "MAPPED", "COMPRESSED", "ROOT PARTITION")
    for one in known:
        table.add_row(
            one.name,
            one.family,
            one.login,
            *(f"{size // _MIB} MiB" for size in (one.image_bytes, one.mapped_bytes)),
            f"{one.compressed_bytes // _MIB} MiB",
            f"{one.root_sectors * 512 // _MIB} MiB",
        )
    _console().print(table)
    for problem in damaged:
        click.echo(f"damaged: {problem}")


def plan(as_json: bool, process: Process, request: Request) -> None:
    """What `deploy` would do."""
    states = [s for s in process.states if planner.applies(s, request.conditions)]
    if as_json:
        _print_json(
            {
                "nodes": [node.name for node in request.nodes],
                "environment": request.environment.name,
                "owner": request.owner,
                "part_bytes": request.part_bytes,
                "ssh_keys": list(request.ssh_keys),
                "password": bool(request.password_hash),
                "states": [state.name for state in states],
            }
        )
        return
    names = ", ".join(node.name for node in request.nodes)
    size = f"{request.part_bytes // _MIB} MiB" if request.part_bytes else "the whole card"
    password = "a password" if request.password_hash else "no password"
    click.echo(f"would deploy {request.environment.name} on {names} for {request.owner},")
    click.echo(
        f"with {size} for the system, {len(request.ssh_keys)} SSH keys and {password} for"
        f" {request.environment.login}, through these states:"
    )
    click.echo("  " + " ".join(state.name for state in states))
    click.echo("nothing was done (--dry-run)")


class View(Protocol):
    """Shows a deployment while it runs."""

    def observe(self, view: NodeView) -> None:
        """Take in a node's change."""


@contextlib.contextmanager
def deployment_view(as_json: bool, process: Process, request: Request) -> Iterator[View]:
    """A live table on a terminal, plain lines elsewhere, nothing with --json."""
    console = Console(highlight=False, stderr=as_json)
    if as_json or not console.is_terminal:
        yield _PlainView(quiet=as_json)
        return
    view = _LiveView(process, request)
    with Live(view, console=console, refresh_per_second=4, transient=True):
        yield view


class _PlainView:
    """A line for each change of state, and for each quarter of a copy."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._last: dict[str, tuple[str, str, int]] = {}

    def observe(self, view: NodeView) -> None:
        quarter = (view.percent or 0) // 25
        seen = (view.status.value, view.state, quarter)
        if self._quiet or self._last.get(view.node) == seen:
            return
        self._last[view.node] = seen
        words = view.state if view.status is Status.IN_PROGRESS else view.status.value
        percent = f" {view.percent} %" if view.percent and view.status is Status.IN_PROGRESS else ""
        reason = f": {view.reason}" if view.reason else ""
        stamp = time.strftime("%H:%M:%S")
        click.echo(f"{stamp} {view.node} {words}{percent}{reason}")


class _LiveView:
    """The table that rich draws anew four times a second, from a thread of its own."""

    def __init__(self, process: Process, request: Request) -> None:
        self._lock = threading.Lock()
        self._views: dict[str, NodeView] = {}
        states = [s for s in process.states if planner.applies(s, request.conditions)]
        self._title = f"{request.environment.name}, {len(states)} states"

    def observe(self, view: NodeView) -> None:
        with self._lock:
            self._views[view.node] = view

    def __rich__(self) -> Table:
        table = _table("NODE", "STATUS", "STATE", "", "FOR", "REASON")
        table.title = self._title
        with self._lock:
            views = list(self._views.values())
        for view in views:
            ended = view.status is not Status.IN_PROGRESS
            percent = "" if view.percent is None or ended else ProgressBar(100, view.percent, 20)
            table.add_row(
                view.node,
                _status_text(view.status.value),
                view.state,
                percent,
                "" if ended else _seconds(time.time() - view.since),
                Text(view.reason),
            )
        return table


def deployment_summary(
    as_json: bool,
    site: Site,
    request: Request,
    held: list[Deployment],
    usage: Usage,
    runs: int,
    identity: Path | None,
) -> None:
    """How the deployment ended, what it cost, and how to log in (with the key `identity`)."""
    rows = [node_fields(one.node, one) for one in held]
    cost = {
        "wall_seconds": round(usage.wall, 3),
        "cpu_seconds": round(usage.cpu, 3),
        "cpu_seconds_per_node": round(usage.cpu / len(held), 3),
        "runs": runs,
        "peak_memory_bytes": usage.peak_memory,
    }
    if as_json:
        _print_json({"nodes": rows, "cost": cost})
        return
    _console().print(_node_table(rows, {one.node: one for one in held}))
    click.echo(
        f"took {_seconds(usage.wall)}; cost this manager {usage.cpu:.1f} s of CPU"
        f" ({usage.cpu / len(held):.1f} s a node), {runs} runs of Ansible,"
        f" {usage.peak_memory / _MIB:.0f} MiB of memory at most"
    )
    first = next((one for one in held if one.status is Status.DEPLOYED), None)
    if first is not None:
        for user in (request.environment.login, "root") if request.ssh_keys else ():
            line = login_line(site, site.nodes[first.node], user, identity)
            click.echo(f"log in as {user}: {line}")
    if any(one.status is Status.LOST for one in held):
        click.echo("lost nodes: `piseduce-run log NODE` shows what Ansible said")
