"""How to tell an image's family: by what is in it, never by its name.

A new family is one more `Sign`; the first that fits counts.
"""

from dataclasses import dataclass

from piseduce_runner.images.content import Volume

NO_OS_RELEASE = ""


@dataclass(frozen=True)
class Sign:
    """What the images of a family have in common, and what they do not say themselves."""

    family: str
    login: str  # the default user
    os_ids: tuple[str, ...]  # ID in os-release: one of these
    boot_has: tuple[str, ...] = ()  # and one of these is on the boot partition
    or_root_has: tuple[str, ...] = ()  # or, instead, one of these on the root partition
    boot_directory: str | None = None  # where the system mounts its boot partition; None: ask it


# A Debian for other machines has none of these.
_PI_FIRMWARE = ("start.elf", "start4.elf", "bootcode.bin", "config.txt", "kernel8.img")

SIGNS = (
    Sign("ubuntu", login="ubuntu", os_ids=("ubuntu",), boot_has=_PI_FIRMWARE),
    Sign("raspbian", login="pi", os_ids=("raspbian",)),
    Sign("raspbian", login="pi", os_ids=("debian",), boot_has=_PI_FIRMWARE),
    # Its root is in a RAM disk; the partition holds packages and what is kept over a reboot.
    Sign(
        "picore",
        login="tc",
        os_ids=(NO_OS_RELEASE, "tinycore", "picore"),
        boot_has=("tce", "mydata.tgz", "cmdline3.txt"),
        or_root_has=("tce",),
        boot_directory="/mnt/mmcblk0p1",
    ),
)


def recognise(boot: Volume, root: Volume, os_id: str) -> Sign | None:
    """The sign that fits; None for an image of no family that we know."""
    for sign in SIGNS:
        if os_id in sign.os_ids and _is_there(sign, boot, root):
            return sign
    return None


def sign_of(family: str) -> Sign | None:
    """The first sign of a family."""
    return next((sign for sign in SIGNS if sign.family == family), None)


def _is_there(sign: Sign, boot: Volume, root: Volume) -> bool:
    if not sign.boot_has and not sign.or_root_has:
        return True
    return any(map(boot.has, sign.boot_has)) or any(map(root.has, sign.or_root_has))
