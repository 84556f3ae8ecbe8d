"""Removing an environment that nobody uses."""

from collections.abc import Callable
from pathlib import Path

from piseduce_runner.environments import folder_of
from piseduce_runner.errors import UserError
from piseduce_runner.images.scratch import scratch_folder, system_errors
from piseduce_runner.store import Store

_MOST_NAMES = 5


def nodes_with(store: Store | None, name: str) -> list[str]:
    """The nodes on which the environment `name` is deployed, or for which somebody has planned it.

    `store` is None before the first deployment.
    """
    if store is None:
        return []
    nodes = {one.node for one in store.deployments().values() if one.environment == name}
    for reservation in store.reservations():
        if (reservation.configuration or {}).get("environment") == name:
            nodes.add(reservation.node)
    return sorted(nodes)


def remove_environment(root: Path, name: str, users: Callable[[], list[str]]) -> None:
    """Remove the environment `name`, be it damaged, from the folder `root`.

    `users` are nodes that need it. It is asked again when the environment is out of everybody's
    sight: who came in between keeps it. Raises UserError if there are any, or no environment.
    """
    folder = folder_of(root, name)
    _refuse(name, users())
    with scratch_folder(root, name) as scratch, system_errors(scratch):
        hidden = folder.rename(scratch / name)
        try:
            _refuse(name, users())
        except BaseException:
            hidden.rename(folder)
            raise


def _refuse(name: str, users: list[str]) -> None:
    if not users:
        return
    shown = ", ".join(users[:_MOST_NAMES])
    more = f" and {len(users) - _MOST_NAMES} more" if len(users) > _MOST_NAMES else ""
    raise UserError(
        f"{name} is in use by {shown}{more}: give the nodes back, or deploy another environment "
        "on them, and remove it then"
    )
