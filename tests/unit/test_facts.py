"""Facts that nodes want remembered: their form."""

import pytest

from piseduce_runner import facts as remembered


@pytest.mark.parametrize(
    "facts",
    [
        {"boot_id": "#jinja2:x"},
        {"host_key": "ssh-rsa AAAA"},
        {"power": "maybe"},
        {"settled": "yes"},
        {"Name": "x"},
        {"x": ["a", "list"]},
        {"x": "y" * 201},
        {f"x{i}": 1 for i in range(21)},
        ["x"],
    ],
)
def test_facts_of_another_form_are_refused(facts):
    assert not remembered.are_facts(facts)


def test_facts_of_the_right_form_are_taken():
    assert remembered.are_facts({"boot_id": "b2f0c9f4-5f0a-4a0e-9c43-0f3b8e6c7a11", "power": "off"})
    assert remembered.are_facts({"own_fact": "short", "count": 3, "settled": True})
