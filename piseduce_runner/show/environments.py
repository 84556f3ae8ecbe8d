"""Environments."""

from typing import TYPE_CHECKING

import click
from rich.text import Text

from piseduce_runner.environments import SECTOR, Environment
from piseduce_runner.show.text import (
    MIB,
    new_console,
    new_table,
    print_json,
)

if TYPE_CHECKING:  # it loads what only one command needs
    from piseduce_runner.images.add import Added


def environments(as_json: bool, known: list[Environment], damaged: list[str]) -> None:
    """The environments of a site, and what is wrong with those that cannot be used."""
    if as_json:
        print_json({"environments": [one.variables for one in known], "damaged": damaged})
        return
    table = new_table("NAME", "FAMILY", "LOGIN", "IMAGE", "MAPPED", "COMPRESSED", "ROOT PARTITION")
    for one in known:
        table.add_row(
            one.name,
            one.family,
            one.login,
            *(f"{size // MIB} MiB" for size in (one.image_bytes, one.mapped_bytes)),
            f"{one.compressed_bytes // MIB} MiB",
            f"{one.root_sectors * SECTOR // MIB} MiB",
        )
    if known:
        new_console().print(table)
    elif not damaged:
        click.echo("there is no environment; `piseduce-run env add FILE` makes one of an image")
    for problem in damaged:
        click.echo(f"damaged: {problem}")


def environment(as_json: bool, one: Environment, nodes: list[str]) -> None:
    """All of one environment, and the nodes that use it."""
    if as_json:
        print_json({"environment": one.variables, "used_by": nodes})
        return
    table = new_table("KEY", "VALUE")
    for key, value in one.variables.items():
        size = f" ({value // MIB} MiB)" if key.endswith("_bytes") else ""
        table.add_row(key, Text(f"{value}{size}"))
    table.add_row("used by", Text(", ".join(nodes) or "no node"))
    new_console().print(table)


def added(as_json: bool, result: "Added") -> None:
    """A new environment, and what was found in its image."""
    one = result.environment
    uses = {one.boot_partition: "boot", one.root_partition: "root"}
    parts = [
        {
            "number": part.partition.number,
            "start_sector": part.partition.start,
            "sectors": part.partition.sectors,
            "file_system": part.title,
            "use": uses.get(part.partition.number, ""),
        }
        for part in result.survey.parts
    ]
    if as_json:
        notes = list(result.notes)
        print_json({"environment": one.variables, "partitions": parts, "notes": notes})
        return
    table = new_table("PARTITION", "FILE SYSTEM", "START SECTOR", "SIZE", "USE")
    for part in parts:
        size = f"{part['sectors'] * SECTOR // MIB} MiB"
        start = str(part["start_sector"])
        table.add_row(str(part["number"]), part["file_system"], start, size, part["use"])
    new_console().print(table)
    click.echo(
        f"{one.name}: {one.system or 'a system without a name'}, family {one.family},"
        f" user {one.login}, boot partition at {one.boot_directory}"
    )
    click.echo(
        f"image {one.image_bytes // MIB} MiB, in use {one.mapped_bytes // MIB} MiB,"
        f" compressed {one.compressed_bytes / MIB:.1f} MiB"
    )
    for note in result.notes:
        click.echo(f"note: {note}")


def removed(as_json: bool, name: str) -> None:
    """An environment that is no more."""
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"{name}: removed")


def checked(as_json: bool, names: list[str], problems: dict[str, str]) -> None:
    """Which environments are sound, and what is wrong with the others."""
    if as_json:
        rows = [
            {"environment": name, "sound": name not in problems, "problem": problems.get(name, "")}
            for name in names
        ]
        print_json({"checked": rows})
        return
    for name in names:
        click.echo(f"damaged: {problems[name]}" if name in problems else f"{name}: sound")
    if not names:
        click.echo("there is no environment")
