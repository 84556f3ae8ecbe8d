"""What to do about a node, in one line."""

from piseduce_runner.planner import Status
from piseduce_runner.show.text import duration, local_time
from piseduce_runner.store import Deployment, Reservation

_AT_THE_SWITCH = ("turn_off", "turn_on")


def hint(held: Deployment | None, reservation: Reservation | None, now: float) -> str:
    """What somebody has to do, or could; empty when all is well or goes on by itself."""
    if held is None:
        return ""
    if held.status is Status.IN_PROGRESS:
        return "" if held.is_claimed(now) else _interrupted(held.node)
    if held.status is Status.LOST:
        since = f"lost since {local_time(held.since)} ({duration(max(0, now - held.since))})"
        return f"{since}: {_lost(held)}"
    if held.status is Status.CANCELLED:
        return (
            f"cancelled: `piseduce-run {_again(held)}` goes on with it,"
            f" `piseduce-run destroy {held.node}` gives it back"
        )
    if reservation is not None and reservation.has_ended(now):
        return (
            "its reservation has ended: the agent destroys it,"
            f" `piseduce-run extend {held.node} --duration ...` keeps it"
        )
    return ""


def _interrupted(node: str) -> str:
    return (
        "nobody drives it now: an agent that runs goes on with it, else"
        f" `piseduce-run agent --once`; `piseduce-run cancel {node}` stops it"
    )


def _lost(held: Deployment) -> str:
    look = f"`piseduce-run log {held.node}` shows what Ansible said"
    if held.state in _AT_THE_SWITCH:
        look += ", `piseduce-run doctor` looks at the switch"
    if held.process == "capture":
        return f"{look}; `piseduce-run {_again(held)}` gives it back, without the capture"
    mended = f"when the cause is mended, `piseduce-run {_again(held)}` goes on"
    if held.process == "deploy":
        mended += f", `piseduce-run redeploy {held.node}` begins again"
    return f"{look}; {mended}"


def _again(held: Deployment) -> str:
    """The command that takes up a process that was stopped."""
    name = {"destroy": "destroy", "bootfiles": "bootfiles"}.get(held.process, "reboot")
    return f"{name} {held.node}"
