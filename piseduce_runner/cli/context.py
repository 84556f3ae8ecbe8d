"""What every command gets: the output it is to give, and the site it works on."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import click

from piseduce_runner import lab
from piseduce_runner.errors import UserError
from piseduce_runner.site import Site
from piseduce_runner.site_reader import load_site
from piseduce_runner.store import Store

_SYSTEM_SITE = Path("/etc/piseduce")


@dataclass
class Context:
    """What every command gets: `json` output or not, and where the site is."""

    json: bool
    site_option: Path | None

    def site_folder(self) -> Path:
        """The site's folder: --site, $PISEDUCE_SITE (click reads it), the running lab's, ours."""
        folder = self.site_option or lab.running_site() or _SYSTEM_SITE
        if folder == _SYSTEM_SITE and not folder.exists():
            raise UserError(
                f"there is no site: {folder} does not exist and no lab is up;"
                " give --site, or try `piseduce-run lab up`"
            )
        return folder

    def site(self) -> Site:
        """The site, read and checked."""
        return load_site(self.site_folder())


@contextlib.contextmanager
def existing_store(site: Site):
    """The site's store to read, for the length of a block; None before the first deployment."""
    store = Store.open_to_read(site.database)
    if store is not None and store.unwritable:
        click.echo(f"{store.unwritable}; this is what was stored last", err=True)
    try:
        yield store
    finally:
        if store is not None:
            store.close()
