"""The folder of one run of Ansible: what is written for it, and what is left when a driver dies.

ansible-runner writes arguments and the whole environment into its folder, so every run has one of
its own, private and below the runtime directory, which is removed afterwards.
"""

import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

import yaml

from piseduce_runner.argument_specs import load_argument_spec
from piseduce_runner.leftovers import end_run
from piseduce_runner.processes import State

# ansible-runner's own part of the folder.
PRIVATE_DATA = "ansible-runner"
# The task in front of every state; see action_plugins/enter_state.py.
ENTER_ACTION = "enter_state"
# Locked by the driver; see `hold_run_folder`.
DRIVER_FILE = "driver"


def make_run_folder() -> Path:
    """A private folder on a tmpfs where there is one; its path is short (SSH sockets are in it)."""
    folder = Path(tempfile.mkdtemp(prefix=f"piseduce-{os.getpid()}-", dir=runtime_folder()))
    (folder / PRIVATE_DATA).mkdir()
    return folder


def hold_run_folder(folder: Path) -> TextIO:
    """Lock the folder's file `driver` as long as the file is open, at most as long as we live.

    Whoever can lock it knows that the driver has died, whatever has become of its process id.
    """
    file = (folder / DRIVER_FILE).open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_held(folder: Path) -> bool:
    try:
        with (folder / DRIVER_FILE).open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        # Made a moment ago, or by a driver that died within that moment.
        return Path("/proc", folder.name.split("-")[1]).exists()
    return False


def runtime_folder() -> Path:
    """Where the folders of runs are made."""
    if os.geteuid() == 0:
        return Path("/run")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


def remove_stale_run_folders() -> None:
    """Remove what a driver that was killed has left behind: its runs' processes and folders."""
    for folder in runtime_folder().glob("piseduce-[0-9]*-*"):
        if _is_ours(folder) and not _is_held(folder):
            end_run(folder.name, str(folder))
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Without a runtime directory of our own, anybody can make something of this name in /tmp."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def run_folders_of(pid: int) -> list[Path]:
    """The folders of the runs that the process `pid` has started."""
    return sorted(filter(_is_ours, runtime_folder().glob(f"piseduce-{pid}-*")))


def write_states(folder: Path, gates: Path, states: tuple[State, ...], roles: list[Path]) -> Path:
    """The tasks of a stretch; playbooks/state/example.yml shows and explains them."""
    tasks = []
    for state in states:
        timeout = f"{{{{ state_timeouts['{state.position}'] }}}}"
        variables = {"state_timeout": timeout, "state_phase": state.phase.value}
        role = state.role or state.name
        specification = folder / f"{role}.json"
        specification.write_text(json.dumps(load_argument_spec(role, roles)), "utf-8")
        gate = f"{gates}/{{{{ inventory_hostname }}}}.{state.position}"
        tasks += [
            _enter_task(f"Enter {state.name}", gate, str(specification)) | {"vars": variables},
            {
                "name": f"Go through {state.name}",
                "ansible.builtin.import_role": {"name": role, "rolespec_validate": False},
                "vars": variables,
            },
        ]
    tasks.append(_enter_task("Leave the stretch", "", ""))
    path = folder / "states.yml"
    path.write_text(yaml.safe_dump(tasks, sort_keys=False), "utf-8")
    return path


def write_inventory(folder: Path, variables: dict[str, dict[str, Any]]) -> Path:
    """An inventory source with the nodes' variables of this run, and the manager itself."""
    localhost = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    content = {"all": {"hosts": variables | {"localhost": localhost}}}
    path = folder / "run.yml"
    path.touch(mode=0o600)
    path.write_text(yaml.dump(_as_data(content), Dumper=_DataDumper), "utf-8")
    return path


def _enter_task(name: str, gate: str, argument_spec: str) -> dict[str, Any]:
    return {"name": name, ENTER_ACTION: {"gate": gate, "argument_spec": argument_spec}}


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
        # A line that begins with this word sets other marks than braces.
        return _Data(value) if "{" in value or "#jinja2" in value else value
    if isinstance(value, dict):
        return {key: _as_data(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_data(one) for one in value]
    return value
