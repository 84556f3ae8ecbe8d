"""Commands that show where nodes are, and where they have been."""

import click

from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.cli.reserving import show_reservations
from piseduce_runner.environments import find as find_environment
from piseduce_runner.errors import UserError
from piseduce_runner.families import find_family
from piseduce_runner.show import journal, nodes
from piseduce_runner.show import processes as process_tables
from piseduce_runner.site import site_processes


@click.command()
@click.option("--unconfigured", is_flag=True, help="Reservations that nobody has said what for.")
@click.pass_obj
def status(context: Context, unconfigured: bool) -> None:
    """Show where every node is, whose it is, and what to do about those that need somebody."""
    site = context.site()
    with existing_store(site) as store:
        if unconfigured:
            show_reservations(context, store, (), unconfigured=True)
            return
        held = store.deployments() if store else {}
        nodes.status(context.json, nodes.node_rows(site.nodes, held, store))


@click.command()
@click.argument("node", required=False)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="The newest so many lines.",
)
@click.pass_obj
def history(context: Context, node: str | None, limit: int) -> None:
    """Show the journal: which states nodes went through, how long and how they ended, and why.

    And what was asked for, by whom.
    """
    site = context.site()
    if node is not None:
        site.choose_nodes([node])
    with existing_store(site) as store:
        transitions = store.transitions(node, limit) if store else []
        acts = store.acts(node, limit) if store else []
    journal.history(context.json, transitions, acts, limit)


@click.command()
@click.argument("node")
@click.option("--all", "all_states", is_flag=True, help="The whole deployment, not its last state.")
@click.pass_obj
def log(context: Context, node: str, all_states: bool) -> None:
    """Show what Ansible said in the node's last state; of a lost node, in the one that failed."""
    site = context.site()
    site.choose_nodes([node])
    with existing_store(site) as store:
        transitions = store.transitions(node) if store else []
        held = store.last_deployments([node]) if store else []
    if not held:
        raise UserError(f"{node} has no log: nothing was ever deployed on it")
    # What was there before would be taken for what went wrong now.
    of_last = [one for one in transitions if one.deployment == held[0].id]
    if not of_last:
        why = f": {held[0].reason}" if held[0].reason else " yet"
        raise UserError(f"{node} has no log of its {held[0].process}, for nothing was begun{why}")
    journal.log(context.json, journal.choose_transition(of_last, held[0]), all_states)


@click.command()
@click.argument("name", required=False)
@click.option("--env", "environment", metavar="NAME", help="With the policy of this environment.")
@click.pass_obj
def processes(context: Context, name: str | None, environment: str | None) -> None:
    """Show the processes: their states, and each one's policy at this site."""
    site = context.site()
    if environment:
        found = find_environment(site.environments, environment)
        family = find_family(site.folder, found.family)
        table = site_processes(site, found.policy, family=family)
    else:
        table = site_processes(site)
    if name is not None and name not in table:
        raise UserError(f"unknown process: {name}; there are: {', '.join(table)}")
    process_tables.processes(context.json, [table[name]] if name else list(table.values()))
