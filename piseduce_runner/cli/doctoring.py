"""The command that looks a site over."""

import sys

import click

from piseduce_runner.cli.context import Context
from piseduce_runner.show import findings as show


@click.command()
@click.option("--all", "-v", "everything", is_flag=True, help="Show what is fine, too.")
@click.pass_obj
def doctor(context: Context, everything: bool) -> None:
    """Look the site over: what is wrong, and how to mend it. Changes nothing.

    Exit status: 0 no problem was found, 1 there are problems.
    """
    from piseduce_runner.doctor import Level, examine  # SNMP and its ciphers load slowly

    findings = examine(context.site_folder())
    show.findings(context.json, findings, everything)
    if any(one.level is Level.PROBLEM for one in findings):
        sys.exit(1)
