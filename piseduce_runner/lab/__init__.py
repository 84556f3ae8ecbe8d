"""A simulated Raspberry Pi cluster, for practice and for tests."""

from pathlib import Path

from piseduce_runner.lab.folder import running_lab


def running_site() -> Path | None:
    """Site folder of the lab that is up: the one named `lab`, or the only one; else None."""
    lab = running_lab()
    return lab.site if lab else None
