"""What holds for every node, whatever happens to it: random histories on a model of a node.

They are the same each time: a build fails for what was changed, not by chance. To look for more:
PISEDUCE_EXAMPLES=5000.
"""

import os
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from node_histories import (
    STOPPED,
    Deployment,
    Kind,
    any_processes,
    conditions,
    deployments,
    faults,
    most_steps,
    real_deployments,
)

from piseduce_runner import planner
from piseduce_runner.planner import (
    Cancelled,
    Entered,
    Failed,
    ImpossibleEvent,
    Overdue,
    Proven,
    Record,
    Settled,
    Status,
)
from piseduce_runner.records import from_values, to_values

_more = os.environ.get("PISEDUCE_EXAMPLES")
often = settings(deadline=None, derandomize=True)
if _more:
    often = settings(deadline=None, max_examples=int(_more))


@often
@given(deployment=deployments | real_deployments, history=st.lists(faults, max_size=20))
def test_when_faults_stop_a_node_ends_well_and_a_lost_one_does_once_it_is_resumed(
    deployment: Deployment, history
):
    # What it was is checked by the model at each state, and at the end.
    deployment.go(*history, most=most_steps(deployment.process))
    if deployment.record.status in STOPPED:
        deployment.resume().go()
    assert deployment.record.status not in (Status.IN_PROGRESS, *STOPPED)


# A driver that dies before it has written anything has not begun.
begun = faults.filter(lambda fault: fault.kind is not Kind.KILLED_BEFORE)


@often
@given(deployment=deployments | real_deployments, history=st.lists(begun, min_size=1, max_size=6))
def test_a_deployment_ends_also_when_faults_never_stop(deployment: Deployment, history):
    bound = most_steps(deployment.process)
    deployment.go(*(history * bound), most=bound)
    assert deployment.record.status is not Status.IN_PROGRESS


@often
@given(deployment=deployments | real_deployments, history=st.lists(faults, max_size=20))
def test_what_lasts_and_stands_is_not_done_again_by_a_resumed_node(deployment, history):
    deployment.fragile = deployment.board.fragile = False
    deployment.go(*history)
    if deployment.record.status not in STOPPED or deployment.board.wrong:
        return
    states = deployment.process.states
    stood = {p for p in deployment.record.proven if states[p].durable}
    deployment.entered.clear()
    deployment.resume().go()
    assert not stood & set(deployment.entered)


# events as they come, in any order

steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "settle", "prove", "fail", "hopeless", "overdue", "cancel"])
        | st.sampled_from(["enter", "prove", "fail", "die", "resume", "astray"]),
        st.integers(0, 12),
    ),
    max_size=60,
)


def event(word: str, position: int) -> planner.Event:
    match word:
        case "settle":
            return Settled(position)
        case "prove":
            return Proven(position)
        case "fail" | "hopeless":
            return Failed(position, "it broke", hopeless=word == "hopeless")
        case "overdue":
            return Overdue(position)
        case "cancel":
            return Cancelled("by alice")
        case _:
            return Entered(position, 10.0)


def happen(record: Record, word: str, astray: int) -> Record:
    """What follows on `word`; what is impossible changes nothing."""
    if word == "die":
        return planner.interrupted(record)
    position = astray if word == "astray" else record.state.position
    now = (record.entered or 0.0) + (10.0 if word == "overdue" else astray)
    try:
        return (
            planner.resume(record)
            if word == "resume"
            else planner.apply(record, event(word, position), now)
        )
    except ImpossibleEvent:
        return record


@often
@given(process=any_processes(), wanted=conditions, history=steps)
def test_no_order_of_events_breaks_anything_and_a_node_that_waits_can_enter(
    process, wanted, history
):
    record = planner.begin(process, "node-1", wanted)
    for word, astray in history:
        record = happen(record, word, astray)
        back = from_values("node-1", process, record.status, record.reason, to_values(record))
        assert replace(back, entered=record.entered, timeout=record.timeout) == record
        stretch = planner.next_stretch(record)
        if stretch:
            planner.apply(record, Entered(record.state.position, 10.0), 0.0)
            assert [state.position for state in stretch] == [*record.plan[: len(stretch)]]
        assert (planner.deadline(record) is None) is (record.entered is None)
        assert planner.holds_place(record, record.state.position) in (True, False)
        if record.status not in (Status.IN_PROGRESS, *STOPPED):
            assert record.proven == {
                s.position for s in process.states if planner.applies(s, wanted)
            }


@often
@given(process=any_processes(), histories=st.lists(steps, min_size=2, max_size=3))
def test_nodes_do_not_touch_each_other(process, histories):
    alone = []
    for number, history in enumerate(histories):
        record = planner.begin(process, f"node-{number}", frozenset())
        for word, astray in history:
            record = happen(record, word, astray)
        alone.append(record)
    together = [planner.begin(process, f"node-{n}", frozenset()) for n in range(len(histories))]
    for turn in range(max(len(history) for history in histories)):
        for number, history in enumerate(histories):
            if turn < len(history):
                together[number] = happen(together[number], *history[turn])
    assert together == alone
