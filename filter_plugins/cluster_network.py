"""Filters for the configuration of a cluster's network: pure functions, no I/O."""

import ipaddress
import re

from ansible.errors import AnsibleFilterError

MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, 2.1: one label


def _network(cidr):
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise AnsibleFilterError(f"{cidr!r} is not an IPv4 network: {error}") from error


def network_address(cidr):
    """The first address of a network: "10.77.0.0/24" -> "10.77.0.0"."""
    return str(_network(cidr).network_address)


def network_mask(cidr):
    """The mask of a network: "10.77.0.0/24" -> "255.255.255.0"."""
    return str(_network(cidr).netmask)


def cluster_nodes(names, hostvars, cidr):
    """The nodes as [{name, mac, address}], in the order of `names`.

    Raises AnsibleFilterError naming the node when its name is no host name, when `node_mac` or
    `ansible_host` is missing or malformed, when the address is outside the network, or when two
    nodes share an address or a MAC address.
    """
    network = _network(cidr)
    nodes, holder = [], {}
    for name in names:
        node = _node(name, hostvars[name], network)
        for value in (node["mac"], node["address"]):
            if value in holder:
                raise AnsibleFilterError(f"{holder[value]} and {name} both have {value}")
            holder[value] = name
        nodes.append(node)
    return nodes


def _node(name, variables, network):
    if not NAME.fullmatch(name):
        raise AnsibleFilterError(f"node {name!r}: not a host name (lower-case letters, digits, -)")
    mac = str(variables.get("node_mac", "")).lower()
    if not MAC.fullmatch(mac):
        raise AnsibleFilterError(f"node {name}: node_mac {mac!r} is not a MAC address")
    address = str(variables.get("ansible_host", ""))
    try:
        inside = ipaddress.IPv4Address(address) in network
    except ValueError as error:
        raise AnsibleFilterError(
            f"node {name}: ansible_host {address!r} is not an IPv4 address"
        ) from error
    if not inside:
        raise AnsibleFilterError(f"node {name}: address {address} is not in {network}")
    return {"name": name, "mac": mac, "address": address}


class FilterModule:
    """The filters of this file, by the name used in templates."""

    def filters(self):
        return {
            "cluster_nodes": cluster_nodes,
            "network_address": network_address,
            "network_mask": network_mask,
        }
