"""Every state and every kind of failure: driver, planner and store, on runs that play a script.

The real cells are in test_real_cells.py.
"""

import re
from dataclasses import replace

import pytest
from bench import ALICE, PROCESSES, Bench

from matrix.ends import LOST_ENDS, End
from matrix.outcomes import Outcome
from matrix.simulated_cells import COURSES, REASON, Kind, cells, expected
from matrix.simulated_trouble import NODE, DriverKilled, Trouble
from matrix.states import LABELS, POSITION
from piseduce_runner import driver, policy
from piseduce_runner.planner import Record, Status
from piseduce_runner.store import Outcome as Journalled
from piseduce_runner.store import Transition

CELLS = cells()
# Read once, and nobody waits for a place at a switch that is not there.
NO_PAUSE = policy.Policy.parse({"turn_on": {"window": None}}, "the matrix")
TABLE = {name: policy.apply(process, NO_PAUSE) for name, process in PROCESSES.items()}


def test_no_state_of_the_deploy_process_is_left_out():
    assert list(COURSES) == LABELS
    assert len(LABELS) == 18


@pytest.mark.parametrize(("state", "kind"), CELLS, ids=[f"{s}-{k.name}".lower() for s, k in CELLS])
def test_cell(bench, monkeypatch, tell, state, kind):
    one: Bench = bench()
    one.find_process = lambda name, environment: TABLE[name]
    trouble = Trouble(one, kind, POSITION[state])
    monkeypatch.setattr(driver, "time", trouble)
    wanted = expected(kind, state)

    status, states = go_through(one, deploy(one))
    failed = first_that_did_not_end_well(one, POSITION[state])
    assert states == wanted.states
    assert status is status_after(wanted.end)
    assert re.fullmatch(
        rf"{state.split()[0]}:? {REASON[kind]}" if REASON[kind] else "", failed.reason
    )

    trouble.clear()
    if wanted.end is End.TAKEN_OVER:
        one.store.renew_claim("me", 0)  # it is not renewed any more, and expires
        assert failed.outcome is None
        status, states = gone_through(one, one.take_over(NODE))
    elif status is not Status.DEPLOYED:
        assert one.store.deployment(NODE).reason == failed.reason
        status, states = go_through(one, one.asks().reboot([NODE]))
    if wanted.by_hand:
        assert (status, states) == (Status.DEPLOYED, wanted.by_hand)
    assert one.store.deployment(NODE).reason == ""
    tell(Outcome(state, kind.value, wanted.end, wanted.states.count(state), failed.reason))


def deploy(one: Bench) -> list[Record]:
    """A deployment with all states, not driven yet."""
    request = replace(one.request(NODE), update=True)
    return one.asks(ALICE).deploy(request, replace=False, until=None)


def go_through(one: Bench, records: list[Record]) -> tuple[Status | None, list[str]]:
    """How the node ended (None: its driver was killed), and the states that it went through."""
    try:
        return gone_through(one, one.drive(records))
    except DriverKilled:
        return gone_through(one, {})


def gone_through(one: Bench, ended: dict[str, Record]) -> tuple[Status | None, list[str]]:
    states = [LABELS[position] for _, position in one.runner.played]
    one.runner.played = []
    return ended[NODE].status if ended else None, states


def reason_of(kind: Kind, state: str) -> str:
    """A regular expression; empty where nobody was left to write down why."""
    return rf"{state.split()[0]}:? {REASON[kind]}" if REASON[kind] else ""


def first_that_did_not_end_well(one: Bench, position: int) -> Transition:
    journal = one.store.transitions(NODE)
    return next(t for t in journal if t.outcome is not Journalled.PROVEN and t.position == position)


def status_after(end: End) -> Status | None:
    """What the node is before somebody does something."""
    if end is End.TAKEN_OVER:
        return None
    if end is End.CANCELLED:
        return Status.CANCELLED
    return Status.LOST if end in LOST_ENDS else Status.DEPLOYED
