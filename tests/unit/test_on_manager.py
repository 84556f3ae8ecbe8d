"""Modules that work on the manager run beside Ansible's worker, and say what they always say."""

import json
import os
import queue
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from piseduce_runner import paths
from piseduce_runner.leftovers import find_processes, is_gone
from piseduce_runner.processes import Phase, State
from piseduce_runner.runner import AnsibleRunner
from piseduce_runner.runs import Batch, RunEnded, StateProven

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
    names = (
        "card_fetch network_boot picore_access poe_port system_reboot tftp_folder wait_for_system"
    )
    assert names.split() == BY_NAME
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


WAITS = """
- name: Wait for a system that never answers
  wait_for_system:
    node: {{address: 127.0.0.1, port: {port}, key_file: /no, known_hosts_file: /no,
      host_key_alias: nobody}}
    hostname: nobody
    timeout: 600
  delegate_to: localhost
  when: inventory_hostname == 'b'
"""


@pytest.fixture
def waiting(tmp_path):
    """A run of which node b waits in a module on the manager, and node a is done with the state."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tasks = {
            "waits_b": WAITS.format(port=silent.getsockname()[1]),
            "fine": "- name: Say it\n  ansible.builtin.debug:\n    msg: fine\n",
        }
        for name, text in tasks.items():
            (tmp_path / "roles" / name / "tasks").mkdir(parents=True)
            (tmp_path / "roles" / name / "tasks" / "main.yml").write_text(text)
        (tmp_path / "hosts.yml").write_text("nodes: {hosts: {a: {}, b: {}}}\n")
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        batch = Batch(
            tuple(State(i, name, Phase.NFS, timeout=600) for i, name in enumerate(tasks)),
            {"a": local, "b": local},
            {"a": {0: 600.0, 1: 600.0}, "b": {0: 600.0, 1: 600.0}},
            {node: tmp_path / f"{node}.log" for node in "ab"},
        )
        events = queue.SimpleQueue()
        run = AnsibleRunner(tmp_path / "hosts.yml", [tmp_path / "roles"]).start(batch, events.put)
        for node in "ab":
            run.enter(node, 0)
        assert events.get(timeout=60) == StateProven(run, "a", 0)
        while not (found := find_processes(run._id, str(run._folder), "PISEDUCE_NODE=b")):
            pass
        silent.accept()  # it is in the midst of its work
        yield run, found, events
        run.end()


def test_a_node_whose_module_hangs_on_the_manager_is_ended_alone(waiting, tmp_path):
    run, hanging, events = waiting
    assert run.end_node("b") == "in task: Wait for a system that never answers"
    assert all(is_gone(pid) for pid in hanging)
    run.enter("a", 1)
    assert events.get(timeout=60) == StateProven(run, "a", 1)
    assert isinstance(events.get(timeout=60), RunEnded)
    assert "wait_for_system was ended at its deadline" in (tmp_path / "b.log").read_text()


def test_a_worker_that_is_killed_takes_its_module_along(waiting):
    run, hanging, events = waiting
    run.end()
    assert isinstance(events.get(timeout=60), RunEnded)
    assert all(is_gone(pid) for pid in hanging)
