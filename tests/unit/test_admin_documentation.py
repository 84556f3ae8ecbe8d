"""docs/admin.md against the code: commands, and the fields that are promised to programs."""

import re
from pathlib import Path

import pytest

from piseduce_runner.cli import main
from piseduce_runner.show import journal
from piseduce_runner.show.nodes import node_fields
from piseduce_runner.show.reservations import reservation_fields
from piseduce_runner.store import Act, Reservation, Transition

TEXT = (Path(__file__).parents[2] / "docs" / "admin.md").read_text()
RESERVATION = Reservation(1, "node-1", "alice", 0, None, 0, None, True, None)
TRANSITION = Transition(1, "node-1", "deploy", "env_copy", 4, 1, 0, None, None, "", "")
ACT = Act(1, 0, "alice", "reserve", "node-1", False, "")


def documented(after):
    """The names in the first column of the table that follows these words."""
    table = TEXT[TEXT.index(after) :].split("\n\n")[1]
    return {
        name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


@pytest.mark.parametrize(
    ("after", "fields"),
    [
        ("Each of `nodes`", node_fields("node-1", None, RESERVATION)),
        ("Each of `reservations`", reservation_fields(RESERVATION)),
        ("Each of `transitions`", journal._transition(TRANSITION)),
    ],
)
def test_the_fields_of_json_are_those_that_are_documented(after, fields):
    assert documented(after) == set(fields)


def test_the_fields_of_acts_are_documented():
    words = re.search(r"Each of `acts`, from `history`: (.*?)\. ", TEXT)[1]
    assert set(re.findall(r"`(\w+)`", words)) == set(journal._act(ACT))


def test_every_command_on_nodes_is_documented():
    elsewhere = {"lab", "env", "processes"}
    missing = [n for n in main.commands if n not in elsewhere and not re.search(rf"\b{n}\b", TEXT)]
    assert missing == []
