"""Reading the process table: what is right, and each mistake with its file and line."""

import pytest

from piseduce_runner import paths
from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Expression, Facts
from piseduce_runner.policy import timeout_seconds
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import Ends, Phase, Power, Scope, Window

SEED_ORDER = """
boot_conf turn_off turn_on ssh_test env_copy env_check delete_partition create_partition
mount_partition resize_partition wait_resizing system_conf boot_files ssh_test system_update
boot_update ssh_test user_conf
""".split()


@pytest.fixture
def roles(tmp_path):
    for name in ("env_copy", "env_check", "ssh_test", "turn_off", "turn_on"):
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


def states(*lines):
    return process("".join(f"        - {{{line}}}\n" for line in lines))


def two_phases(first, second):
    return (
        f"deploy:\n  phases:\n    - phase: nfs\n      states: [{{{first}, timeout: 5}}]\n"
        f"    - phase: deployed\n      states: [{{{second}, timeout: 5}}]\n"
    )


OFF, ON = "state: turn_off, timeout: 5, power: off", "state: turn_on, timeout: 5, power: on"
COPY, CHECK = "state: env_copy, timeout: 5", "state: env_check, timeout: 5"


def test_every_key_of_a_state_is_read(tmp_path, roles):
    text = states(
        OFF,
        ON,
        f"{COPY}, durable: true, window: {{most: 12, seconds: 0.5, per: switch}}",
        "state: env_check, timeout: 60 + image_bytes / 8e6, retries: 2, again_from: env_copy,"
        " power_cycle: true, only_if: update",
        "state: ssh_test, timeout: 5, reboots: true, window: {most: 3}",
    ).replace("  phases:", "  ends: booted\n  phases:")
    deploy = load_processes(table(tmp_path, text), [roles])["deploy"]
    off, on, copy, check, last = deploy.states
    assert deploy.ends is Ends.BOOTED
    assert (off.power, on.power, copy.power) == (Power.OFF, Power.ON, None)
    assert (copy.durable, check.durable) == (True, False)
    assert copy.window == Window(12, 0.5, Scope.SWITCH)
    assert last.window == Window(3, 0.0, Scope.SITE)
    assert check.timeout == Expression("60 + image_bytes / 8e6")
    assert (check.retries, check.again_from, check.power_cycle) == (2, 2, True)
    assert (copy.retries, copy.again_from, copy.power_cycle) == (0, None, False)
    assert (check.only_if, last.reboots) == ("update", True)


@pytest.fixture(scope="module")
def ours():
    root = paths.ansible_dir()
    return load_processes(root / "playbooks" / "processes.yml", [root / "roles"])


def test_the_product_table_has_the_states_of_the_seed_in_its_order(ours):
    deploy = ours["deploy"]
    assert [state.name for state in deploy.states] == SEED_ORDER
    assert [state.position for state in deploy.states] == list(range(len(SEED_ORDER)))
    assert [s.name for s in deploy.states if s.phase is Phase.NFS] == SEED_ORDER[:13]
    assert [s.position for s in deploy.states if s.only_if == "update"] == [14, 15, 16]
    assert [s.name for s in deploy.states if s.reboots] == ["boot_files", "boot_update"]


def test_the_product_table_has_the_reconfigurations(ours):
    assert {name: process.ends for name, process in ours.items()} == {
        "deploy": Ends.DEPLOYED,
        "reboot": Ends.DEPLOYED,
        "bootfiles": Ends.DEPLOYED,
        "capture": Ends.DEPLOYED,
        "boot_test": Ends.BOOTED,
        "destroy": Ends.DESTROYED,
    }
    for process in ours.values():
        assert process.description


def test_a_card_is_erased_only_when_asked_and_its_node_is_switched_off_always(ours):
    names = [state.name for state in ours["destroy"].states if state.only_if is None]
    assert names == ["network_boot", "turn_off", "destroying"]
    assert [s.name for s in ours["destroy"].states if s.only_if == "erase"][-1] == "erase_card"


def test_a_capture_without_its_copy_gives_the_node_back(ours):
    names = [state.name for state in ours["capture"].states if state.only_if is None]
    assert names == ["boot_conf", "turn_off", "turn_on", "ssh_test", "boot_files", "ssh_test"]


def test_a_node_is_powered_within_a_window_and_never_cycled_for_what_its_switch_does(ours):
    for process in ours.values():
        for state in process.states:
            if state.power is Power.ON:
                assert state.window.most and state.window.seconds
                assert state.window.per is Scope.SWITCH
            if state.name in ("turn_off", "turn_on", "boot_conf", "system_update"):
                assert not state.power_cycle


@pytest.mark.parametrize("nodes", [1, 12, 48])
@pytest.mark.parametrize("image_bytes", [88_080_384, 3_202_802_688, 16_000_000_000])
def test_a_slow_card_and_a_shared_slow_link_have_time_for_every_image(ours, image_bytes, nodes):
    facts = Facts(image_bytes, image_bytes, image_bytes // 3, 0, nodes, "RPI3B+1G")
    seconds = {state.name: timeout_seconds(state.timeout, facts) for state in ours["deploy"].states}
    writing = reading = image_bytes / 8e6
    sharing = 12
    assert seconds["env_copy"] > writing + sharing * facts.compressed_bytes / 11e6
    assert seconds["env_check"] > reading


def test_what_is_on_the_card_survives_a_power_cycle_and_mounts_do_not(ours):
    assert [state.name for state in ours["deploy"].states if state.durable] == [
        "env_copy", "env_check", "delete_partition", "create_partition", "resize_partition",
        "wait_resizing", "system_conf", "system_update", "user_conf",
    ]  # fmt: skip


def test_a_board_that_never_boots_is_lost_within_a_quarter_of_an_hour(ours):
    for process in ours.values():
        for state in process.states:
            if state.name == "ssh_test":
                tries = (1 + state.retries) * (2 if state.power_cycle else 1)
                assert tries * state.timeout <= 900


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
        (states(f"{COPY}, retries: 21"), 5, "retries of env_copy is '21': it must be a whole"),
        (states(f"{COPY}, retries: -1"), 5, "from 0 to 20"),
        (states(f"{COPY}, retries: true"), 5, "from 0 to 20"),
        (states(f"{COPY}, retries: []"), 5, "from 0 to 20"),
        (states(f"{COPY}, retries: !x 1"), 5, "could not determine a constructor"),
        (states(f"{COPY}, power_cycle: 1"), 5, "neither true nor false"),
        (states(f"{COPY}, durable: maybe"), 5, "neither true nor false"),
        (states(f"{COPY}, window: 5"), 5, "window of env_copy is '5': it must be a mapping"),
        (states(f"{COPY}, window: {{}}"), 5, "needs most or seconds"),
        (states(f"{COPY}, window: {{max: 5}}"), 5, "unknown key 'max'"),
        (states(f"{COPY}, window: {{most: 0}}"), 5, "most is 0"),
        (states(f"{COPY}, window: {{most: 1.5}}"), 5, "most is 1.5"),
        (states(f"{COPY}, window: {{seconds: .nan}}"), 5, "seconds is nan"),
        (states(f"{COPY}, window: {{most: 1, per: rack}}"), 5, "per is 'rack'"),
        (states("state: env_copy, timeout: 5 + image"), 5, "unknown name 'image'; known: image_"),
        (states("state: env_copy, timeout: 1:30"), 5, "not an expression"),
        (states("state: env_copy, timeout: [5]"), 5, "neither seconds nor an expression"),
        (states(CHECK, f"{COPY}, again_from: turn_on"), 6, "no earlier state of its phase"),
        (states(f"{COPY}, again_from: env_copy"), 5, "no earlier state of its phase"),
        (states(COPY, COPY, f"{CHECK}, again_from: env_copy"), 7, "ambiguous"),
        (two_phases("state: env_copy", "state: env_check, again_from: env_copy"), 6, "no earlier"),
        (states(f"{COPY}, only_if: erase", f"{CHECK}, again_from: env_copy"), 6, "passed over"),
        (
            states(f"{COPY}, reboots: true", f"{CHECK}, again_from: env_copy"),
            6,
            "since then env_copy has restarted the node",
        ),
        (states(f"{OFF}, durable: true"), 5, "turn_off is durable and has power"),
        (states(f"{COPY}, power: up"), 5, "unknown power 'up'; known: off, on"),
        (states(ON, OFF), 5, "no state before it has power off"),
        (states(OFF, OFF), 6, "turn_off has power off, and so has turn_off before"),
        (states(OFF, ON, ON), 7, "turn_on has power on, and so has turn_on before"),
        (states(OFF, f"{COPY}, power_cycle: true"), 6, "has no states with power off and on"),
        (
            states(f"{OFF}, only_if: erase", ON, f"{COPY}, power_cycle: true"),
            7,
            "turn_off is passed over unless erase",
        ),
        ("deploy:\n  ends: well\n  phases: []\n", 2, "has no states"),
        (f"{states(COPY)}  ends: well\n", 6, "unknown end 'well'; known: deployed, booted"),
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
