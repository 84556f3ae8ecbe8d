"""All faults of the lab, as data. docs/lab.md has the same table with how real each of them is."""

from dataclasses import dataclass
from enum import Enum

from piseduce_runner.lab.faults.parameters import Kind, Parameter


class Target(Enum):
    """What a fault is set on."""

    NODE = "node"
    SWITCH = "switch"
    PORT = "switch or node"  # a node means its port
    MANAGER = "manager"


class Lasts(Enum):
    """How long a fault is set."""

    UNTIL_CLEARED = "until it is cleared"
    UNTIL_POWER_OFF = "until it is cleared or the node's power is cut"
    MOMENT = "it happens once"


@dataclass(frozen=True)
class Fault:
    """One fault that the lab can show."""

    name: str
    target: Target
    about: str
    parameters: tuple[Parameter, ...] = ()
    lasts: Lasts = Lasts.UNTIL_CLEARED


STATUSES = (
    "genErr",
    "noAccess",
    "wrongValue",
    "resourceUnavailable",
    "commitFailed",
    "authorizationError",
    "notWritable",
)

_ALL = (
    # The switch
    Fault(
        "snmp-drop",
        Target.SWITCH,
        "SNMP requests are lost",
        (Parameter("next", Kind.COUNT, 0, "so many requests, 0: all"),),
    ),
    Fault(
        "snmp-delay",
        Target.SWITCH,
        "SNMP requests are answered late",
        (Parameter("seconds", Kind.SECONDS, None, "how late"),),
    ),
    Fault(
        "snmp-error",
        Target.PORT,
        "a SET is answered with an error",
        (Parameter("status", Kind.CHOICE, "genErr", "error status (RFC 3416)", STATUSES),),
    ),
    Fault("snmp-lie", Target.PORT, "a SET is answered as done, and nothing is done"),
    Fault("port-stuck-off", Target.NODE, "the port shows that it is on, and gives no power"),
    Fault("port-stuck-on", Target.NODE, "the port shows that it is off, and power stays"),
    Fault(
        "power-twice",
        Target.NODE,
        "power has to be switched on more than once",
        (
            Parameter("tries", Kind.COUNT, 1, "vain power-ons before a good one"),
            Parameter(
                "mode",
                Kind.CHOICE,
                "no-boot",
                "whether a vain one gives no power, or the board does not start",
                ("no-boot", "no-power"),
            ),
        ),
    ),
    # A node
    Fault(
        "freeze",
        Target.NODE,
        "every process of the node stands still",
        lasts=Lasts.UNTIL_POWER_OFF,
    ),
    Fault("crash", Target.NODE, "kernel panic, now", lasts=Lasts.MOMENT),
    Fault("ssh-hang", Target.NODE, "SSH accepts a connection, and never says a word"),
    Fault("ssh-refused", Target.NODE, "SSH connections are refused"),
    Fault("reboot-ignored", Target.NODE, "the node says that it reboots, and does not"),
    Fault("reboot-hang", Target.NODE, "a reboot ends in a dead board, until a power cycle"),
    Fault("old-system", Target.NODE, "the board boots its card, whatever cmdline.txt says"),
    # The way to a system
    Fault(
        "boot-crowd",
        Target.SWITCH,
        "boards that start after others, at nearly the same time, hang in network boot",
        (
            Parameter("most", Kind.COUNT, None, "boards that may start together"),
            Parameter("seconds", Kind.SECONDS, 2.0, "starts within this time are together"),
        ),
    ),
    Fault(
        "tftp-loss",
        Target.NODE,
        "TFTP datagrams are lost, both ways",
        (Parameter("percent", Kind.PERCENT, None, "share of the datagrams, one by one"),),
    ),
    Fault("tftp-missing", Target.NODE, "TFTP has no file for the node"),
    Fault("wrong-mac", Target.NODE, "the board has another MAC address"),
    Fault(
        "link-slow",
        Target.NODE,
        "the cable is slow, both ways",
        (Parameter("rate", Kind.BITS, None, "most bits/s"),),
    ),
    Fault("link-cut", Target.NODE, "the cable is pulled"),
    # The card
    Fault(
        "card-slow",
        Target.NODE,
        "the card takes bytes slowly",
        (Parameter("rate", Kind.BYTES, None, "most bytes/s"),),
    ),
    Fault("card-readonly", Target.NODE, "the card's lock is on"),
    Fault(
        "card-small",
        Target.NODE,
        "the card has less room than it should",
        (Parameter("size", Kind.BYTES, None, "its bytes"),),
    ),
    Fault(
        "card-failing",
        Target.NODE,
        "writes to the card are I/O errors",
        (Parameter("after", Kind.BYTES, 0, "once about so many more bytes are written"),),
    ),
    Fault("card-pulled", Target.NODE, "the card is not in its slot"),
    Fault(
        "card-corrupt",
        Target.NODE,
        "a bit of the card flips after it was written",
        (
            Parameter("at", Kind.BYTES, 0, "the byte, 0: in the midst of the image's root"),
            Parameter("times", Kind.COUNT, 1, "so many writes, 0: all"),
        ),
    ),
    # The manager
    Fault(
        "image-corrupt",
        Target.NODE,
        "a bit of the image flips on its way to the node",
        (
            Parameter("at", Kind.BYTES, 0, "the byte of the compressed file, 0: in its midst"),
            Parameter("times", Kind.COUNT, 0, "so many downloads, 0: all"),
        ),
    ),
    Fault(
        "image-short",
        Target.NODE,
        "the image's download ends early",
        (
            Parameter("at", Kind.BYTES, 0, "the bytes that arrive, 0: half of the file"),
            Parameter("times", Kind.COUNT, 0, "so many downloads, 0: all"),
        ),
    ),
    Fault("http-down", Target.MANAGER, "the image server is stopped"),
    Fault("http-stall", Target.MANAGER, "the image server accepts, and sends nothing more"),
    Fault("tftp-down", Target.MANAGER, "TFTP does not answer"),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
