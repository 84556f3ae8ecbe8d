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
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
