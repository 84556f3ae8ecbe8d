"""The command that is a daemon."""

import sys
import time

import click

from piseduce_runner.agent_lock import hold_agent_lock
from piseduce_runner.cli.context import Context
from piseduce_runner.planner import Status
from piseduce_runner.show import nodes as node_tables
from piseduce_runner.site import Site, site_processes
from piseduce_runner.store import Store


@click.command()
@click.option("--once", is_flag=True, help="Do what is due now, wait until it has ended, and exit.")
@click.pass_obj
def agent(context: Context, once: bool) -> None:
    """Do what is due: deploy, destroy what has ended, go on with what was interrupted.

    One for each site; runs until SIGTERM, and then leaves what is under way to the next one.
    SIGHUP has it read the site again.
    """
    from piseduce_runner.agent_session import AgentSession  # Ansible's libraries load slowly

    site = context.site()
    site.check_ready()
    site_processes(site)  # a wrong table is told now
    with hold_agent_lock(site.agent_lock):
        session = AgentSession(context.site, _say, once)
        well = session.run(site)
        if once or context.json:
            _show(context, session.ended.keys() | session.failed, site)
    sys.exit(0 if well or not once else 1)


def _say(line: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", err=True)


def _show(context: Context, names: set[str], site: Site) -> None:
    store = Store.open(site.database)
    try:
        held = {one.node: one for one in store.last_deployments(sorted(names))}
        rows = node_tables.node_rows(sorted(names), held, store)
        others = [one for one in store.deployments().values() if one.status is Status.IN_PROGRESS]
    finally:
        store.close()
    if rows or context.json:
        node_tables.status(context.json, rows)
    else:
        click.echo("nothing was due")
    if not context.json:
        for one in others:
            claimed = one.is_claimed(time.time())
            driven = f" by {one.claim}" if claimed else ", left for the next agent"
            click.echo(f"{one.node} is under way ({one.process}: {one.state}){driven}")
