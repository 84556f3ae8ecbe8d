"""tftp_folder is killed at each of its steps: a node finds the old files or the new ones, never a
part, and the next attempt ends with exactly what was asked for."""

import json
import subprocess
import sys

import pytest

from .conftest import LAUNCHER, PROJECT

SERIAL = "1760325b"
OLD, NEW = {"cmdline.txt": "old"}, {"cmdline.txt": "new", "kernel8.img": "new"}

# Where the module kills itself, as the kernel would: nothing of Python's own end happens.
DIE = """
import os, shutil, signal, sys
import ansible.module_utils
ansible.module_utils.__path__.append(sys.argv[1])
from pathlib import Path
from ansible.module_utils import piseduce_node_folder as steps

def before(owner, name, call=1):
    function, calls = getattr(owner, name), []
    def die(*arguments, **options):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    setattr(owner, name, die)
"""
STEPS = {
    "copied": "before(steps, '_flush')",
    "link made": "before(Path, 'replace'); before(steps, '_exchange')",
    "swapped": "before(steps, '_flush', call=2)",
    "old one half removed": "before(shutil, 'rmtree')",
}


def fill(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else None


def names(root):
    return [path.name for path in root.iterdir() if not path.name.endswith(".lock")]


@pytest.fixture
def start(tmp_path):
    """start(step, **options): runs the module, which dies before this step if there is one."""
    (tmp_path / "tftp").mkdir()
    fill(tmp_path / "new", NEW)

    def run(step, **options):
        arguments = {
            "root": str(tmp_path / "tftp"),
            "serial": SERIAL,
            "source_folder": str(tmp_path / "new"),
            "timeout": 60,
        }
        module = PROJECT / "library" / "tftp_folder.py"
        code = DIE + STEPS.get(step, step) + LAUNCHER
        return subprocess.run(
            [sys.executable, "-c", code, PROJECT / "module_utils", module],
            input=json.dumps(arguments | options),
            capture_output=True,
            text=True,
        )

    return run


CASES = [
    (step, before)
    for step in STEPS
    for before in ("nothing", "an older version", "a real folder")
    if (step, before) != ("old one half removed", "nothing")
]


@pytest.mark.parametrize(("step", "before"), CASES)
def test_a_folder_that_was_being_filled_is_old_or_new_and_then_right(start, tmp_path, step, before):
    root = tmp_path / "tftp"
    if before == "an older version":
        fill(tmp_path / "old", OLD)
        start("", source_folder=str(tmp_path / "old"))
    elif before == "a real folder":
        fill(root / SERIAL, OLD)
    killed = start(step)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    swapped = step in ("swapped", "old one half removed")
    old = None if before == "nothing" else OLD
    assert contents(root / SERIAL) == (NEW if swapped else old)
    assert "failed" not in json.loads(start("").stdout)
    assert contents(root / SERIAL) == NEW
    assert len(names(root)) == 2  # the link and its version


@pytest.mark.parametrize("step", ["before(steps, '_flush')", STEPS["old one half removed"]])
def test_a_removal_that_was_cut_off_is_finished(start, tmp_path, step):
    root = tmp_path / "tftp"
    fill(root / SERIAL, OLD)
    killed = start(step, state="absent")
    assert killed.returncode == -9, killed.stdout + killed.stderr
    assert not (root / SERIAL).exists()
    assert json.loads(start("", state="absent").stdout)["changed"]
    assert names(root) == []
