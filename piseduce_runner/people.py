"""Who asks, and whose nodes they may touch.

This keeps colleagues from treading on each other's nodes by mistake. It is no wall: whoever may
write the store may do anything.
"""

import getpass
import os
import re
from dataclasses import dataclass

from piseduce_runner.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Person:
    """Somebody who gives commands. Admins may act in other people's name, and by force."""

    name: str
    is_admin: bool


def current_person(admins: frozenset[str]) -> Person:
    """Who typed the command: behind sudo(8) the one who called it. Root itself is an admin."""
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    return Person(name, is_admin=name == "root" or name in admins)


def check_name(owner: str) -> None:
    """An owner is a login name or a mail address. Raises `UserError`."""
    if not _NAME.fullmatch(owner):
        raise UserError(f"owner {owner!r} is not understood; letters, digits and . _ @ - only")


def acting_for(person: Person, owner: str | None) -> str:
    """Whose nodes a command is about. Raises `UserError` when it is not theirs to say."""
    if owner is None or owner == person.name:
        return person.name
    check_name(owner)
    if not person.is_admin:
        raise UserError(
            f"only an admin acts in the name of {owner}; you are {person.name}"
            " (piseduce_admins in the inventory names the admins)"
        )
    return owner


def check_may_touch(person: Person, node: str, holder: str, *, owner: str, force: bool) -> bool:
    """Whether it takes force to touch `holder`'s node in the name of `owner`.

    Raises `UserError` when there is none, or the person may not use it.
    """
    if holder == owner:
        return False
    if not force:
        raise UserError(
            f"{node} is {holder}'s; ask them, or have an admin use --force, which is journalled"
        )
    if not person.is_admin:
        raise UserError(
            f"{node} is {holder}'s, and only an admin may use --force; you are {person.name}"
            " (piseduce_admins in the inventory names the admins)"
        )
    return True
