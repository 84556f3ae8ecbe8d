"""The means of showing: tables by rich, JSON, times, sizes."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLOURS = {"deployed": "green", "lost": "red", "in_progress": "yellow", "free": "dim"}
MIB = 1024**2


def new_console() -> Console:
    """A terminal's own width; elsewhere lines are as long as they need to be."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def local_time(epoch: float | None) -> str:
    """For people: the manager's own clock, as in the logs."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch)) if epoch is not None else ""


def utc_time(epoch: float | None) -> str | None:
    """For programs: ISO 8601, in UTC."""
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration(duration: float) -> str:
    if duration < 120:
        return f"{duration:.1f} s" if duration < 10 else f"{duration:.0f} s"
    minutes, seconds = divmod(int(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def how_far(percent: int, rate: int | None) -> str:
    """Percent, and the rate where there is one: `43 %, 9.1 MiB/s`."""
    return f"{percent} %, {rate / MIB:.1f} MiB/s" if rate else f"{percent} %"


def new_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def status_text(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))
