"""Collects what happened in the cells, and writes the page when all of them are as expected."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from matrix import page, simulated_cells
from matrix.outcomes import Outcome
from matrix.waves import cells_of
from matrix.waves_of_boards import WAVES as WAVES_OF_BOARDS
from matrix.waves_of_cards import WAVES as WAVES_OF_CARDS

_PROPERTY = "matrix"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-matrix",
        type=Path,
        metavar="FILE",
        help="Write the page of the fault matrix, if all cells were run and ended as expected.",
    )


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--fault-matrix", None)
    if file and not hasattr(config, "workerinput"):  # pytest-xdist's workers only report
        config.pluginmanager.register(PageWriter(file), "fault-matrix")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[Outcome], None]:
    """tell(outcome): it belongs on the page."""
    return lambda outcome: request.node.user_properties.append((_PROPERTY, outcome.to_values()))


def missing(outcomes: Iterable[Outcome]) -> set[tuple[str, str, str]]:
    """The cells (state, fault, its parameters) that are not among these."""
    all_cells = {
        (cell.state, cell.hit.name, cell.hit.detail)
        for cell in cells_of(WAVES_OF_BOARDS + WAVES_OF_CARDS)
    } | {(state, kind.value, "") for state, kind in simulated_cells.cells()}
    return all_cells - {(one.state, one.fault, one.detail) for one in outcomes}


class PageWriter:
    """Writes the page at the end of the session."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._outcomes: list[Outcome] = []
        self._start = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._outcomes += [
                Outcome.from_values(values)
                for name, values in report.user_properties
                if name == _PROPERTY
            ]

    def pytest_terminal_summary(self, terminalreporter, exitstatus: int) -> None:
        lacking = missing(self._outcomes)
        if exitstatus != 0 or lacking:
            terminalreporter.write_line(
                f"{self._file} was not written: {len(lacking)} cells are missing"
            )
            return
        text = page.write(self._outcomes, time.monotonic() - self._start)
        self._file.write_text(text, "utf-8")
        terminalreporter.write_line(f"{self._file} was written")
