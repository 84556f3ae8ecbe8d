"""What every command that sets nodes going has in common: begin, drive, show, sum up."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from piseduce_runner.agent_lock import running_agent
from piseduce_runner.cli.context import Context
from piseduce_runner.people import acting_for, current_person
from piseduce_runner.planner import Record, Status
from piseduce_runner.show import driving
from piseduce_runner.show.nodes import node_rows
from piseduce_runner.site import Site
from piseduce_runner.store import Store
from piseduce_runner.usage import UsageMeter

_WELL = (Status.DEPLOYED, Status.BOOTED, Status.DESTROYED)

force_option = click.option(
    "--force", is_flag=True, help="Admins: touch somebody else's nodes; it is journalled."
)
owner_option = click.option(
    "--owner", default=None, metavar="NAME", help="Admins: act in NAME's name. [default: you]"
)
detach_option = click.option(
    "--detach", is_flag=True, help="Leave the work to `piseduce-run agent`, and do not wait."
)


def carry_out(
    context: Context,
    site: Site,
    begin: Callable,
    *,
    owner: str | None,
    force: bool,
    detach: bool,
    identity: Path | None = None,
) -> None:
    """Begin what `begin` asks of `Operations`, drive the nodes, and show them until they end.

    Exits with 0 when all ended well, else with 1. `identity` is the private key that the shown
    login line names.
    """
    # Ansible's libraries load slowly, and most commands do without them.
    from piseduce_runner.operations import Operations
    from piseduce_runner.session import Session
    from piseduce_runner.site_processes import SiteProcesses

    person = current_person(site.admins)
    store = Store.open(site.database)
    try:
        session = Session(site, store)
        operations = Operations(
            store,
            SiteProcesses(site),
            person,
            acting_for(person, owner),
            force=force,
            claim=None if detach else session.claim,
            lease=session.settings.claim,
        )
        records: list[Record] = begin(operations)
        names = [record.node for record in records]
        if detach:
            rows = node_rows(names, store.deployments(), store)
            driving.detached(context.json, rows, running_agent(site.agent_lock))
            return
        meter = UsageMeter()
        meter.start()
        title = driving.title(records)
        with driving.live_view(context.json, title) as view:
            session.observe = view.observe
            ended = session.drive(records)
        usage = meter.stop()
        held = store.last_deployments(names)
        rows = node_rows(names, {one.node: one for one in held}, store)
    finally:
        store.close()
    agent = running_agent(site.agent_lock)
    driving.summary(context.json, site, rows, held, usage, session.runs_started, identity, agent)
    well = all(name in ended and ended[name].status in _WELL for name in names)
    sys.exit(0 if well else 1)
