"""Runs Ansible. The only file that knows ansible-runner.

ansible-runner is given a folder of its own for every run, below the runtime directory (a tmpfs),
which is removed afterwards: it writes arguments and the environment into it. Its own `timeout=`
leaves Ansible's workers alive, so a run is ended here, process by process.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import yaml

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.leftovers import end_processes, find_processes
from piseduce_runner.processes import State
from piseduce_runner.runlog import NodeLog, failure_message
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
_PRIVATE_DATA = "ansible-runner"
_ENTER_ACTION = "enter_state"


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
        self._folder = _make_run_folder()
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
        self._write_inventory()
        self._write_states()
        threading.Thread(target=self._work, name=self._id, daemon=True).start()

    def go_on(self, node: str, position: int) -> None:
        """Open the gate behind the state at `position`."""
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
            theirs = f"{_NODE_VARIABLE}={node}"
            end_processes(find_processes(self._id, str(self._folder), assignment=theirs))
        return f"in task: {activity.task}" if activity.task else ""

    def end(self) -> None:
        """End every process of the run, workers and SSH masters too."""
        self._ended = True
        end_processes(find_processes(self._id, str(self._folder)))

    # in the run's own thread

    def _work(self) -> None:
        error = ""
        try:
            result = ansible_runner.run(
                private_data_dir=str(self._folder / _PRIVATE_DATA),
                playbook=str(paths.ansible_dir() / "playbooks" / "state.yml"),
                inventory=[str(self._inventory), str(self._folder / "run.yml")],
                extravars={
                    "run_nodes": ",".join(self.batch.nodes),
                    "run_states": str(self._folder / "states.yml"),
                },
                forks=len(self.batch.nodes),
                envvars=_environment(self._folder, self._roles) | {_RUN_VARIABLE: self._id},
                event_handler=self._handle,
                # Without one, ansible-runner replaces the main thread's signal handlers.
                cancel_callback=lambda: self._ended,
                settings=_SETTINGS,
                quiet=True,
            )
            if result.rc != 0 and not self._ended:
                error = self._last_words or f"ansible-playbook ended with status {result.rc}"
        # An exception in a thread would be lost, and the driver wait for ever.
        except Exception as problem:  # noqa: BLE001
            error = f"ansible-runner failed: {problem!r}"
        finally:
            self._sweep()
        self._report(RunEnded(self, error))

    def _sweep(self) -> None:
        """End what Ansible left (SSH masters persist on purpose) and remove the folder."""
        end_processes(find_processes(self._id, str(self._folder)))
        shutil.rmtree(self._folder, ignore_errors=True)
        for log in self._logs.values():
            log.close()

    def _handle(self, event: dict[str, Any]) -> bool:
        """Takes ansible-runner's events; False keeps them off the disk."""
        data = event.get("event_data", {})
        node = data.get("host")
        text = event.get("stdout", "")
        if node not in self._nodes:
            if text.strip():
                self._last_words = _last_line(text) or self._last_words
            return False
        activity = self._nodes[node]
        kind, task = event["event"], data.get("task", "")
        if kind == "runner_on_start" and not activity.given_up:
            self._on_task_start(node, activity, data.get("task_action", ""), task)
        elif kind in ("runner_on_ok", "runner_item_on_ok"):
            self._logs[node].write(data, text)
            facts = (data.get("res") or {}).get("remember")
            if facts and not activity.given_up:
                self._on_facts(node, activity, task, facts)
        elif kind in ("runner_on_failed", "runner_on_unreachable"):
            self._logs[node].write(data, text)
            if not data.get("ignore_errors"):
                self._on_failure(node, activity, task, data.get("res") or {})
        return False

    def _on_task_start(self, node: str, activity: _Activity, action: str, task: str) -> None:
        activity.task = task
        if action != _ENTER_ACTION:
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
        if _are_facts(facts):
            self._report(Remembered(self, node, facts))
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
        reason = failure_message(task, result)
        self._report(StateFailed(self, node, self._state_of(activity).position, reason))

    # small parts

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

    def _write_states(self) -> None:
        """The tasks of this stretch; playbooks/state/example.yml shows and explains them."""
        tasks, gate = [], ""
        for state in self.batch.states:
            variables = {"state_timeout": int(state.timeout), "state_phase": state.phase.value}
            specification = self._folder / f"{state.name}.json"
            specification.write_text(json.dumps(_argument_spec(state.name, self._roles)), "utf-8")
            tasks += [
                _enter_task(f"Check the arguments of {state.name}", gate, str(specification))
                | {"vars": variables},
                {
                    "name": f"Go through {state.name}",
                    "ansible.builtin.import_role": {"name": state.name, "rolespec_validate": False},
                    "vars": variables,
                },
            ]
            gate = f"{self._gates}/{{{{ inventory_hostname }}}}.{state.position}"
        tasks.append(_enter_task("Leave the stretch", "", ""))
        (self._folder / "states.yml").write_text(yaml.safe_dump(tasks, sort_keys=False), "utf-8")

    def _write_inventory(self) -> None:
        localhost = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }
        content = {"all": {"hosts": self.batch.variables | {"localhost": localhost}}}
        path = self._folder / "run.yml"
        path.touch(mode=0o600)
        path.write_text(yaml.dump(_as_data(content), Dumper=_DataDumper), "utf-8")


def _enter_task(name: str, gate: str, argument_spec: str) -> dict[str, Any]:
    return {"name": name, _ENTER_ACTION: {"gate": gate, "argument_spec": argument_spec}}


def _are_facts(facts: Any) -> bool:
    """Whether these can be stored: they come from a node, and go into files and variables."""
    return (
        isinstance(facts, dict)
        and all(re.fullmatch(r"[a-z][a-z0-9_]{0,40}", str(name)) for name in facts)
        and all(
            isinstance(value, bool | int)
            or (isinstance(value, str) and len(value) <= 1000 and value.isprintable())
            for value in facts.values()
        )
    )


def _argument_spec(role: str, folders: list[Path]) -> dict[str, Any]:
    """The options that the role's `main` entry point documents; none when it documents none."""
    folder = next((folder / role for folder in folders if (folder / role).is_dir()), None)
    if folder is None:
        return {}
    for name in ("argument_specs.yml", "argument_specs.yaml"):
        path = folder / "meta" / name
        if path.is_file():
            content = yaml.safe_load(path.read_text("utf-8")) or {}
            return content.get("argument_specs", {}).get("main", {}).get("options", {})
    return {}


class _Data(str):
    """Text that could be taken for a template, but is data and nothing else."""


class _DataDumper(yaml.SafeDumper):
    """Tags text with a brace in it with `!unsafe`, so that Ansible takes it for no template.

    A user's words are among the variables: braces in the comment of an SSH key must not run on the
    manager. Other text must not be tagged: Ansible would read `!unsafe "0x12"` as a number.
    """


_DataDumper.add_representer(
    _Data, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"')
)


def _as_data(value: Any) -> Any:
    if isinstance(value, str):
        return _Data(value) if "{" in value else value
    if isinstance(value, dict):
        return {key: _as_data(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_data(one) for one in value]
    return value


def run_playbook(playbook: str, inventory: Path, extra_vars: dict[str, Any], log: Path) -> None:
    """Run one of our playbooks on localhost to its end.

    `playbook` is a file name in `playbooks/`; Ansible's output goes to `log`. Raises `RunFailed`.
    """
    folder = _make_run_folder()
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
                private_data_dir=str(folder / _PRIVATE_DATA),
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
    folder = _make_run_folder()
    try:
        # By its path: the virtual environment need not be on the user's PATH.
        output, errors, _ = ansible_runner.run_command(
            executable_cmd=str(Path(sys.executable).with_name("ansible-inventory")),
            cmdline_args=["--list", "-i", str(inventory)],
            private_data_dir=str(folder / _PRIVATE_DATA),
            envvars=_environment(folder, []),
            quiet=True,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        return json.loads(output)
    except json.JSONDecodeError as error:
        problem = _inventory_problem(errors or output)
        raise UserError(f"{inventory}: Ansible cannot read it: {problem}") from error


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


def _make_run_folder() -> Path:
    """A private folder on a tmpfs where there is one; its path is short (SSH sockets are in it)."""
    folder = Path(tempfile.mkdtemp(prefix=f"piseduce-{os.getpid()}-", dir=_runtime_folder()))
    (folder / _PRIVATE_DATA).mkdir()
    return folder


def _runtime_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/run")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def _environment(folder: Path, roles: list[Path]) -> dict[str, str]:
    """Environment of a run. Everything that Ansible writes for itself goes below `folder`."""
    return {
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


def remove_stale_run_folders() -> None:
    """Remove what a driver that was killed has left behind: its runs' processes and folders."""
    for folder in _runtime_folder().glob("piseduce-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            end_processes(find_processes(folder.name, str(folder)))
            shutil.rmtree(folder)
