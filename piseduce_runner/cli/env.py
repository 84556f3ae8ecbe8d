"""Commands on environments."""

import sys
from pathlib import Path

import click

from piseduce_runner import environments
from piseduce_runner.cli.capturing import capture
from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.cli.interrupts import clean_end
from piseduce_runner.errors import UserError
from piseduce_runner.show import environments as shown
from piseduce_runner.show.steps import work_view
from piseduce_runner.site import check_is_site


@click.group()
def env() -> None:
    """The environments: operating-system images to deploy."""


env.add_command(capture)


@env.command("list")
@click.pass_obj
def env_list(context: Context) -> None:
    """List the environments of the site."""
    known, damaged = environments.list_environments(_root(context))
    shown.environments(context.json, known, damaged)
    if damaged:
        sys.exit(1)


@env.command("show")
@click.argument("name")
@click.pass_obj
def env_show(context: Context, name: str) -> None:
    """Show all that is known of an environment, and which nodes use it."""
    from piseduce_runner.images.remove import nodes_with

    site = context.site()
    found = environments.find(site.environments, name)
    with existing_store(site) as store:
        shown.environment(context.json, found, nodes_with(store, name))


@env.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Its name. [default: from the file's name]")
@click.option("--family", metavar="FAMILY", help="How to configure it. [default: as the image is]")
@click.option("--login", metavar="USER", help="The image's default user. [default: the family's]")
@click.pass_obj
def env_add(
    context: Context, file: Path, name: str | None, family: str | None, login: str | None
) -> None:
    """Make an environment of the image in FILE.

    FILE is a disk image, plain or packed by xz, gzip, zstd, bzip2, zip or tar; what it is is told
    by its content. FILE itself stays as it is.
    """
    from piseduce_runner.images.add import Wishes, add_environment

    root = _root(context)
    with clean_end(), work_view(context.json) as progress:
        added = add_environment(file, root, Wishes(name, family, login), progress)
    shown.added(context.json, added)


@env.command("remove")
@click.argument("name")
@click.pass_obj
def env_remove(context: Context, name: str) -> None:
    """Remove an environment that no node uses."""
    from piseduce_runner.images.remove import nodes_with, remove_environment

    site = context.site()
    with existing_store(site) as store, clean_end():
        remove_environment(site.environments, name, lambda: nodes_with(store, name))
    shown.removed(context.json, name)


@env.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_obj
def env_check(context: Context, names: tuple[str, ...]) -> None:
    """Read environments, all unless named, and compare every byte with what was stored of it."""
    from piseduce_runner.images.check import check_environment

    root = _root(context)
    folders = [environments.folder_of(root, name) for name in names] or environments.folders(root)
    problems: dict[str, str] = {}
    with clean_end(), work_view(context.json) as progress:
        for folder in folders:
            try:
                check_environment(environments.load(folder), progress)
            except UserError as error:
                problems[folder.name] = str(error)
    shown.checked(context.json, [folder.name for folder in folders], problems)
    if problems:
        sys.exit(1)


def _root(context: Context) -> Path:
    folder = context.site_folder()
    check_is_site(folder)
    return folder / "environments"
