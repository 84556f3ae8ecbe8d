"""The command line: `piseduce-run`. Parses, calls, and shows; decides nothing.

A file for each kind of command; this one puts them together.
"""

from pathlib import Path

import click

from piseduce_runner.cli.agent import agent
from piseduce_runner.cli.context import Context
from piseduce_runner.cli.deploying import deploy
from piseduce_runner.cli.doctoring import doctor
from piseduce_runner.cli.env import env
from piseduce_runner.cli.looking import history, log, processes, status
from piseduce_runner.cli.reconfiguring import boot_test, bootfiles, destroy, reboot, redeploy
from piseduce_runner.cli.reserving import cancel, configure, extend, reservations, reserve
from piseduce_runner.cli.watching import watch
from piseduce_runner.errors import UserError
from piseduce_runner.lab.commands import lab
from piseduce_runner.store import StoreFailed


class _Commands(click.Group):
    """Shows a user's mistake as one line, and exits with 2; a store that fails, with 1."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except StoreFailed as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except PermissionError as error:
            # Everything of a site may be closed to people who forget sudo(8).
            click.echo(
                f"Error: {error.filename}: {error.strerror}; work as root (sudo) or as the site's"
                " owner",
                err=True,
            )
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

    Exit status: 0 all well, 1 a node failed, is lost or was left under way, 2 wrong usage or bad
    input.
    """
    ctx.obj = Context(as_json, site)


for command in (
    *(deploy, redeploy, reboot, destroy, bootfiles, boot_test),
    *(reserve, configure, extend, cancel, reservations, agent),
    *(status, watch, history, log, processes),
    *(env, doctor, lab),
):
    main.add_command(command)
