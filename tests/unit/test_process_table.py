"""Reading the process table: what is right, and each mistake with its file and line."""

import pytest

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import Phase

SEED_ORDER = """
boot_conf turn_off turn_on ssh_test env_copy env_check delete_partition create_partition
mount_partition resize_partition wait_resizing system_conf boot_files ssh_test system_update
boot_update ssh_test user_conf
""".split()


@pytest.fixture
def roles(tmp_path):
    for name in ("env_copy", "ssh_test"):
        (tmp_path / "roles" / name / "tasks").mkdir(parents=True)
        (tmp_path / "roles" / name / "tasks" / "main.yml").write_text("[]\n")
    (tmp_path / "roles" / "empty_one").mkdir()
    return tmp_path / "roles"


def table(tmp_path, text):
    path = tmp_path / "processes.yml"
    path.write_text(text)
    return path


def process(states):
    return f"deploy:\n  phases:\n    - phase: nfs\n      states:\n{states}"


def test_the_product_table_has_the_states_of_the_seed_in_its_order():
    root = paths.ansible_dir()
    deploy = load_processes(root / "playbooks" / "processes.yml", [root / "roles"])["deploy"]
    assert [state.name for state in deploy.states] == SEED_ORDER
    assert [state.position for state in deploy.states] == list(range(len(SEED_ORDER)))
    assert [s.name for s in deploy.states if s.phase is Phase.NFS] == SEED_ORDER[:13]
    assert [s.position for s in deploy.states if s.only_if == "update"] == [14, 15, 16]
    assert [s.name for s in deploy.states if s.reboots] == ["boot_files", "boot_update"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (process("        - {state: env_cpy, timeout: 5}\n"), 5, "did you mean env_copy"),
        (process("        - {state: nowhere, timeout: 5}\n"), 5, "unknown state 'nowhere'"),
        (process("        - {state: empty_one, timeout: 5}\n"), 5, "has no role"),
        (process("        - {state: env_copy, timeout: 0}\n"), 5, "timeout of env_copy is '0'"),
        (process("        - {state: env_copy, timeout: soon}\n"), 5, "'soon'"),
        (process("        - {state: env_copy, timeout: nan}\n"), 5, "'nan'"),
        (process("        - {state: env_copy}\n"), 5, "no 'timeout'"),
        (process("        - {state: env_copy, timeout: 5, retry: 1}\n"), 5, "key 'retry'"),
        (process("        - {state: env_copy, timeout: 5, only_if: rain}\n"), 5, "'rain'"),
        (process("        - {state: env_copy, timeout: 5, reboots: 1}\n"), 5, "neither true"),
        (process("        - env_copy\n"), 5, "must be a mapping"),
        ("deploy:\n  phases:\n    - phase: moon\n      states: []\n", 3, "unknown phase 'moon'"),
        ("deploy:\n  phases: []\n", 2, "has no states"),
        ("deploy:\n  phases: nfs\n", 2, "must be a list"),
        ("deploy: {phases: [}\n", 1, ""),
        ("deploy: {}\n", 1, "no 'phases'"),
        ("a: {}\na: {}\n", 2, "twice"),
        ("- deploy\n", 1, "must be a mapping"),
    ],
)
def test_a_mistake_is_reported_with_file_and_line(tmp_path, roles, text, line, message):
    path = table(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_processes(path, [roles])
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_table_is_refused(tmp_path, roles, text):
    with pytest.raises(UserError, match="the table is empty"):
        load_processes(table(tmp_path, text), [roles])


def test_a_missing_table_is_refused(tmp_path, roles):
    with pytest.raises(UserError, match="cannot be read"):
        load_processes(tmp_path / "nowhere.yml", [roles])


@pytest.mark.parametrize(
    "text", ["{", "", "[]", "argument_specs: 7", "argument_specs: {main: {options: 7}}"]
)
def test_argument_specs_that_cannot_be_read_are_refused_before_anything_runs(tmp_path, roles, text):
    (roles / "env_copy" / "meta").mkdir()
    (roles / "env_copy" / "meta" / "argument_specs.yml").write_text(text)
    path = table(tmp_path, process("        - {state: env_copy, timeout: 5}\n"))
    with pytest.raises(UserError, match="env_copy/meta/argument_specs.yml: "):
        load_processes(path, [roles])
