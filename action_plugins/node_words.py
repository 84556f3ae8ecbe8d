"""What comes from a node is bounded and harmless before Ansible goes on with it.

Whoever is root on a node decides what its modules answer. Ansible itself believes the answer in
places where it must not, for one node could then end the run of all, or speak for another:

* ansible-runner takes events out of what Ansible prints, between terminal control sequences
  (ansible_runner.utils.OutputEventFilter). A node whose message holds such a sequence would write
  events of other nodes: a state proven, a host key to be remembered.
* `ansible_stats` in an answer is read without a look at its type, outside of all error handling.
* An answer that does not end is collected in memory until the manager has none left.

This is no plugin. `enter_state` loads it, before Ansible forks the first worker for a node.
"""

import functools
import os
import resource
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Characters that are kept of what a module or a command says. The modules of this project say some
# thousand, and a team's `command` may print more.
LONGEST_ANSWER = 1 << 20
# Bytes of memory that a worker may take beyond what Ansible has when it is forked. What the worker
# starts has as much, and may ask for more.
WORKER_MEMORY = 256 << 20


def guard():
    """From now on, in this process and its workers."""
    Display.display = _without_controls(Display.display)
    ActionBase._low_level_execute_command = _bounded(ActionBase._low_level_execute_command)
    ActionBase._parse_returned_data = _without_orders(ActionBase._parse_returned_data)
    limit = _data_bytes() + WORKER_MEMORY
    os.register_at_fork(after_in_child=lambda: _limit_memory(limit))


def harmless(text):
    """The text without control characters, but for line ends and tabs."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def _without_controls(display):
    @functools.wraps(display)
    def display_harmless(self, msg, *arguments, **options):
        return display(self, harmless(str(msg)), *arguments, **options)

    return display_harmless


def _bounded(execute):
    @functools.wraps(execute)
    def execute_bounded(self, *arguments, **options):
        try:
            result = execute(self, *arguments, **options)
        except MemoryError as error:
            raise AnsibleError("the node's answer does not end") from error
        said = len(result["stdout"]) + len(result["stderr"])
        if said > LONGEST_ANSWER:
            raise AnsibleError(
                f"the node's answer has {said} characters, more than {LONGEST_ANSWER}"
            )
        return result

    return execute_bounded


def _without_orders(parse):
    @functools.wraps(parse)
    def parse_without_orders(self, *arguments, **options):
        data = parse(self, *arguments, **options)
        data.pop("ansible_stats", None)
        return data

    return parse_without_orders


def _data_bytes():
    """What this process has of what RLIMIT_DATA limits: proc_pid_statm(5), field 6, in pages."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[5]) * resource.getpagesize()


def _limit_memory(limit):
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
