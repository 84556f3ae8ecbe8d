"""Runs Ansible. The only file that knows ansible-runner.

ansible-runner's own `timeout=` leaves Ansible's workers alive, so a run is ended here, process by
process; see leftovers.py.
"""

import configparser
import json
import os
import re
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.facts import are_facts
from piseduce_runner.leftovers import end_run
from piseduce_runner.processes import State
from piseduce_runner.run_folder import (
    ENTER_ACTION,
    PRIVATE_DATA,
    hold_run_folder,
    make_run_folder,
    write_inventory,
    write_states,
)
from piseduce_runner.runlog import NodeLog, failure_message, harmless
from piseduce_runner.runs import (
    Batch,
    Remembered,
    Report,
    RunEnded,
    StateFailed,
    StateProven,
)

# Every process of a run carries this variable in its environment.
_RUN_VARIABLE = "PISEDUCE_RUN"
# state.yml gives it to every command that runs for a node.
_NODE_VARIABLE = "PISEDUCE_NODE"
# How long a task of a node that was given up may take to start its command, before it is ended.
_RESPITE_SECONDS = 0.5


class RunFailed(Exception):
    """A playbook did not end well; the message is one line for people."""


@dataclass
class _Activity:
    """Where a node of a run is: how many states it has entered, and the task at hand."""

    entered: int = 0
    task: str = ""
    given_up: bool = False
    finished: bool = False

    @property
    def state(self) -> int:
        """Which of the run's states the node is in, from 0. Before the first it is the first."""
        return max(0, self.entered - 1)


class AnsibleRunner:
    """Takes batches of nodes through states with `playbooks/state.yml`.

    `inventory` is the site's; `roles` are the folders to search for roles, a site's own first.
    """

    def __init__(self, inventory: Path, roles: list[Path]) -> None:
        self._inventory = inventory
        self._roles = roles

    def start(self, batch: Batch, report: Report) -> "AnsibleRun":
        """Start one run in a thread of its own."""
        run = AnsibleRun(self._inventory, self._roles, batch, report)
        run.start()
        return run


class AnsibleRun:
    """One run of `playbooks/state.yml`. See `runs.Run`."""

    def __init__(self, inventory: Path, roles: list[Path], batch: Batch, report: Report) -> None:
        self.batch = batch
        self._inventory = inventory
        self._roles = roles
        self._report = report
        self._folder = make_run_folder()
        self._lock_file = hold_run_folder(self._folder)
        self._id = self._folder.name
        self._gates = self._folder / "gates"
        self._lock = threading.Lock()
        self._ended = False
        self._last_words = ""
        self._nodes = {node: _Activity() for node in batch.nodes}
        self._logs = {node: NodeLog(path) for node, path in batch.logs.items()}

    def start(self) -> None:
        """Prepare the run's folder and start the thread."""
        self._gates.mkdir()
        variables = {
            node: own | {"state_timeouts": _by_text(self.batch.timeouts[node])}
            for node, own in self.batch.variables.items()
        }
        write_inventory(self._folder, variables)
        write_states(self._folder, self._gates, self.batch.states, self._roles)
        threading.Thread(target=self._work, name=self._id, daemon=True).start()

    def enter(self, node: str, position: int) -> None:
        """Open the gate in front of the state at `position`."""
        self._answer(node, position, "go")

    def end_node(self, node: str) -> str:
        """End the node's part of the run: its SSH client, or its module on the manager."""
        with self._lock:
            activity = self._nodes[node]
            activity.given_up = True
            idle = all(one.given_up or one.finished for one in self._nodes.values())
        for state in self.batch.states:
            self._answer(node, state.position, "stop")
        if idle:
            self.end()
        else:
            self._end_commands(node)
            # A task that was announced a moment ago may not have started its command yet.
            threading.Timer(_RESPITE_SECONDS, self._end_commands, [node]).start()
        return f"in task: {activity.task}" if activity.task else ""

    def end(self) -> None:
        """End every process of the run, workers and SSH masters too."""
        self._ended = True
        end_run(self._id, str(self._folder))

    # in the run's own thread

    def _work(self) -> None:
        error = ""
        try:
            result = ansible_runner.run(
                private_data_dir=str(self._folder / PRIVATE_DATA),
                playbook=str(paths.ansible_dir() / "playbooks" / "state.yml"),
                inventory=[str(self._inventory), str(self._folder / "run.yml")],
                extravars={
                    "run_nodes": ",".join(self.batch.nodes),
                    "run_states": str(self._folder / "states.yml"),
                }
                | _strict_ssh(),
                forks=len(self.batch.nodes),
                envvars=_environment(self._folder, self._roles) | {_RUN_VARIABLE: self._id},
                event_handler=self._handle,
                # Without one, ansible-runner replaces the main thread's signal handlers.
                cancel_callback=lambda: self._ended,
                settings=_SETTINGS,
                quiet=True,
            )
            if result.rc != 0 and not self._ended:
                error = self._why(result.rc)
        # An exception in a thread would be lost, and the driver wait for ever.
        except Exception as problem:  # noqa: BLE001
            error = f"ansible-runner failed: {problem!r}"
        finally:
            self._sweep()
        self._report(RunEnded(self, error))

    def _why(self, status: int | None) -> str:
        """Why a run has ended before its time. What it said last may have nothing to do with it."""
        if status is None:
            return "ansible-playbook was killed by a signal (is the manager short of memory?)"
        return self._last_words or f"ansible-playbook ended with status {status}"

    def _sweep(self) -> None:
        """End what Ansible left (SSH masters persist on purpose) and remove the folder."""
        end_run(self._id, str(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock_file.close()
        for log in self._logs.values():
            log.close()

    def _handle(self, event: dict[str, Any]) -> bool:
        """Takes ansible-runner's events; False keeps them off the disk."""
        data = event.get("event_data", {})
        node = data.get("host")
        text = event.get("stdout", "")
        if node not in self._nodes:
            if text.strip():
                self._last_words = harmless(_last_line(text)) or self._last_words
            return False
        activity = self._nodes[node]
        kind, task = event["event"], data.get("task", "")
        if kind == "runner_on_start" and activity.given_up:
            # It was between two tasks when it was given up: what this one starts is ended too.
            threading.Timer(_RESPITE_SECONDS, self._end_commands, [node]).start()
        elif kind == "runner_on_start":
            self._on_task_start(node, activity, data.get("task_action", ""), task)
        elif kind in ("runner_on_ok", "runner_item_on_ok"):
            self._logs[node].write(data, text)
            facts = (data.get("res") or {}).get("remember")
            if facts and not activity.given_up:
                self._on_facts(node, activity, task, facts)
        elif kind == "runner_on_skipped":
            self._logs[node].write(data, text)
        elif kind in ("runner_on_failed", "runner_on_unreachable"):
            self._logs[node].write(data, text)
            if not data.get("ignore_errors"):
                self._on_failure(node, activity, task, data.get("res") or {})
        return False

    def _on_task_start(self, node: str, activity: _Activity, action: str, task: str) -> None:
        activity.task = task
        if action != ENTER_ACTION:
            return
        proven = activity.state
        with self._lock:
            activity.entered += 1
            activity.finished = activity.entered > len(self.batch.states)
        if not activity.finished:
            self._logs[node].begin_state(self._state_of(activity).name)
        if activity.entered > 1:
            self._report(StateProven(self, node, self.batch.states[proven].position))

    def _on_facts(self, node: str, activity: _Activity, task: str, facts: Any) -> None:
        if are_facts(facts):
            self._report(Remembered(self, node, self._state_of(activity).position, facts))
        else:
            message = "what it wants remembered is not a dictionary of short words and numbers"
            self._on_failure(node, activity, task, {"msg": message})

    def _on_failure(
        self, node: str, activity: _Activity, task: str, result: dict[str, Any]
    ) -> None:
        with self._lock:
            if activity.given_up or activity.finished:
                return
            activity.finished = True
        reason, hopeless = failure_message(task, result), result.get("hopeless") is True
        self._report(StateFailed(self, node, self._state_of(activity).position, reason, hopeless))

    # small parts

    def _end_commands(self, node: str) -> None:
        """End the commands that run for the node on the manager: SSH clients, local modules."""
        end_run(self._id, str(self._folder), assignment=f"{_NODE_VARIABLE}={node}")

    def _answer(self, node: str, position: int, word: str) -> None:
        gate = self._gates / f"{node}.{position}"
        partial = gate.with_suffix(gate.suffix + ".new")
        try:
            partial.write_text(word, "utf-8")
            partial.rename(gate)
        except FileNotFoundError:
            # The run has ended and its folder is gone: nobody waits at the gate.
            return

    def _state_of(self, activity: _Activity) -> State:
        return self.batch.states[activity.state]


def _by_text(timeouts: dict[int, float]) -> dict[str, int]:
    """Whole seconds by position, as the tasks of the run look them up."""
    return {str(position): int(seconds) for position, seconds in timeouts.items()}


def run_playbook(playbook: str, inventory: Path, extra_vars: dict[str, Any], log: Path) -> None:
    """Run one of our playbooks on localhost to its end.

    `playbook` is a file name in `playbooks/`; Ansible's output goes to `log`. Raises `RunFailed`.
    """
    folder = make_run_folder()
    failures: list[str] = []
    with log.open("a", encoding="utf-8") as output:

        def handle(event: dict[str, Any]) -> bool:
            output.write(event.get("stdout", "") + "\n" if event.get("stdout") else "")
            data = event.get("event_data", {})
            if event["event"] in ("runner_on_failed", "runner_on_unreachable"):
                failures.append(failure_message(data.get("task", ""), data.get("res") or {}))
            elif event["event"] in ("verbose", "error") and "ERROR" in event.get("stdout", ""):
                failures.append(_last_line(event["stdout"]))
            return False

        try:
            result = ansible_runner.run(
                private_data_dir=str(folder / PRIVATE_DATA),
                playbook=str(paths.ansible_dir() / "playbooks" / playbook),
                inventory=str(inventory),
                extravars=extra_vars,
                envvars=_environment(folder, [paths.ansible_dir() / "roles"]),
                event_handler=handle,
                cancel_callback=lambda: False,
                settings=_SETTINGS,
                quiet=True,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if result.rc != 0:
        reason = failures[0] if failures else f"ansible-playbook ended with status {result.rc}"
        raise RunFailed(f"{playbook}: {reason} (see {log})")


def read_inventory(inventory: Path) -> dict[str, Any]:
    """The inventory as `ansible-inventory --list` gives it. Raises `UserError` when it is wrong."""
    folder = make_run_folder()
    try:
        # By its path: the virtual environment need not be on the user's PATH.
        output, errors, _ = ansible_runner.run_command(
            executable_cmd=str(Path(sys.executable).with_name("ansible-inventory")),
            cmdline_args=["--list", "-i", str(inventory)],
            private_data_dir=str(folder / PRIVATE_DATA),
            envvars=_environment(folder, []),
            # Its own streams: through a terminal, warnings would stand in the midst of the JSON.
            runner_mode="subprocess",
            quiet=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        return json.loads(output)
    except json.JSONDecodeError as error:
        # Never of its output: the inventory's secrets are in it.
        problem = _inventory_problem(errors)
        raise UserError(f"{inventory}: Ansible cannot read it: {problem}") from error


def resolve_variables(inventory: Path, host: str, names: list[str]) -> dict[str, Any]:
    """These variables of a host as roles get them: vaults opened, templates filled in.

    The inventory's own listing (`read_inventory`) has neither. Raises `UserError`.
    """
    folder = make_run_folder()
    results: list[dict[str, Any]] = []

    def handle(event: dict[str, Any]) -> bool:
        if event["event"] in ("runner_on_ok", "runner_on_failed"):
            results.append(event["event_data"].get("res") or {})
        return False

    wanted = ", ".join(repr(name) for name in names)
    try:
        ansible_runner.run(
            private_data_dir=str(folder / PRIVATE_DATA),
            inventory=str(inventory),
            host_pattern=host,
            module="ansible.builtin.debug",
            module_args=f"msg={{{{ lookup('ansible.builtin.vars', {wanted}, wantlist=true) }}}}",
            envvars=_environment(folder, []),
            event_handler=handle,
            cancel_callback=lambda: False,
            settings=_SETTINGS,
            quiet=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    values = results[0].get("msg") if results else None
    if not isinstance(values, list) or len(values) != len(names):
        reason = values if isinstance(values, str) else "it gave no reason"
        raise UserError(f"{inventory}: {host}: Ansible cannot fill in {wanted}: {reason}")
    return dict(zip(names, values, strict=True))


def _inventory_problem(text: str) -> str:
    """Ansible tries a file as every kind of inventory and complains of each: what YAML said."""
    parts = [" ".join(part.split()) for part in re.split(r"\[(?:WARNING|ERROR)\]: ", text)]
    best = [part for part in parts if "'yaml' plugin" in part] or [part for part in parts if part]
    return (best or ["it gave no reason"])[0][:400]


_SETTINGS = {
    # How often a run looks whether it was cancelled, in seconds.
    "pexpect_timeout": 1,
    "suppress_ansible_output": True,
    "suppress_output_file": True,
}

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in _ANSI.sub("", text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _environment(folder: Path, roles: list[Path]) -> dict[str, str]:
    """Environment of a run. Everything that Ansible writes for itself goes below `folder`."""
    _forget_own_settings()
    return {
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_CONFIG": str(paths.ansible_dir() / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        "ANSIBLE_ROLES_PATH": os.pathsep.join(str(path) for path in roles),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        # A site is read the same way whatever the admin's locale is.
        "LC_ALL": "C.UTF-8",
    }


def _strict_ssh() -> dict[str, Any]:
    """Variables that hold against those of an inventory: they must not have ssh accept any key.

    Ansible gives ssh what `ansible_host_key_checking: false` means before a node's own options.
    """
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(paths.ansible_dir() / "ansible.cfg", encoding="utf-8")
    own = settings["ssh_connection"]["ssh_args"]
    return {
        "ansible_host_key_checking": True,
        "ansible_ssh_host_key_checking": True,
        "ansible_ssh_args": f"-o StrictHostKeyChecking=yes {own}",
        "ansible_ssh_extra_args": "",
    }


def _forget_own_settings() -> None:
    """Drop the admin's own settings of Ansible, which ansible-runner would pass on.

    They must not weaken a run: ANSIBLE_HOST_KEY_CHECKING=False makes ssh accept any key.
    """
    for name in list(os.environ):
        if name.startswith("ANSIBLE_") and not name.startswith("ANSIBLE_VAULT_"):
            del os.environ[name]
