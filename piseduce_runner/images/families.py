"""How to tell an image's family: by what is in it, never by its name."""

from collections.abc import Iterable

from piseduce_runner.families import NO_OS_RELEASE, Family, Sign
from piseduce_runner.images.content import Volume


def recognise(families: Iterable[Family], boot: Volume, root: Volume, os_id: str) -> Family | None:
    """The first family of which a sign fits; None for an image of no family that we know.

    `os_id` is ID in os-release(5); empty for a system without one.
    """
    for family in families:
        if any(_fits(sign, boot, root, os_id or NO_OS_RELEASE) for sign in family.recognised_by):
            return family
    return None


def _fits(sign: Sign, boot: Volume, root: Volume, os_id: str) -> bool:
    if os_id not in sign.os_release:
        return False
    if not sign.boot_has and not sign.root_has:
        return True
    return any(map(boot.has, sign.boot_has)) or any(map(root.has, sign.root_has))
