"""The commands `piseduce-run lab fault set|clear|list`."""

import json

import click
from rich.console import Console
from rich.table import Table

from piseduce_runner.lab.faults import control
from piseduce_runner.lab.faults.parameters import Parameter
from piseduce_runner.lab.faults.table import FAULTS
from piseduce_runner.lab.folder import the_lab

WHICH = click.option("--name", help="Which lab. [default: the one that is up]")


@click.group()
def fault() -> None:
    """Have the lab go wrong: switch, boards, cards, cables, services."""


@fault.command("set")
@click.argument("fault_name", metavar="FAULT")
@click.argument("words", nargs=-1, metavar="[NODE_OR_SWITCH]... [KEY=VALUE]...")
@WHICH
@click.pass_context
def set_fault(
    context: click.Context, fault_name: str, words: tuple[str, ...], name: str | None
) -> None:
    """Set a fault; it is effective when this ends. `lab fault list --available` shows all."""
    request = {"do": "set", "fault": fault_name, "words": words}
    _show(context, _ask(name, request), "set")


@fault.command("clear")
@click.argument("fault_name", metavar="[FAULT]", required=False)
@click.argument("target", metavar="[NODE_OR_SWITCH]", required=False)
@WHICH
@click.pass_context
def clear_fault(
    context: click.Context, fault_name: str | None, target: str | None, name: str | None
) -> None:
    """Clear a fault, everywhere or in one place; without arguments: all faults."""
    request = {"do": "clear", "fault": fault_name, "target": target}
    _show(context, _ask(name, request), "cleared")


@fault.command("list")
@click.option("--available", is_flag=True, help="All faults that can be set, with parameters.")
@WHICH
@click.pass_context
def list_faults(context: click.Context, available: bool, name: str | None) -> None:
    """Show the faults that are set."""
    if available:
        _show_available(context)
        return
    facts = _ask(name, {"do": "list"})
    if _wants_json(context):
        click.echo(json.dumps({"faults": facts}))
    elif not facts:
        click.echo("no fault is set")
    else:
        table = _table("FAULT", "WHERE", "PARAMETERS")
        for fact in facts:
            table.add_row(fact["fault"], fact["target"], _words(fact))
        _console().print(table)


def _ask(name: str | None, request: dict) -> list[dict]:
    try:
        return control.ask(the_lab(name), request)
    except control.NotDone as error:
        raise click.ClickException(str(error)) from error


def _show(context: click.Context, facts: list[dict], done: str) -> None:
    if _wants_json(context):
        click.echo(json.dumps({"faults": facts}))
        return
    for fact in facts:
        words = " ".join(filter(None, [fact["fault"], _words(fact)]))
        click.echo(f"{fact['target']}: {words} {done}")
    if not facts:
        click.echo("no such fault is set")


def _show_available(context: click.Context) -> None:
    if _wants_json(context):
        click.echo(json.dumps({"available": [_described(name) for name in FAULTS]}))
        return
    table = _table("FAULT", "ON", "PARAMETERS", "WHAT")
    for one in FAULTS.values():
        parameters = "\n".join(
            f"{_with_default(parameter)}: {parameter.about}" for parameter in one.parameters
        )
        table.add_row(one.name, one.target.value, parameters, one.about)
    _console().print(table)


def _with_default(parameter: Parameter) -> str:
    if parameter.default is None:
        return f"{parameter.name}="
    return f"{parameter.name}={parameter.default}"


def _described(name: str) -> dict:
    one = FAULTS[name]
    parameters = [
        {
            "name": parameter.name,
            "type": parameter.kind.value,
            "default": parameter.default,
            "choices": list(parameter.choices),
            "about": parameter.about,
        }
        for parameter in one.parameters
    ]
    return {
        "fault": one.name,
        "on": one.target.value,
        "about": one.about,
        "lasts": one.lasts.value,
        "parameters": parameters,
    }


def _words(fact: dict) -> str:
    return " ".join(f"{key}={value}" for key, value in fact["parameters"].items())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    # Into a file or a pipe, a row is a line.
    return Console(highlight=False, width=None if Console().is_terminal else 160)


def _wants_json(context: click.Context) -> bool:
    return bool(getattr(context.obj, "json", False))
