"""A planner's record as the store keeps it: plain JSON values."""

from typing import Any

from piseduce_runner.errors import UserError
from piseduce_runner.planner import Record, Status
from piseduce_runner.processes import Process


def to_values(record: Record) -> dict[str, Any]:
    """What of the record is not in columns of its own.

    Times are left out: the monotonic clock of one driver means nothing to the next. What counts is
    whether the node was in a state (`entered`) or waited for it.
    """
    return {
        "states": [state.name for state in record.process.states],
        "conditions": sorted(record.conditions),
        "plan": list(record.plan),
        "entered": record.entered is not None,
        "proven": sorted(record.proven),
        "settled": record.settled,
        "failures": [list(pair) for pair in sorted(record.failures.items())],
        "entries": [list(pair) for pair in sorted(record.entries.items())],
        "cycled": sorted(record.cycled),
        "booting": record.booting,
        "interruptions": [list(pair) for pair in sorted(record.interruptions.items())],
    }


def from_values(
    node: str, process: Process, status: Status, reason: str, values: dict[str, Any]
) -> Record:
    """The record that `to_values` wrote.

    A node that was in a state has an `entered` of 0: whoever reads it is another driver, and asks
    the planner first (`interrupted`, `resume`). Raises `UserError` when the process has other
    states by now: then positions mean nothing any more.
    """
    if values.get("states") != [state.name for state in process.states]:
        raise UserError(
            f"{node}: the process {process.name} has other states now than when it began on this"
            " node; deploy the node again"
        )
    return Record(
        node=node,
        process=process,
        conditions=frozenset(values["conditions"]),
        status=status,
        plan=tuple(values["plan"]),
        entered=0.0 if values["entered"] else None,
        timeout=0.0 if values["entered"] else None,
        proven=frozenset(values["proven"]),
        settled=values["settled"],
        failures=dict(values["failures"]),
        entries=dict(values["entries"]),
        cycled=frozenset(values["cycled"]),
        booting=values["booting"],
        interruptions=dict(values["interruptions"]),
        reason=reason,
    )


def places(values: dict[str, Any]) -> set[str]:
    """The states in whose windows a node counts, which another driver drives.

    The same as `planner.holds_place`, of what that driver has written.
    """
    names = values.get("states", [])
    inside = values["plan"][:1] if values.get("entered") else []
    booting = [values["booting"]] if values.get("booting") is not None else []
    return {names[position] for position in (*inside, *booting)}
