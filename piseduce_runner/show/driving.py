"""Nodes while they are driven: the plan, a live view, and how it ended."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from piseduce_runner import environments, planner
from piseduce_runner.deployment import Request
from piseduce_runner.driver import NodeView
from piseduce_runner.known_hosts import login_line
from piseduce_runner.planner import Record, Status
from piseduce_runner.processes import Process
from piseduce_runner.show.nodes import node_table
from piseduce_runner.show.text import (
    MIB,
    duration,
    how_far,
    new_console,
    new_table,
    print_json,
    status_text,
)
from piseduce_runner.site import Site
from piseduce_runner.store import Deployment
from piseduce_runner.usage import Usage


def plans(
    as_json: bool, find_process: Callable[[str, str], Process], requests: list[Request]
) -> None:
    """What `deploy` would do: a plan for each request."""
    planned = []
    for request in requests:
        process = find_process("deploy", request.environment.name)
        states = [s.name for s in process.states if planner.applies(s, request.conditions)]
        planned.append((request, states))
    if as_json:
        rows = [_plan_fields(request, states) for request, states in planned]
        print_json({"plans": rows})
        return
    for request, states in planned:
        _show_plan(request, states)
    click.echo("nothing was done (--dry-run)")


def _plan_fields(request: Request, states: list[str]) -> dict[str, Any]:
    return {
        "nodes": [node.name for node in request.nodes],
        "environment": request.environment.name,
        "part_bytes": request.part_bytes,
        "ssh_keys": list(request.ssh_keys),
        "password": bool(request.password_hash),
        "states": states,
    }


def _show_plan(request: Request, states: list[str]) -> None:
    names = ", ".join(node.name for node in request.nodes)
    size = f"{request.part_bytes // MIB} MiB" if request.part_bytes else "the whole card"
    password = "a password" if request.password_hash else "no password"
    count = len(request.ssh_keys)
    keys = f"{count or 'no'} SSH key{'s' if count != 1 else ''}"
    click.echo(f"would deploy {request.environment.name} on {names},")
    click.echo(
        f"with {size} for the system, {keys} and {password} for"
        f" {request.environment.login}, through these states:"
    )
    click.echo("  " + " ".join(states))


class View(Protocol):
    """Shows a deployment while it runs."""

    def observe(self, view: NodeView) -> None:
        """Take in a node's change."""


def title(records: list[Record]) -> str:
    """What is done to these nodes, in a few words."""
    names = sorted({record.process.name for record in records})
    return f"{', '.join(names)}: {len(records)} node{'s' if len(records) != 1 else ''}"


@contextlib.contextmanager
def live_view(as_json: bool, title: str) -> Iterator[View]:
    """A live table on a terminal, plain lines elsewhere, nothing with --json."""
    console = Console(highlight=False, stderr=as_json)
    if as_json or not console.is_terminal:
        yield _PlainView(quiet=as_json)
        return
    view = _LiveView(title)
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
        going = view.percent and view.status is Status.IN_PROGRESS
        percent = f" {how_far(view.percent, view.rate)}" if going else ""
        reason = f": {view.reason}" if view.reason else ""
        stamp = time.strftime("%H:%M:%S")
        click.echo(f"{stamp} {view.node} {words}{percent}{reason}")


class _LiveView:
    """The table that rich draws anew four times a second, from a thread of its own."""

    def __init__(self, title: str) -> None:
        self._lock = threading.Lock()
        self._views: dict[str, NodeView] = {}
        self._title = title

    def observe(self, view: NodeView) -> None:
        with self._lock:
            self._views[view.node] = view

    def __rich__(self) -> Table:
        table = new_table("NODE", "STATUS", "STATE", "", "", "FOR", "REASON")
        table.title = self._title
        with self._lock:
            views = list(self._views.values())
        for view in views:
            ended = view.status is not Status.IN_PROGRESS
            percent = "" if view.percent is None or ended else ProgressBar(100, view.percent, 20)
            rate = "" if not view.rate or ended else f"{view.rate / MIB:.1f} MiB/s"
            table.add_row(
                view.node,
                status_text(view.status.value),
                view.state,
                percent,
                rate,
                "" if ended else duration(time.time() - view.since),
                Text(view.reason),
            )
        return table


def detached(as_json: bool, rows: list[dict[str, Any]], agent: int | None) -> None:
    """What was begun and left to the agent, and whether there is one."""
    if as_json:
        print_json({"nodes": rows})
        return
    _left_to_agent("left to the agent", [row["node"] for row in rows], agent)


def _left_to_agent(how: str, names: list[str], agent: int | None) -> None:
    """How to come back to nodes that are under way, and nobody drives at the moment."""
    words = " ".join(names)
    if agent is None:
        click.echo(f"{how}: {words}; no agent runs: `piseduce-run agent --once` goes on with them")
    else:
        click.echo(f"{how}: {words}; the agent (pid {agent}) goes on with them")
    click.echo(f"`piseduce-run watch {words}` shows them, `piseduce-run cancel {words}` stops them")


def summary(
    as_json: bool,
    site: Site,
    rows: list[dict[str, Any]],
    held: list[Deployment],
    usage: Usage,
    runs: int,
    identity: Path | None,
    agent: int | None,
) -> None:
    """How it ended, what it cost, and how to log in (with the key `identity`).

    `rows` are the fields of the nodes; `agent` is the process id of the agent that runs, if any.
    """
    cost = {
        "wall_seconds": round(usage.wall, 3),
        "cpu_seconds": round(usage.cpu, 3),
        "cpu_seconds_per_node": round(usage.cpu / len(held), 3),
        "runs": runs,
        "peak_memory_bytes": usage.peak_memory,
    }
    if as_json:
        print_json({"nodes": rows, "cost": cost})
        return
    new_console().print(node_table(rows))
    click.echo(
        f"took {duration(usage.wall)}; cost this manager {usage.cpu:.1f} s of CPU"
        f" ({usage.cpu / len(held):.1f} s a node), {runs} run{'s' if runs != 1 else ''} of Ansible,"
        f" {usage.peak_memory / MIB:.0f} MiB of memory at most"
    )
    _show_logins(site, held, identity)
    left = [one.node for one in held if one.status is Status.IN_PROGRESS]
    for row in rows:
        if row["hint"] and row["node"] not in left:
            click.echo(f"{row['node']}: {row['hint']}")
    if left:
        _left_to_agent("left under way", left, agent)


def _show_logins(site: Site, held: list[Deployment], identity: Path | None) -> None:
    """The lines to log in to the first node that was deployed with a key."""
    for one in held:
        is_new = one.process == "deploy" and one.status is Status.DEPLOYED
        if is_new and one.options.get("ssh_keys"):
            environment = environments.find(site.environments, one.environment)
            for user in (environment.login, "root"):
                line = login_line(site, site.nodes[one.node], user, identity)
                click.echo(f"log in as {user}: {line}")
            return
