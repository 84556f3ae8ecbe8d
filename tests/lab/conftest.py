"""The lab that most of these tests share."""

from collections.abc import Callable, Iterator

import pytest
from simulated_lab import SimulatedLab


@pytest.fixture(scope="session")
def lab(make_lab: Callable[..., SimulatedLab]) -> SimulatedLab:
    """A lab of four good nodes, shared by the tests of a session. Leave its nodes powered off."""
    return make_lab("--nodes", "4")


@pytest.fixture
def idle_lab(lab: SimulatedLab) -> Iterator[SimulatedLab]:
    """The shared lab with every node off, before and after the test."""
    lab.power_off_everything()
    yield lab
    lab.power_off_everything()
