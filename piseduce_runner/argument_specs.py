"""Reads what a role documents of its arguments (`meta/argument_specs.yml`)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from piseduce_runner.errors import UserError


def load_argument_spec(role: str, folders: Iterable[Path]) -> dict[str, Any]:
    """The options that the role's `main` entry point documents; none when it documents none.

    Raises `UserError` when the file is not what Ansible expects.
    """
    folder = next((folder / role for folder in folders if (folder / role).is_dir()), None)
    for name in ("argument_specs.yml", "argument_specs.yaml") if folder else ():
        path = folder / "meta" / name
        if path.is_file():
            try:
                content = yaml.safe_load(path.read_text("utf-8"))
                options = content["argument_specs"].get("main", {}).get("options", {})
            except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError) as error:
                raise UserError(f"{path}: it holds no argument_specs that can be read") from error
            except AttributeError as error:
                raise UserError(f"{path}: argument_specs or main is no mapping") from error
            if not isinstance(options, dict):
                raise UserError(f"{path}: the options of main are no mapping")
            return options
    return {}
