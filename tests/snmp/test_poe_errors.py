"""poe_port against the lab's switch: each way it can go wrong has its own message."""

import json
import socket
import subprocess
import sys
import threading

import pytest
from poe_bench import (
    ADMIN_OID,
    RUN_MODULE,
    STATUS_OID,
    V2C,
    V3,
    Served,
    one_line,
    poe_port,
    port,
)

from piseduce_runner.lab.switch import Detection

QUICK = {"request_timeout": 0.3, "request_retries": 1, "confirm_timeout": 2}


# Whom does it reach, and as whom?


def test_wrong_community_is_met_with_silence_and_the_message_says_so(served):
    result = poe_port(served.place, {"community": "guess"}, ports=[1], state="on", **QUICK)
    message = one_line(result)
    assert f"no answer from the switch at 127.0.0.1 (UDP port {served.udp_port})" in message
    assert "(2 tries)" in message
    assert "community is wrong" in message
    assert "guess" not in message
    assert "before" not in result


def test_a_closed_port_is_told_from_a_silent_switch():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        place = {"address": "127.0.0.1", "udp_port": reserved.getsockname()[1], "port_count": 8}
    message = one_line(poe_port(place, V2C, ports=[1], state="on", **QUICK))
    assert "no SNMP agent listens on that port" in message


def test_an_address_that_cannot_be_used():
    place = {"address": "192.0.2.300", "port_count": 8}
    message = one_line(poe_port(place, V2C, ports=[1], state="on", **QUICK))
    assert "address '192.0.2.300' cannot be used" in message


def test_a_community_that_may_only_read(served):
    result = poe_port(served.place, {"community": "reads"}, ports=[1, 2], state="on")
    message = one_line(result)
    assert result["hopeless"] is True
    assert "refused to switch port 1 on (noAccess)" in message
    assert "may read but not write" in message
    assert result["changed"] is False
    assert result["after"] == result["before"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"user": "nobody"}, "knows no SNMPv3 user 'nobody'"),
        ({"auth_password": "another-password"}, "auth_password or auth_protocol is wrong"),
        ({"auth_protocol": "sha256"}, "auth_password or auth_protocol is wrong"),
        ({"priv_password": "another-password"}, "priv_password or priv_protocol is wrong"),
        ({"priv_protocol": "des"}, "priv_password or priv_protocol is wrong"),
        ({"priv_password": ""}, "does not admit the SNMPv3 user 'poe' with authNoPriv"),
        (
            {"auth_password": "", "priv_password": ""},
            "does not admit the SNMPv3 user 'poe' with noAuthNoPriv",
        ),
    ],
)
def test_wrong_v3_credentials(served, wrong, says):
    result = poe_port(served.place, {**V3, **wrong}, ports=[1], state="on", **QUICK)
    message = one_line(result)
    assert result["hopeless"] is True
    assert says in message
    assert f"127.0.0.1 (UDP port {served.udp_port})" in message
    assert served.powered == []


def test_a_silent_v3_switch(served):
    served.switch.faults.silent = True
    result = poe_port(served.place, V3, ports=[1], state="on", **QUICK)
    assert "SNMPv3 is disabled on it" in one_line(result)
    assert "hopeless" not in result  # it may be busy, or rebooting


def test_something_that_answers_but_does_not_speak_snmp(served):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as impostor:
        impostor.bind(("127.0.0.1", 0))

        def babble() -> None:
            _, sender = impostor.recvfrom(65535)
            for noise in (b"", b"\x00", b"\x30\x82\xff\xff", b"HTTP/1.1 400 Bad Request\r\n"):
                impostor.sendto(noise, sender)

        answered = served.thread.loop.run_in_executor(None, babble)
        place = {**served.place, "udp_port": impostor.getsockname()[1]}
        message = one_line(poe_port(place, V2C, ports=[1], state="on", **QUICK))
        assert answered.exception() is None
    assert "no answer from the switch" in message


# What it has, and what it refuses


def test_a_port_that_the_switch_does_not_have(served):
    place = {**served.place, "port_count": 24}
    result = poe_port(place, V2C, ports=[2, 9], state="on")
    message = one_line(result)
    assert result["hopeless"] is True
    assert "port 9 does not exist on the switch" in message
    assert f"{ADMIN_OID}.9 (port_offset 0 + port 9)" in message
    assert served.sets() == []


def test_a_wrong_offset_names_the_object_it_asked_for(served):
    message = one_line(poe_port(served.place, V2C, ports=[2], port_offset=48, state="on"))
    assert f"{ADMIN_OID}.50 (port_offset 48 + port 2)" in message


def test_a_wrong_admin_oid(served):
    wrong = "1.3.6.1.4.1.9.9.402.1.2.1.1.1"
    message = one_line(poe_port(served.place, V2C, ports=[2], admin_oid=wrong, state="on"))
    assert f"has no column {wrong}" in message
    assert "correct admin_oid" in message


def test_a_switch_without_the_status_column(served):
    wrong = "1.3.6.1.2.1.106.1"
    message = one_line(poe_port(served.place, V2C, ports=[2], status_oid=wrong, state="on"))
    assert "correct status_oid or set it to the empty string" in message
    assert served.sets() == []


def test_a_column_of_something_else_is_not_taken_for_the_admin_state(start_switch):
    served = start_switch(detect=lambda _: Detection.DELIVERING_POWER)
    served.turn(2, True)
    message = one_line(poe_port(served.place, V2C, ports=[2], admin_oid=STATUS_OID, state="off"))
    assert f"answers 3 for {STATUS_OID}.2" in message


def test_a_refused_set_names_the_port_and_switches_none(served):
    served.switch.faults.refuse = {3: "resourceUnavailable"}
    result = poe_port(served.place, V2C, ports=[2, 3, 4], state="on")
    message = one_line(result)
    assert "refused to switch port 3 on (resourceUnavailable)" in message
    assert "power budget" in message
    assert result["changed"] is False
    assert served.powered == []


def test_a_value_that_the_switch_does_not_take(served):
    served.switch.faults.refuse = {1: "wrongValue"}
    message = one_line(poe_port(served.place, V2C, ports=[1], state="on"))
    assert "(wrongValue)" in message
    assert "pethPsePortAdminEnable" in message


# It says yes, and then?


def test_a_switch_that_says_yes_and_does_nothing(start_switch):
    served = start_switch(deaf=[1])
    result = poe_port(served.place, V2C, ports=[1, 2], state="on", confirm_timeout=1)
    message = one_line(result)
    assert message.startswith("port 1: the switch accepted `on` but still says `off`")
    assert "port 2" not in message
    assert result["after"] == [port(1, "off", "disabled"), port(2, "on", "deliveringPower")]
    assert result["changed"] is True


def test_a_port_that_keeps_delivering_power_is_not_off(start_switch):
    served = start_switch(stuck_on=[1])
    served.turn(1, True)
    result = poe_port(served.place, V2C, ports=[1], state="off", confirm_timeout=1)
    assert "still delivers power" in one_line(result)
    assert result["after"] == [port(1, "off", "deliveringPower")]
    assert "remember" not in result


def test_a_port_that_keeps_delivering_power_is_not_switched_on_again(start_switch):
    served = start_switch(stuck_on=[1])
    served.turn(1, True)
    served.turn(1, False)
    result = poe_port(served.place, V2C, ports=[1], state="on", confirm_timeout=1)
    assert "a port must be proven off first" in one_line(result)
    assert served.sets() == []
    assert result["changed"] is False


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (Detection.SEARCHING, "finds nothing that wants power"),
        (Detection.DISABLED, "status stays `disabled`"),
        (Detection.FAULT, "reports a `fault`"),
        (Detection.TEST, "in `test` mode"),
        (Detection.OTHER_FAULT, "reports `otherFault`"),
    ],
)
def test_on_is_not_proven_until_power_is_delivered(start_switch, status, says):
    served = start_switch(detect=lambda _: status)
    result = poe_port(served.place, V2C, ports=[1], state="on", confirm_timeout=1)
    assert says in one_line(result)
    assert "remember" not in result


def test_a_port_in_test_is_not_off(start_switch):
    served = start_switch(stuck_on=[1], detect=lambda _: Detection.TEST)
    served.turn(1, True)
    result = poe_port(served.place, V2C, ports=[1], state="off", confirm_timeout=1)
    assert "in `test` mode" in one_line(result)


def test_a_fault_is_off_but_worth_a_warning(start_switch):
    served = start_switch(stuck_on=[1], detect=lambda _: Detection.FAULT)
    served.turn(1, True)
    result = poe_port(served.place, V2C, ports=[1], state="off")
    assert "failed" not in result
    assert "`fault`" in str(result["warnings"])


def test_the_board_that_appears_late_is_waited_for(start_switch):
    looks = []

    def detect(_port: int) -> Detection:
        looks.append(1)
        return Detection.DELIVERING_POWER if len(looks) > 3 else Detection.SEARCHING

    served = start_switch(detect=detect)
    result = poe_port(served.place, V2C, ports=[1], state="on")
    assert result["after"] == [port(1, "on", "deliveringPower")]


def test_same_reason_is_said_once_for_all_ports(start_switch):
    served = start_switch(stuck_off=[1, 2, 3])
    result = poe_port(served.place, V2C, ports=[1, 2, 3, 4], state="on", confirm_timeout=1)
    message = one_line(result)
    assert message.startswith("ports 1, 2, 3: enabled, but the switch finds nothing")


def test_a_port_that_comes_back_during_the_rest(start_switch):
    served: Served

    def undo(port_number: int, on: bool) -> None:
        if not on:
            served.thread.loop.call_later(0.2, served.switch.set_port, port_number, True)

    served = start_switch(hook=undo)
    served.turn(1, True)
    result = poe_port(served.place, V2C, ports=[1], state="off", hold_seconds=1)
    assert "did not stay off for 1 s: something else switches it too" in one_line(result)
    assert result["after"] == [port(1, "on", "deliveringPower")]
    assert "remember" not in result


# It falls silent


@pytest.fixture
def falls_silent(start_switch):
    """A switch that does what it is told and never answers again."""
    served: Served

    def silence(_port: int, _on: bool) -> None:
        served.switch.faults.silent = True

    served = start_switch(hook=silence)
    return served


@pytest.mark.parametrize("credentials", [V2C, V3], ids=["v2c", "v3"])
def test_a_switch_that_falls_silent_in_the_middle_ends_at_the_deadline(falls_silent, credentials):
    # The requests' own patience is an hour: only the deadline ends this call before the bench does.
    result = poe_port(
        falls_silent.place,
        credentials,
        ports=[1],
        state="on",
        confirm_timeout=2,
        request_timeout=60,
        request_retries=60,
    )
    message = one_line(result)
    assert "whether port 1 went on is not known" in message
    assert "after" not in result
    assert result["changed"] is True


@pytest.mark.parametrize("state", ["on", "off"])
def test_a_call_that_was_killed_after_its_set_is_taken_up_and_nothing_is_set_twice(
    start_switch, state
):
    served: Served
    obeyed = threading.Event()

    def silence(_port: int, on: bool) -> None:
        if on == (state == "on"):
            served.switch.faults.silent = True  # so that the call waits
            obeyed.set()

    served = start_switch(hook=silence)
    served.turn(1, state == "off")
    arguments = {**served.place, **V2C, "ports": [1], "state": state, "request_timeout": 60}
    call = subprocess.Popen([sys.executable, "-c", RUN_MODULE], stdin=subprocess.PIPE)
    call.stdin.write(json.dumps(arguments).encode())
    call.stdin.close()
    assert obeyed.wait(60)
    call.kill()
    call.wait()
    served.switch.faults.silent = False
    result = poe_port(served.place, V2C, ports=[1], state=state)
    assert result["remember"] == {"power": state}
    assert served.sets() == [[1]]


def test_an_answer_to_the_set_that_is_lost_does_no_harm(start_switch):
    served: Served

    def lose_the_answer(_port: int, _on: bool) -> None:
        served.switch.faults.drop_answers = 1

    served = start_switch(hook=lose_the_answer)
    result = poe_port(served.place, V2C, ports=[1], state="on", request_timeout=0.2)
    assert result["changed"] is True
    assert served.sets() == [[1], [1]]
    assert served.powered == [(1, True)]


def test_no_answer_to_the_set_is_success_if_it_was_done_all_the_same(start_switch):
    served: Served

    def lose_the_answers(_port: int, _on: bool) -> None:
        served.switch.faults.drop_answers = 2

    served = start_switch(hook=lose_the_answers)
    result = poe_port(
        served.place, V2C, ports=[1], state="on", request_timeout=0.2, request_retries=1
    )
    assert result["after"] == [port(1, "on", "deliveringPower")]


def test_no_answer_to_the_set_and_nothing_done(served):
    served.switch.faults.ignore_sets = True
    result = poe_port(served.place, V2C, ports=[1], state="on", **QUICK)
    message = one_line(result)
    assert message.startswith("port 1: still off; no answer from the switch")
    assert "SNMP SET" in message
    assert result["changed"] is False


def test_silence_after_the_ports_were_seen_says_what_was_seen_last(start_switch):
    looks = []

    def detect(_port: int) -> Detection:
        looks.append(1)
        if len(looks) == 3:
            served.switch.faults.silent = True
        return Detection.SEARCHING

    served = start_switch(detect=detect)
    result = poe_port(
        served.place, V2C, ports=[1], state="on", confirm_timeout=2, request_timeout=0.3
    )
    message = one_line(result)
    assert "finds nothing that wants power" in message
    assert "this was the last that was seen: no answer" in message
    assert "after" not in result


def test_a_rest_that_no_longer_fits_is_an_error(start_switch):
    served = start_switch(stuck_on=[1])
    served.turn(1, True)

    def let_go() -> None:
        served.switch.stuck_on.clear()
        served.switch.set_port(1, False)

    served.thread.loop.call_soon_threadsafe(served.thread.loop.call_later, 1.5, let_go)
    result = poe_port(
        served.place, V2C, ports=[1], state="off", hold_seconds=1.9, confirm_timeout=2
    )
    assert "does not fit into confirm_timeout" in one_line(result)
