"""What poe_port refuses before a packet leaves: nobody listens at this address."""

import importlib.util

import pytest
from poe_bench import ROOT, V2C, V3, one_line, run_module

PLACE = {"address": "192.0.2.1", "port_count": 8, "ports": [3], "state": "on"}


@pytest.fixture(scope="module")
def module():
    """The module's file as a Python module, for its functions."""
    spec = importlib.util.spec_from_file_location("poe_port", ROOT / "library" / "poe_port.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def params(module, **changes):
    """The module's parameters, defaults filled in."""
    filled = {name: option.get("default") for name, option in module.SPEC.items()}
    return {**filled, **PLACE, **V2C, **changes}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ports": [0]}, "port 0 is not on this switch, which has ports 1 to 8"),
        ({"ports": [-1, 3, 9]}, "ports -1, 9 are not on this switch"),
        ({"ports": [3, 8], "forbidden_ports": [1, 8]}, "port 8 is in forbidden_ports"),
        ({"ports": []}, "ports is empty: nothing to switch on"),
        ({"port_count": 0}, "port_count must be at least 1"),
    ],
)
def test_ports_that_are_not_to_be_touched(module, changes, says):
    with pytest.raises(ValueError, match=says):
        module.checked_ports(params(module, **changes))


@pytest.mark.parametrize("state", ["on", "off"])
def test_a_forbidden_port_is_refused_in_both_directions(module, state):
    with pytest.raises(ValueError, match="refused, nothing was sent"):
        module.checked_ports(params(module, state=state, forbidden_ports=[3]))


def test_each_port_is_taken_once_in_the_order_given(module):
    assert module.checked_ports(params(module, ports=[5, 3, 5])) == [5, 3]


def test_query_without_ports_means_all(module):
    assert module.checked_ports(params(module, ports=[], state="query")) == list(range(1, 9))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"confirm_timeout": 0.0}, "confirm_timeout must be greater than 0"),
        ({"confirm_timeout": float("nan")}, "confirm_timeout must be greater than 0"),
        ({"poll_interval": -1.0}, "poll_interval must be greater than 0"),
        ({"request_timeout": 0.0}, "request_timeout must be greater than 0"),
        ({"request_retries": -1}, "request_retries must not be negative"),
        ({"hold_seconds": -0.5}, "hold_seconds must not be negative"),
        ({"hold_seconds": 30.0}, "does not fit into confirm_timeout"),
        ({"port_offset": -1}, "port_offset must not be negative"),
        ({"udp_port": 0}, "udp_port must be 1 to 65535"),
        ({"udp_port": 65536}, "udp_port must be 1 to 65535"),
    ],
)
def test_numbers_that_make_no_sense(module, changes, says):
    with pytest.raises(ValueError, match=says):
        module.check_times(params(module, **changes))


@pytest.mark.parametrize("text", ["", "1", "iso.3.6", "1.3.6.", "1..3", "3.1", "1.3;4", "1.3.6\n"])
def test_what_is_not_an_object_identifier(module, text):
    with pytest.raises(ValueError, match="admin_oid is not a numeric object identifier"):
        module.parse_oid("admin_oid", text)


@pytest.mark.parametrize("text", ["1.3.6.1", ".1.3.6.1"])
def test_an_object_identifier_may_start_with_a_dot(module, text):
    assert module.parse_oid("admin_oid", text) == (1, 3, 6, 1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"community": ""}, "community is empty"),
        ({**V3, "user": ""}, "user is empty"),
        ({**V3, "auth_password": ""}, "privacy needs authentication"),
        ({**V3, "auth_password": "short"}, "auth_password has less than 8 characters"),
        ({**V3, "priv_password": "short"}, "priv_password has less than 8 characters"),
    ],
)
def test_credentials_that_cannot_be(module, changes, says):
    with pytest.raises(ValueError, match=says):
        module.make_security(params(module, **changes))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({**PLACE, **V2C, "ports": [9]}, "port 9 is not on this switch"),
        ({**PLACE, **V2C, "status_oid": "none"}, "status_oid is not a numeric object identifier"),
        (PLACE, "community"),
        ({**PLACE, "version": "v3"}, "user"),
        ({**PLACE, **V2C, "state": "cycle"}, "value of state must be one of"),
        ({**PLACE, **V2C, "ports": ["three"]}, "ports"),
    ],
)
def test_the_module_says_it_in_one_line(arguments, says):
    assert says in one_line(run_module(arguments))


def test_a_forbidden_port_stays_forbidden_however_often_it_is_tried():
    result = run_module({**PLACE, **V2C, "forbidden_ports": [3]})
    assert "in forbidden_ports" in one_line(result)
    assert result["hopeless"] is True


def test_a_manager_without_pysnmp_is_told_so():
    without = "import sys; sys.modules['pysnmp'] = None\n"
    message = one_line(run_module({**PLACE, **V2C}, prelude=without))
    assert "Failed to import the required Python library (pysnmp)" in message


def test_a_yaml_boolean_is_understood_as_the_state(served):
    """`state: on` without quotes is true in YAML 1.1."""
    result = run_module({**served.place, **V2C, "ports": [1], "state": True})
    assert result["after"][0]["admin"] == "on"


def test_secrets_are_not_returned(served):
    result = run_module({**served.place, **V3, "ports": [1], "state": "on"})
    assert "auth-password" not in str(result)
    assert "priv-password" not in str(result)


def test_documentation_and_options_agree(module):
    import yaml

    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert documented.keys() == module.SPEC.keys()
    for name, option in module.SPEC.items():
        told = {key: documented[name].get(key) for key in ("type", "default", "choices")}
        assert told == {key: option.get(key) for key in ("type", "default", "choices")}, name
        assert documented[name].get("required", False) == option.get("required", False), name
