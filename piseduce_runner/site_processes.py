"""The processes of a site as they hold for a node: the table, with the policies that apply."""

from dataclasses import dataclass, field

from piseduce_runner import environments
from piseduce_runner.errors import UserError
from piseduce_runner.families import find_family
from piseduce_runner.processes import Process
from piseduce_runner.site import Site, site_processes


@dataclass(frozen=True)
class SiteProcesses:
    """Finds a process by its name, for nodes that have (or get) an environment."""

    site: Site
    _tables: dict[str, dict[str, Process]] = field(default_factory=dict)

    def __call__(self, name: str, environment: str) -> Process:
        """The process with the site's and the environment's policy ("": no environment).

        Raises `UserError` when there is no such process, or its environment is needed and gone.
        """
        table = self._table(name, environment)
        if name not in table:
            raise UserError(f"{self.site.folder}: the process table has no process {name!r}")
        return table[name]

    def _table(self, name: str, environment: str) -> dict[str, Process]:
        try:
            return self._with_policy_of(environment)
        except _EnvironmentGone as gone:
            # A node can be rebooted and given back without the image that it was made from.
            if name == "deploy":
                raise UserError(str(gone)) from gone
            return self._with_policy_of("")

    def _with_policy_of(self, environment: str) -> dict[str, Process]:
        if environment not in self._tables:
            self._tables[environment] = self._read(environment)
        return self._tables[environment]

    def _read(self, environment: str) -> dict[str, Process]:
        if not environment:
            return site_processes(self.site)
        try:
            found = environments.find(self.site.environments, environment)
        except UserError as error:
            raise _EnvironmentGone(str(error)) from error
        family = find_family(self.site.folder, found.family)
        return site_processes(self.site, found.policy, family=family)


class _EnvironmentGone(Exception):
    """The environment is not there any more, or is damaged."""
