"""The filters that turn the inventory into the configuration of the cluster's network."""

import importlib.util
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

SOURCE = Path(__file__).parents[2] / "filter_plugins" / "cluster_network.py"


def _load():
    spec = importlib.util.spec_from_file_location("cluster_network", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters = _load().FilterModule().filters()
NETWORK = "10.77.0.0/24"


def node(**changes):
    return {"node_mac": "DC:A6:32:00:00:01", "ansible_host": "10.77.0.101"} | changes


def nodes(hostvars):
    return filters["cluster_nodes"](list(hostvars), hostvars, NETWORK)


def test_address_and_mask_of_a_network():
    assert filters["network_address"]("10.77.4.0/22") == "10.77.4.0"
    assert filters["network_mask"]("10.77.4.0/22") == "255.255.252.0"


def test_nodes_keep_their_order_and_mac_addresses_become_lower_case():
    second = node(node_mac="dc:a6:32:00:00:02", ansible_host="10.77.0.102")
    assert nodes({"pi-2": second, "pi-1": node()}) == [
        {"name": "pi-2", "mac": "dc:a6:32:00:00:02", "address": "10.77.0.102"},
        {"name": "pi-1", "mac": "dc:a6:32:00:00:01", "address": "10.77.0.101"},
    ]


@pytest.mark.parametrize(
    ("hostvars", "message"),
    [
        ({"Pi 1": node()}, "'Pi 1': not a host name"),
        ({"pi-1": {"ansible_host": "10.77.0.101"}}, "pi-1: node_mac '' is not a MAC"),
        ({"pi-1": node(node_mac="dc:a6:32:00:00:01,evil")}, "node_mac .* is not a MAC"),
        ({"pi-1": node(ansible_host="pi-1.lan")}, "'pi-1.lan' is not an IPv4 address"),
        ({"pi-1": node(ansible_host="10.78.0.1")}, "10.78.0.1 is not in 10.77.0.0/24"),
        (
            {"pi-1": node(), "pi-2": node(node_mac="dc:a6:32:00:00:02")},
            "pi-1 and pi-2 both have 10.77.0.101",
        ),
        (
            {"pi-1": node(), "pi-2": node(ansible_host="10.77.0.9")},
            "pi-1 and pi-2 both have dc:a6:32:00:00:01",
        ),
    ],
)
def test_a_malformed_node_is_named(hostvars, message):
    with pytest.raises(AnsibleFilterError, match=message):
        nodes(hostvars)


def test_a_network_with_host_bits_is_refused():
    with pytest.raises(AnsibleFilterError, match="'10.77.0.1/24' is not an IPv4 network"):
        filters["network_mask"]("10.77.0.1/24")
