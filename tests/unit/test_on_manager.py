"""Modules that work on the manager run in Ansible's own worker, and say what they always say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from piseduce_runner import paths

ROOT = paths.ansible_dir()
BY_NAME = sorted(path.stem for path in (ROOT / "action_plugins").iterdir() if path.is_symlink())


def run_tasks(folder: Path, tasks: list[dict]) -> dict:
    """Runs tasks on localhost with our configuration; what each of them gave, by its name."""
    play = {"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}
    (folder / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), folder / "play.yml"],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_such_module_exists_and_each_plugin_is_the_same_file():
    assert BY_NAME == ["poe_port", "tftp_folder", "wait_for_system"]
    for name in BY_NAME:
        assert (ROOT / "library" / f"{name}.py").is_file()
        assert (ROOT / "action_plugins" / f"{name}.py").resolve().name == "on_manager.py"


@pytest.mark.parametrize("name", BY_NAME)
def test_a_wrong_argument_is_the_modules_own_error(tmp_path, name):
    status, output = run_tasks(tmp_path, [{"name": "Try", name: {}}])
    assert status == 2
    assert "missing required arguments" in output
    assert "Traceback" not in output


def test_a_result_is_the_modules_own_and_check_mode_reaches_it(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "cmdline.txt").write_text("root=/dev/nfs\n")
    arguments = {
        "root": str(tmp_path / "tftp"),
        "serial": "10000001",
        "source_folder": str(tmp_path / "source"),
        "timeout": 20,
    }
    (tmp_path / "tftp").mkdir()
    target = tmp_path / "tftp" / "10000001" / "cmdline.txt"
    status, output = run_tasks(
        tmp_path, [{"name": "Look", "tftp_folder": arguments, "check_mode": True}]
    )
    assert (status, target.exists()) == (0, False), output
    status, output = run_tasks(tmp_path, [{"name": "Do", "tftp_folder": arguments}])
    assert (status, target.read_text()) == (0, "root=/dev/nfs\n"), output
    assert "changed=1" in output
