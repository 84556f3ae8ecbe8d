"""How a cell of the matrix can end."""

from enum import Enum


class End(Enum):
    """What becomes of a node that a fault has hit."""

    UNHURT = "deployed, and no state has failed"
    RETRIED = "deployed after another try"
    CYCLED = "deployed after a power cycle"
    TAKEN_OVER = "deployed by the next driver"
    LOST = "lost; deployed by `reboot` once the fault is gone"
    LOST_REDEPLOY = "lost; deployed by `redeploy` once the fault is gone"
    CANCELLED = "cancelled; deployed by `reboot`"


LOST_ENDS = (End.LOST, End.LOST_REDEPLOY)
