"""The planner's rules, over generated processes and histories."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piseduce_runner import planner
from piseduce_runner.planner import Entered, Failed, ImpossibleEvent, Overdue, Proven, Status
from piseduce_runner.processes import Phase, Process, State


@st.composite
def processes(draw):
    """Any process: states of both phases in any order, some rebooting, some conditional."""
    count = draw(st.integers(1, 8))
    states = tuple(
        State(
            position,
            f"state_{draw(st.integers(0, 3))}",
            draw(st.sampled_from(Phase)),
            timeout=draw(st.floats(0.5, 100)),
            reboots=draw(st.booleans()),
            only_if=draw(st.sampled_from([None, "update"])),
        )
        for position in range(count)
    )
    return Process("any", "", states)


conditions = st.sampled_from([frozenset(), frozenset({"update"})])


def applicable(process, wanted):
    return [s.position for s in process.states if planner.applies(s, wanted)]


@st.composite
def histories(draw):
    """A process, what was asked for, and a list of (seconds passed, event), fitting or not."""
    process = draw(processes())
    position = st.integers(0, len(process.states) - 1)
    event = st.one_of(
        st.builds(Entered, position),
        st.builds(Proven, position),
        st.builds(Failed, position, st.just("broken")),
        st.builds(Overdue, position),
    )
    return process, draw(conditions), draw(st.lists(st.tuples(st.floats(0, 200), event)))


@given(processes(), conditions)
def test_a_node_whose_states_are_all_proven_goes_through_them_in_order_and_is_deployed(
    process, wanted
):
    record = planner.begin(process, "node-1", wanted)
    visited = []
    while record.status is Status.IN_PROGRESS:
        visited.append(record.position)
        record = planner.apply(process, record, Entered(record.position), now=0)
        record = planner.apply(process, record, Proven(record.position), now=0)
    assert record.status is Status.DEPLOYED
    assert visited == applicable(process, wanted)


@given(histories())
def test_no_history_deploys_a_node_without_the_proof_of_every_state(history):
    process, wanted, events = history
    record, now, proven = planner.begin(process, "node-1", wanted), 0.0, []
    for passed, event in events:
        now += passed
        try:
            record = planner.apply(process, record, event, now)
        except ImpossibleEvent:
            continue
        if isinstance(event, Proven) and record.status is not Status.LOST:
            proven.append(event.position)
    if record.status is Status.DEPLOYED:
        assert proven == applicable(process, wanted)
    else:
        assert proven == applicable(process, wanted)[: len(proven)]


@given(histories())
def test_an_ended_node_stays_as_it_ended(history):
    process, wanted, events = history
    record, now, ended = planner.begin(process, "node-1", wanted), 0.0, None
    for passed, event in events:
        now += passed
        with contextlib.suppress(ImpossibleEvent):
            record = planner.apply(process, record, event, now)
        if ended is not None:
            assert record == ended
        elif record.status is not Status.IN_PROGRESS:
            ended = record


@given(histories())
def test_a_state_that_lasts_longer_than_its_timeout_is_never_passed(history):
    process, wanted, events = history
    record, now = planner.begin(process, "node-1", wanted), 0.0
    for passed, event in events:
        now += passed
        before = record
        try:
            record = planner.apply(process, record, event, now)
        except ImpossibleEvent:
            continue
        limit = planner.deadline(process, before)
        if limit is not None and now > limit:
            assert record.status is Status.LOST
            assert process.states[before.position].name in record.reason


@given(processes(), conditions)
def test_stretches_cover_the_process_and_never_cross_a_reboot_or_a_phase(process, wanted):
    record = planner.begin(process, "node-1", wanted)
    covered = []
    while record.status is Status.IN_PROGRESS:
        stretch = planner.next_stretch(process, record)
        assert stretch[0].position == record.position
        assert len({state.phase for state in stretch}) == 1
        assert not any(state.reboots for state in stretch[:-1])
        for state in stretch:
            covered.append(state.position)
            record = planner.apply(process, record, Entered(state.position), now=0)
            record = planner.apply(process, record, Proven(state.position), now=0)
    assert covered == applicable(process, wanted)


def one_state(**policy):
    return Process("one", "", (State(0, "env_copy", Phase.NFS, timeout=10, **policy),))


def test_a_node_that_runs_is_in_no_stretch():
    record = planner.begin(one_state(), "node-1", frozenset())
    running = planner.apply(one_state(), record, Entered(0), now=0)
    assert planner.next_stretch(one_state(), running) == ()


def test_overdue_names_the_state_its_limit_and_what_was_going_on():
    record = planner.begin(one_state(), "node-1", frozenset())
    record = planner.apply(one_state(), record, Entered(0), now=5)
    with pytest.raises(ImpossibleEvent):
        planner.apply(one_state(), record, Overdue(0), now=14.9)
    lost = planner.apply(one_state(), record, Overdue(0, "task X, 43 %"), now=15)
    assert lost.reason == "env_copy: not done within 10 s (task X, 43 %)"


def test_a_process_of_which_nothing_applies_is_deployed_at_once():
    process = one_state(only_if="update")
    assert planner.begin(process, "node-1", frozenset()).status is Status.DEPLOYED
