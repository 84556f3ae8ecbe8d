"""What can be asked of a node in which condition, by whom, and that a command is all or none."""

import multiprocessing
import time
from types import SimpleNamespace

import pytest

from piseduce_runner import planner
from piseduce_runner.deployment import Request
from piseduce_runner.errors import UserError
from piseduce_runner.operations import Operations, take_over
from piseduce_runner.people import Person
from piseduce_runner.planner import Status
from piseduce_runner.processes import Ends, Phase, Power, Process, State
from piseduce_runner.records import from_values, to_values
from piseduce_runner.store import NewDeployment, Store

NOW = 1_000_000.0


def process(name, phase, *states, ends=Ends.DEPLOYED):
    powers = {"turn_off": Power.OFF, "turn_on": Power.ON}
    only_if = {"system_update": "update", "erase_card": "erase", "capture_card": "capture"}
    made = [
        State(i, state, phase, 60, power=powers.get(state), only_if=only_if.get(state))
        for i, state in enumerate(states)
    ]
    return Process(name, "", tuple(made), ends)


PROCESSES = {
    one.name: one
    for one in (
        process("deploy", Phase.NFS, "turn_off", "turn_on", "env_copy", "system_update"),
        process("reboot", Phase.DEPLOYED, "turn_off", "turn_on"),
        process("bootfiles", Phase.DEPLOYED, "update_boot_files"),
        process("capture", Phase.NFS, "turn_off", "turn_on", "capture_card", "boot_files"),
        process("boot_test", Phase.NFS, "turn_off", "turn_on", ends=Ends.BOOTED),
        process("destroy", Phase.NFS, "erase_card", "destroying", ends=Ends.DESTROYED),
    )
}


def find_process(name, environment):
    return PROCESSES[name]


def operations(store, name="alice", *, owner=None, force=False, claim="us", now=NOW):
    person = Person(name, is_admin=name == "root")
    return Operations(
        store, find_process, person, owner or name, force, claim, clock=lambda: now
    )  # fmt: skip


def request(*nodes, update=False):
    chosen = tuple(SimpleNamespace(name=node) for node in nodes)
    return Request(chosen, SimpleNamespace(name="debian", family="raspbian"), update, 0, "", ())


OPERATIONS = {
    "deploy": lambda do, *nodes: do.deploy(request(*nodes), replace=False, until=None),
    "replace": lambda do, *nodes: do.deploy(request(*nodes), replace=True, until=None),
    "redeploy": lambda do, *nodes: do.redeploy(nodes),
    "reboot": lambda do, *nodes: do.reboot(nodes),
    "destroy": lambda do, *nodes: do.destroy(nodes, erase=False),
    "bootfiles": lambda do, *nodes: do.bootfiles(nodes),
    "boot-test": lambda do, *nodes: do.boot_test(nodes),
    "capture": lambda do, *nodes: do.capture(nodes[0], "/folder"),
}
# What is on the node: (process, its status), and who drives it.
CONDITIONS = {
    "free": None,
    "reserved": "reserved",
    "deployed": ("deploy", Status.DEPLOYED),
    "lost": ("deploy", Status.LOST),
    "cancelled": ("deploy", Status.CANCELLED),
    "rebooted": ("reboot", Status.DEPLOYED),
    "reboot lost": ("reboot", Status.LOST),
    "bootfiles lost": ("bootfiles", Status.LOST),
    "captured": ("capture", Status.DEPLOYED),
    "capture lost": ("capture", Status.LOST),
    "booted": ("boot_test", Status.BOOTED),
    "destroy lost": ("destroy", Status.LOST),
    "driven": ("deploy", Status.IN_PROGRESS),
    "left": ("deploy", Status.IN_PROGRESS),
}
# What is refused in a condition, with these words; everything else is allowed.
UNDER_WAY = dict.fromkeys(OPERATIONS, "is under way")
NO_CAPTURE = {"capture": "only a deployed system can be captured"}
NO_SYSTEM = NO_CAPTURE | {"bootfiles": "boot files come from a deployed system"}
CARRIES = {"boot-test": "carries debian of alice"}
DEPLOYED = CARRIES | {"deploy": "--replace deploys over it"}
NOTHING = dict.fromkeys(
    ("redeploy", "reboot", "destroy", "bootfiles", "capture"), "there is nothing on it to"
)
REFUSED = {
    "free": NOTHING,
    "reserved": NOTHING,
    "deployed": DEPLOYED,
    "lost": NO_SYSTEM | CARRIES,
    "cancelled": NO_SYSTEM | CARRIES,
    "rebooted": DEPLOYED,
    "reboot lost": NO_SYSTEM | DEPLOYED,
    "bootfiles lost": NO_CAPTURE | DEPLOYED,
    "captured": DEPLOYED,
    "capture lost": NO_SYSTEM | DEPLOYED,
    "booted": NO_SYSTEM
    | {"redeploy": "nothing was deployed on it", "reboot": "there is nothing to reboot"},
    "destroy lost": NO_SYSTEM | CARRIES,
    "driven": UNDER_WAY,
    "left": UNDER_WAY,
}


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "piseduce.db")
    yield opened
    opened.close()


def put(store, node, condition, owner="alice"):
    """Bring the node into the condition, as the operations and a driver would have."""
    what = CONDITIONS[condition]
    if what is None:
        return
    store.reserve([node], owner, NOW - 10, None, NOW - 10)
    if what == "reserved":
        return
    name, status = what
    record = planner.begin(PROCESSES[name], node, frozenset())
    environment = "" if name == "boot_test" else "debian"
    new = NewDeployment(
        node, name, environment, owner, 0, record.state.name, {"update": True, "erase": True},
        to_values(record),
    )  # fmt: skip
    store.begin([new], "driver 7", NOW - 5, NOW + (600 if condition == "driven" else -1))
    if status is not Status.IN_PROGRESS:
        store.end(node, "driver 7", status, "", NOW - 1, to_values(record))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_is_allowed_and_what_is_refused(store, condition):
    for name, operation in OPERATIONS.items():
        node = f"{name}-node"
        put(store, node, condition)
        before = store.deployment(node)
        words = REFUSED[condition].get(name)
        if words is None:
            (record,) = operation(operations(store), node)
            assert record.status is Status.IN_PROGRESS, (name, condition)
            held = store.deployment(node)
            assert (held.status, held.claim, held.owner) == (Status.IN_PROGRESS, "us", "alice")
            stored = from_values(node, PROCESSES[held.process], held.status, "", held.record)
            assert stored == record
        else:
            with pytest.raises(UserError, match=words):
                operation(operations(store), node)
            assert store.deployment(node) == before, (name, condition)
            assert store.acts(node) == []


def test_every_way_out_of_a_refusal_is_named(store):
    put(store, "driven", "driven")
    put(store, "left", "left")
    with pytest.raises(UserError, match="by driver 7; wait for it .* or `piseduce-run cancel dri"):
        operations(store).reboot(["driven"])
    with pytest.raises(UserError, match="nobody drives it now; `piseduce-run agent --once`"):
        operations(store).reboot(["left"])


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "capture"])
def test_all_nodes_of_a_command_begin_or_none(store, name):
    good = {"boot-test": "free", "deploy": "free"}.get(name, "deployed")
    put(store, "a", good)
    put(store, "b", "driven")
    before = store.deployment("a")
    with pytest.raises(UserError, match="b is under way"):
        OPERATIONS[name](operations(store), "a", "b")
    assert store.deployment("a") == before
    assert store.reservation_at("a", NOW) is None or good == "deployed"
    assert store.acts() == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_somebody_elses_node_takes_an_admins_force_which_is_journalled(store, name):
    condition = {"boot-test": "booted", "deploy": "reserved"}.get(name, "deployed")
    put(store, "a", condition, owner="bob")
    before = store.deployment("a")
    for do, words in (
        (operations(store), "a is bob's; ask them"),
        (operations(store, force=True), "only an admin may use --force"),
        (operations(store, "root"), "a is bob's"),
    ):
        with pytest.raises(UserError, match=words):
            OPERATIONS[name](do, "a")
    assert store.deployment("a") == before
    assert store.acts() == []
    OPERATIONS[name](operations(store, "root", force=True), "a")
    # It stays bob's: force is for helping out, not for taking away.
    assert store.deployment("a").owner == "bob"
    assert [(act.who, act.forced) for act in store.acts()] == [("root", True)]


def test_a_free_node_is_reserved_in_one_step(store):
    operations(store).deploy(request("a"), replace=False, until=NOW + 60)
    held = store.reservation_at("a", NOW)
    assert (held.owner, held.end) == ("alice", NOW + 60)
    assert store.deployment("a").reservation == held.id


def test_a_free_node_that_is_somebodys_soon_is_refused(store):
    store.reserve(["b"], "bob", NOW + 60, NOW + 120, NOW)
    with pytest.raises(UserError, match="b is reserved by bob .*; nothing was started"):
        operations(store).deploy(request("a", "b"), replace=False, until=None)
    assert store.deployments() == {}
    operations(store).deploy(request("b"), replace=False, until=NOW + 60)


def test_a_duration_for_a_node_that_is_reserved_already_is_refused(store):
    put(store, "a", "reserved")
    with pytest.raises(UserError, match="a is reserved already.*extend"):
        operations(store).deploy(request("a"), replace=False, until=NOW + 60)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_node_whose_reservation_has_ended_can_only_be_destroyed(store, name):
    put(store, "a", "booted" if name == "boot-test" else "deployed")
    store.end_reservation(store.reservation_at("a", NOW).id, NOW)
    if name == "destroy":
        assert OPERATIONS[name](operations(store), "a")
        return
    with pytest.raises(UserError, match="the reservation of a has ended.*extend a"):
        OPERATIONS[name](operations(store), "a")


def test_conditions_decide_which_states_a_node_goes_through(store):
    def states(records):
        (record,) = records
        return [record.process.states[p].name for p in record.plan]

    do = operations(store)
    assert states(do.deploy(request("a", update=True), replace=False, until=None))[-1] == (
        "system_update"
    )
    put(store, "b", "deployed")
    # Again means with the same options.
    assert states(do.redeploy(["b"]))[-1] == "system_update"
    put(store, "c", "deployed")
    assert states(do.destroy(["c"], erase=False)) == ["destroying"]
    assert store.deployment("c").options["erase"] is False
    put(store, "d", "deployed")
    assert states(do.destroy(["d"], erase=True)) == ["erase_card", "destroying"]


def test_a_lost_node_resumes_its_own_process_with_a_power_cycle(store):
    put(store, "a", "lost")
    (record,) = operations(store).reboot(["a"])
    assert record.process.name == "deploy"
    assert record.process.states[record.plan[0]].name == "turn_off"
    put(store, "b", "deployed")
    (record,) = operations(store).reboot(["b"])
    assert record.process.name == "reboot"


def test_without_a_claim_the_node_is_left_to_the_agent(store):
    operations(store, claim=None).deploy(request("a"), replace=False, until=None)
    assert [held.node for held in store.interrupted(NOW)] == ["a"]


# taking over


def test_what_is_driven_is_not_taken_over_and_what_was_left_is(store):
    put(store, "driven", "driven")
    put(store, "left", "left")
    driven = store.deployment("driven")
    store.renew_claim("driver 7", time.time() - 1)
    store._db.execute(
        "UPDATE deployment SET claim = 'alive', claim_expires = ? WHERE node = 'driven'",
        [time.time() + 600],
    )
    taken = take_over(store, find_process, ["driven", "left"], "us", 30)
    assert [record.node for record in taken] == ["left"]
    assert store.deployment("driven").record == driven.record
    assert store.deployment("driven").claim == "alive"


def test_a_node_that_cannot_go_on_is_lost_with_the_reason(store):
    put(store, "a", "left")

    def gone(name, environment):
        raise UserError("unknown environment 'debian'")

    assert take_over(store, gone, ["a"], "us", 30) == []
    held = store.deployment("a")
    assert (held.status, held.claim, held.reason) == (
        Status.LOST, None, "unknown environment 'debian'",
    )  # fmt: skip


# several processes


def contend(path, number, barrier, answers):
    store = Store.open(path)
    do = operations(store, f"user-{number}", claim=f"driver {number}")
    barrier.wait(timeout=60)
    try:
        do.deploy(request("a", "b", "c"), replace=True, until=None)
        answers.put((number, ""))
    except UserError as error:
        answers.put((number, str(error)))
    store.close()


def test_of_processes_that_want_the_same_nodes_one_gets_all_of_them(store, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    barrier, answers = spawn.Barrier(3), spawn.Queue()
    path = tmp_path / "piseduce.db"
    racing = [
        spawn.Process(target=contend, args=(path, number, barrier, answers)) for number in range(3)
    ]
    for one in racing:
        one.start()
    said = dict(answers.get(timeout=120) for _ in racing)
    for one in racing:
        one.join(timeout=60)
    (winner,) = [number for number, words in said.items() if not words]
    assert all("is under way" in words for number, words in said.items() if number != winner)
    assert {held.claim for held in store.deployments().values()} == {f"driver {winner}"}
    assert {one.owner for one in store.reservations()} == {f"user-{winner}"}


def test_a_capture_carries_what_is_known_of_the_node_and_is_asked_for_once(store):
    put(store, "node-1", "deployed")
    (record,) = operations(store).capture("node-1", "/folder")
    assert [record.process.states[p].name for p in record.plan] == [
        "turn_off", "turn_on", "capture_card", "boot_files",
    ]  # fmt: skip
    assert store.deployments()["node-1"].options["capture"] == {"folder": "/folder"}


def test_a_node_that_was_lost_in_its_capture_is_given_back_without_it(store):
    put(store, "node-1", "deployed")
    (record,) = operations(store).capture("node-1", "/folder")
    store.end("node-1", "us", Status.LOST, "", NOW, to_values(record))
    (record,) = operations(store).reboot(["node-1"])
    assert [record.process.states[p].name for p in record.plan] == [
        "turn_off", "turn_on", "boot_files",
    ]  # fmt: skip
    assert "capture" not in store.deployments()["node-1"].options
