"""The states turn_off and turn_on, run by Ansible as the driver runs them, on a loopback switch."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from poe_bench import ROOT, V3, Served

PLAYBOOK = """
- hosts: nodes
  strategy: free
  gather_facts: false
  tasks:
    - name: Enter the state
      ansible.builtin.include_role:
        name: "{{ item }}"
      loop: "{{ states }}"
      vars:
        state_timeout: 20
"""


@dataclass
class Site:
    """An inventory of three nodes on one switch, as `lab up` and admins write them."""

    folder: Path
    served: Served

    def write(self, switch: dict, nodes: dict[str, dict] | None = None) -> None:
        served = self.served
        nodes = nodes or {f"node{number}": {"node_port": number} for number in (1, 2, 3)}
        inventory = {
            "all": {"vars": {"turn_off_rest_seconds": 0.1}},
            "nodes": {
                "hosts": {
                    name: {"node_switch": "sw1", "ansible_host": "192.0.2.7", **variables}
                    for name, variables in nodes.items()
                }
            },
            "switches": {
                "hosts": {
                    "sw1": {
                        "switch_address": served.address,
                        "switch_udp_port": served.udp_port,
                        "switch_port_count": 8,
                        "switch_forbidden_ports": [8],
                        **switch,
                    }
                }
            },
            "ungrouped": {
                "hosts": {
                    "localhost": {
                        "ansible_connection": "local",
                        "ansible_python_interpreter": sys.executable,
                    }
                }
            },
        }
        # JSON is YAML.
        (self.folder / "hosts.yml").write_text(json.dumps(inventory))
        (self.folder / "play.yml").write_text(PLAYBOOK)

    def run(self, *states: str, memory: dict | None = None, options: tuple[str, ...] = ()) -> str:
        """Ansible's output."""
        extra = {"states": states, "node_memory": memory or {}}
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-v",
             "-i", self.folder / "hosts.yml", "-e", json.dumps(extra), *options,
             self.folder / "play.yml"],
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                 "ANSIBLE_HOME": str(self.folder), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "4000"},
            capture_output=True,
            text=True,
            timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr


def recap(output: str) -> dict[str, dict[str, int]]:
    """{host: {"ok": 2, "changed": 1, ...}}"""
    told = {}
    for line in output.partition("PLAY RECAP")[2].splitlines()[1:]:
        host, _, counts = line.partition(" : ")
        if counts:
            pairs = (pair.split("=") for pair in counts.split())
            told[host.strip()] = {key: int(value) for key, value in pairs}
    return told


def changed(output: str) -> list[int]:
    counts = recap(output)
    assert all(not c["failed"] and not c["unreachable"] for c in counts.values()), output
    return [counts[host]["changed"] for host in sorted(counts)]


@pytest.fixture
def site(tmp_path, served) -> Site:
    made = Site(tmp_path, served)
    made.write({"switch_community": "writes"})
    return made


def test_nodes_of_one_switch_are_switched_each_on_its_own_port(site):
    for number in (1, 2, 3, 4):
        site.served.turn(number, True)
    output = site.run("turn_off", "turn_on")
    assert changed(output) == [2, 2, 2]
    assert output.count('"remember": {"power": "off"}') == 3
    assert output.count('"remember": {"power": "on"}') == 3
    for number in (1, 2, 3):
        heard = [on for port, on in site.served.powered if port == number]
        assert heard == [True, False, True]
    assert [on for port, on in site.served.powered if port == 4] == [True]


def test_a_second_run_changes_nothing(site):
    assert changed(site.run("turn_off")) == [0, 0, 0]
    assert changed(site.run("turn_on")) == [1, 1, 1]
    again = site.run("turn_on", memory={"power": "off"})
    assert changed(again) == [0, 0, 0]
    assert again.count('"remember": {"power": "on"}') == 3


def test_check_mode_switches_nothing_and_says_what_it_would(site):
    site.served.turn(1, True)
    output = site.run("turn_off", options=("--check", "--diff"))
    assert changed(output) == [1, 0, 0]
    assert "-port 1: on deliveringPower\n+port 1: off disabled\n" in output
    assert site.served.sets() == []


@pytest.mark.parametrize("memory", [{}, {"power": "on"}])
def test_turn_on_refuses_a_port_that_nobody_proved_off(site, memory):
    site.served.turn(1, True)
    output = site.run("turn_on", memory=memory)
    assert "port 1 is on already, and was not proven off before: switch off first" in output
    counts = recap(output)
    assert counts["node1"]["failed"] == 1
    assert counts["node2"]["failed"] == counts["node3"]["failed"] == 0


def test_v3_from_the_inventory(site):
    secrets = {f"switch_{name}": value for name, value in V3.items()}
    site.write({**secrets, "switch_auth_protocol": "sha", "switch_priv_protocol": "aes"})
    output = site.run("turn_on")
    assert changed(output) == [1, 1, 1]
    assert "auth-password" not in output


def test_one_node_on_a_broken_port_fails_alone(tmp_path, start_switch):
    site = Site(tmp_path, start_switch(stuck_off=[2]))
    impatient = {n: {"node_port": n, "turn_on_confirm_timeout": 2} for n in (1, 2, 3)}
    site.write({"switch_community": "writes"}, {f"node{n}": v for n, v in impatient.items()})
    output = site.run("turn_on")
    assert "port 2: enabled, but the switch finds nothing that wants power" in output
    counts = recap(output)
    assert [counts[f"node{number}"]["failed"] for number in (1, 2, 3)] == [0, 1, 0]


def test_turn_off_looks_again_after_the_rest(tmp_path, start_switch):
    served: Served

    def undo(port: int, on: bool) -> None:
        if not on:
            served.thread.loop.call_later(0.2, served.switch.set_port, port, True)

    served = start_switch(hook=undo)
    site = Site(tmp_path, served)
    rest = {"node_port": 1, "turn_off_rest_seconds": 1}
    site.write({"switch_community": "writes"}, {"node1": rest})
    served.turn(1, True)
    assert "port 1 did not stay off for 1 s" in site.run("turn_off")


def test_a_forbidden_port_is_refused(site):
    site.write({"switch_community": "writes"}, {"node8": {"node_port": 8}})
    output = site.run("turn_off")
    assert "port 8 is in forbidden_ports" in output
    assert list(site.served.switch.recent) == []


def test_an_inventory_without_the_port_count_is_one_clear_error(site):
    site.write({"switch_community": "writes", "switch_port_count": "many"})
    output = site.run("turn_off")
    assert "turn_off_port_count" in output
    assert recap(output)["node1"]["failed"] == 1
    assert list(site.served.switch.recent) == []
