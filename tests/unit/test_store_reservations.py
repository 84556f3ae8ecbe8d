"""Reservations: whose a node is, from when until when, and what a deployment changes about that."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.store import (
    NewDeployment,
    NodeReserved,
    NodeTaken,
    ReservationEnded,
    Store,
)

DEBIAN = {"environment": "debian"}


@pytest.fixture
def store(tmp_path):
    with_tables = Store.open(tmp_path / "piseduce.db")
    yield with_tables
    with_tables.close()


def reserve(store, start, end, *, now=0, node="node-1", owner="alice", configuration=None):
    return store.reserve([node], owner, start, end, now, configuration)[0]


def begin(store, reservation=None, *, now, node="node-1", owner="alice", process="deploy"):
    new = NewDeployment(node, process, "debian", owner, 0, "boot_conf", reservation=reservation)
    store.begin([new], "driver", now, now + 5)


def deploy(store, reservation=None, *, now, status=Status.DEPLOYED, **which):
    """Whatever the status: something stands on the node from now on, unless it is destroyed."""
    begin(store, reservation, now=now, **which)
    store.end(which.get("node", "node-1"), "driver", status, "", now, {})


# no overlap


@pytest.mark.parametrize(
    ("start", "end"),
    [(100, 200), (50, 101), (199, 300), (120, 150), (50, 300), (50, None), (199, None)],
)
def test_two_reservations_of_a_node_never_overlap(store, start, end):
    held = reserve(store, 100, 200, owner="bob")
    with pytest.raises(NodeReserved) as refused:
        reserve(store, start, end)
    assert (refused.value.node, refused.value.reservation) == ("node-1", held)
    assert "node-1 is reserved by bob from " in str(refused.value)
    assert store.conflict("node-1", start, end, now=0) == held


@pytest.mark.parametrize(("start", "end"), [(50, 100), (200, 300), (200, None)])
def test_one_may_start_when_the_other_ends(store, start, end):
    held = reserve(store, 100, 200)
    assert store.conflict("node-1", start, end, now=0) is None
    other = reserve(store, start, end, owner="bob")
    assert store.reservation_at("node-1", now=199) in (held, other)
    assert store.reservation_at("node-1", now=150) == held
    assert {r.id for r in store.reservations("node-1")} == {held.id, other.id}


def test_an_open_ended_reservation_keeps_the_node_for_ever(store):
    reserve(store, 100, None)
    with pytest.raises(NodeReserved, match="until it is given back"):
        reserve(store, 1e9, None, owner="bob")
    reserve(store, 50, 100, owner="bob")


def test_all_nodes_are_reserved_or_none(store):
    reserve(store, 100, 200, node="node-2", owner="bob")
    with pytest.raises(NodeReserved) as refused:
        store.reserve(["node-1", "node-2"], "alice", 100, 200, now=0)
    assert refused.value.node == "node-2"
    assert store.reservations("node-1") == []
    made = store.reserve(["node-1", "node-3", "node-1"], "alice", 100, 200, 0, DEBIAN)
    assert [(r.node, r.owner, r.start, r.end, r.created) for r in made] == [
        ("node-1", "alice", 100, 200, 0),
        ("node-3", "alice", 100, 200, 0),
    ]
    assert all(r.active and r.configuration == DEBIAN and r.ended is None for r in made)


@pytest.mark.parametrize(("start", "end"), [(100, 100), (100, 90), (10, 40), (10, 50)])
def test_a_reservation_that_would_be_over_at_once_is_refused(store, start, end):
    with pytest.raises(UserError, match="has to end after it starts"):
        reserve(store, start, end, now=50)


# configuring and extending


def test_what_is_to_be_deployed_is_said_by_the_owner(store):
    held = reserve(store, 100, 200)
    assert store.unconfigured(now=0) == [held]
    with pytest.raises(NodeReserved, match="reserved by alice"):
        store.configure(held.id, "bob", DEBIAN, now=10)
    assert store.reservation(held.id).configuration is None
    assert store.configure(held.id, "alice", DEBIAN, now=10).configuration == DEBIAN
    assert store.unconfigured(now=0) == []
    assert store.configure(held.id, None, {"environment": "x"}, now=10).configuration == {
        "environment": "x"
    }


def test_what_is_over_can_neither_be_configured_nor_extended(store):
    held = reserve(store, 100, 200)
    with pytest.raises(ReservationEnded, match=f"reservation {held.id} has ended"):
        store.configure(held.id, "alice", DEBIAN, now=200)
    with pytest.raises(ReservationEnded):
        store.extend(held.id, 300, now=200)
    with pytest.raises(ReservationEnded):
        store.extend(99, 300, now=0)
    with pytest.raises(ReservationEnded):
        store.end_reservation(99, now=0)


def test_a_reservation_is_extended_up_to_the_next_one(store):
    held = reserve(store, 100, 200)
    later = reserve(store, 300, 400, owner="bob")
    for too_late in (301, None):
        with pytest.raises(NodeReserved) as refused:
            store.extend(held.id, too_late, now=150)
        assert refused.value.reservation == later
    assert store.extend(held.id, 300, now=150).end == 300
    store.end_reservation(later.id, now=150)
    assert store.extend(held.id, None, now=150).end is None


@pytest.mark.parametrize("end", [200, None])
def test_extending_never_shortens(store, end):
    held = reserve(store, 100, end)
    with pytest.raises(UserError, match="earlier than the present one"):
        store.extend(held.id, 199, now=150)
    assert store.reservation(held.id) == held


# the end


def test_a_node_on_which_nothing_was_deployed_is_free_by_itself(store):
    held = reserve(store, 100, 200)
    assert store.reservation_at("node-1", now=199.9) == held
    assert store.reservation_at("node-1", now=200) is None
    assert store.reservations(now=200) == store.unconfigured(now=200) == []
    reserve(store, 200, 300, now=200, owner="bob")
    closed = store.reservation(held.id)
    assert (closed.active, closed.ended) == (False, 200)


def test_those_that_hold_nothing_are_closed_and_not_to_be_destroyed(store):
    held = reserve(store, 100, 200)
    assert store.expired(now=199) == []
    assert store.expired(now=250) == []
    assert store.reservations(active=True) == []
    (closed,) = store.reservations(active=False)
    assert (closed.id, closed.ended) == (held.id, 200)


@pytest.mark.parametrize(
    "status", [Status.DEPLOYED, Status.BOOTED, Status.LOST, Status.CANCELLED, Status.IN_PROGRESS]
)
def test_a_node_with_a_system_on_it_is_held_until_that_is_destroyed(store, status):
    held = reserve(store, 100, 200)
    later = reserve(store, 300, 400, owner="bob", configuration=DEBIAN)
    begin(store, held.id, now=110)
    if status is not Status.IN_PROGRESS:
        store.end("node-1", "driver", status, "", 120, {})

    assert store.expired(now=199) == []
    assert store.expired(now=200) == [held]
    assert store.reservation_at("node-1", now=250) == held
    with pytest.raises(NodeReserved):
        reserve(store, 250, 300, now=250, owner="carol")
    with pytest.raises(NodeReserved):
        reserve(store, 240, 260, now=250, owner="carol")
    # Its time has come, but somebody else's system is still there.
    assert store.reservation_at("node-1", now=310) == held
    assert store.due(now=310) == []
    with pytest.raises(NodeReserved, match="reserved by alice"):
        begin(store, later.id, now=310, owner="bob")

    begin(store, now=320, process="destroy")
    store.end("node-1", "driver", Status.DESTROYED, "", 330, {})
    closed = store.reservation(held.id)
    assert (closed.active, closed.ended) == (False, 330)
    assert store.due(now=330) == [later]
    begin(store, later.id, now=330, owner="bob")


def test_a_node_that_is_held_beyond_its_end_can_be_reserved_for_later(store):
    deploy(store, reserve(store, 100, 200).id, now=110)
    reserve(store, 260, 300, now=250, owner="bob")


def test_whoever_comes_before_the_destruction_can_still_extend(store):
    held = reserve(store, 100, 200)
    deploy(store, held.id, now=110)
    assert store.extend(held.id, 300, now=250).end == 300
    assert store.expired(now=250) == []


def test_destroying_a_lost_node_fails_and_the_node_stays_held(store):
    held = reserve(store, 100, 200)
    deploy(store, held.id, now=110)
    deploy(store, now=210, process="destroy", status=Status.LOST)
    assert store.expired(now=220) == [held]
    assert store.reservation_at("node-1", now=220) == held


def test_giving_back_a_node_with_nothing_on_it_frees_it(store):
    held = reserve(store, 100, 200)
    back = store.end_reservation(held.id, now=150)
    assert (back.active, back.ended, back.end) == (False, 150, 200)
    assert store.end_reservation(held.id, now=160) == back
    reserve(store, 150, 300, now=150, owner="bob")


@pytest.mark.parametrize("end", [200, None])
def test_giving_back_a_node_with_a_system_on_it_has_it_destroyed_first(store, end):
    held = reserve(store, 100, end)
    deploy(store, held.id, now=110)
    back = store.end_reservation(held.id, now=150)
    assert (back.active, back.end) == (True, 150)
    assert store.expired(now=150) == [back]
    with pytest.raises(NodeReserved):
        reserve(store, 150, 300, now=150, owner="bob")
    deploy(store, now=160, process="destroy", status=Status.DESTROYED)
    assert store.reservation_at("node-1", now=160) is None


def test_giving_back_before_its_start_because_the_clock_was_set_back(store):
    held = reserve(store, 100, 200)
    deploy(store, held.id, now=110)
    back = store.end_reservation(held.id, now=90)
    assert (back.active, back.end) == (True, 100)
    assert store.expired(now=110) == [back]


def test_a_system_that_gives_way_to_another_in_one_transaction(store):
    held = reserve(store, 100, None)
    deploy(store, held.id, now=110)
    with store.transaction():
        store.end_reservation(held.id, now=150, at_once=True)
        mine = reserve(store, 150, 300, now=150, owner="bob")
        begin(store, mine.id, now=150, owner="bob")
    assert store.reservation_at("node-1", now=150) == mine
    assert store.deployment("node-1").owner == "bob"


# what is due


def test_a_configured_reservation_is_due_once_it_starts_and_only_once(store):
    held = reserve(store, 100, 200, configuration=DEBIAN)
    reserve(store, 100, 200, node="node-2")  # nobody said what for
    assert store.due(now=99) == []
    assert store.due(now=100) == [held]
    assert store.due(now=200) == []
    deploy(store, held.id, now=110, status=Status.LOST)
    assert store.due(now=120) == []


def test_a_boot_test_does_not_take_the_place_of_what_was_asked_for(store):
    held = reserve(store, 100, 200, configuration=DEBIAN)
    deploy(store, now=110, process="boot_test", status=Status.BOOTED)
    assert store.deployment("node-1").reservation == held.id
    assert store.due(now=120) == [held]


def test_unconfigured_reservations_are_found_before_and_after_they_start(store):
    later, other = reserve(store, 100, 200), reserve(store, 300, 400, configuration=DEBIAN)
    assert store.unconfigured(now=50) == [later]
    assert store.unconfigured(now=150) == [later]
    deploy(store, now=150)
    assert store.unconfigured(now=150) == []
    assert other in store.reservations()


# what a deployment belongs to


def test_a_deployment_belongs_to_the_reservation_that_holds_its_node(store):
    held = reserve(store, 100, 200)
    begin(store, now=110)
    assert store.deployment("node-1").reservation == held.id
    begin(store, now=10, node="node-2")
    assert store.deployment("node-2").reservation is None


def test_nobody_begins_unasked_on_somebody_elses_node(store):
    held = reserve(store, 100, 200)
    with pytest.raises(NodeReserved, match="node-1 is reserved by alice"):
        begin(store, now=110, owner="bob")
    assert store.deployment("node-1") is None
    begin(store, held.id, now=110, owner="bob")  # who names the reservation knows of it


def test_a_deployment_for_a_reservation_that_was_given_back_meanwhile_does_not_begin(store):
    held = reserve(store, 100, 200, configuration=DEBIAN)
    assert store.due(now=110) == [held]
    store.end_reservation(held.id, now=110)
    with pytest.raises(NodeTaken, match=f"reservation {held.id} does not hold"):
        begin(store, held.id, now=110)
    assert store.deployment("node-1") is None


def test_a_deployment_does_not_begin_before_its_reservation_does(store):
    held = reserve(store, 100, 200)
    with pytest.raises(NodeTaken):
        begin(store, held.id, now=99)


def test_destroying_ends_nobody_elses_reservation(store):
    mine, later = reserve(store, 100, 200), reserve(store, 200, 300, owner="bob")
    other = reserve(store, 100, 200, node="node-2")
    deploy(store, mine.id, now=110)
    deploy(store, now=150, process="destroy", status=Status.DESTROYED)
    assert store.reservations() == [other, later]


# whatever happens

NODES = st.sampled_from(["node-1", "node-2"])
LENGTHS = st.one_of(st.none(), st.integers(1, 40))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), NODES, st.integers(-5, 60), LENGTHS),
        st.tuples(st.just("extend"), st.integers(0, 9), LENGTHS),
        st.tuples(st.just("give back"), st.integers(0, 9)),
        st.tuples(st.just("deploy"), st.integers(0, 9)),
        st.tuples(st.just("destroy"), NODES),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("sweep")),
    ),
    min_size=5,
    max_size=25,
)


def step(store, now, what, *details):
    known = store.reservations(active=False)
    match what, details:
        case "reserve", (node, ahead, length):
            start = now + ahead
            end = None if length is None else start + length
            in_the_way = [
                r for r in store.reservations(node, now=now) if blocks(r, start, end, now)
            ]
            try:
                reserve(store, start, end, now=now, node=node, owner=f"owner-{len(known)}")
                assert not in_the_way
            except NodeReserved as error:
                assert error.reservation in in_the_way
        case "extend", (number, length) if number < len(known):
            end = None if length is None else now + length
            store.extend(known[number].id, end, now)
        case "give back", (number,) if number < len(known):
            store.end_reservation(known[number].id, now)
        case "deploy", (number,) if number < len(known):
            one = known[number]
            deploy(store, one.id, now=now, node=one.node, owner=one.owner)
        case "destroy", (node,) if (held := store.deployment(node)) is not None:
            which = {"node": node, "owner": held.owner, "process": "destroy"}
            deploy(store, held.reservation, now=now, status=Status.DESTROYED, **which)
        case "sweep", ():
            store.expired(now)


def overlap(one, start, end):
    ends = [float("inf") if at is None else at for at in (one.end, end)]
    return max(one.start, start) < min(ends)


def blocks(one, start, end, now):
    overdue = one.end is not None and one.end <= now
    return overlap(one, start, end) or (overdue and start <= now)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_is_asked_a_node_is_never_two_peoples(steps):
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder) / "piseduce.db")
        now = 1000.0
        for what, *details in steps:
            if what == "wait":
                now += details[0]
                continue
            with contextlib.suppress(NodeReserved, NodeTaken, ReservationEnded, UserError):
                step(store, now, what, *details)
            active = store.reservations()
            for one in active:
                for other in active:
                    assert (
                        one == other
                        or one.node != other.node
                        or not overlap(one, other.start, other.end)
                    )
            for node, held in store.deployments().items():
                # A system stands under its own reservation, and no other begins meanwhile.
                assert store.reservation_at(node, now).id == held.reservation
                assert held.owner == store.reservation_at(node, now).owner
                assert all(r.node != node for r in store.due(now))
        store.close()
