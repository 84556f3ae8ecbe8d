"""Writes docs/fault-matrix.md: states down, faults across, and what happened."""

from collections.abc import Iterable, Sequence

from matrix.ends import LOST_ENDS, End
from matrix.outcomes import Outcome
from matrix.simulated_cells import Kind
from matrix.states import LABELS

_LONGEST_REASON = 260

# The real faults, a table each.
KINDS = {
    "Switch and power": (
        "snmp-drop", "snmp-delay", "snmp-error", "snmp-lie", "port-stuck-off", "port-stuck-on",
        "power-twice", "power-cut",
    ),
    "Network boot and cable": (
        "boot-crowd", "tftp-loss", "tftp-missing", "tftp-down", "wrong-mac", "link-slow",
        "link-cut",
    ),
    "The node's system": (
        "freeze", "crash", "ssh-hang", "ssh-refused", "reboot-ignored", "reboot-hang",
        "old-system",
    ),
    "The card": (
        "card-slow", "card-readonly", "card-small", "card-failing", "card-pulled", "card-corrupt",
    ),
    "Image and manager": (
        "image-corrupt", "image-short", "http-down", "http-stall", "run-killed", "folder-locked",
        "folder-immutable",
    ),
}  # fmt: skip

_INTRODUCTION = """\
# The fault matrix

What happens to a node when a fault hits it in each state of its deployment. `make faults` goes
through all of it and writes this page when every cell has ended as it has to, for the reason that
it has to have; [tests/faults/matrix](../tests/faults/matrix) says what that is.

{counts}

| In a cell | Meaning |
|---|---|
| unhurt | the state was proven at once; the node is deployed |
| try 2 | the state was proven in its second try; the node is deployed |
| power cycle | the node was power-cycled, resumed, and is deployed |
| next driver | the next driver has taken the node over; it is deployed |
| **lost**, `reboot` | the node was lost; the fault was cleared, and `reboot` deployed it |
| **lost**, `redeploy` | the same, but from the beginning |
| cancelled | the node stopped; `reboot` deployed it |

Each node is deployed in the end. Seconds are those from the fault until the state was proven or the
node lost; a lab's boards start in a second, and the timeouts of this run are short (12 to 50 s).
"""

_REAL = """
## Real faults in the lab

Faults are set at the very moment at which the node enters the state, or earlier where they would be
too late then. [lab.md](lab.md) describes them; four more are the tests' own: `power-cut` (somebody
switches the port off), `run-killed` (Ansible is killed), `folder-locked` and `folder-immutable`
(somebody else works on the node's TFTP folder, or has made it unchangeable).
"""

_SIMULATED = """
## Simulated failures

Driver, planner and store of a deployment with `--update`, on runs that play a script: all other
ways in which a state can end badly, in every state. `–`: it cannot happen there.
"""


def write(outcomes: Iterable[Outcome], seconds: float) -> str:
    """The page's text. `seconds` is how long all took."""
    outcomes = list(outcomes)
    real = [one for one in outcomes if one.is_real]
    parts = [_INTRODUCTION.format(counts=counts(len(real), len(outcomes) - len(real), seconds))]
    parts.append(_REAL)
    for kind, faults in KINDS.items():
        parts.append(_real_tables(kind, faults, [one for one in real if one.fault in faults]))
    parts.append(_SIMULATED)
    kinds = [kind.value for kind in Kind]
    simulated = [one for one in outcomes if not one.is_real]
    for half in (kinds[: len(kinds) // 2], kinds[len(kinds) // 2 :]):
        parts.append(_table(LABELS, half, simulated))
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def counts(real: int, simulated: int, seconds: float | None = None) -> str:
    """The sentence on how much there is."""
    took = f", in {seconds / 60:.1f} minutes on two cores" if seconds is not None else ""
    return f"**{real + simulated} cells**: {real} real in the lab, {simulated} simulated{took}."


def _real_tables(kind: str, faults: Sequence[str], outcomes: list[Outcome]) -> str:
    states = [label for label in LABELS if any(one.state == label for one in outcomes)]
    used = [name for name in faults if any(one.fault == name for one in outcomes)]
    table = _table(states, used, outcomes)
    return f"\n### {kind}\n\n{table}\n{_reasons(outcomes)}"


def _table(states: Sequence[str], faults: Sequence[str], outcomes: list[Outcome]) -> str:
    lines = [_row("State", *faults), "|" + "---|" * (len(faults) + 1)]
    for state in states:
        cells = [
            "; ".join(_words(one) for one in outcomes if (one.state, one.fault) == (state, fault))
            for fault in faults
        ]
        lines.append(_row(f"`{state}`", *(cell or "–" for cell in cells)))
    return "\n".join(lines) + "\n"


def _words(one: Outcome) -> str:
    match one.end:
        case End.UNHURT:
            words = "unhurt"
        case End.RETRIED:
            words = f"try {one.tries}"
        case End.CYCLED:
            words = "power cycle"
        case End.TAKEN_OVER:
            words = "next driver"
        case End.CANCELLED:
            words = "cancelled"
        case End.LOST_REDEPLOY:
            words = "**lost**, `redeploy`"
        case End.LOST:
            words = "**lost**, `reboot`"
    detail = f" ({one.detail})" if one.detail else ""
    seconds = f", {one.seconds:.0f} s" if one.seconds is not None else ""
    return f"{words}{seconds}{detail}"


def _reasons(outcomes: list[Outcome]) -> str:
    """Why: what the node was lost with, or has failed with first."""
    told = [one for one in outcomes if one.reason]
    told.sort(key=lambda one: (one.end not in LOST_ENDS, LABELS.index(one.state), one.fault))
    lines = [_row("Fault", "State", "Reason"), "|---|---|---|"]
    for one in told:
        reason = one.reason.partition(": ")[2] if one.reason.startswith(one.state) else one.reason
        fault = f"{one.fault}{', **lost**' if one.end in LOST_ENDS else ''}"
        lines.append(_row(fault, f"`{one.state}`", _short(reason)))
    return "\n".join(lines) + "\n"


def _short(reason: str) -> str:
    reason = " ".join(reason.split()).replace("|", "\\|").replace("<", "&lt;")
    if len(reason) <= _LONGEST_REASON:
        return reason
    return reason[:_LONGEST_REASON].rpartition(" ")[0] + " ..."


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
