"""Commands on environments."""

import sys

import click

from piseduce_runner.cli.context import Context
from piseduce_runner.environments import list_environments
from piseduce_runner.show import environments as environment_tables
from piseduce_runner.site import check_is_site


@click.group()
def env() -> None:
    """The environments: operating-system images to deploy."""


@env.command("list")
@click.pass_obj
def env_list(context: Context) -> None:
    """List the environments of the site."""
    folder = context.site_folder()
    check_is_site(folder)
    known, damaged = list_environments(folder / "environments")
    environment_tables.environments(context.json, known, damaged)
    if damaged:
        sys.exit(1)
