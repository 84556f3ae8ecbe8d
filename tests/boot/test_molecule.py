"""The Molecule scenarios of roles run as their README says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PROJECT

SCENARIOS = sorted(path.parent.name for path in PROJECT.glob("molecule/*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_scenario_passes(scenario, tmp_path):
    tools = Path(sys.executable).parent
    ended = subprocess.run(
        [tools / "molecule", "test", "--scenario-name", scenario],
        # Molecule finds Ansible on the PATH, and keeps its notes in the user's home.
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_there_is_a_scenario():
    assert SCENARIOS
