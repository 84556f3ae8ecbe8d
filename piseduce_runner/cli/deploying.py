"""Commands that put an environment on nodes."""

import sys
from pathlib import Path

import click

from piseduce_runner.cli.context import Context
from piseduce_runner.cli.driving import carry_out, detach_option, force_option, owner_option
from piseduce_runner.show import driving


def configuration_options(command):
    """The options that say what is to be deployed."""
    for option in (
        click.option("--password-stdin", is_flag=True, help="The default user's password: a line."),
        click.option(
            "--ssh-key",
            "ssh_keys",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Public key for the default user and root; may be given again.",
        ),
        click.option(
            "--part-size",
            default="whole",
            show_default=True,
            metavar="SIZE",
            help="Size of the system's partition: whole, or like 8gb or 512mb.",
        ),
        click.option("--update", is_flag=True, help="Update the deployed system's packages."),
        click.option(
            "--env", "environment", required=True, metavar="NAME", help="The environment."
        ),
    ):
        command = option(command)
    return command


def read_password(wanted: bool) -> str | None:
    """A line of standard input."""
    return sys.stdin.readline().removesuffix("\n") if wanted else None


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@configuration_options
@click.option("--replace", is_flag=True, help="Deploy over what is deployed on the nodes.")
@click.option(
    "--duration",
    metavar="TIME",
    default=None,
    help="Give the nodes back after 12h or 3d. [default: when you destroy them]",
)
@owner_option
@force_option
@detach_option
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, do nothing.")
@click.pass_obj
def deploy(
    context: Context,
    nodes: tuple[str, ...],
    password_stdin: bool,
    replace: bool,
    duration: str | None,
    dry_run: bool,
    owner: str | None,
    force: bool,
    detach: bool,
    **wanted,
) -> None:
    """Deploy an environment on nodes, and wait until each is deployed or lost."""
    from piseduce_runner.deployment import make_request
    from piseduce_runner.durations import end_after
    from piseduce_runner.site_processes import SiteProcesses

    password = read_password(password_stdin)
    until = end_after(duration)
    site = context.site()
    processes = SiteProcesses(site)
    processes("deploy", "")  # a wrong table is told before an image is read
    request = make_request(site, nodes=nodes, password=password, **wanted)
    if dry_run:
        process = processes("deploy", request.environment.name)
        driving.plan(context.json, process, request)
        return
    identity = next(
        (key.with_suffix("") for key in wanted["ssh_keys"] if key.with_suffix("").is_file()), None
    )
    carry_out(
        context,
        site,
        lambda operations: operations.deploy(request, replace=replace, until=until),
        owner=owner,
        force=force,
        detach=detach,
        identity=identity,
    )
