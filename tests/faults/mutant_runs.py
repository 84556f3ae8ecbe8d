"""Runs tests against copies of the package: `mutant_runs.py FOLDER_OF_UNIT_TESTS`.

The input is a JSON list of pairs: a copy's folder, and the test files for it. The output maps each
folder to pytest's exit status. It has to be a process of its own: it imports nothing of the
package itself, and forks for each copy, so that pytest and hypothesis are loaded only once.
"""

import json
import os
import signal
import sys
from pathlib import Path

import hypothesis.stateful  # noqa: F401  loaded once for all
import pytest
import sqlite_utils  # noqa: F401
import yaml  # noqa: F401
from hypothesis import Phase, settings

AT_ONCE = 2
# A rule that is off may let a node go on for ever. That is no success either.
SECONDS = 60
FOREIGN = 99


def run_tests(copy: Path, tests: list[str], unit: str) -> int:
    """The exit status of pytest on this copy, in a process that has not imported the package."""
    signal.alarm(SECONDS)
    with (copy / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    (copy / "pytest.ini").write_text(f"[pytest]\npythonpath = {copy} {unit}\n")
    options = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-c", str(copy / "pytest.ini")]
    status = pytest.main([*options, *tests])
    used = Path(sys.modules["piseduce_runner"].__file__)
    return int(status) if used.is_relative_to(copy) else FOREIGN


def main() -> None:
    # Always the same few examples; which is the smallest that fails is of no interest here.
    settings.register_profile(
        "few", max_examples=40, phases=[Phase.generate], derandomize=True, database=None
    )
    settings.load_profile("few")
    left = json.load(sys.stdin)
    unit = sys.argv[1]
    running: dict[int, str] = {}
    ended: dict[str, int] = {}
    while left or running:
        while left and len(running) < AT_ONCE:
            copy, tests = left.pop(0)
            pid = os.fork()
            if pid == 0:
                os._exit(run_tests(Path(copy), tests, unit))
            running[pid] = copy
        pid, status = os.wait()
        ended[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    json.dump(ended, sys.stdout)


main()
