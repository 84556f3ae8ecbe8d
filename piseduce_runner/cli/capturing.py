"""The command that makes an environment of what is on a node's card."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piseduce_runner import environments
from piseduce_runner.agent_lock import running_agent
from piseduce_runner.cli.context import Context, existing_store
from piseduce_runner.cli.driving import force_option, owner_option
from piseduce_runner.cli.interrupts import clean_end
from piseduce_runner.environments import Environment
from piseduce_runner.errors import UserError
from piseduce_runner.families import load_families
from piseduce_runner.people import acting_for, current_person
from piseduce_runner.planner import Record, Status
from piseduce_runner.show import driving
from piseduce_runner.show import environments as shown
from piseduce_runner.show.nodes import node_rows
from piseduce_runner.show.steps import work_view
from piseduce_runner.site import Site
from piseduce_runner.store import Store
from piseduce_runner.usage import UsageMeter

if TYPE_CHECKING:  # it loads Ansible's libraries
    from piseduce_runner.session import Session


@click.command("capture")
@click.argument("node")
@click.argument("name")
@click.option("--login", metavar="USER", help="Its default user. [default: as it was deployed]")
@owner_option
@force_option
@click.pass_obj
def capture(
    context: Context, node: str, name: str, login: str | None, owner: str | None, force: bool
) -> None:
    """Make the environment NAME of what is on the card of NODE, a deployed node.

    The node restarts twice: its card is read over the network boot, and then it is its user's
    again, also when the capture fails. Keys, passwords, shell histories and what tells one machine
    from another are left out of the environment; other files of users are not.
    """
    from piseduce_runner.images import captured, tools
    from piseduce_runner.images.add import Wishes, add_environment, check_wishes
    from piseduce_runner.images.scratch import scratch_folder

    site = context.site()
    site.choose_nodes([node])
    deployed = _deployed(site, node)
    wishes = Wishes(name, deployed.family, login or deployed.login, deployed.boot_directory)
    check_wishes(name, wishes, load_families(site.folder))
    captured.check_family(deployed.family)
    tools.require(*captured.TOOLS)
    folder = site.environments / name
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: there is an environment of this name; take another")
    with clean_end(), scratch_folder(site.environments, name) as scratch:
        _Capture(context, site, node, acting_for(current_person(site.admins), owner), force).run(
            scratch
        )
        with work_view(context.json) as progress:
            image = captured.make_image(scratch, progress)
            added = add_environment(image, site.environments, wishes, progress)
    shown.added(context.json, added)


def _deployed(site: Site, node: str) -> Environment:
    """The environment that is deployed on the node."""
    with existing_store(site) as store:
        held = store.deployment(node) if store is not None else None
    if held is None or held.status is not Status.DEPLOYED:
        is_what = f"is {held.status.value}" if held else "carries no system"
        raise UserError(f"{node} {is_what}: only a deployed system can be captured")
    return environments.find(site.environments, held.environment)


@dataclass
class _Capture:
    """Drives the node through its capture, and back to its user."""

    context: Context
    site: Site
    node: str
    owner: str
    force: bool

    def run(self, folder: Path) -> None:
        """Copy the card into `folder`. Exits with 1 if that fails, the node given back."""
        # Ansible's libraries load slowly, and most commands do without them.
        from piseduce_runner.operations import Operations
        from piseduce_runner.session import Session
        from piseduce_runner.site_processes import SiteProcesses

        store = Store.open(self.site.database)
        try:
            session = Session(self.site, store)
            operations = Operations(
                store,
                SiteProcesses(self.site),
                current_person(self.site.admins),
                self.owner,
                force=self.force,
                claim=session.claim,
                lease=session.settings.claim,
            )
            meter = UsageMeter()
            meter.start()
            record = self._drive(session, operations.capture(self.node, str(folder)))
            if record is not None and record.status is Status.DEPLOYED:
                return
            if record is not None:
                click.echo(f"{self.node} was not captured: {record.reason}", err=True)
            if record is not None and record.status is Status.LOST:
                self._drive(session, operations.reboot([self.node]))
            held = store.last_deployments([self.node])
            rows = node_rows([self.node], {one.node: one for one in held}, store)
            usage, runs = meter.stop(), session.runs_started
        finally:
            store.close()
        agent = running_agent(self.site.agent_lock)
        driving.summary(self.context.json, self.site, rows, held, usage, runs, None, agent)
        sys.exit(1)

    def _drive(self, session: "Session", records: list[Record]) -> Record | None:
        """The node's record at its end; None if it was left under way."""
        with driving.live_view(self.context.json, driving.title(records)) as view:
            session.observe = view.observe
            return session.drive(records).get(self.node)
