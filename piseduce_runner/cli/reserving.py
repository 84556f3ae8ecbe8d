"""Commands on reservations."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.cli.deploying import configuration_options, read_password
from piseduce_runner.cli.driving import force_option, owner_option
from piseduce_runner.durations import parse_duration, parse_start, parse_time
from piseduce_runner.errors import UserError
from piseduce_runner.people import acting_for, current_person
from piseduce_runner.planner import Status
from piseduce_runner.show import nodes as node_tables
from piseduce_runner.show import reservations as show
from piseduce_runner.show.text import print_json
from piseduce_runner.site import Site
from piseduce_runner.store import Reservation, Store

# A driver that lives does it within a second or two; one that has died, when its claim expires.
_CANCEL_SECONDS = 90

nodes_argument = click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
start_option = click.option(
    "--start",
    metavar="TIME",
    default=None,
    help="Which of several reservations of a node: the one that starts at TIME.",
)


@contextmanager
def _booking(site: Site, owner: str | None, force: bool = False, *, new: bool = False) -> Iterator:
    """For making reservations (`new`), changing and ending them."""
    from piseduce_runner.reservations import Booking

    person = current_person(site.admins)
    acting = acting_for(person, owner)
    store = Store.open(site.database) if new else Store.open_existing(site.database)
    if store is None:
        raise UserError("nothing was ever reserved here; `piseduce-run reserve` does that")
    try:
        yield Booking(store, person, acting, force)
    finally:
        store.close()


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.option("--count", type=click.IntRange(1), help="Any so many nodes that are free.")
@click.option("--model", metavar="MODEL", help="With --count: of this model only.")
@click.option(
    "--start", metavar="TIME", help="Like 2026-03-01T09:30, or +2h from now. [default: now]"
)
@click.option("--duration", metavar="TIME", default="24h", show_default=True, help="12h, 3d...")
@owner_option
@click.pass_obj
def reserve(
    context: Context,
    nodes: tuple[str, ...],
    count: int | None,
    model: str | None,
    start: str | None,
    duration: str,
    owner: str | None,
) -> None:
    """Reserve nodes, by name or any COUNT of them: all or none.

    Reserved nodes stay taken until the end, or until they are cancelled.
    """
    if bool(nodes) == bool(count):
        raise UserError("name the nodes, or give --count (and not both)")
    if model and not count:
        raise UserError("--model goes with --count")
    begin = parse_start(start, time.time())
    end = begin + parse_duration(duration)
    site = context.site()
    site.choose_nodes(nodes)
    of_model = [node.name for node in site.nodes.values() if model in (None, node.model)]
    if not of_model:
        models = ", ".join(sorted({node.model for node in site.nodes.values()}))
        raise UserError(f"no node is a {model}; there are: {models}")
    with _booking(site, owner, new=True) as booking:
        if nodes:
            made = booking.reserve(nodes, begin, end)
        else:
            made = booking.reserve_any(of_model, count, begin, end)
    show.reservations(context.json, made, "")
    if not context.json:
        show.now_what(made)


@click.command()
@nodes_argument
@configuration_options(required=True)
@start_option
@owner_option
@force_option
@click.pass_obj
def configure(
    context: Context,
    nodes: tuple[str, ...],
    start: str | None,
    owner: str | None,
    force: bool,
    password_stdin: bool,
    **wanted,
) -> None:
    """Say what is to be deployed on reserved nodes, as soon as they are due.

    `piseduce-run agent` deploys it, or you do: `piseduce-run deploy NODE`.
    """
    from piseduce_runner.deployment import make_request

    password = read_password(password_stdin)
    site = context.site()
    request = make_request(site, nodes=nodes, password=password, **wanted)
    with _booking(site, owner, force) as booking:
        done = booking.configure(request, parse_time(start) if start else None)
    show.reservations(context.json, done, "")


@click.command()
@nodes_argument
@click.option("--duration", metavar="TIME", required=True, help="So much longer: 12h, 3d...")
@start_option
@owner_option
@force_option
@click.pass_obj
def extend(
    context: Context,
    nodes: tuple[str, ...],
    duration: str,
    start: str | None,
    owner: str | None,
    force: bool,
) -> None:
    """Let reservations end later, if nobody has reserved the nodes by then."""
    seconds = parse_duration(duration)
    site = context.site()
    site.choose_nodes(nodes)
    with _booking(site, owner, force) as booking:
        done = booking.extend(dict.fromkeys(nodes), seconds, parse_time(start) if start else None)
    show.reservations(context.json, done, "")


@click.command()
@nodes_argument
@start_option
@owner_option
@force_option
@click.pass_obj
def cancel(
    context: Context, nodes: tuple[str, ...], start: str | None, owner: str | None, force: bool
) -> None:
    """Stop what is under way on nodes, or end reservations for which nothing was begun.

    A node whose deployment was stopped stays reserved: `destroy` gives it back.
    """
    from piseduce_runner.cancelling import Cancelling
    from piseduce_runner.session import end_runs_of, our_claim
    from piseduce_runner.site_processes import SiteProcesses

    site = context.site()
    site.choose_nodes(nodes)
    chosen_start = parse_time(start) if start else None
    names = list(dict.fromkeys(nodes))
    with _booking(site, owner, force) as booking:
        store = booking.store
        cancelling = Cancelling(store, SiteProcesses(site), our_claim(), end_runs_of)
        with store.transaction():
            running = [] if start else _under_way(store, names)
            ended = booking.end([name for name in names if name not in running], chosen_start)
            cancelling.ask(running, booking.person, owner=booking.owner, force=force)
        left = cancelling.wait(running, _CANCEL_SECONDS)
        _show_cancelled(context, store, running, ended)
    if left:
        words = " ".join(left)
        click.echo(f"not cancelled yet: {words}; their driver lives but does not answer", err=True)
        sys.exit(1)


def _under_way(store: Store, names: list[str]) -> list[str]:
    held = store.deployments()
    return [n for n in names if n in held and held[n].status is Status.IN_PROGRESS]


def _show_cancelled(
    context: Context, store: Store, running: list[str], ended: list[Reservation]
) -> None:
    held = {one.node: one for one in store.last_deployments(running)}
    rows = node_tables.node_rows(running, held, store)
    if context.json:
        given_back = [show.reservation_fields(one) for one in ended]
        print_json({"nodes": rows, "reservations": given_back})
        return
    if rows:
        node_tables.status(False, rows)
    for one in ended:
        click.echo(f"{one.node}: the reservation {show.period(one)} is cancelled")


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.option("--unconfigured", is_flag=True, help="Those that nobody has said what for.")
@click.pass_obj
def reservations(context: Context, nodes: tuple[str, ...], unconfigured: bool) -> None:
    """List who has which node, now and later."""
    site = context.site()
    site.choose_nodes(nodes)
    with existing_store(site) as store:
        show_reservations(context, store, nodes, unconfigured)


def show_reservations(
    context: Context, store: Store | None, nodes: tuple[str, ...], unconfigured: bool
) -> None:
    """The reservations of these nodes (of all, if none is named) that are not over."""
    now = time.time()
    found = []
    if store is not None:
        found = store.unconfigured(now) if unconfigured else store.reservations(now=now)
    chosen = [one for one in found if not nodes or one.node in nodes]
    which = "unconfigured " if unconfigured else ""
    show.reservations(context.json, chosen, f"there are no {which}reservations")
