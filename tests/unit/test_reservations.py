"""Reservations as people ask for them: what is refused and why, and that a command is all or none.

What the store sees to (no overlap, ever) is tested in test_store_reservations.py.
"""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from piseduce_runner import durations
from piseduce_runner.deployment import Request
from piseduce_runner.errors import UserError
from piseduce_runner.people import Person
from piseduce_runner.planner import Status
from piseduce_runner.reservations import Booking
from piseduce_runner.store import NewDeployment, Store

NOW = 1_000_000.0
HOUR = 3600.0
OPTIONS = {
    "update": False,
    "part_bytes": 0,
    "password_hash": "$6$x",
    "ssh_keys": ["ssh-rsa A"],
    "family": "raspbian",
}


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "piseduce.db")
    yield opened
    opened.close()


@pytest.fixture
def desk(store):
    """desk("alice") books for alice; the clock stands at NOW unless told otherwise."""

    def make(name, *, owner=None, force=False, now=NOW):
        person = Person(name, is_admin=name == "root")
        return Booking(store, person, owner or name, force, clock=lambda: now)

    return make


def request(*nodes, environment="debian"):
    return Request(
        nodes=tuple(SimpleNamespace(name=node) for node in nodes),
        environment=SimpleNamespace(name=environment, family="raspbian"),
        update=False,
        part_bytes=0,
        password_hash="$6$x",
        ssh_keys=("ssh-rsa A",),
    )


def put(store, node, status, process="deploy", owner="alice"):
    """What a driver left on the node, within the reservation that holds it."""
    new = NewDeployment(node, process, "debian", owner, 0, "boot_conf")
    store.begin([new], "me", NOW, NOW + 30)
    if status is not Status.IN_PROGRESS:
        store.end(node, "me", status, "", NOW, {})


def acts(store):
    return [(act.who, act.what, act.node, act.forced) for act in store.acts()]


def test_nodes_are_reserved_and_it_is_journalled(store, desk):
    made = desk("alice").reserve(["a", "b"], NOW, NOW + HOUR)
    assert [(one.node, one.owner, one.end) for one in made] == [
        ("a", "alice", NOW + HOUR), ("b", "alice", NOW + HOUR),
    ]  # fmt: skip
    assert acts(store) == [("alice", "reserve", n, False) for n in "ab"]


def test_of_several_nodes_all_are_reserved_or_none(store, desk):
    desk("bob").reserve(["b"], NOW, NOW + HOUR)
    with pytest.raises(UserError, match="b is reserved by bob .*; nothing was changed"):
        desk("alice").reserve(["a", "b"], NOW, NOW + HOUR)
    assert {one.node for one in store.reservations()} == {"b"}
    assert len(acts(store)) == 1


def test_any_so_many_are_those_that_are_free_all_the_time(desk):
    desk("bob").reserve(["a"], NOW, NOW + HOUR)
    desk("bob").reserve(["c"], NOW + 5 * HOUR, NOW + 6 * HOUR)
    made = desk("alice").reserve_any("abcd", 2, NOW, NOW + 24 * HOUR)
    assert [one.node for one in made] == ["b", "d"]


def test_fewer_free_nodes_than_asked_for_is_an_error_that_says_who_has_them(store, desk):
    desk("bob").reserve(["a"], NOW, NOW + HOUR)
    with pytest.raises(UserError, match="3 nodes are asked for, but 2 of 3 are free .*a is bob's"):
        desk("alice").reserve_any("abc", 3, NOW, NOW + HOUR)
    assert {one.owner for one in store.reservations()} == {"bob"}


def test_a_configuration_is_stored_with_no_password_but_its_hash(desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    (done,) = desk("alice").configure(request("a"))
    assert done.configuration == {"environment": "debian", "options": OPTIONS}
    assert desk("alice").configuration("a") == done.configuration


def test_a_reservation_to_come_can_be_configured_while_another_holds_the_node(store, desk):
    desk("bob").reserve(["a"], NOW, NOW + HOUR)
    desk("alice").reserve(["a"], NOW + HOUR, NOW + 2 * HOUR)
    put(store, "a", Status.DEPLOYED, owner="bob")
    (done,) = desk("alice").configure(request("a"))
    assert done.start == NOW + HOUR


@pytest.mark.parametrize("status", [Status.IN_PROGRESS, Status.DEPLOYED, Status.LOST])
def test_what_is_deployed_already_is_not_configured(store, desk, status):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    put(store, "a", status)
    with pytest.raises(UserError, match=f"a is {status.value}: .* use `piseduce-run deploy a"):
        desk("alice").configure(request("a"))


def test_a_boot_test_does_not_hinder_the_configuration(store, desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    put(store, "a", Status.BOOTED, process="boot_test")
    assert desk("alice").configure(request("a"))


def test_all_nodes_are_configured_or_none(store, desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    with pytest.raises(UserError, match="b is not reserved; `piseduce-run reserve b` does that"):
        desk("alice").configure(request("a", "b"))
    assert store.reservations()[0].configuration is None


def test_a_reservation_ends_so_much_later(desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    (done,) = desk("alice").extend(["a"], 2 * HOUR)
    assert done.end == NOW + 3 * HOUR


def test_an_ended_reservation_that_still_holds_its_node_is_extended_from_now_on(store, desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    put(store, "a", Status.DEPLOYED)
    (done,) = desk("alice", now=NOW + 2 * HOUR).extend(["a"], HOUR)
    assert done.end == NOW + 3 * HOUR


def test_extensions_that_are_refused(store, desk):
    desk("alice").reserve(["a", "b", "c", "d"], NOW, NOW + HOUR)
    desk("bob").reserve(["a"], NOW + HOUR, NOW + 2 * HOUR)
    put(store, "b", Status.IN_PROGRESS, process="destroy")
    store.reserve(["e"], "alice", NOW, None, NOW)
    for node, words in {
        "a": "a is reserved by bob",
        "b": "b is being given back",
        "e": "reserved without an end",
        "f": "f is not reserved",
    }.items():
        with pytest.raises(UserError, match=words):
            desk("alice").extend([node], HOUR)
    with pytest.raises(UserError, match="more than a year"):
        desk("alice").extend(["c"], 366 * 24 * HOUR)
    with pytest.raises(UserError, match="a is reserved by bob"):
        desk("alice").extend(["d", "a"], HOUR)
    assert {one.end for one in store.reservations() if one.node == "d"} == {NOW + HOUR}


def test_a_reservation_without_a_deployment_is_ended_also_a_future_one(store, desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    desk("alice").reserve(["a"], NOW + 5 * HOUR, NOW + 6 * HOUR)
    desk("alice").reserve(["b"], NOW + HOUR, NOW + 2 * HOUR)
    assert len(desk("alice").end(["a", "b"])) == 3
    assert store.reservations(now=NOW) == []
    assert ("alice", "cancel", "b", False) in acts(store)


def test_start_chooses_one_of_several_reservations(store, desk):
    desk("alice").reserve(["a"], NOW + HOUR, NOW + 2 * HOUR)
    desk("alice").reserve(["a"], NOW + 5 * HOUR, NOW + 6 * HOUR)
    with pytest.raises(UserError, match="a has several reservations, from .*; --start chooses"):
        desk("alice").extend(["a"], HOUR)
    with pytest.raises(UserError, match="no reservation of a starts then, but from"):
        desk("alice").end(["a"], NOW + 3 * HOUR)
    (ended,) = desk("alice").end(["a"], NOW + 5 * HOUR + 20)
    assert ended.start == NOW + 5 * HOUR
    assert [one.start for one in store.reservations()] == [NOW + HOUR]


@pytest.mark.parametrize("status", [Status.DEPLOYED, Status.LOST, Status.CANCELLED, Status.BOOTED])
def test_a_node_that_carries_something_is_given_back_by_destroying_it(store, desk, status):
    desk("alice").reserve(["a", "b"], NOW, NOW + HOUR)
    put(store, "a", status)
    with pytest.raises(UserError, match=f"a is {status.value}: `piseduce-run destroy a`"):
        desk("alice").end(["b", "a"])
    assert len(store.reservations(now=NOW)) == 2


def test_a_reservation_to_come_of_a_deployed_node_is_ended_when_it_is_named(store, desk):
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    desk("alice").reserve(["a"], NOW + 5 * HOUR, NOW + 6 * HOUR)
    put(store, "a", Status.DEPLOYED)
    with pytest.raises(UserError, match="--start chooses a reservation to come"):
        desk("alice").end(["a"])
    desk("alice").end(["a"], NOW + 5 * HOUR)
    assert [one.start for one in store.reservations(now=NOW)] == [NOW]


CHANGES = [
    lambda booking: booking.configure(request("a")),
    lambda booking: booking.extend(["a"], HOUR),
    lambda booking: booking.end(["a"]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_somebody_elses_reservation_takes_an_admins_force_which_is_journalled(store, desk, change):
    desk("bob").reserve(["a"], NOW, NOW + HOUR)
    before = acts(store)
    for booking, words in (
        (desk("alice"), "a is bob's; ask them"),
        (desk("alice", force=True), "only an admin may use --force"),
        (desk("root"), "a is bob's"),
    ):
        with pytest.raises(UserError, match=words):
            change(booking)
    assert acts(store) == before
    change(desk("root", force=True))
    assert acts(store)[-1][0] == "root"
    assert acts(store)[-1][3] is True


def test_a_node_that_is_not_reserved_or_not_configured_has_no_configuration(desk):
    with pytest.raises(UserError, match="a is not reserved now; say with --env"):
        desk("alice").configuration("a")
    desk("alice").reserve(["a"], NOW, NOW + HOUR)
    with pytest.raises(UserError, match="reserved but not configured; say with --env"):
        desk("alice").configuration("a")
    with pytest.raises(UserError, match="a is alice's"):
        desk("bob").configuration("a")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("12h", 12 * HOUR), ("366d", 366 * 24 * HOUR)]
)
def test_durations(text, seconds):
    assert durations.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0h", "-1h", "1", "1w", "1.5h", "367d", "99999d", "999999h"])
def test_durations_that_are_refused(text):
    with pytest.raises(UserError, match="duration"):
        durations.parse_duration(text)


def test_starts():
    now = time.time()
    this_minute = time.strftime("%Y-%m-%dT%H:%M", time.localtime(now))
    assert durations.parse_start(None, now) == now
    assert durations.parse_start("+2h", now) == now + 2 * HOUR
    assert durations.parse_start(this_minute, now) == now
    assert durations.parse_start("1970-02-01T00:00:00Z", 100) == 31 * 24 * HOUR


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2001-01-01T00:00", "in the past"),
        ("9999-01-01", "more than a year ahead"),
        ("+400d", "more than a year"),
        ("tomorrow", "time 'tomorrow' is not understood"),
        ("+", "is not understood"),
    ],
)
def test_starts_that_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        durations.parse_start(text, time.time())


def test_a_configuration_becomes_a_request_again_unless_something_is_gone(tmp_path, monkeypatch):
    from piseduce_runner import environments, reservations

    node = SimpleNamespace(name="a", card_bytes=None)
    site = SimpleNamespace(choose_nodes=lambda names: [node], environments=Path("/nowhere"))
    image = SimpleNamespace(
        name="debian", family="raspbian", root_sectors=2048, root_start_sector=2048
    )
    monkeypatch.setattr(environments, "find", lambda folder, name: image)
    configuration = {"environment": "debian", "options": OPTIONS}
    made = reservations.stored_request(site, "a", configuration)
    assert (made.nodes, made.environment, made.options) == ((node,), image, OPTIONS)
    node.card_bytes = 1024
    with pytest.raises(UserError, match="its card has 0 MiB"):
        reservations.stored_request(site, "a", configuration)
