"""What a site and an environment override of the table, and in which order."""

import re
from pathlib import Path

import pytest
import yaml
from sites import write_site

from piseduce_runner import environments, paths, policy
from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Expression, Facts
from piseduce_runner.policy import Policy
from piseduce_runner.process_table import load_processes
from piseduce_runner.processes import Phase, Power, Process, Scope, State, Window
from piseduce_runner.site_reader import load_site

WINDOW = Window(4, 1.0, Scope.SWITCH)
PROCESS = Process(
    "deploy",
    "",
    (
        State(0, "turn_off", Phase.NFS, 60, power=Power.OFF),
        State(1, "turn_on", Phase.NFS, 60, power=Power.ON, window=WINDOW),
        State(2, "ssh_test", Phase.NFS, 300, retries=1, power_cycle=True),
        State(3, "env_copy", Phase.NFS, 900, durable=True),
        State(4, "ssh_test", Phase.DEPLOYED, 300, only_if="update"),
    ),
)


def parse(text):
    return Policy.parse(yaml.safe_load(text), "policy.yml")


def test_a_timeout_is_seconds_or_computed_from_the_facts():
    assert policy.timeout_seconds(60.0, Facts()) == 60
    assert policy.timeout_seconds(Expression("60 * nodes"), Facts(nodes=3)) == 180


def test_an_override_holds_wherever_the_state_occurs_and_for_its_keys_only():
    changed = policy.apply(PROCESS, parse("{ssh_test: {timeout: 60 * nodes, retries: 3}}"))
    assert [s.timeout for s in changed.states if s.name == "ssh_test"] == [
        Expression("60 * nodes")
    ] * 2
    assert [s.retries for s in changed.states] == [0, 0, 3, 0, 3]
    assert [s.power_cycle for s in changed.states] == [False, False, True, False, False]
    assert changed.states[4].only_if == "update"
    assert [changed.states[i] for i in (0, 1, 3)] == [PROCESS.states[i] for i in (0, 1, 3)]


def test_the_later_policy_holds_key_by_key():
    site = parse("{env_copy: {timeout: 100, retries: 1}, ssh_test: {retries: 7}}")
    environment = parse("{env_copy: {timeout: 200}}")
    copy = policy.apply(PROCESS, site, environment).states[3]
    assert (copy.timeout, copy.retries, copy.durable) == (200, 1, True)
    assert policy.apply(PROCESS, environment, site).states[3].timeout == 100


def test_a_window_is_replaced_as_a_whole_and_can_be_taken_away():
    assert policy.apply(PROCESS, parse("{turn_on: {window: {most: 2}}}")).states[1].window == (
        Window(2, 0.0, Scope.SITE)
    )
    assert policy.apply(PROCESS, parse("{turn_on: {window: null}}")).states[1].window is None


def test_a_power_cycle_is_passed_over_where_the_process_cannot_do_one():
    bootfiles = Process("bootfiles", "", (State(0, "ssh_test", Phase.DEPLOYED, 60),))
    asked = parse("{ssh_test: {power_cycle: true, retries: 2}}")
    assert policy.apply(bootfiles, asked).states[0] == State(
        0, "ssh_test", Phase.DEPLOYED, 60, retries=2
    )
    assert policy.apply(PROCESS, asked).states[4].power_cycle


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "policy.yml: it must be a mapping of states"),
        ("{env_copy: 5}", "policy.yml: env_copy must be a mapping"),
        ("{env_copy: {retry: 1}}", "unknown key 'retry'; did you mean retries?"),
        ("{env_copy: {durable: false}}", "'durable'; known: timeout, retries, power_cycle, window"),
        ("{env_copy: {7: 1}}", "unknown key 7; known: "),
        ("{env_copy: {retries: 99}}", "env_copy: retries is 99: it must be a whole number from 0"),
        ("{env_copy: {timeout: image}}", "timeout is 'image': unknown name 'image'"),
        ("{env_copy: {timeout: -5}}", "timeout is -5: a timeout must be above 0"),
        ("{env_copy: {power_cycle: 1}}", "power_cycle is 1: it is neither true nor false"),
        ("{env_copy: {window: {most: 0}}}", "most is 0"),
    ],
)
def test_a_mistake_is_refused_with_its_place(text, message):
    with pytest.raises(UserError) as error:
        parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_state_that_no_process_has_is_refused_with_a_hint():
    policy.check_states([PROCESS], parse("{env_copy: {retries: 1}}"))
    with pytest.raises(UserError) as error:
        policy.check_states([PROCESS], Policy(), parse("{env_cpy: {retries: 1}}"))
    assert str(error.value) == (
        "policy.yml: no process has a state 'env_cpy'; did you mean env_copy?"
    )


def test_a_site_and_an_environment_bring_their_policies(tmp_path):
    def slow_network(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {"env_copy": {"timeout": 99, "retries": 5}}

    site = load_site(write_site(tmp_path / "site", slow_network))
    environment = write_environment(site, {"env_copy": {"timeout": "98 + nodes"}})
    assert "policy" not in environment.variables
    root = paths.ansible_dir()
    table = load_processes(root / "playbooks" / "processes.yml", [root / "roles"])
    deploy = policy.apply(table["deploy"], site.policy, environment.policy)
    copy = next(state for state in deploy.states if state.name == "env_copy")
    assert (copy.timeout, copy.retries) == (Expression("98 + nodes"), 5)


def test_a_bad_policy_names_the_inventory_or_the_environment(tmp_path):
    def spoil(inventory):
        inventory["all"]["vars"]["piseduce_policy"] = {"env_copy": {"retries": "many"}}

    with pytest.raises(UserError, match="inventory: piseduce_policy: env_copy: retries is 'many'"):
        load_site(write_site(tmp_path / "bad", spoil))
    site = load_site(write_site(tmp_path / "site"))
    with pytest.raises(UserError, match="environment.yml: policy: it must be a mapping"):
        write_environment(site, 7)


def test_what_the_documentation_shows_is_accepted():
    text = (Path(__file__).parents[2] / "docs" / "roles.md").read_text()
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    shown = [one for one in examples if isinstance(one, dict)]
    (site,) = [one["piseduce_policy"] for one in shown if "piseduce_policy" in one]
    (environment,) = [one["policy"] for one in shown if "policy" in one]
    timeout = re.search(r"^    timeout: (.*)$", text, re.M)[1]
    changed = policy.apply(
        PROCESS, Policy.parse(site, "site"), Policy.parse(environment, "environment")
    )
    assert [state.window for state in changed.states] == [None, None, None, Window(4), None]
    assert policy.timeout_seconds(changed.states[2].timeout, Facts(model="RPI3B+1G")) == 600
    assert Expression.parse(timeout).seconds(Facts()) == 120


def write_environment(site, policy):
    folder = site.environments / "tiny"
    folder.mkdir(parents=True)
    (folder / "image.img.zst").write_bytes(b"12345")
    (folder / "image.bmap").write_text("")
    values = {
        "name": "tiny",
        "family": "raspbian",
        "login": "pi",
        "boot_directory": "/boot",
        "image": "image.img.zst",
        "block_map": "image.bmap",
        "image_bytes": 1024**3,
        "mapped_bytes": 1024**2,
        "compressed_bytes": 5,
        "compressed_sha256": "0" * 64,
        "block_map_sha256": "0" * 64,
        "disk_id": "0x00000001",
        "boot_partition": 1,
        "boot_start_sector": 8192,
        "boot_sectors": 8192,
        "root_partition": 2,
        "root_start_sector": 16384,
        "root_sectors": 8192,
        "policy": policy,
    }
    (folder / environments.DESCRIPTION).write_text(yaml.safe_dump(values))
    return environments.find(site.environments, "tiny")
