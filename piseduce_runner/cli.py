"""The command line: `piseduce-run`. Parses, calls, and shows; decides nothing."""

import contextlib
import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from piseduce_runner import lab, show
from piseduce_runner.environments import list_environments
from piseduce_runner.errors import UserError
from piseduce_runner.lab.commands import lab as lab_commands
from piseduce_runner.site import Site, check_is_site, load_site, load_site_processes
from piseduce_runner.store import Store

_SYSTEM_SITE = Path("/etc/piseduce")


@dataclass
class Context:
    """What every command gets: `json` output or not, and where the site is."""

    json: bool
    site_option: Path | None

    def site_folder(self) -> Path:
        """The site's folder: --site, $PISEDUCE_SITE (click reads it), the running lab's, ours."""
        folder = self.site_option or lab.running_site() or _SYSTEM_SITE
        if folder == _SYSTEM_SITE and not folder.exists():
            raise UserError(
                f"there is no site: {folder} does not exist and no lab is up;"
                " give --site, or try `piseduce-run lab up`"
            )
        return folder

    def site(self) -> Site:
        """The site, read and checked."""
        return load_site(self.site_folder())


class _Commands(click.Group):
    """Shows a user's mistake as one line, and exits with 2."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--site",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    envvar="PISEDUCE_SITE",
    show_envvar=True,
    help="The site's folder. Default: the running lab's, or /etc/piseduce.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON; give it before the command.")
@click.version_option(package_name="piseduce-runner")
@click.pass_context
def main(ctx: click.Context, site: Path | None, as_json: bool) -> None:
    """Deploy operating systems on the Raspberry Pis of a PoE cluster.

    Exit status: 0 all well, 1 a node failed or is lost, 2 wrong usage or bad input.
    """
    ctx.obj = Context(as_json, site)


main.add_command(lab_commands)


@main.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--env", "environment", required=True, metavar="NAME", help="The environment.")
@click.option("--update", is_flag=True, help="Update the deployed system's packages.")
@click.option(
    "--part-size",
    default="whole",
    show_default=True,
    metavar="SIZE",
    help="Size of the system's partition: whole, or like 8gb or 512mb.",
)
@click.option(
    "--ssh-key",
    "ssh_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Public key for the default user and root; may be given again.",
)
@click.option("--password-stdin", is_flag=True, help="Read the default user's password: one line.")
@click.option(
    "--owner", default=None, metavar="NAME", help="Whose nodes they are then. [default: you]"
)
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, do nothing.")
@click.pass_obj
def deploy(context: Context, dry_run: bool, password_stdin: bool, **options) -> None:
    """Deploy an environment on nodes, and wait until each is deployed or lost."""
    from piseduce_runner import deploy_command  # Ansible's libraries load slowly

    password = sys.stdin.readline().removesuffix("\n") if password_stdin else None
    options["owner"] = options["owner"] or os.environ.get("SUDO_USER") or getpass.getuser()
    site = context.site()
    process = _process(site, "deploy")
    request = deploy_command.check(site, password=password, **options)
    if dry_run:
        show.plan(context.json, process, request)
        return
    identity = next(
        (key.with_suffix("") for key in options["ssh_keys"] if key.with_suffix("").is_file()), None
    )
    sys.exit(deploy_command.run(site, process, request, as_json=context.json, identity=identity))


@main.command()
@click.pass_obj
def status(context: Context) -> None:
    """Show where every node is."""
    site = context.site()
    with _store(site) as store:
        show.status(context.json, site, store.deployments() if store else {})


@main.command()
@click.argument("node", required=False)
@click.option("--limit", default=200, show_default=True, help="The newest so many lines.")
@click.pass_obj
def history(context: Context, node: str | None, limit: int) -> None:
    """Show the journal: which states nodes went through, how long, and how they ended."""
    site = context.site()
    if node is not None:
        site.choose_nodes([node])
    with _store(site) as store:
        show.history(context.json, store.transitions(node, limit) if store else [])


@main.command()
@click.argument("node")
@click.option("--all", "all_states", is_flag=True, help="The whole deployment, not its last state.")
@click.pass_obj
def log(context: Context, node: str, all_states: bool) -> None:
    """Show what Ansible said of the node's last (or failed) state."""
    site = context.site()
    site.choose_nodes([node])
    with _store(site) as store:
        transitions = store.transitions(node) if store else []
    if not transitions:
        raise UserError(f"{node} has no log: nothing was ever deployed on it")
    show.log(context.json, transitions[-1], all_states)


@main.command()
@click.argument("name", required=False)
@click.pass_obj
def processes(context: Context, name: str | None) -> None:
    """Show the processes: their states, timeouts and conditions."""
    folder = context.site_folder()
    check_is_site(folder)
    table = load_site_processes(folder)
    if name is not None and name not in table:
        raise UserError(f"unknown process: {name}; there are: {', '.join(table)}")
    show.processes(context.json, [table[name]] if name else list(table.values()))


@main.group()
def env() -> None:
    """The environments: operating-system images to deploy."""


@env.command("list")
@click.pass_obj
def env_list(context: Context) -> None:
    """List the environments of the site."""
    folder = context.site_folder()
    check_is_site(folder)
    known, damaged = list_environments(folder / "environments")
    show.environments(context.json, known, damaged)
    if damaged:
        sys.exit(1)


def _process(site: Site, name: str):
    table = load_site_processes(site.folder)
    if name not in table:
        raise UserError(f"{site.folder}: the process table has no process {name!r}")
    return table[name]


@contextlib.contextmanager
def _store(site: Site):
    store = Store.open_existing(site.database)
    try:
        yield store
    finally:
        if store is not None:
            store.close()
