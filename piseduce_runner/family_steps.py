"""The steps that system_conf knows, for the runner itself: the module's own list."""

from typing import Any

import ansible.module_utils

from piseduce_runner import paths

# What Ansible does for a module: ours are found below ansible.module_utils.
ansible.module_utils.__path__.append(str(paths.ansible_dir() / "module_utils"))

from ansible.module_utils.piseduce_process import Failure  # noqa: E402
from ansible.module_utils.piseduce_steps import parse_steps  # noqa: E402


def check_steps(steps: tuple[str | dict[str, Any], ...]) -> None:
    """Whether system_conf has these steps, with what they need. Raises `ValueError`."""
    try:
        parse_steps(steps)
    except Failure as failure:
        raise ValueError(str(failure)) from None
