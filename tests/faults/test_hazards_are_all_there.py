"""Each of the 25 hazards of the original has a test of its number."""

import ast
import re
from pathlib import Path

HAZARDS = range(1, 26)


def test_every_hazard_has_a_test_of_its_number():
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef) and (
                match := re.match(r"test_hazard_(\d\d)_", function.name)
            ):
                found.add(int(match[1]))
    assert sorted(found) == list(HAZARDS)
