"""Runs a module of ours that works on the manager without starting a Python for it.

Ansible packs a module into an archive, starts a Python, and compiles the module and all that it
imports anew, for every node and task: 0.3 to 0.5 s of CPU here, seconds on a Raspberry Pi. This
plugin stands beside such a module under the module's name (a symbolic link). Ansible imports it
once, before it forks a worker for each node; the module is imported with it, and its `main` then
runs in a child of the worker. What the module says, and how it ends, is the same.

A child, because at a node's deadline its module has to be ended, and a worker must not be: Ansible
gives up the whole run when it misses one. The child carries the node's name in its command line,
where the runner looks for it (leftovers.py), and `ps` shows it.

Only where the task runs on the manager (`delegate_to: localhost`, or a local connection).
Everywhere else the module is sent as usual.
"""

import contextlib
import ctypes
import importlib.util
import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import ansible.module_utils
from ansible.module_utils import basic
from ansible.plugins.action import ActionBase

_HERE = Path(__file__)
_ROOT = _HERE.parent.parent
_PR_SET_PDEATHSIG = 1  # prctl(2)


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
    """Calls the module's `main` in a child of this process, which is the node's worker."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if self._connection.transport != "local":
            return result | self._execute_module(task_vars=task_vars)
        # The task's environment marks the module, and what it starts, as the node's: see state.yml.
        environment = {}
        self._compute_environment_string(environment)
        arguments = dict(self._task.args)
        self._update_module_args(self._task.action, arguments, task_vars)
        return result | _run_in_child(arguments, environment)


def _run_in_child(arguments, environment):
    """The module's result, or why there is none."""
    reader, writer = os.pipe()
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        _be_child(worker, writer, arguments, environment)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            said = stream.read()
    except BaseException:  # Ansible's own `timeout:` ends the wait with an exception
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return {"failed": True, "msg": f"{_HERE.stem} was ended at its deadline ({name})"}
    if not said:
        return {"failed": True, "msg": f"{_HERE.stem} ended without a result"}
    return json.loads(said)


def _be_child(worker, writer, arguments, environment):
    """Run the module and tell its result; never returns."""
    try:
        # The end of the worker, however it comes, is the end of its module.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != worker:
            return
        # Ansible's handlers are for its own processes.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.environ.update(environment)
        _set_title(f"PISEDUCE_NODE={environment.get('PISEDUCE_NODE', '')} {_HERE.stem}")
        # A module that has a deadline looks at its standard output: is anybody left to listen?
        os.dup2(writer, 1)
        said = _call(arguments)
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            stream.write(said)
    finally:
        # Not the worker's own end a second time: no handlers, no buffers, no `finally` of it.
        os._exit(0)


def _call(arguments):
    """The module's result as it says it, JSON."""
    output = io.StringIO()
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    basic._ANSIBLE_PROFILE = "legacy"
    try:
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            _MODULE.main()
    except Exception as problem:  # noqa: BLE001 (what a module does not catch is its failure)
        message = f"{_HERE.stem} failed: {problem!r}"
        return json.dumps({"failed": True, "msg": message, "exception": traceback.format_exc()})
    return output.getvalue()


def _set_title(title):
    """Write over this process's own arguments, which is what /proc/PID/cmdline shows.

    proc_pid_stat(5): fields 48 and 49, `arg_start` and `arg_end`, are where they lie in memory.
    Nothing reads them any more: Python has long copied them. A title that has no room there (a path
    or two of Ansible's own command line) is not set.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[48 - 3]), int(fields[49 - 3])
    data = title.encode()
    # The last byte stays 0: the kernel takes anything else for a title that goes on elsewhere.
    if len(data) < end - start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, data, len(data))
