"""Labs for tests: own names, own networks, own root; never the lab that a person has up."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated_lab import SimulatedLab


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all labs of this test run."""
    return tmp_path_factory.mktemp("labs")


@pytest.fixture(scope="session")
def make_lab(lab_root: Path) -> Iterator[Callable[..., SimulatedLab]]:
    """make_lab("--nodes", "2", ...) brings a lab up with these options; all go down at the end."""
    made: list[SimulatedLab] = []

    def make(*options: str) -> SimulatedLab:
        lab = SimulatedLab(lab_root, f"test-{secrets.token_hex(3)}")
        made.append(lab)
        lab.up(*options)
        return lab

    yield make
    failures = [lab.down(check=False) for lab in made]
    complaints = [done.stderr for done in failures if done.returncode != 0]
    assert not complaints, complaints


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
