"""The gate in front of a state, and the completion event of the one before it.

Ansible announces the start of this task only after all tasks before it have ended well on the node:
that is the completion event of the state before, for which the driver waits. The driver writes it
to its store, and opens the gate when the node may enter, so that no state begins before the store
knows of it. A node may wait at its gate for long, for a place in the state's window; it stops when
the driver has died.
Behind the gate the role's arguments are checked against its specification, as Ansible would do in
a task of its own; one task for both, since each costs a process for every node.

Arguments: `gate`, the file that says `go` or `stop`, empty where there is no gate;
`argument_spec`, a JSON file with the options of the role's entry point, empty at the end of a
stretch. (In the arguments themselves, Ansible would template every word of it for every node.)
"""

import fcntl
import gc
import importlib.util
import json
import time
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


def _guard_against_nodes():
    """What node_words.py does; this plugin is the first that every run loads."""
    file = Path(__file__).with_name("node_words.py")
    spec = importlib.util.spec_from_file_location("piseduce_node_words", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.guard()


_guard_against_nodes()

# Ansible imports this once, before it forks a worker for every task and node. What is frozen now is
# not looked through by the workers' garbage collection, which would copy every page of it.
gc.collect()
gc.freeze()

POLL_SECONDS = 0.02
# How often a node that waits looks whether its driver is alive.
LOOK_SECONDS = 1.0
# Beside the folder of the gates; the driver holds a lock on it as long as it lives.
DRIVER_FILE = "driver"


class ActionModule(ActionBase):
    """Waits for the driver's word, then checks the arguments of the state's role."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        if gate := self._task.args["gate"]:
            _wait(Path(gate))
        if specification := self._task.args["argument_spec"]:
            options = json.loads(Path(specification).read_text("utf-8"))
            result |= self._check_arguments(options, task_vars)
        return result | {"changed": False}

    def _check_arguments(self, options, task_vars):
        check = self._task.copy()
        check.args = {"argument_spec": options}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.validate_argument_spec",
            task=check,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result = action.run(task_vars=task_vars)
        # The whole specification would be printed for every mistake.
        result.pop("argument_spec_data", None)
        # Arguments do not mend themselves.
        return result | ({"hopeless": True} if result.get("failed") else {})


def _wait(gate):
    next_look = time.monotonic() + LOOK_SECONDS
    while not gate.exists():
        if time.monotonic() > next_look:
            if _has_died(gate.parent.parent / DRIVER_FILE):
                raise AnsibleActionFail("the driver has died: the node goes no further")
            next_look += LOOK_SECONDS
        time.sleep(POLL_SECONDS)
    if gate.read_text("utf-8") != "go":
        raise AnsibleActionFail("the driver has given this node up")


def _has_died(driver):
    try:
        with driver.open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        # The run has ended and its folder is gone.
        return True
    return True
