"""The tests of the rules can say no: with one rule switched off in a copy, they fail.

The copies are tested at once, in a process of its own (see mutant_runs.py), with few examples and
up to the first failure.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

PROJECT = Path(__file__).parents[2]
UNIT = PROJECT / "tests" / "unit"
PACKAGE = PROJECT / "piseduce_runner"

_RULES = ["test_planner.py", "test_planner_ways_back.py", "test_planner_histories.py"]
# The quickest first.
TESTS = {
    "planner.py": _RULES,
    "records.py": ["test_records.py", *_RULES],
    "windows.py": ["test_windows.py"],
    "driver.py": ["test_driver_failures.py", "test_driver.py", "test_driver_crashes.py"],
}
GREEN, RED = 0, 1


def copy_of_package(folder: Path) -> Path:
    """A package whose files are the project's, so far."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, copy_function=os.symlink, ignore=ignore)
    return folder


def switch_off(mutation: Mutation, folder: Path) -> None:
    path = folder / PACKAGE.name / mutation.file
    text = path.read_text()
    assert text.count(mutation.old) == 1, f"{mutation.file} has no such text once: {mutation.old}"
    path.unlink()
    path.write_text(text.replace(mutation.old, mutation.new))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How the tests ended on each copy: by rule, and by file for what is not changed."""
    root = tmp_path_factory.mktemp("copies")
    jobs: dict[str, tuple[Path, list[str]]] = {}
    for number, mutation in enumerate(MUTATIONS):
        folder = copy_of_package(root / str(number))
        switch_off(mutation, folder)
        jobs[mutation.rule] = (folder, TESTS[mutation.file])
    for file, tests in TESTS.items():
        jobs[file] = (copy_of_package(root / file), tests)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("mutant_runs.py"), UNIT],
        input=json.dumps(
            [[str(folder), [str(UNIT / t) for t in tests]] for folder, tests in jobs.values()]
        ),
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    statuses = json.loads(done.stdout)
    return {name: statuses[str(folder)] for name, (folder, _) in jobs.items()}


@pytest.mark.parametrize("file", TESTS)
def test_with_all_rules_the_tests_are_green(ended, file):
    assert ended[file] == GREEN


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule)
def test_with_a_rule_switched_off_the_tests_are_red(ended, mutation):
    assert ended[mutation.rule] == RED


def test_each_rule_is_named_once():
    assert len({mutation.rule for mutation in MUTATIONS}) == len(MUTATIONS) >= 20
