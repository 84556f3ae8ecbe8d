"""The gate in front of a state, and the completion event of the one before it.

Ansible announces the start of this task only after all tasks before it have ended well on the node:
that is the completion event of the state before, for which the driver waits. The driver writes it
to its store, and only then opens the gate, so that no state begins before the store knows of it.
Behind the gate the role's arguments are checked against its specification, as Ansible would do in
a task of its own; one task for both, since each costs a process for every node.

Arguments: `gate`, the file that says `go` or `stop`, empty where there is no gate;
`argument_spec`, a JSON file with the options of the role's entry point, empty at the end of a
stretch. (In the arguments themselves, Ansible would template every word of it for every node.)
"""

import gc
import json
import time
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# Ansible imports this once, before it forks a worker for every task and node. What is frozen now is
# not looked through by the workers' garbage collection, which would copy every page of it.
gc.collect()
gc.freeze()

# A driver that lives answers within a fraction of a second; without one the node must not go on.
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02


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
        return result


def _wait(gate):
    limit = time.monotonic() + PATIENCE_SECONDS
    while not gate.exists():
        if time.monotonic() > limit:
            raise AnsibleActionFail("the driver has not answered: the node goes no further")
        time.sleep(POLL_SECONDS)
    if gate.read_text("utf-8") != "go":
        raise AnsibleActionFail("the driver has given this node up")
