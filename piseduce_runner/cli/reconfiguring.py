"""Commands on nodes that carry something already: the reconfigurations."""

import click

from piseduce_runner.cli.context import Context
from piseduce_runner.cli.driving import carry_out, detach_option, force_option, owner_option


def _command(name: str, method: str, help_text: str, *options):
    """A command on nodes that calls one operation."""

    @click.pass_obj
    def run(
        context: Context,
        nodes: tuple[str, ...],
        owner: str | None,
        force: bool,
        detach: bool,
        **arguments,
    ) -> None:
        site = context.site()
        site.choose_nodes(nodes)
        unique = list(dict.fromkeys(nodes))
        carry_out(
            context,
            site,
            lambda operations: getattr(operations, method)(unique, **arguments),
            owner=owner,
            force=force,
            detach=detach,
        )

    for option in (detach_option, force_option, owner_option, *options):
        run = option(run)
    run = click.argument("nodes", nargs=-1, required=True, metavar="NODE...")(run)
    return click.command(name, help=help_text)(run)


reboot = _command(
    "reboot",
    "reboot",
    """Power-cycle nodes (hard reboot).

    A lost or cancelled node takes up its process again, from where that is safe. A deployed node
    has to come back with its system.""",
)
redeploy = _command(
    "redeploy",
    "redeploy",
    "Deploy again what was deployed on nodes, from the beginning, with the same options.",
)
destroy = _command(
    "destroy",
    "destroy",
    """Give nodes back: power off, remove their boot files, end the reservation.

    The card keeps its data until the next deployment, unless --erase is given.""",
    click.option("--erase", is_flag=True, help="Erase the card first, over the network boot."),
)
bootfiles = _command(
    "bootfiles",
    "bootfiles",
    """Fetch the boot files of deployed systems to the TFTP server again.

    For users who have updated kernel or firmware themselves; reboot the node afterwards.""",
)
boot_test = _command(
    "boot-test",
    "boot_test",
    "Boot the deploy OS on nodes that carry nothing: power, cable, boot files, SSH.",
)
