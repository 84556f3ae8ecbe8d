"""A node's record in the store: what comes back, and when it cannot."""

import json

import pytest
from node_histories import REAL, Deployment, Fault, Kind
from node_model import Depth

from piseduce_runner import planner
from piseduce_runner.errors import UserError
from piseduce_runner.records import from_values, places, to_values

DEPLOY = REAL["deploy"]


def position(name):
    return next(s.position for s in DEPLOY.states if s.name == name)


def read(record, process=DEPLOY):
    values = json.loads(json.dumps(to_values(record)))
    return from_values(record.node, process, record.status, record.reason, values)


def test_no_time_of_a_driver_s_own_clock_is_kept_but_that_the_node_was_in_its_state():
    waits = Deployment(DEPLOY).go(until=position("env_copy")).record
    is_in_it = planner.apply(waits, planner.Entered(waits.state.position, 10.0), 12345.0)
    assert "12345" not in json.dumps(to_values(is_in_it))
    assert read(waits) == waits
    assert read(is_in_it).entered == 0.0
    assert planner.interrupted(read(is_in_it)) == planner.interrupted(is_in_it)
    assert planner.interrupted(read(waits)) == waits


def test_a_lost_node_is_lost_with_its_reason_and_resumes_as_it_would_have():
    lost = Deployment(DEPLOY).go(until=position("boot_files"))
    lost.step(Fault(Kind.HOPELESS, Depth.READY))
    assert read(lost.record) == lost.record
    assert read(lost.record).settled
    assert planner.resume(read(lost.record)) == planner.resume(lost.record)


def test_a_record_of_other_states_is_refused_by_name():
    record = Deployment(DEPLOY).record
    with pytest.raises(UserError, match="node-1: the process reboot has other states now"):
        read(record, REAL["reboot"])
    with pytest.raises(UserError, match="deploy the node again"):
        from_values("node-1", DEPLOY, record.status, "", {})


def test_the_places_of_a_node_are_its_state_and_the_boot_that_it_is_in():
    booting = Deployment(DEPLOY).go(until=position("ssh_test"))
    assert places(to_values(booting.record)) == {"turn_on"}
    entered = planner.apply(booting.record, planner.Entered(position("ssh_test"), 10.0), 0.0)
    assert places(to_values(entered)) == {"turn_on", "ssh_test"}
    booting.step()
    assert places(to_values(booting.record)) == set()
