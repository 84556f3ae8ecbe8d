"""What Ansible said, in words for people: a node's log file, and the reason of a failure."""

import re
import time
from pathlib import Path
from typing import Any

_LONGEST_REASON = 400
# How state.yml goes about its work says nothing of the node.
_SILENT_ACTIONS = ("include_role", "include_tasks", "import_role", "enter_state")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NodeLog:
    """The log of one deployment of one node; runs append to it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def begin_state(self, state: str) -> None:
        """A line that says which state begins, and when."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"--- {stamp}  {state}\n")
        self._file.flush()

    def write(self, data: dict[str, Any], text: str) -> None:
        """Ansible's own words on one task: its name, how long it took, and what it printed."""
        action = str(data.get("task_action", "")).rpartition(".")[2]
        if action in _SILENT_ACTIONS or not text.strip():
            return
        seconds = data.get("duration")
        took = f" ({seconds:.1f} s)" if seconds is not None else ""
        self._file.write(f"[{data.get('task', '')}]{took}\n{_tidy(text)}\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def failure_message(task: str, result: dict[str, Any]) -> str:
    """One line on why a task failed: the task's name, its message, and the command's last words."""
    for item in result.get("results") or []:
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            return failure_message(task, item)
    message = " ".join(str(result.get("msg") or "it failed without a message").split())
    if result.get("unreachable"):
        message = f"the node does not answer over SSH (power, cable, crash): {message.rstrip(':')}"
    if "rc" in result:
        said = str(result.get("stderr") or result.get("module_stderr") or "").strip()
        if said and said.splitlines()[-1] not in message:
            message = f"{message}: {said.splitlines()[-1].strip()}"
    return harmless(f"{task}: {message}")[:_LONGEST_REASON]


def _tidy(text: str) -> str:
    """Ansible's words without its banner (the task's name), colours and terminal line ends."""
    lines = _ANSI.sub("", text).replace("\r", "").splitlines()
    return harmless("\n".join(line for line in lines if not line.startswith("TASK ["))).strip()


def harmless(text: str) -> str:
    """The text without control characters: words of a node must not steer an admin's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
