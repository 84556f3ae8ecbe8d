"""Commands that put an environment on nodes."""

import getpass
import os
import sys
from pathlib import Path

import click

from piseduce_runner.cli.context import Context, site_process
from piseduce_runner.show import driving


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--env", "environment", required=True, metavar="NAME", help="The environment.")
@click.option("--update", is_flag=True, help="Update the deployed system's packages.")
@click.option(
    "--part-size",
    default="whole",
    show_default=True,
    metavar="SIZE",
    help="Size of the system's partition: whole, or like 8gb or 512mb.",
)
@click.option(
    "--ssh-key",
    "ssh_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Public key for the default user and root; may be given again.",
)
@click.option("--password-stdin", is_flag=True, help="Read the default user's password: one line.")
@click.option(
    "--owner", default=None, metavar="NAME", help="Whose nodes they are then. [default: you]"
)
@click.option("--dry-run", is_flag=True, help="Check everything, show the plan, do nothing.")
@click.pass_obj
def deploy(context: Context, dry_run: bool, password_stdin: bool, **options) -> None:
    """Deploy an environment on nodes, and wait until each is deployed or lost."""
    from piseduce_runner import deploy_command  # Ansible's libraries load slowly

    password = sys.stdin.readline().removesuffix("\n") if password_stdin else None
    options["owner"] = options["owner"] or os.environ.get("SUDO_USER") or getpass.getuser()
    site = context.site()
    site_process(site, "deploy")  # a wrong table is told before an image is read
    request = deploy_command.check(site, password=password, **options)
    process = site_process(site, "deploy", request.environment.policy)
    if dry_run:
        driving.plan(context.json, process, request)
        return
    identity = next(
        (key.with_suffix("") for key in options["ssh_keys"] if key.with_suffix("").is_file()), None
    )
    sys.exit(deploy_command.run(site, process, request, as_json=context.json, identity=identity))
