"""Where a node of the real process table goes on from, after each thing that can stop it there."""

import pytest
from node_histories import FINE, REAL, STOPPED, Deployment, Fault, Kind
from node_model import Depth

from piseduce_runner import planner
from piseduce_runner.planner import Status
from piseduce_runner.processes import CONDITIONS, Phase

DEPLOY = REAL["deploy"]
NETWORK_BOOT = "boot_conf turn_off turn_on ssh_test".split()
POWER_CYCLE = "turn_off turn_on".split()
BOOT_FILES = next(s.position for s in DEPLOY.states if s.name == "boot_files")

# What is done again before a node that was lost in a state comes back to it.
WAYS_BACK = [
    ("boot_conf", []),
    ("turn_off", NETWORK_BOOT[:1]),
    ("turn_on", NETWORK_BOOT[:2]),
    ("ssh_test", NETWORK_BOOT[:3]),
    ("env_copy", NETWORK_BOOT),
    ("env_check", NETWORK_BOOT),
    ("delete_partition", NETWORK_BOOT),
    ("create_partition", NETWORK_BOOT),
    ("mount_partition", NETWORK_BOOT),
    ("resize_partition", [*NETWORK_BOOT, "mount_partition"]),
    ("wait_resizing", [*NETWORK_BOOT, "mount_partition"]),
    ("system_conf", [*NETWORK_BOOT, "mount_partition"]),
    ("boot_files", [*NETWORK_BOOT, "mount_partition"]),
    ("ssh_test", POWER_CYCLE),
    ("system_update", [*POWER_CYCLE, "ssh_test"]),
    ("boot_update", [*POWER_CYCLE, "ssh_test"]),
    ("ssh_test", POWER_CYCLE),
    ("user_conf", [*POWER_CYCLE, "ssh_test"]),
]
PLACES = [pytest.param(p, id=f"{p}-{s.name}") for p, s in enumerate(DEPLOY.states)]
EVERYWHERE = [
    pytest.param(name, position, id=f"{name}-{position}-{state.name}")
    for name, process in REAL.items()
    for position, state in enumerate(process.states)
]
DEATHS = [(Kind.KILLED_BEFORE, Depth.NOTHING), (Kind.KILLED_AFTER, Depth.DONE)]
DEATHS += [(kind, depth) for kind in (Kind.KILLED, Kind.KILLED_DEAF) for depth in Depth]


def deployment(process=DEPLOY):
    return Deployment(process, frozenset(CONDITIONS))


def way_back(process, position):
    """The states that are done again when a restart was cut off: those that do not last."""
    if process is DEPLOY:
        return WAYS_BACK[position][1]
    before = process.states[:position]
    return [s.name for s in before if s.phase is Phase.NFS and not s.durable]


def names(deployment):
    return [deployment.process.states[position].name for position in deployment.entered]


@pytest.mark.parametrize("position", PLACES)
@pytest.mark.parametrize("depth", [Depth.NOTHING, Depth.HALF])
def test_a_node_lost_in_any_state_goes_back_exactly_as_far_as_needed(position, depth):
    lost = deployment().go(until=position)
    lost.step(Fault(Kind.HOPELESS, depth))
    assert lost.record.status is Status.LOST
    lost.entered.clear()
    lost.resume().go()
    assert lost.record.status is Status.DEPLOYED
    name, back = WAYS_BACK[position]
    ahead = [state.name for state in DEPLOY.states[position:]]
    assert DEPLOY.states[position].name == name
    assert names(lost) == back + ahead


@pytest.mark.parametrize("kind", [Kind.HOPELESS, Kind.OVERDUE, Kind.FAILS, Kind.KILLED])
@pytest.mark.parametrize("name", ["boot_files", "boot_update"])
def test_where_only_the_restart_is_left_the_power_cycle_is_it(name, kind):
    position = next(s.position for s in DEPLOY.states if s.name == name)
    settled = deployment().go(until=position)
    settled.entered.clear()
    settled.step(Fault(kind, Depth.READY))
    if settled.record.status is Status.LOST:
        settled.resume()
    settled.go()
    assert settled.record.status is Status.DEPLOYED
    ahead = [state.name for state in DEPLOY.states[position + 1 :]]
    assert names(settled) == [name, *POWER_CYCLE, *ahead]


@pytest.mark.parametrize(("name", "position"), EVERYWHERE)
@pytest.mark.parametrize(("kind", "depth"), DEATHS)
def test_a_driver_that_dies_in_any_state_costs_that_state_and_no_more(name, position, kind, depth):
    process = REAL[name]
    killed = deployment(process).go(until=position)
    killed.step(Fault(kind, depth))
    killed.go()
    assert killed.record.status is planner._STATUS_AT_END[process.ends]
    again = len(killed.entered) - len(process.states)
    if not process.states[position].reboots or kind in (Kind.KILLED_BEFORE, Kind.KILLED_AFTER):
        assert again == (kind in (Kind.KILLED, Kind.KILLED_DEAF))
    elif kind is Kind.KILLED and depth >= Depth.READY:
        assert again == len(POWER_CYCLE)
    else:
        assert again == len(way_back(process, position)) + 1


@pytest.mark.parametrize(("name", "position"), EVERYWHERE)
def test_a_node_lost_in_any_process_ends_well_once_it_is_resumed(name, position):
    process = REAL[name]
    lost = deployment(process).go(until=position)
    lost.step(Fault(Kind.HOPELESS, Depth.HALF))
    lost.resume().go()
    assert lost.record.status is planner._STATUS_AT_END[process.ends]


@pytest.mark.parametrize("position", PLACES)
def test_a_driver_that_always_dies_in_the_same_state_loses_the_node(position):
    """Also where the state that it dies in leads back to others that go well."""
    cursed = deployment()
    for _ in range(1000):
        if cursed.record.status is not Status.IN_PROGRESS:
            break
        is_there = cursed.record.state.position == position
        cursed.step(Fault(Kind.KILLED, Depth.HALF) if is_there else FINE)
    assert cursed.record.status is Status.LOST
    assert "interrupted 6 times" in cursed.record.reason


def test_a_file_system_that_a_power_cut_ruined_is_written_again():
    """The card was resized and configured by then; the new copy undoes both."""
    ruined = deployment().go(until=BOOT_FILES)
    ruined.step(Fault(Kind.FAILS, Depth.NOTHING))
    ruined.step(Fault(Kind.FAILS, Depth.NOTHING))
    ruined.go(until=8)
    ruined.board.wrong.add(4)
    ruined.entered.clear()
    ruined.go()
    assert ruined.record.status is Status.DEPLOYED
    assert names(ruined)[:9] == [
        "mount_partition", "env_copy", "env_check", "delete_partition", "create_partition",
        "mount_partition", "resize_partition", "wait_resizing", "system_conf",
    ]  # fmt: skip


@pytest.mark.parametrize("position", PLACES)
def test_a_state_that_always_fails_loses_the_node_and_the_reason_says_which(position):
    broken = deployment()
    for _ in range(1000):
        if broken.record.status in STOPPED:
            break
        is_there = broken.record.state.position == position
        broken.step(Fault(Kind.FAILS, Depth.HALF) if is_there else FINE)
    state = DEPLOY.states[position]
    cycles = state.power_cycle + 1
    assert broken.record.reason == f"{state.name}: it broke"
    assert broken.record.state is state
    assert broken.record.attempt >= cycles * (1 + state.retries)
