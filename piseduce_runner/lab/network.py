"""The lab's network: one bridge (the switch's back plane), and a cable to each board.

A board is a network namespace that lives as long as the lab; its `eth0` is the far end of a veth
pair, with the board's MAC address and, until it boots, without an IP address.
"""

import ipaddress
import json
import subprocess

from piseduce_runner.errors import UserError
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.settings import DEFAULT_NAME, DEFAULT_NETWORK, Settings


def run(*command: str, stdin: str | None = None) -> str:
    """Output of a command that must succeed. RuntimeError: its own words."""
    result = subprocess.run(command, capture_output=True, text=True, input=stdin)
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip()).replace("\n", "; ")
        raise RuntimeError(f"{' '.join(command)}: {said or f'exit status {result.returncode}'}")
    return result.stdout


def choose(name: str, wanted: str | None) -> str:
    """The network of a new lab. UserError: what was asked for is taken.

    The default lab has the default network; others get the first free one after it.
    """
    taken = networks_in_use()
    if wanted is None and name != DEFAULT_NAME:
        base = ipaddress.IPv4Network(DEFAULT_NETWORK)
        for step in range(1, 179):
            candidate = ipaddress.IPv4Network(
                (int(base.network_address) + (step << 16), base.prefixlen)
            )
            if not _overlap(candidate, taken):
                return str(candidate)
        raise UserError("no free network for the lab; give one with --network")
    network = ipaddress.IPv4Network(wanted or DEFAULT_NETWORK)
    conflict = _overlap(network, taken)
    if conflict:
        raise UserError(f"network {network} is taken: {conflict}; choose another with --network")
    return str(network)


def networks_in_use() -> list[tuple[ipaddress.IPv4Network, str]]:
    """Every IPv4 network that an address or a route of this machine covers, and what it is."""
    found = []
    for interface in json.loads(run("ip", "-json", "-4", "address", "show")):
        for address in interface.get("addr_info", []):
            text = f"{address['local']}/{address['prefixlen']}"
            network = ipaddress.IPv4Interface(text).network
            found.append((network, f"{interface['ifname']} has {text}"))
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all")):
        destination = route.get("dst", "default")
        if destination == "default" or route.get("type") in ("broadcast", "multicast"):
            continue
        network = ipaddress.IPv4Network(destination, strict=False)
        if network.prefixlen:
            found.append((network, f"route {destination} through {route.get('dev', 'nowhere')}"))
    return found


def _overlap(
    network: ipaddress.IPv4Network, taken: list[tuple[ipaddress.IPv4Network, str]]
) -> str | None:
    return next((what for other, what in taken if network.overlaps(other)), None)


def create_bridge(lab: LabFolder, settings: Settings) -> None:
    """The bridge, with the addresses of the manager and of the switch's SNMP agent."""
    bridge = lab.bridge
    lines = [
        f"link add name {bridge} type bridge forward_delay 0",
        f"address add {settings.manager_address}/{settings.prefix_length} dev {bridge}",
        f"address add {settings.switch_address}/{settings.prefix_length} dev {bridge}",
        f"link set {bridge} up",
    ]
    _batch(lines)


def create_boards(lab: LabFolder, settings: Settings) -> None:
    """Namespaces and cables of all boards."""
    for node in settings.all_nodes():
        namespace, link = lab.namespace(node.index), lab.link(node.index)
        run("ip", "netns", "add", namespace)
        _batch(
            [
                f"link add name {link} type veth peer name eth0 netns {namespace} "
                f"address {node.mac}",
                f"link set {link} master {lab.bridge} up",
            ]
        )
        _batch(["link set lo up", "link set eth0 up"], namespace)
        if settings.link_rate:
            limit_link(link, settings.link_rate)
            limit_link("eth0", settings.link_rate, namespace)


def limit_link(interface: str, rate: int, namespace: str | None = None) -> None:
    """Lets an interface send at most `rate` bits/s (tc-tbf(8))."""
    inside = ("-netns", namespace) if namespace else ()
    # A bucket of 10 ms, but never smaller than one large segment.
    burst = max(rate // 8 // 100, 64 << 10)
    run(
        *("tc", *inside, "qdisc", "replace", "dev", interface, "root", "tbf"),
        *("rate", f"{rate}bit", "burst", f"{burst}b", "latency", "100ms"),
    )


def unlimit_link(interface: str, namespace: str | None = None) -> None:
    """Lets an interface send as fast as it can."""
    inside = ("-netns", namespace) if namespace else ()
    run("tc", *inside, "qdisc", "delete", "dev", interface, "root")


def _batch(lines: list[str], namespace: str | None = None) -> None:
    inside = ("-netns", namespace) if namespace else ()
    run("ip", *inside, "-batch", "-", stdin="\n".join(lines) + "\n")
