"""poe_port against net-snmp's snmpd: an agent that shares no code with ours or with pysnmp."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from poe_bench import V2C, V3, one_line, poe_port, port

SNMPD = shutil.which("snmpd", path="/usr/sbin:/usr/bin:/sbin:/bin")
PORTS_PROGRAM = Path(__file__).with_name("pass_persist_ports.py")

USERS = {  # name: auth protocol, priv protocol
    "poe": ("SHA", "AES"),
    "poe256": ("SHA-256", "AES"),
    "poe512": ("SHA-512", "AES"),
    "poemd5": ("MD5", "DES"),
}


@dataclass
class Snmpd:
    udp_port: int
    state_file: Path
    process: subprocess.Popen

    @property
    def place(self) -> dict:
        return {"address": "127.0.0.1", "udp_port": self.udp_port, "port_count": 8}

    @property
    def state(self) -> dict:
        return json.loads(self.state_file.read_text())

    def change(self, **changes) -> None:
        self.state_file.write_text(json.dumps(self.state | changes))


def configuration(udp_port: int, state_file: Path) -> str:
    lines = [
        f"agentAddress udp:127.0.0.1:{udp_port}",
        "rocommunity reads 127.0.0.1",
        "rwcommunity writes 127.0.0.1",
        f"pass_persist .1.3.6.1.2.1.105.1.1.1 {sys.executable} {PORTS_PROGRAM} {state_file}",
    ]
    for user, (auth, priv) in USERS.items():
        lines.append(f'createUser {user} {auth} "auth-password" {priv} "priv-password"')
        lines.append(f"rwuser {user} priv")
    lines += ['createUser looks SHA "auth-password" AES "priv-password"', "rouser looks priv"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def snmpd(tmp_path) -> Iterator[Snmpd]:
    assert SNMPD, "net-snmp's agent is missing: apt-get install snmpd"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        udp_port = probe.getsockname()[1]
    state_file = tmp_path / "ports.json"
    ports = [str(number) for number in range(1, 9)]
    state = {
        "admin": dict.fromkeys(ports, 2),
        "status": dict.fromkeys(ports, 1),
        "refuse": [],
        "deaf": [],
        "sets": [],
    }
    state_file.write_text(json.dumps(state))
    settings = tmp_path / "snmpd.conf"
    settings.write_text(configuration(udp_port, state_file))
    log = tmp_path / "snmpd.log"
    process = subprocess.Popen(
        [SNMPD, "-f", "-Lf", str(log), "-C", "-c", str(settings)],
        env={"SNMP_PERSISTENT_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "MIBS": ""},
    )
    agent = Snmpd(udp_port, state_file, process)
    try:
        ready = poe_port(agent.place, V2C, state="query", request_timeout=0.2, request_retries=50)
        assert "failed" not in ready, f"{ready}\n{log.read_text()}"
        yield agent
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("credentials", [V2C, V3], ids=["v2c", "v3"])
def test_on_and_off_and_again(snmpd, credentials):
    on = poe_port(snmpd.place, credentials, ports=[3, 4], state="on")
    assert on["changed"] is True
    assert on["after"] == [port(3, "on", "deliveringPower"), port(4, "on", "deliveringPower")]

    again = poe_port(snmpd.place, credentials, ports=[3, 4], state="on")
    assert again["changed"] is False

    off = poe_port(snmpd.place, credentials, ports=[3], state="off")
    assert off["after"] == [port(3, "off", "disabled")]
    assert snmpd.state["sets"] == [[3, 1], [4, 1], [3, 2]]


@pytest.mark.parametrize(
    ("user", "auth", "priv"),
    [("poe256", "sha256", "aes"), ("poe512", "sha512", "aes"), ("poemd5", "md5", "des")],
)
def test_v3_protocols(snmpd, user, auth, priv):
    credentials = {**V3, "user": user, "auth_protocol": auth, "priv_protocol": priv}
    result = poe_port(snmpd.place, credentials, ports=[1], state="on")
    assert result["after"] == [port(1, "on", "deliveringPower")]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"user": "nobody"}, "knows no SNMPv3 user 'nobody'"),
        ({"auth_password": "another-password"}, "auth_password or auth_protocol is wrong"),
        ({"priv_password": "another-password"}, "priv_password or the priv_protocol is wrong"),
        ({"user": "looks"}, "the SNMPv3 user 'looks' may read but not write"),
        ({"priv_password": ""}, "does not let the SNMPv3 user 'poe' read its ports"),
    ],
)
def test_wrong_v3_credentials(snmpd, wrong, says):
    result = poe_port(
        snmpd.place, {**V3, **wrong}, ports=[1], state="on", request_timeout=0.5, request_retries=1
    )
    assert says in one_line(result)
    assert snmpd.state["sets"] == []


def test_a_community_that_may_only_read(snmpd):
    result = poe_port(snmpd.place, {"community": "reads"}, ports=[1], state="on")
    assert "may read but not write" in one_line(result)
    assert result["changed"] is False


def test_a_port_that_does_not_exist(snmpd):
    place = {**snmpd.place, "port_count": 24}
    message = one_line(poe_port(place, V2C, ports=[9], state="on"))
    assert "port 9 does not exist on the switch" in message


def test_a_set_that_was_carried_out_in_part_is_reported_as_it_is(snmpd):
    snmpd.change(refuse=[3])
    result = poe_port(snmpd.place, V2C, ports=[2, 3, 4], state="on")
    message = one_line(result)
    assert "refused to switch port 3 on" in message
    done = snmpd.state["admin"]
    assert [state["admin"] for state in result["after"]] == [
        {1: "on", 2: "off"}[done[number]] for number in "234"
    ]
    assert result["changed"] is ("on" in {state["admin"] for state in result["after"]})


def test_says_yes_and_does_nothing(snmpd):
    snmpd.change(deaf=[5])
    result = poe_port(snmpd.place, V2C, ports=[5], state="on", confirm_timeout=1)
    assert "port 5: the switch accepted `on` but still says `off`" in one_line(result)


def test_the_agent_stands_still_in_the_middle(snmpd):
    """For longer than one try is patient; what piles up meanwhile is answered late, and twice."""
    snmpd.process.send_signal(signal.SIGSTOP)
    goes_on = threading.Timer(1, snmpd.process.send_signal, [signal.SIGCONT])
    goes_on.start()
    result = poe_port(
        snmpd.place, V3, ports=[1], state="on", request_timeout=0.3, request_retries=20
    )
    goes_on.join()
    assert result["after"] == [port(1, "on", "deliveringPower")]
