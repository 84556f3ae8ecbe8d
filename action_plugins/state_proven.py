"""The marker at the end of a state, and the gate to the next one.

Ansible announces the start of this task only after the state's role has ended well on the node:
that is the completion event which the driver waits for. The driver writes it to its store, and
only then opens the gate, so that no state begins before the store knows of it. The last state of
a stretch has no gate.

The gate is a file `<node>.<position>` in the run's folder, which says `go` or `stop`.
"""

import time
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# A driver that lives answers within a fraction of a second; without one the node must not go on.
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02


class ActionModule(ActionBase):
    """Waits for the driver's word before the node enters its next state."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        arguments = self._task.args
        if arguments["last"]:
            return {"changed": False}
        gate = Path(
            arguments["folder"], f"{task_vars['inventory_hostname']}.{arguments['position']}"
        )
        limit = time.monotonic() + PATIENCE_SECONDS
        while not gate.exists():
            if time.monotonic() > limit:
                raise AnsibleActionFail("the driver has not answered: the node goes no further")
            time.sleep(POLL_SECONDS)
        if gate.read_text("utf-8") != "go":
            raise AnsibleActionFail("the driver has given this node up")
        return {"changed": False}
