"""Environments."""

import click

from piseduce_runner.environments import Environment
from piseduce_runner.show.text import (
    MIB,
    new_console,
    new_table,
    print_json,
)


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
            f"{one.root_sectors * 512 // MIB} MiB",
        )
    new_console().print(table)
    for problem in damaged:
        click.echo(f"damaged: {problem}")
