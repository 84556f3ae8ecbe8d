"""Settings of a lab: what is derived from them, and which are refused."""

import re
from dataclasses import replace

import pytest

from piseduce_runner.errors import UserError
from piseduce_runner.lab.settings import Settings, check, parse_amount, parse_link_rate

GOOD = Settings(name="lab", nodes=4, network="10.77.0.0/24")


def test_addresses_follow_the_network():
    settings = replace(GOOD, network="10.80.4.0/22")
    assert settings.manager_address == "10.80.4.1"
    assert settings.switch_address == "10.80.4.252"
    assert settings.node(3).address == "10.80.4.103"


def test_nodes_are_numbered_alike_everywhere():
    node = GOOD.node(12)
    assert (node.name, node.port) == ("node-12", 12)
    assert (node.mac, node.serial) == ("dc:a6:32:00:00:0c", "1000000c")


@pytest.mark.parametrize(("nodes", "ports"), [(1, 8), (7, 8), (8, 16), (24, 48), (150, 160)])
def test_the_switch_has_an_uplink_port_to_spare(nodes, ports):
    assert replace(GOOD, nodes=nodes).port_count == ports


def test_settings_survive_the_file(tmp_path):
    settings = replace(GOOD, no_card=("node-1",), stuck_on=("node-2",), card_rate=20 << 20)
    file = tmp_path / "settings.json"
    file.write_text(settings.to_json())
    assert Settings.from_file(file) == settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../etc"}, "--name"),
        ({"name": ""}, "--name"),
        ({"nodes": 0}, "1 to 150"),
        ({"nodes": 151}, "1 to 150"),
        ({"network": "10.77.0.0/25"}, "/24"),
        ({"network": "10.77.0.1/24"}, "host bits"),
        ({"network": "8.8.8.0/24"}, "private"),
        ({"network": "127.1.0.0/24"}, "private"),
        ({"network": "0.0.0.0/0"}, "private"),
        ({"network": "nonsense"}, "--network nonsense"),
        ({"boot_time": -1.0}, "--boot-time"),
        ({"boot_time": float("nan")}, "--boot-time"),
        ({"boot_time": float("inf")}, "--boot-time"),
        ({"card_size": 1 << 20}, "--card-size"),
        ({"card_size": (64 << 20) + 1}, "sectors"),
        ({"no_card": ("node-5",)}, "--no-card node-5"),
        ({"stuck_off": ("pimaster",)}, "--stuck-off pimaster"),
        ({"stuck_off": ("node-1",), "stuck_on": ("node-1",)}, "both"),
    ],
)
def test_senseless_settings_are_refused_by_name(changes, words):
    check(GOOD)
    with pytest.raises(UserError, match=re.escape(words)):
        check(replace(GOOD, **changes))


@pytest.mark.parametrize(
    ("text", "amount"), [("20M", 20 << 20), ("1.5k", 1536), ("4GiB", 4 << 30), ("7", 7)]
)
def test_amounts_are_binary(text, amount):
    assert parse_amount(text, "--card-size") == amount


@pytest.mark.parametrize("text", ["", "M", "-1M", "1X", "0", "0.1", "1 000"])
def test_amounts_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="--card-rate"):
        parse_amount(text, "--card-rate")


def test_link_rates_are_decimal_bits():
    assert parse_link_rate("100M", "--link-rate") == 10**8
    with pytest.raises(UserError, match="--link-rate"):
        parse_link_rate("10", "--link-rate")
