"""Hazards 21 to 23: what the original let one user do to another."""

import time

import pytest
from bench import ADMIN, ALICE, BOB, POSITION
from simulated import HANG

from piseduce_runner.cancelling import Cancelling
from piseduce_runner.durations import parse_duration
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Status
from piseduce_runner.reservations import Booking
from piseduce_runner.store import NodeReserved

HOUR = 3600.0


def everything(store):
    return store.deployments(), store.reservations(), store.transitions(), store.acts()


@pytest.mark.parametrize("what", ["destroy", "reboot", "redeploy", "bootfiles", "deploy"])
@pytest.mark.parametrize("driven", [True, False])
def test_hazard_21_nobody_touches_anothers_node_whatever_it_is_doing(bench, what, driven):
    one = bench()
    if driven:
        one.begin("node-1", person=ALICE)
    else:
        one.drive(one.begin("node-1", person=ALICE))
    before = everything(one.store)
    asks = {
        "destroy": lambda: one.asks(BOB).destroy(["node-1"], erase=False),
        "deploy": lambda: one.begin("node-1", person=BOB),
    }
    with pytest.raises(UserError, match=r"node-1 is (alice's|under way)"):
        asks.get(what, lambda: getattr(one.asks(BOB), what)(["node-1"]))()
    assert everything(one.store) == before


def test_hazard_21_nobody_stops_anothers_deployment(bench):
    one = bench()
    one.begin("node-1", person=ALICE)
    before = everything(one.store)
    cancelling = Cancelling(one.store, one.find_process, "bob's", lambda claim: None)
    with pytest.raises(UserError, match="node-1 is alice's"):
        cancelling.ask(["node-1"], BOB, owner="bob", force=False)
    assert everything(one.store) == before


def test_hazard_21_by_force_only_an_admin_does_and_it_is_journalled(bench):
    one = bench()
    one.drive(one.begin("node-1", person=ALICE))
    with pytest.raises(UserError, match="only an admin"):
        one.asks(BOB, force=True).destroy(["node-1"], erase=False)
    one.asks(ADMIN, force=True).destroy(["node-1"], erase=False)
    last = one.store.acts("node-1")[-1]
    assert (last.who, last.what, last.forced) == ("root", "destroy", True)


def test_hazard_21_a_node_that_was_stopped_can_be_rebooted(bench):
    """It waits in env_copy until the driver has heard of it."""
    one = bench({("node-1", POSITION["env_copy"]): HANG})
    one.runner.on_state = lambda node, position: one.store.ask_cancel(node, "alice", 1.0)
    ended = one.drive(one.begin("node-1"))
    assert ended["node-1"].status is Status.CANCELLED
    assert "cancelled by alice" in one.store.deployment("node-1").reason
    one.runner.script, one.runner.on_state = {}, lambda node, position: None
    assert one.drive(one.asks().reboot(["node-1"]))["node-1"].status is Status.DEPLOYED


def test_hazard_22_the_present_and_the_later_user_of_a_node_do_not_touch_each_other(bench):
    one = bench()
    now = time.time()
    one.drive(one.begin("node-1", person=ALICE, until=now + HOUR))
    (bobs,) = one.store.reserve(["node-1"], "bob", now + 2 * HOUR, now + 3 * HOUR, now)
    held = one.store.deployments()
    one.store.configure(bobs.id, "bob", {"environment": "other"}, now)
    assert one.store.deployments() == held
    one.drive(one.asks(ALICE).destroy(["node-1"], erase=False))
    (left,) = one.store.reservations()
    assert (left.owner, left.configuration) == ("bob", {"environment": "other"})


def test_hazard_22_nobody_configures_extends_or_ends_anothers_reservation(bench):
    one = bench()
    (alices,) = one.store.reserve(["node-1"], "alice", 0.0, 9e9, 1.0, {"environment": "hers"})
    bobs = Booking(one.store, BOB, "bob")
    for touch in (
        lambda: bobs.configure(one.request("node-1")),
        lambda: bobs.extend(["node-1"], HOUR),
        lambda: bobs.end(["node-1"]),
    ):
        with pytest.raises(UserError, match="alice"):
            touch()
    assert one.store.reservations() == [alices]


START, END = 10 * HOUR, 20 * HOUR


@pytest.mark.parametrize(
    ("start", "end", "free"),
    [
        (START - 900, START, True),
        (START - 900, START + 1, False),
        (START, END, False),
        (END, END + HOUR, True),
        (END - 1, END + HOUR, False),
        (START + HOUR, END - HOUR, False),
        (START - HOUR, END + HOUR, False),
        (START - HOUR, None, False),
    ],
)
def test_hazard_23_a_node_is_never_two_peoples_at_once(bench, start, end, free):
    store = bench().store
    store.reserve(["node-1"], "alice", START, END, 1.0)
    if free:
        store.reserve(["node-1"], "bob", start, end, 1.0)
    else:
        with pytest.raises(NodeReserved, match="reserved by alice"):
            store.reserve(["node-1"], "bob", start, end, 1.0)


def test_hazard_23_fewer_nodes_than_asked_for_are_none(bench):
    store = bench().store
    store.reserve(["node-2"], "alice", START, END, 1.0)
    with pytest.raises(NodeReserved):
        store.reserve(["node-1", "node-2"], "bob", START, END, 1.0)
    assert [held.owner for held in store.reservations()] == ["alice"]


def test_hazard_23_any_so_many_nodes_are_so_many_or_none(bench):
    store, now = bench().store, time.time()
    store.reserve(["node-2"], "alice", now, now + HOUR, now)
    with pytest.raises(UserError, match="2 nodes are asked for, but 1 of 2 are free"):
        Booking(store, BOB, "bob").reserve_any(["node-1", "node-2"], 2, now, now + HOUR)
    assert [held.owner for held in store.reservations()] == ["alice"]


@pytest.mark.parametrize("text", ["367d", "99999d", "0h", "-1h", "h"])
def test_hazard_23_a_duration_has_an_end_in_sight(text):
    with pytest.raises(UserError, match="duration"):
        parse_duration(text)


def test_hazard_23_a_reservation_of_the_past_is_refused(bench):
    with pytest.raises(UserError, match="in the future"):
        bench().store.reserve(["node-1"], "bob", START, END, END + 1)


@pytest.mark.parametrize("name", ["pimaster", "localhost", "switch-1", "nodes", "all", "node-*"])
def test_hazard_23_only_nodes_can_be_taken(bench_site, name):
    with pytest.raises(UserError, match="unknown node"):
        bench_site.choose_nodes(["node-1", name])
