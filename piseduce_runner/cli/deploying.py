"""Commands that put an environment on nodes."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.cli.driving import carry_out, detach_option, force_option, owner_option
from piseduce_runner.errors import UserError
from piseduce_runner.people import acting_for, current_person
from piseduce_runner.show import driving
from piseduce_runner.site import Site

if TYPE_CHECKING:
    from piseduce_runner.deployment import Request
    from piseduce_runner.operations import Operations
    from piseduce_runner.planner import Record
    from piseduce_runner.site_processes import SiteProcesses


def configuration_options(*, required: bool):
    """The options that say what is to be deployed; `required`: --env has to be given."""
    environment = click.option(
        "--env", "environment", required=required, metavar="NAME", help="The environment."
    )

    def decorate(command):
        for option in (*_OPTIONS, environment):
            command = option(command)
        return command

    return decorate


_OPTIONS = (
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
)


def read_password(wanted: bool) -> str | None:
    """A line of standard input."""
    return sys.stdin.readline().removesuffix("\n") if wanted else None


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@configuration_options(required=False)
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
    """Deploy an environment on nodes, and wait until each is deployed or lost.

    Without --env: what their reservations were configured with.
    """
    from piseduce_runner.deployment import make_request
    from piseduce_runner.durations import end_after
    from piseduce_runner.site_processes import SiteProcesses

    _check_options(password_stdin, **wanted)
    password = read_password(password_stdin)
    until = end_after(duration)
    site = context.site()
    processes = SiteProcesses(site)
    processes("deploy", "")  # a wrong table is told before an image is read
    if wanted["environment"] is not None:
        requests = [make_request(site, nodes=nodes, password=password, **wanted)]
    else:
        requests = _configured(site, nodes, owner, force)
    if dry_run:
        _check_possible(site, processes, requests, owner, force, replace=replace, until=until)
        driving.plans(context.json, processes, requests)
        return
    identity = next(
        (key.with_suffix("") for key in wanted["ssh_keys"] if key.with_suffix("").is_file()), None
    )

    def begin(operations: "Operations") -> list["Record"]:
        with operations.store.transaction():
            return [
                record
                for request in requests
                for record in operations.deploy(request, replace=replace, until=until)
            ]

    carry_out(context, site, begin, owner=owner, force=force, detach=detach, identity=identity)


class _Undone(Exception):
    """Takes back what was written only to see whether it is allowed."""


def _check_possible(
    site: Site,
    processes: "SiteProcesses",
    requests: list["Request"],
    owner: str | None,
    force: bool,
    *,
    replace: bool,
    until: float | None,
) -> None:
    """Raises `UserError` when the nodes cannot be deployed on by this person now."""
    from piseduce_runner.operations import Operations

    person = current_person(site.admins)
    acting = acting_for(person, owner)
    with existing_store(site) as store, contextlib.suppress(_Undone):
        if store is None:
            return
        operations = Operations(store, processes, person, acting, force=force)
        with store.transaction():
            for request in requests:
                operations.deploy(request, replace=replace, until=until)
            raise _Undone


def _check_options(password_stdin: bool, **wanted) -> None:
    """What says how to deploy goes with what to deploy."""
    given = {
        "--password-stdin": password_stdin,
        "--ssh-key": wanted["ssh_keys"],
        "--part-size": wanted["part_size"] != "whole",
        "--update": wanted["update"],
    }
    extra = [name for name, is_given in given.items() if is_given]
    if extra and wanted["environment"] is None:
        raise UserError(f"{', '.join(extra)}: give --env too, or neither")


def _configured(
    site: Site, nodes: tuple[str, ...], owner: str | None, force: bool
) -> list["Request"]:
    """What the nodes' reservations were configured with: a request for each node."""
    from piseduce_runner.reservations import Booking, stored_request

    site.choose_nodes(nodes)
    person = current_person(site.admins)
    acting = acting_for(person, owner)
    requests = []
    with existing_store(site) as store:
        for node in dict.fromkeys(nodes):
            if store is None:
                raise UserError(f"{node} is not reserved; say with --env what to deploy")
            configuration = Booking(store, person, acting, force).configuration(node)
            requests.append(stored_request(site, node, configuration))
    site.check_ready()
    return requests
