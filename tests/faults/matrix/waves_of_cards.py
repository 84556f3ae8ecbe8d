"""Real cells of what goes wrong with cards, images and services."""

from matrix.ends import End
from matrix.hits import Crowd, FolderImmutable, FolderLocked, LabFault, PlugPulled, RunKilled
from matrix.real_cells import Cell, Until, Wave
from matrix.waves_of_boards import DEAD, NO_OWN_SYSTEM, NO_SYSTEM, over_at_failure

IO_ERROR = r"Input/output error"
PROTECTED = r"it is read-only \(write protection\?\)"
DAMAGED = r"image\.img\.zst differs from the block map in bytes \d+ to \d+|cannot decompress"
DIFFERS = r"the card differs from the block map in bytes \d+ to \d+"
KILLED = r"ansible-playbook was killed by a signal"
LOCKED = r"waiting for another process that fills this folder took longer"
NO_SERVER = r"cannot fetch http\S+: curl: \(7\) Failed to connect"
STALLED = r"reading the card back took longer than \d+ s"
NO_PACKAGES = r"apt-get update failed: .*Could not connect"
SILENT_SWITCH = r"no answer from the switch at \S+ \(UDP port 161\)"

CARDS: Wave = (
    (Cell("boot_conf", FolderImmutable(), End.LOST, r"Operation not permitted"),),
    (
        over_at_failure("boot_conf", FolderLocked(), End.RETRIED, LOCKED),
        Cell("env_copy", LabFault("image-short", "times=1"), End.RETRIED, r"bytes remaining"),
        Cell("create_partition", LabFault("card-failing"), End.LOST, IO_ERROR),
    ),
    (
        Cell("env_copy", LabFault("image-corrupt", "times=1"), End.RETRIED, DAMAGED),
        over_at_failure("boot_files", FolderLocked(), End.RETRIED, LOCKED),
    ),
    (Cell("env_copy", LabFault("image-corrupt", "times=0"), End.LOST_REDEPLOY, DAMAGED),),
    (
        over_at_failure(
            "env_copy", LabFault("card-failing", "after=20M"), End.RETRIED,
            r"failed at byte \d+: Input|did not keep what was written: Input",
        ),
        Cell("env_check", LabFault("card-corrupt", "times=0"), End.LOST, DIFFERS),
    ),
    (
        over_at_failure(
            "mount_partition", LabFault("card-readonly"), End.RETRIED,
            r"Operation not permitted while trying to open /dev/mmcblk0p2",
        ),
        over_at_failure("resize_partition", LabFault("card-failing"), End.RETRIED, IO_ERROR),
        Cell(
            "user_conf", LabFault("card-failing"), End.LOST, IO_ERROR,
            lost_in="ssh_test 2", lost_reason=NO_OWN_SYSTEM + DEAD,
        ),
    ),
    (
        Cell(
            "env_check", LabFault("card-corrupt", "times=1"), End.RETRIED, DIFFERS,
            set_in="env_copy",
        ),
        over_at_failure("system_conf", LabFault("card-failing"), End.CYCLED, IO_ERROR),
        over_at_failure("boot_update", FolderLocked(), End.RETRIED, LOCKED),
    ),
    (
        over_at_failure(
            "env_copy", LabFault("card-slow", "rate=2M"), End.RETRIED,
            r"writing the card took longer than \d+ s \(\d+ % were done\)",
        ),
        Cell("delete_partition", LabFault("card-readonly"), End.LOST, PROTECTED),
    ),
    (Cell("env_copy", LabFault("card-readonly"), End.LOST, PROTECTED),),
    (
        Cell(
            "env_copy", LabFault("card-small", "size=256M"), End.LOST,
            r"the card /dev/mmcblk0 has 268435456 bytes, the image needs \d+",
        ),
    ),
    (
        Cell(
            "env_copy", LabFault("card-pulled"), End.LOST, r"/dev/mmcblk0 does not exist",
            set_in="turn_off",
        ),
    ),
    (
        Cell(
            "env_check", LabFault("card-pulled"), End.LOST,
            r"the card /dev/mmcblk0 has 0 bytes, the image has \d+",
        ),
    ),
)  # fmt: skip

# These hit every node, so a node goes through them alone.
SERVICES: Wave = (
    (
        over_at_failure("turn_off", LabFault("snmp-drop"), End.RETRIED, SILENT_SWITCH),
        over_at_failure(
            "turn_on", LabFault("snmp-delay", "seconds=60"), End.RETRIED, SILENT_SWITCH
        ),
        over_at_failure(
            "ssh_test", LabFault("tftp-down"), End.CYCLED, NO_SYSTEM + DEAD,
            set_in="turn_on",
        ),
        over_at_failure("env_copy", LabFault("http-down"), End.RETRIED, NO_SERVER),
        over_at_failure("env_check", LabFault("http-stall"), End.RETRIED, STALLED),
        Cell("delete_partition", RunKilled(), End.RETRIED, KILLED),
        Cell("system_conf", RunKilled(), End.RETRIED, KILLED),
        over_at_failure(
            "ssh_test 2", LabFault("tftp-down"), End.CYCLED, NO_OWN_SYSTEM + DEAD,
            set_in="boot_files",
        ),
        over_at_failure("system_update", LabFault("http-down"), End.RETRIED, NO_PACKAGES),
        Cell("boot_update", PlugPulled(), End.CYCLED, r"no answer|connection refused|broke off"),
    ),
)  # fmt: skip

CROWD: Wave = (
    (
        Cell(
            "ssh_test", Crowd(), End.CYCLED, NO_SYSTEM + DEAD, Until.FAILURE,
            set_in="turn_on",
        ),
    ),
)  # fmt: skip

WAVES = (CARDS, SERVICES, CROWD)
