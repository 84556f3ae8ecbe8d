# SPDX-License-Identifier: MIT
"""The steps that a family's file can name for system_conf, by name."""

from __future__ import annotations

from ansible.module_utils import (
    piseduce_cloud_init,
    piseduce_linux,
    piseduce_picore,
    piseduce_raspbian,
)
from ansible.module_utils.piseduce_process import Failure, Hopeless

STEPS = {
    step.__name__: step
    for step in (
        piseduce_linux.hostname,
        piseduce_linux.root_key,
        piseduce_linux.openssh,
        piseduce_linux.root_on_card,
        piseduce_linux.kernel_arguments,
        piseduce_linux.remove_files,
        piseduce_linux.write_files,
        piseduce_raspbian.raspberry_first_boot,
        piseduce_cloud_init.without_cloud_init,
        piseduce_cloud_init.cloud_init,
        piseduce_picore.picore,
    )
}
NEED_ARGUMENT = ("kernel_arguments", "remove_files", "write_files")


def parse_steps(steps):
    """The steps of a family's file as [(name, argument or None)].

    :raises Hopeless: one is not known, or lacks what it needs
    """
    parsed = []
    for step in steps:
        name, argument = next(iter(step.items())) if isinstance(step, dict) else (step, None)
        if name not in STEPS:
            raise Hopeless(f"system_conf has no step {name!r}; there are: {', '.join(STEPS)}")
        if (argument is None) == (name in NEED_ARGUMENT):
            needs = "needs an argument" if name in NEED_ARGUMENT else "takes no argument"
            raise Hopeless(f"step {name} of system_conf {needs}")
        parsed.append((name, argument))
    return parsed


def plan(system, steps, never_on_boot):
    """Let the steps say what they want; the system's plans hold it afterwards.

    :param steps: as from a family's file
    :param never_on_boot: files that must not be on the boot partition
    :raises Failure: the image lacks what a step needs, or none of the steps made a host key
    """
    for name, argument in parse_steps(steps):
        STEPS[name](system, argument)
    system.boot.remove(*never_on_boot)
    if not system.host_key:
        raise Failure("no step of system_conf has made an SSH host key, so none can be expected")
