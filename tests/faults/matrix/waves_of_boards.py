"""Real cells of what goes wrong with power, network boot, and the system on a node.

Each chain is a node's; what cannot be overcome without help is at its end.
"""

from matrix.ends import End
from matrix.hits import LabFault, PlugPulled
from matrix.real_cells import Cell, Until, Wave

# What is said of a node that stands still, has crashed, has no power, or no cable.
SILENT = (
    r"not done within|does not answer over SSH|took longer|no answer|ended at its deadline"
    r"|its SSH port accepts connections and then says nothing"
)
NO_SYSTEM = r"did not answer as 'nfspi' within \d+ s; last seen: .*"
NO_OWN_SYSTEM = r"did not answer as 'node-\d+' within \d+ s; last seen: .*"
# Nothing runs there. In the lab, a board that is off or hangs refuses connections if it had an
# address before: its network is the machine's.
DEAD = r"(no answer \(host unreachable\)|connection refused)"


def over_at_failure(state: str, hit: LabFault, end: End, reason: str, **more) -> Cell:
    """The fault is gone once the state has failed."""
    return Cell(state, hit, end, reason, Until.FAILURE, **more)


def stands_still(state: str, name: str, **more) -> Cell:
    """Frozen, or crashed: only a power cycle helps, and it comes by itself."""
    return Cell(state, LabFault(name), End.CYCLED, SILENT, **more)


FIRST: Wave = (
    (
        over_at_failure(
            "turn_off", LabFault("snmp-error", "status=genErr"), End.RETRIED,
            r"refused to switch port 1 off \(genErr\)",
        ),
        over_at_failure(
            "turn_on", LabFault("power-twice", "mode=no-power"), End.RETRIED,
            r"port 1: enabled, but the switch finds nothing that wants power",
        ),
        stands_still("create_partition", "freeze"),
        over_at_failure(
            "boot_files", LabFault("ssh-hang"), End.RETRIED, r"accepts connections and then says"
        ),
        over_at_failure("user_conf", LabFault("link-cut"), End.RETRIED, SILENT),
    ),
    (
        over_at_failure(
            "turn_on", LabFault("snmp-error", "status=resourceUnavailable"), End.RETRIED,
            r"refused to switch port 2 on \(resourceUnavailable\)",
        ),
        Cell("mount_partition", PlugPulled(), End.CYCLED, SILENT, also=("env_copy",)),
        over_at_failure("boot_files", LabFault("ssh-refused"), End.RETRIED, r"connection refused"),
        Cell(
            "ssh_test 2", LabFault("reboot-hang"), End.CYCLED, NO_OWN_SYSTEM + DEAD,
            set_in="boot_files",
        ),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("link-cut"), End.CYCLED, NO_SYSTEM + DEAD,
            set_in="turn_on",
        ),
        stands_still("resize_partition", "freeze"),
        stands_still("user_conf", "crash"),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("power-twice", "mode=no-boot"), End.CYCLED, NO_SYSTEM + DEAD,
            set_in="turn_off",
        ),
        Cell("env_copy", PlugPulled(), End.CYCLED, SILENT, percent=5),
        stands_still("wait_resizing", "crash", also=("resize_partition",)),
    ),
    (
        Cell(
            "ssh_test", LabFault("wrong-mac"), End.LOST, NO_SYSTEM + DEAD,
            set_in="turn_off",
        ),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("tftp-loss", "percent=20"), End.CYCLED, NO_SYSTEM + DEAD,
            set_in="turn_off",
        ),
        Cell("env_copy", LabFault("link-slow", "rate=200M"), End.UNHURT),
        stands_still("env_check", "freeze", also=("env_copy",)),
        over_at_failure(
            "ssh_test 2", LabFault("tftp-missing"), End.CYCLED, NO_OWN_SYSTEM + DEAD,
            set_in="boot_files",
        ),
    ),
    (
        over_at_failure(
            "turn_off", LabFault("snmp-lie"), End.RETRIED,
            r"port 7: the switch accepted `off` but still says `on`",
        ),
        stands_still("boot_update", "freeze"),
        Cell(
            "ssh_test 3", LabFault("reboot-hang"), End.CYCLED, NO_OWN_SYSTEM + DEAD,
            set_in="boot_update",
        ),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("ssh-hang"), End.CYCLED, NO_SYSTEM + "its SSH port accepts",
            set_in="turn_on",
        ),
        Cell("system_update", LabFault("crash"), End.LOST, SILENT),
    ),
)  # fmt: skip

SECOND: Wave = (
    (Cell("turn_off", LabFault("port-stuck-on"), End.LOST, r"port 1: disabled, but the switch"),),
    (Cell("turn_on", LabFault("port-stuck-off"), End.LOST, r"port 2: enabled, but the switch"),),
    (
        over_at_failure(
            "ssh_test", LabFault("old-system"), End.CYCLED, NO_SYSTEM + "its host key differs",
            set_in="turn_off",
        ),
        stands_still("delete_partition", "crash"),
        stands_still("user_conf", "freeze"),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("tftp-missing"), End.CYCLED, NO_SYSTEM + DEAD,
            set_in="turn_off",
        ),
        stands_still("env_copy", "freeze"),
        stands_still("boot_files", "crash"),
    ),
    (
        over_at_failure(
            "ssh_test", LabFault("ssh-refused"), End.CYCLED, NO_SYSTEM + "connection refused",
            set_in="turn_on",
        ),
        over_at_failure("env_copy", LabFault("link-cut"), End.RETRIED, SILENT),
        Cell("wait_resizing", PlugPulled(), End.CYCLED, SILENT, also=("resize_partition",)),
    ),
    (
        Cell("delete_partition", PlugPulled(), End.CYCLED, SILENT),
        stands_still("create_partition", "crash"),
        stands_still("system_conf", "freeze"),
        Cell(
            "ssh_test 2", LabFault("reboot-ignored"), End.CYCLED, NO_OWN_SYSTEM + "its host key",
            Until.POWER_CYCLE, set_in="boot_files",
        ),
    ),
    (Cell("system_update", LabFault("freeze"), End.LOST, SILENT),),
    (
        over_at_failure("system_update", LabFault("link-cut"), End.RETRIED, SILENT),
        over_at_failure("boot_update", LabFault("ssh-refused"), End.RETRIED, r"connection refused"),
        Cell(
            "ssh_test 3", LabFault("reboot-ignored"), End.CYCLED, NO_OWN_SYSTEM + "the same boot",
            Until.POWER_CYCLE, set_in="boot_update",
        ),
    ),
)  # fmt: skip

WAVES = (FIRST, SECOND)
