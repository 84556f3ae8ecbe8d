"""poe_port against the lab's switch: what it does when nothing is wrong."""

from dataclasses import replace

import pytest
from poe_bench import ACCESS, V2C, V3, one_line, poe_port, port


@pytest.mark.parametrize("credentials", [V2C, V3], ids=["v2c", "v3"])
def test_switches_a_port_on_and_off_and_tells_before_and_after(served, credentials):
    on = poe_port(served.place, credentials, ports=[3], state="on")
    assert on["changed"] is True
    assert on["before"] == [port(3, "off", "disabled")]
    assert on["after"] == [port(3, "on", "deliveringPower")]
    assert on["remember"] == {"power": "on"}

    off = poe_port(served.place, credentials, ports=[3], state="off")
    assert off["changed"] is True
    assert off["after"] == [port(3, "off", "disabled")]
    assert off["remember"] == {"power": "off"}
    assert served.powered == [(3, True), (3, False)]


def test_does_not_set_a_port_that_is_as_asked(served):
    served.turn(3, True)
    again = poe_port(served.place, V2C, ports=[3], state="on")
    assert again["changed"] is False
    assert served.sets() == []


def test_sets_only_what_differs_and_all_of_it_in_one_request(served):
    served.turn(2, True)
    result = poe_port(served.place, V2C, ports=[4, 2, 1, 4], state="on")
    assert result["changed"] is True
    assert served.sets() == [[4, 1]]
    assert [state["port"] for state in result["after"]] == [4, 2, 1]


def test_splits_a_request_that_the_switch_finds_too_big(served):
    served.switch.faults.max_varbinds = 3
    result = poe_port(served.place, V2C, ports=list(range(1, 9)), state="on")
    assert "failed" not in result
    accepted = [ports for ports in served.sets() if len(ports) <= 3]
    assert sorted(sum(accepted, [])) == list(range(1, 9))
    assert all(served.switch.power.values())


def test_says_so_if_even_one_object_is_too_big(served):
    served.switch.faults.max_varbinds = -1
    message = one_line(poe_port(served.place, V2C, ports=[1], state="on"))
    assert "tooBig" in message


@pytest.mark.parametrize("state", ["on", "off"])
def test_check_mode_sends_no_set_and_promises_what_would_be(served, state):
    served.turn(1, True)
    arguments = {"ports": [1, 2], "state": state, "_ansible_check_mode": True}
    promised = poe_port(served.place, V2C, **arguments, _ansible_diff=True)
    assert promised["changed"] is True
    assert served.sets() == []
    assert "remember" not in promised

    kept = poe_port(served.place, V2C, ports=[1, 2], state=state, _ansible_diff=True)
    assert kept["after"] == promised["after"]
    assert kept["diff"] == promised["diff"]


def test_check_mode_of_what_is_already_so_promises_no_change(served):
    result = poe_port(served.place, V2C, ports=[1], state="off", _ansible_check_mode=True)
    assert result["changed"] is False
    assert result["after"] == result["before"]


def test_diff_shows_the_ports_before_and_after(served):
    result = poe_port(served.place, V2C, ports=[5], state="on", _ansible_diff=True)
    assert result["diff"] == {
        "before": "port 5: off disabled\n",
        "after": "port 5: on deliveringPower\n",
    }


def test_query_reads_all_ports_and_changes_nothing(served):
    served.turn(7, True)
    result = poe_port(served.place, {"community": "reads"}, state="query")
    assert result["changed"] is False
    assert [state["admin"] for state in result["after"]] == ["off"] * 6 + ["on", "off"]
    assert "remember" not in result


def test_query_may_read_a_forbidden_port(served):
    result = poe_port(served.place, V2C, ports=[8], forbidden_ports=[8], state="query")
    assert result["after"] == [port(8, "off", "disabled")]


def test_port_offset_is_added_to_the_port(start_switch):
    served = start_switch(first_index=49)
    poe_port(served.place, V2C, ports=[2], port_offset=48, state="on")
    assert served.powered == [(2, True)]


def test_without_status_oid_the_switch_is_taken_by_its_word(start_switch):
    served = start_switch(stuck_off=[1])
    result = poe_port(served.place, V2C, ports=[1], status_oid="", state="on")
    assert result["after"] == [port(1, "on", "")]


def test_hold_looks_again_at_the_end(served):
    reads_before = len([r for r in served.switch.recent if r.kind == "get"])
    assert reads_before == 0
    poe_port(served.place, V2C, ports=[1], state="off", hold_seconds=0.1)
    assert len([r for r in served.switch.recent if r.kind == "get"]) == 3


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_datagrams_are_sent_again(served, lost):
    served.switch.faults.drop_next = lost
    result = poe_port(served.place, V2C, ports=[1], state="on", request_timeout=0.3)
    assert result["changed"] is True


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_datagrams_are_sent_again_in_v3(served, lost):
    served.switch.faults.drop_next = lost
    result = poe_port(
        served.place, V3, ports=[1], state="on", request_timeout=0.3, request_retries=4
    )
    assert result["changed"] is True


@pytest.mark.parametrize("credentials", [V2C, V3], ids=["v2c", "v3"])
def test_a_switch_slower_than_a_try_is_still_understood(served, credentials):
    served.switch.faults.delay = 0.4
    result = poe_port(
        served.place, credentials, ports=[1], state="on", request_timeout=0.3, request_retries=5
    )
    assert result["changed"] is True
    assert served.powered == [(1, True)]


@pytest.mark.parametrize("auth", ["md5", "sha", "sha256", "sha512"])
@pytest.mark.parametrize("priv", ["des", "aes"])
def test_v3_protocols(start_switch, auth, priv):
    protocols = {"auth_protocol": auth, "priv_protocol": priv}
    served = start_switch(access=replace(ACCESS, **protocols))
    result = poe_port(served.place, {**V3, **protocols}, ports=[1], state="on")
    assert result["after"] == [port(1, "on", "deliveringPower")]


def test_on_waits_until_the_power_has_gone(start_switch):
    served = start_switch(stuck_on=[1])
    served.turn(1, True)
    served.turn(1, False)  # disabled, and still powered

    def let_go() -> None:
        served.switch.stuck_on.clear()
        served.switch.set_port(1, False)

    served.thread.loop.call_soon_threadsafe(served.thread.loop.call_later, 0.5, let_go)
    result = poe_port(served.place, V2C, ports=[1], state="on")
    assert result["changed"] is True
    assert served.powered == [(1, True), (1, False), (1, True)]


def test_a_port_that_is_on_is_refused_if_the_caller_needs_a_start(served):
    served.turn(1, True)
    result = poe_port(served.place, V2C, ports=[1, 2], state="on", allow_already_on=False)
    assert "port 1 is on already" in one_line(result)
    assert result["changed"] is False
    assert served.sets() == []
