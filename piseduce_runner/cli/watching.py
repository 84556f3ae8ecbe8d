"""The command that shows nodes while others drive them."""

import contextlib
import sys
import time

import click

from piseduce_runner.agent_lock import running_agent
from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.driver import NodeView
from piseduce_runner.planner import Status
from piseduce_runner.show import driving
from piseduce_runner.show import nodes as node_tables
from piseduce_runner.site import Site
from piseduce_runner.store import Deployment, Store

_SECONDS = 1.0


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE...]")
@click.pass_obj
def watch(context: Context, nodes: tuple[str, ...]) -> None:
    """Watch nodes until nothing is under way on them; Ctrl-C only stops looking."""
    site = context.site()
    site.choose_nodes(nodes)
    names = list(dict.fromkeys(nodes or site.nodes))
    seen: set[str] = set()
    with existing_store(site) as store:
        # What was under way when we came is looked at to its end; so is what begins meanwhile.
        view_of = driving.live_view(context.json, "under way")
        with contextlib.suppress(KeyboardInterrupt), view_of as view:
            while under_way := _under_way(store, names, site):
                seen |= set(under_way)
                _observe(store, seen, view)
                time.sleep(_SECONDS)
            _observe(store, seen, view)
        shown = [name for name in names if name in seen] or list(nodes)
        held = {one.node: one for one in store.last_deployments(shown)} if store else {}
        rows = node_tables.node_rows(shown, held, store)
    if not rows and not context.json:
        click.echo("nothing is under way")
    else:
        node_tables.status(context.json, rows)
    sys.exit(1 if any(row["status"] == Status.LOST.value for row in rows) else 0)


def _under_way(store: Store | None, names: list[str], site: Site) -> list[str]:
    """The nodes that somebody drives, or that an agent is about to take on."""
    if store is None:
        return []
    held, now = store.deployments(), time.time()
    going = [n for n in names if n in held and held[n].status is Status.IN_PROGRESS]
    if going and running_agent(site.agent_lock) is not None:
        return going
    return [name for name in going if held[name].is_claimed(now)]


def _observe(store: Store | None, names: set[str], view: driving.View) -> None:
    for held in store.last_deployments(sorted(names)) if store else []:
        view.observe(_view(held))


def _view(held: Deployment) -> NodeView:
    return NodeView(
        node=held.node,
        status=held.status,
        state=held.state,
        attempt=held.attempt,
        percent=held.percent,
        rate=held.rate,
        since=held.since,
        reason=held.reason,
    )
