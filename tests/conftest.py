"""For all tests: those that need root are never passed over in silence."""

import os
from pathlib import Path

import pytest

# These use loop devices, network namespaces, daemons or other users.
NEED_ROOT = ("card", "boot", "lab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    here = Path(__file__).parent
    if any(item.path.relative_to(here).parts[0] in NEED_ROOT for item in items):
        raise pytest.UsageError(
            f"tests/{{{','.join(NEED_ROOT)}}} need root: run as root, or only `pytest tests/unit`"
        )
