"""The commands `piseduce-run lab up|status|down`."""

import json
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from piseduce_runner.lab import cluster
from piseduce_runner.lab.faults.commands import fault
from piseduce_runner.lab.folder import the_lab
from piseduce_runner.lab.settings import (
    DEFAULT_NAME,
    DEFAULT_NETWORK,
    Settings,
    parse_amount,
    parse_link_rate,
)

COLOURS = {"off": "dim", "booting": "yellow", "nfs": "cyan", "card": "green", "dead": "red"}


@click.group()
def lab() -> None:
    """A simulated Raspberry Pi cluster on this machine, for practice and tests (needs root)."""


lab.add_command(fault)


@lab.command()
@click.option("--nodes", type=int, default=4, show_default=True, help="How many boards.")
@click.option("--name", default=DEFAULT_NAME, show_default=True, help="Several labs can be up.")
@click.option("--network", help=f"IPv4 network. [default: {DEFAULT_NETWORK}, or a free one]")
@click.option("--boot-time", type=float, default=0.0, metavar="SECONDS", help="Of each boot.")
@click.option("--card-rate", metavar="BYTES", help="Most bytes/s written to a card, e.g. 20M.")
@click.option("--link-rate", metavar="BITS", help="Most bits/s of a board's cable, e.g. 100M.")
@click.option("--card-size", metavar="BYTES", default="4G", show_default=True)
@click.option("--no-card", metavar="NODE", multiple=True, help="A node without card; repeatable.")
@click.option("--stuck-off", metavar="NODE", multiple=True, help="Its port never comes on.")
@click.option("--stuck-on", metavar="NODE", multiple=True, help="Its port is on and stays so.")
@click.pass_context
def up(
    context: click.Context,
    nodes: int,
    name: str,
    network: str | None,
    boot_time: float,
    card_rate: str | None,
    link_rate: str | None,
    card_size: str,
    no_card: tuple[str, ...],
    stuck_off: tuple[str, ...],
    stuck_on: tuple[str, ...],
) -> None:
    """Bring a lab up; ends when all its services answer."""
    wanted = Settings(
        name=name,
        nodes=nodes,
        network=network or DEFAULT_NETWORK,
        boot_time=boot_time,
        card_rate=parse_amount(card_rate, "--card-rate") if card_rate else 0,
        link_rate=parse_link_rate(link_rate, "--link-rate") if link_rate else 0,
        card_size=parse_amount(card_size, "--card-size"),
        no_card=tuple(sorted(set(no_card))),
        stuck_off=tuple(sorted(set(stuck_off))),
        stuck_on=tuple(sorted(set(stuck_on))),
    )
    as_json = _wants_json(context)
    lab_up = _told(lambda: cluster.up(wanted, network, _reporter(as_json)))
    if as_json:
        click.echo(json.dumps(public_status(lab_up.status())))
    else:
        click.echo(f"site: {lab_up.site}")


@lab.command()
@click.option("--name", help="Which lab. [default: the one that is up]")
@click.pass_context
def status(context: click.Context, name: str | None) -> None:
    """Show the switches and nodes of a lab."""
    facts = the_lab(name).status()
    if _wants_json(context):
        click.echo(json.dumps(public_status(facts)))
    else:
        # Into a file or a pipe, a row is a line.
        width = None if Console().is_terminal else 160
        show_status(facts, Console(highlight=False, width=width))


@lab.command()
@click.option("--name", default=DEFAULT_NAME, show_default=True)
@click.pass_context
def down(context: click.Context, name: str) -> None:
    """Take a lab down, with all that may be left of it."""
    as_json = _wants_json(context)
    _told(lambda: cluster.down(name, _reporter(as_json)))
    if as_json:
        click.echo(json.dumps({"lab": name, "up": False}))


def public_status(facts: dict) -> dict:
    """What `--json lab status` prints."""
    keys = ("lab", "site", "network", "switches", "nodes", "faults")
    return {key: facts[key] for key in keys}


def show_status(facts: dict, console: Console) -> None:
    """Switches and nodes as tables."""
    console.print(f"lab {facts['lab']} on {facts['network']}, site {facts['site']}")
    for switch in facts["switches"]:
        console.print(
            f"{switch['name']}: SNMP at {switch['address']}, UDP port {switch['udp_port']}, "
            f"{switch['ports']} ports"
        )
    for service, running in facts["services"].items():
        if not running:
            console.print(f"[red]{service} has ended[/red]")
    for fact in facts["faults"]:
        given = "".join(f" {key}={value}" for key, value in fact["parameters"].items())
        console.print(f"fault on {fact['target']}: {fact['fault']}{given}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NODE", "ADDRESS", "MAC", "SERIAL", "PORT", "POWER", "BOOTED", "REASON"):
        table.add_column(column, overflow="fold")
    for node in facts["nodes"]:
        table.add_row(
            *(node["node"], node["address"], node["mac"], node["serial"]),
            *(f"{node['switch']}/{node['port']}", node["power"]),
            Text(node["booted"], style=COLOURS[node["booted"]]),
            Text(node["reason"] or ("" if node["card_file"] else "no card")),
        )
    console.print(table)


def _wants_json(context: click.Context) -> bool:
    return bool(getattr(context.obj, "json", False))


def _reporter(as_json: bool) -> Callable[[str], None]:
    """Where progress goes: with --json, standard output is for the result alone."""
    return lambda line: click.echo(line, err=as_json)


def _told(act: Callable):
    """The result of `act`; its failure becomes one line and exit status 1."""
    try:
        return act()
    except cluster.LabFailed as error:
        raise click.ClickException(str(error)) from error
