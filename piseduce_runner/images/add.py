"""Making an environment of an image: the folder appears complete, or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from piseduce_runner.environments import (
    DESCRIPTION,
    LOGIN,
    NAME,
    Environment,
    checked,
    load,
)
from piseduce_runner.errors import UserError
from piseduce_runner.families import Family, load_families
from piseduce_runner.images import tools
from piseduce_runner.images.block_map import mapped_ranges
from piseduce_runner.images.image_file import ImageFile
from piseduce_runner.images.pack import flush, pack, sha256
from piseduce_runner.images.scratch import scratch_folder, system_errors
from piseduce_runner.images.steps import SILENT, Progress
from piseduce_runner.images.survey import Survey, survey
from piseduce_runner.images.unpack import raw_image

_LONGEST_NAME = 100  # characters; the folder's scratch name is longer, and file systems take 255
_ENDINGS = re.compile(r"(\.(img|iso|raw|xz|gz|zst|bz2|zip|tar|tgz))+$")
_TOOLS = ("zstd", "debugfs", "dumpe2fs", "mcopy", "mdir")


@dataclass(frozen=True)
class Wishes:
    """What is said of an image; what is not said is found in it, or in its file's name."""

    name: str | None = None
    family: str | None = None
    login: str | None = None
    boot_directory: str | None = None


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Added:
    """A new environment, and what was found in its image."""

    environment: Environment
    survey: Survey
    notes: tuple[str, ...]


def add_environment(
    file: Path, root: Path, wishes: Wishes = NO_WISHES, progress: Progress = SILENT
) -> Added:
    """Make an environment in the folder `root` (a site's `environments`) of an image.

    Raises UserError, in one line, for whatever makes it impossible; nothing is left then.
    """
    tools.require(*_TOOLS)
    name = wishes.name if wishes.name is not None else name_of(file)
    families = load_families(root.parent)
    check_wishes(name, wishes, families)
    folder = root / name
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: there is an environment of this name; take another (--name)")
    with scratch_folder(root, name) as scratch, system_errors(scratch):
        with raw_image(file, scratch, progress) as image:
            found = survey(image, families.values())
            described, notes = _describe(image, found, wishes, families)
            _make(image, found, scratch, folder, {"name": name} | described, progress)
        _appear(scratch, folder)
    return Added(load(folder), found, notes)


def name_of(file: Path) -> str:
    """An environment's name from its image's: `Raspios_12.img.xz` is `raspios_12`."""
    stem = _ENDINGS.sub("", file.name.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")


def check_wishes(name: str, wishes: Wishes, families: Mapping[str, Family]) -> None:
    """Raises UserError for names of environments, families and users that are none."""
    if not NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"{name!r} cannot be an environment's name: up to {_LONGEST_NAME} of a-z, 0-9, '.', "
            "'_' and '-', a letter or digit first (--name)"
        )
    if wishes.family is not None and wishes.family not in families:
        raise UserError(f"unknown family {wishes.family!r}; there are: {', '.join(families)}")
    if wishes.login is not None and not LOGIN.fullmatch(wishes.login):
        raise UserError(f"{wishes.login!r} cannot be a user's name (--login)")


def _describe(
    image: ImageFile, found: Survey, wishes: Wishes, families: Mapping[str, Family]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The keys of environment.yml that say how to configure the system; and what to tell of it."""
    notes = []
    family, name = found.family, found.system or "no os-release"
    if wishes.family is not None:
        if family is not None and family.name != wishes.family:
            notes.append(f"looks like {family.name} ({name}), taken as {wishes.family} as asked")
        family = families[wishes.family]
    elif family is None:
        raise UserError(
            f"{image.name}: of no family that is known ({name}); if it can be configured like one "
            f"of {', '.join(families)}, say which (--family)"
        )
    if not found.root.system.settled:
        notes.append("its root file system was not cleanly unmounted: all of it will be copied")
    described = {
        "family": family.name,
        "login": wishes.login or family.login,
        "boot_directory": wishes.boot_directory or replace(found, family=family).boot_directory,
        "system": found.system,
    }
    return described, tuple(notes)


def _make(
    image: ImageFile,
    found: Survey,
    scratch: Path,
    folder: Path,
    described: dict[str, str],
    progress: Progress,
) -> None:
    """Fill the scratch folder with an environment's files, checked, and safe on the disk."""
    packed, block_map = scratch / "image.img.zst", scratch / "image.bmap"
    ranges = mapped_ranges(image, found)
    pack(image, ranges, packed, block_map, progress)
    values = described | {
        "image": packed.name,
        "block_map": block_map.name,
        "image_bytes": image.size,
        "mapped_bytes": sum(part.end - part.start for part in ranges),
        "compressed_bytes": packed.stat().st_size,
        "compressed_sha256": sha256(packed),
        "block_map_sha256": sha256(block_map),
        **found.layout,
    }
    checked(folder, values)
    text = yaml.safe_dump(values, sort_keys=False)
    (scratch / DESCRIPTION).write_text(text, encoding="utf-8")
    for file in packed, block_map, scratch / DESCRIPTION:
        file.chmod(0o644)
        flush(file)
    scratch.chmod(0o755)
    flush(scratch)


def _appear(scratch: Path, folder: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        if folder.exists():
            raise UserError(f"{folder}: somebody else has just created it") from None
        raise
    flush(folder.parent)
