"""Who may act for whom, and on whose nodes."""

import pytest

from piseduce_runner import people
from piseduce_runner.errors import UserError
from piseduce_runner.people import Person

ALICE = Person("alice", is_admin=False)
ADMIN = Person("root", is_admin=True)


@pytest.mark.parametrize("owner", ["alice", "alice@example.org", "a.b_c-1"])
def test_owners(owner):
    people.check_name(owner)


@pytest.mark.parametrize("owner", ["", "[/x]", "a b", "\x1b[2J", "-x", "x" * 65, "a\n"])
def test_owners_that_are_refused(owner):
    with pytest.raises(UserError, match="owner"):
        people.check_name(owner)


def test_behind_sudo_it_is_the_one_who_called_it(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "alice")
    assert people.current_person(frozenset()) == ALICE
    assert people.current_person(frozenset({"alice"})).is_admin


def test_everybody_acts_for_themselves_and_admins_for_anybody():
    assert people.acting_for(ALICE, None) == people.acting_for(ALICE, "alice") == "alice"
    assert people.acting_for(ADMIN, "bob") == "bob"
    with pytest.raises(UserError, match="only an admin acts in the name of bob"):
        people.acting_for(ALICE, "bob")


def test_somebody_elses_node_takes_an_admins_force():
    def may(person, force):
        return people.check_may_touch(person, "node-1", "bob", owner=person.name, force=force)

    assert not people.check_may_touch(ALICE, "node-1", "alice", owner="alice", force=False)
    with pytest.raises(UserError, match="node-1 is bob's; ask them"):
        may(ALICE, force=False)
    with pytest.raises(UserError, match="only an admin may use --force"):
        may(ALICE, force=True)
    with pytest.raises(UserError, match="node-1 is bob's"):
        may(ADMIN, force=False)
    assert may(ADMIN, force=True)
