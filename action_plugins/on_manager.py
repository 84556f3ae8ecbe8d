"""Runs a module of ours that works on the manager without starting a Python for it.

Ansible packs a module into an archive, starts a Python, and compiles the module and all that it
imports anew, for every node and task: 0.3 to 0.5 s of CPU here, seconds on a Raspberry Pi. This
plugin stands beside such a module under the module's name (a symbolic link). Ansible imports it
once, before it forks a worker for each node; the module is imported with it, and its `main` then
runs in the worker. What the module says, and how it ends, is the same.

Only where the task runs on the manager (`delegate_to: localhost`, or a local connection).
Everywhere else the module is sent as usual.
"""

import contextlib
import importlib.util
import io
import json
import os
import sys
from pathlib import Path

import ansible.module_utils
from ansible.module_utils import basic
from ansible.plugins.action import ActionBase

_HERE = Path(__file__)
_ROOT = _HERE.parent.parent


def _import_module(name: str):
    """The module's code, from library/. What it imports of module_utils/ is found as on a node."""
    shared = str(_ROOT / "module_utils")
    if shared not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(shared)
    spec = importlib.util.spec_from_file_location(
        f"piseduce_library.{name}", _ROOT / "library" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Under its own name this file stands for no module.
_MODULE = _import_module(_HERE.stem) if _HERE.stem != "on_manager" else None


class ActionModule(ActionBase):
    """Calls the module's `main` in this very process, which is the node's worker."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if self._connection.transport != "local":
            return result | self._execute_module(task_vars=task_vars)
        # The task's environment marks what the module starts as the node's: see state.yml.
        environment = {}
        self._compute_environment_string(environment)
        os.environ.update(environment)
        arguments = dict(self._task.args)
        self._update_module_args(self._task.action, arguments, task_vars)
        return result | _call(arguments)


def _call(arguments):
    output = io.StringIO()
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        _MODULE.main()
    return json.loads(output.getvalue())
