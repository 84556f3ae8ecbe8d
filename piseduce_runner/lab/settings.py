"""What a lab is made of: the settings given to `lab up`, and everything that follows from them."""

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from piseduce_runner.errors import UserError

MAX_BOOT_TIME = 3600
MAX_NODES = 150  # node addresses are 101..250 of the network; the switch's agent has 252
SWITCH = "switch-1"
SWITCH_SIZES = (8, 16, 24, 48, 96, 160)  # ports of the switches one can buy, and then some
MODEL = "RPI4B4G"
HTTP_PORT = 8000
DEFAULT_NAME = "lab"
PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
DEFAULT_NETWORK = "10.77.0.0/24"


@dataclass(frozen=True)
class Node:
    """One simulated board. `address` is IPv4, `serial` what the firmware asks TFTP for."""

    index: int
    name: str
    address: str
    mac: str
    serial: str
    port: int


@dataclass(frozen=True)
class Settings:
    """What `lab up` was asked for.

    `boot_time` is in seconds (half firmware, half kernel), `card_rate` in bytes/s, `link_rate` in
    bits/s, `card_size` in bytes; a rate of 0 means as fast as the machine can. The last three
    name the nodes that have no card, and those whose switch port is broken.
    """

    name: str
    nodes: int
    network: str
    boot_time: float = 0.0
    card_rate: int = 0
    link_rate: int = 0
    card_size: int = 4 << 30
    no_card: tuple[str, ...] = ()
    stuck_off: tuple[str, ...] = ()
    stuck_on: tuple[str, ...] = ()

    @property
    def prefix_length(self) -> int:
        return ipaddress.IPv4Network(self.network).prefixlen

    @property
    def manager_address(self) -> str:
        return self._address(1)

    @property
    def switch_address(self) -> str:
        return self._address(252)

    @property
    def port_count(self) -> int:
        """Ports of the switch: the last one is the uplink, so there is at least one spare."""
        return next(size for size in SWITCH_SIZES if size > self.nodes)

    def node(self, index: int) -> Node:
        """Board number `index`, from 1."""
        return Node(
            index=index,
            name=f"node-{index}",
            address=self._address(100 + index),
            mac=f"dc:a6:32:00:00:{index:02x}",
            serial=f"{0x10000000 + index:08x}",
            port=index,
        )

    def all_nodes(self) -> list[Node]:
        return [self.node(index) for index in range(1, self.nodes + 1)]

    def ports_of(self, names: Iterable[str]) -> set[int]:
        """Switch ports of the nodes with these names."""
        return {node.port for node in self.all_nodes() if node.name in names}

    def _address(self, offset: int) -> str:
        return str(ipaddress.IPv4Network(self.network).network_address + offset)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> "Settings":
        """Settings as written by `to_json`. OSError, ValueError, TypeError: missing or damaged."""
        fields = json.loads(path.read_text("utf-8"))
        for name in ("no_card", "stuck_off", "stuck_on"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


def check(settings: Settings) -> None:
    """Raises UserError for the first setting that makes no sense."""
    check_name(settings.name)
    if not 1 <= settings.nodes <= MAX_NODES:
        raise UserError(f"--nodes {settings.nodes}: a lab has 1 to {MAX_NODES} nodes")
    check_network(settings.network)
    if not 0 <= settings.boot_time <= MAX_BOOT_TIME:
        raise UserError(f"--boot-time {settings.boot_time:g}: 0 to {MAX_BOOT_TIME} seconds")
    if settings.card_size < 64 << 20:
        raise UserError("--card-size: a card has at least 64M")
    if settings.card_size % 512:
        raise UserError("--card-size: a card has whole sectors (a multiple of 512 bytes)")
    names = {node.name for node in settings.all_nodes()}
    for option in ("no_card", "stuck_off", "stuck_on"):
        for name in getattr(settings, option):
            if name not in names:
                raise UserError(
                    f"--{option.replace('_', '-')} {name}: no such node; "
                    f"this lab has node-1 to node-{settings.nodes}"
                )
    both = set(settings.stuck_off) & set(settings.stuck_on)
    if both:
        raise UserError(f"{min(both)} cannot be both --stuck-off and --stuck-on")


def check_name(name: str) -> None:
    """A lab's name becomes a folder's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise UserError(
            f"--name {name!r}: lower-case letters, digits and hyphens, at most 31, "
            "starting with a letter or digit"
        )


def check_network(text: str) -> None:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UserError(f"--network {text}: not an IPv4 network ({error})") from error
    if network.prefixlen > 24 or not any(map(network.subnet_of, PRIVATE)):
        raise UserError(
            f"--network {text}: the lab needs a private network (RFC 1918) of at least a /24, "
            f"such as {DEFAULT_NETWORK}"
        )


def parse_amount(text: str, option: str) -> int:
    """A number with a binary suffix: "20M" is 20 * 2**20. UserError names `option`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{option} {text}: a number with K, M or G is expected, such as 20M")
    amount = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if amount == 0:
        raise UserError(f"{option} {text}: it must be more than nothing")
    return amount


def parse_link_rate(text: str, option: str) -> int:
    """Bits per second with a decimal suffix, as networks are sold: "100M" is 10**8."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:bit(?:/s)?)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"{option} {text}: bits/s with K, M or G is expected, such as 100M")
    rate = int(float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " "))
    if rate < 8000:
        raise UserError(f"{option} {text}: a link has at least 8 Kbit/s")
    return rate
