"""For all tests: labs of their own; and those that need root are never passed over in silence."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulated_lab import SimulatedLab

# These use loop devices, network namespaces, daemons or other users.
NEED_ROOT = ("card", "boot", "lab", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    here = Path(__file__).parent
    if any(item.path.relative_to(here).parts[0] in NEED_ROOT for item in items):
        raise pytest.UsageError(
            f"tests/{{{','.join(NEED_ROOT)}}} need root: run as root, or only `pytest tests/unit`"
        )


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all labs of this test run."""
    return tmp_path_factory.mktemp("labs")


@pytest.fixture(scope="session")
def make_lab(lab_root: Path) -> Iterator[Callable[..., SimulatedLab]]:
    """make_lab("--nodes", "2", ...) brings a lab up with these options; all go down at the end.

    It has a name and a network of its own, and is never the lab that a person has up.
    """
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
