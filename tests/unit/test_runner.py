"""Real Ansible runs, on local connections: completion, failure, memory, and runs that are ended."""

import base64
import json
import os
import queue
import re
import signal
from pathlib import Path

import pytest

from piseduce_runner import runner
from piseduce_runner.errors import UserError
from piseduce_runner.leftovers import find_processes, is_gone
from piseduce_runner.processes import Phase, State
from piseduce_runner.runner import AnsibleRunner
from piseduce_runner.runs import Batch, Remembered, RunEnded, StateFailed, StateProven

ROLES = {
    "fine": "- name: Say who\n  ansible.builtin.command: echo {{ inventory_hostname }}\n",
    "remembers": (
        "- name: Learn something\n  learn:\n    text: '{{ deployment.text }}'\n    place: {{ x }}\n"
    ).replace("{{ x }}", '"{{ place }}"'),
    "breaks_b": (
        "- name: Check it\n  ansible.builtin.fail:\n    msg: it is broken\n"
        "  when: inventory_hostname == 'b'\n"
    ),
    "hangs_b": (
        "- name: Hang\n  ansible.builtin.command: sleep 100\n  when: inventory_hostname == 'b'\n"
    ),
}
LEARN = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"text": {"type": "str"}, "place": {"type": "str"}})
module.exit_json(remember={"text": module.params["text"]}, changed=False)
"""


@pytest.fixture
def site(tmp_path):
    for name, tasks in ROLES.items():
        (tmp_path / "roles" / name / "tasks").mkdir(parents=True)
        (tmp_path / "roles" / name / "tasks" / "main.yml").write_text(tasks)
    library = tmp_path / "roles" / "remembers" / "library"
    library.mkdir()
    (library / "learn.py").write_text(LEARN)
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.yml").write_text(
        "nodes: {vars: {place: '{{ inventory_hostname }}-here'}, hosts: {a: {}, b: {}}}\n"
    )
    return tmp_path


@pytest.fixture
def start(site):
    """Starts a run; gives it, and a function that waits for its next event."""
    runs = []

    def make(*names, **variables):
        states = tuple(State(i, name, Phase.NFS, timeout=30) for i, name in enumerate(names))
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        batch = Batch(
            states,
            dict.fromkeys(("a", "b"), local | variables),
            dict.fromkeys(("a", "b"), dict.fromkeys(range(len(states)), 30.0)),
            {node: site / f"{node}.log" for node in ("a", "b")},
        )
        events = queue.SimpleQueue()
        run = AnsibleRunner(site / "inventory", [site / "roles"]).start(batch, events.put)
        runs.append(run)
        for node in ("a", "b"):
            run.enter(node, 0)
        return run, lambda: events.get(timeout=60)

    yield make
    for run in runs:
        run.end()


def gather(next_event):
    """Every event up to the run's end."""
    events = []
    while not events or not isinstance(events[-1], RunEnded):
        events.append(next_event())
    return events


def is_clean(run):
    folder = run._folder
    return not folder.exists() and find_processes(folder.name, str(folder)) == []


def test_a_state_is_proven_on_each_node_and_nothing_is_left(start, site):
    run, next_event = start("fine")
    *proven, ended = gather(next_event)
    assert ended.error == ""
    assert {(event.node, event.position) for event in proven} == {("a", 0), ("b", 0)}
    assert ended == RunEnded(run, "")
    assert is_clean(run)
    assert "Say who" in (site / "a.log").read_text()


def test_a_node_waits_at_the_gate_until_it_may_go_on(start):
    run, next_event = start("fine", "fine")
    assert {next_event(), next_event()} == {StateProven(run, "a", 0), StateProven(run, "b", 0)}
    run.enter("a", 1)
    assert next_event() == StateProven(run, "a", 1)
    run.enter("b", 1)
    assert next_event() == StateProven(run, "b", 1)
    assert isinstance(next_event(), RunEnded)


def test_a_failure_is_reported_with_task_and_message_and_the_other_goes_on(start):
    run, next_event = start("breaks_b")
    events = gather(next_event)
    assert StateFailed(run, "b", 0, "Check it: it is broken") in events
    assert StateProven(run, "a", 0) in events


def test_a_roles_arguments_are_checked_before_its_first_task(start, site):
    (site / "roles" / "fine" / "meta").mkdir()
    (site / "roles" / "fine" / "meta" / "argument_specs.yml").write_text(
        "argument_specs: {main: {options: {fine_count: {type: int, required: true}}}}\n"
    )
    run, next_event = start("fine", fine_count="many")
    reasons = {event.reason for event in gather(next_event)[:-1]}
    assert len(reasons) == 1
    assert "Enter fine: " in (reason := reasons.pop())
    assert "fine_count" in reason
    assert "Say who" not in (site / "a.log").read_text()


def test_what_a_module_remembers_is_reported_and_a_users_braces_stay_braces(start):
    text = "{{ lookup('pipe', 'id') }} key"
    run, next_event = start("remembers", deployment={"text": text})
    remembered = [event for event in gather(next_event) if isinstance(event, Remembered)]
    assert sorted(event.node for event in remembered) == ["a", "b"]
    assert {event.facts["text"] for event in remembered} == {text}


@pytest.mark.parametrize(
    "text", ["0xc0ffee01", "12345678", "yes", "1e3", "~", "{7}", "a: b #c", "#jinja2: x"]
)
def test_text_stays_text(start, text):
    _, next_event = start("remembers", deployment={"text": text})
    remembered = [event for event in gather(next_event) if isinstance(event, Remembered)]
    assert [event.facts["text"] for event in remembered] == [text, text]


def test_what_could_break_out_of_a_line_is_not_remembered(start):
    run, next_event = start("remembers", deployment={"text": "key\nother-host evil-key"})
    events = gather(next_event)
    assert not [event for event in events if isinstance(event, Remembered)]
    assert {event.node for event in events if isinstance(event, StateFailed)} == {"a", "b"}


def test_an_admins_own_settings_of_ansible_do_not_weaken_a_run(start, monkeypatch, tmp_path):
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
    _, next_event = start("fine")
    assert gather(next_event)[-1].error == ""
    assert not (tmp_path / "ansible.log").exists()
    environment = runner._environment(tmp_path, [])
    assert environment["ANSIBLE_HOST_KEY_CHECKING"] == "True"


def test_no_variable_of_an_inventory_has_ssh_accept_any_key(start, site):
    ssh = site / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$*" > {site}/options\nexit 255\n')
    ssh.chmod(0o755)
    (site / "inventory" / "host_vars").mkdir()
    (site / "inventory" / "host_vars" / "a.yml").write_text(
        "ansible_host_key_checking: false\nansible_ssh_host_key_checking: false\n"
        "ansible_ssh_args: -o StrictHostKeyChecking=no\n"
        "ansible_ssh_common_args: -o StrictHostKeyChecking=no\n"
    )
    node = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1"}
    _, next_event = start("fine", ansible_ssh_executable=str(ssh), **node)
    gather(next_event)
    # Of several values ssh(1) takes the first.
    first, *_others = re.findall("StrictHostKeyChecking=[a-z]+", (site / "options").read_text())
    assert first == "StrictHostKeyChecking=yes"


def test_a_nodes_words_do_not_steer_the_terminal(start, site):
    (site / "roles" / "fine" / "tasks" / "main.yml").write_text(
        '- name: Say it\n  ansible.builtin.fail:\n    msg: "a\\x1b[2Jb"\n'
    )
    run, next_event = start("fine")
    reasons = {event.reason for event in gather(next_event) if isinstance(event, StateFailed)}
    assert reasons == {"Say it: a?[2Jb"}
    assert "\x1b" not in (site / "a.log").read_text()


def _event_text(**event):
    """An event as ansible-runner finds it in what Ansible prints."""
    packed = base64.b64encode(json.dumps(event).encode()).decode()
    return f"\x1b[K{packed}\x1b[{len(packed)}D\x1b[K"


FORGED = "x " + _event_text(
    uuid="1",
    event="runner_on_ok",
    event_data={"host": "b", "task": "Say who", "res": {"remember": {"host_key": "forged"}}},
)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (f"print({json.dumps({'failed': True, 'msg': FORGED})!r})", StateFailed),
        ("print('{\"ansible_stats\": 5}')", StateProven),
        ("while True: print('x' * (1 << 20))", StateFailed),
    ],
    ids=["forges events", "odd statistics", "has no end"],
)
def test_what_a_node_answers_touches_no_other_node(start, site, answer, outcome):
    library = site / "roles" / "fine" / "library"
    library.mkdir()
    (library / "ask.py").write_text(f"#!/usr/bin/python3\n# AnsibleModule\n{answer}\n")
    (site / "roles" / "fine" / "tasks" / "main.yml").write_text(
        "- name: Ask\n  ask:\n  when: inventory_hostname == 'a'\n"
    )
    run, next_event = start("fine")
    *events, ended = gather(next_event)
    # Of a node that failed, the run's own end says no more.
    assert ended.error == "" or outcome is StateFailed
    assert sorted((event.node, type(event)) for event in events) == [
        ("a", outcome),
        ("b", StateProven),
    ]
    assert "x" not in (site / "b.log").read_text()


def test_a_node_is_ended_alone_and_its_command_with_it(start):
    run, next_event = start("hangs_b", "fine")
    assert next_event() == StateProven(run, "a", 0)
    where = (run._folder.name, str(run._folder), "PISEDUCE_NODE=b")
    while not (hanging := find_processes(*where)):
        pass
    assert run.end_node("b") == "in task: Hang"
    assert all(is_gone(pid) for pid in hanging)
    run.enter("a", 1)
    assert [type(event) for event in gather(next_event)] == [StateProven, RunEnded]
    assert is_clean(run)


def test_an_ended_run_leaves_no_process_and_no_folder(start):
    run, next_event = start("hangs_b")
    assert next_event() == StateProven(run, "a", 0)
    run.end()
    assert isinstance(gather(next_event)[-1], RunEnded)
    assert is_clean(run)


def test_a_run_that_cannot_start_says_why(start, site):
    (site / "inventory" / "hosts.yml").write_text("nodes: {hosts: [a, b]}\n")
    _, next_event = start("fine")
    ended = gather(next_event)[-1]
    assert ended.error


def test_a_run_that_is_killed_says_so_and_nothing_of_it_is_left(start):
    run, next_event = start("fine", "fine")
    assert {next_event().node, next_event().node} == {"a", "b"}
    assert kill_playbook() == 1
    ended = gather(next_event)[-1]
    assert "ansible-playbook was killed by a signal" in ended.error
    assert is_clean(run)


def kill_playbook():
    """SIGKILL to the playbooks that this process has started; how many they were."""
    children = [
        int(child)
        for task in Path("/proc/self/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    playbooks = [c for c in children if b"playbook" in Path(f"/proc/{c}/cmdline").read_bytes()]
    for child in playbooks:
        os.kill(child, signal.SIGKILL)
    return len(playbooks)


def test_an_inventory_that_ansible_refuses_is_a_clear_error(site):
    (site / "inventory" / "hosts.yml").write_text("nodes: {hosts: [a, b]}\n")
    with pytest.raises(UserError, match="Ansible cannot read it"):
        runner.read_inventory(site / "inventory")


def test_a_warning_of_ansible_does_not_spoil_an_inventory(site):
    (site / "inventory" / "hosts.yml").write_text(
        "all: {children: {nodes: {hosts: {a: {}}}, rack-1: {hosts: {a: {x: secret-word}}}}}\n"
    )
    assert runner.read_inventory(site / "inventory")["rack-1"]["hosts"] == ["a"]


def test_no_value_of_an_inventory_is_in_the_error(site):
    (site / "inventory" / "hosts.yml").write_text("nodes: {hosts: [secret-word]}\n")
    with pytest.raises(UserError) as error:
        runner.read_inventory(site / "inventory")
    assert "secret-word" not in str(error.value)


def test_the_inventory_has_group_variables(site):
    listing = runner.read_inventory(site / "inventory")
    assert listing["_meta"]["hostvars"]["a"]["place"] == "{{ inventory_hostname }}-here"
