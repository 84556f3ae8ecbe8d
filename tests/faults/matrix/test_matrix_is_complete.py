"""What belongs into the matrix, and how its page looks. Quick: nothing is run here."""

from collections import Counter
from pathlib import Path

from matrix import page, simulated_cells
from matrix.conftest import missing
from matrix.ends import End
from matrix.outcomes import Outcome
from matrix.states import LABELS
from matrix.waves import cells_of
from matrix.waves_of_boards import WAVES as WAVES_OF_BOARDS
from matrix.waves_of_cards import WAVES as WAVES_OF_CARDS
from piseduce_runner.lab.faults.table import FAULTS

CELLS = cells_of(WAVES_OF_BOARDS + WAVES_OF_CARDS)
PAGE = Path(__file__).parents[3] / "docs" / "fault-matrix.md"


def test_every_fault_of_the_lab_hits_some_state():
    assert set(FAULTS) - {cell.hit.name for cell in CELLS} == set()


def test_every_state_is_hit_by_two_real_faults_at_least():
    faults = Counter(state for state, _ in {(cell.state, cell.hit.name) for cell in CELLS})
    assert [label for label in LABELS if faults[label] < 2] == []


def test_every_real_fault_has_its_place_on_the_page():
    placed = [name for names in page.KINDS.values() for name in names]
    assert len(placed) == len(set(placed))
    assert {cell.hit.name for cell in CELLS} == set(placed)


def test_no_cell_is_there_twice():
    names = Counter(cell.name for cell in CELLS)
    assert [name for name, count in names.items() if count > 1] == []


def test_what_follows_a_loss_is_nobodys_cell():
    for wave in WAVES_OF_BOARDS + WAVES_OF_CARDS:
        for chain in wave:
            assert not any(cell.loses for cell in chain[:-1])


def outcomes():
    """As if all had ended as expected."""
    for cell in CELLS:
        reason = f"{cell.state}: a | b" if cell.reason else ""
        yield Outcome(cell.state, cell.hit.name, cell.end, 2, reason, cell.hit.detail, 12.3)
    for state, kind in simulated_cells.cells():
        yield Outcome(state, kind.value, simulated_cells.expected(kind, state).end, 2, "")


WORDS = {
    End.UNHURT: "unhurt, 12 s",
    End.RETRIED: "try 2, 12 s",
    End.CYCLED: "power cycle, 12 s",
    End.LOST: "**lost**, `reboot`, 12 s",
    End.LOST_REDEPLOY: "**lost**, `redeploy`, 12 s",
}


def test_the_page_tells_what_happened_in_each_real_cell_and_why():
    for one in outcomes():
        if not one.is_real:
            continue
        rows = [
            line for line in page.write([one], 1.0).splitlines() if f"| `{one.state}` |" in line
        ]
        detail = f" ({one.detail})" if one.detail else ""
        assert f"| `{one.state}` | {WORDS[one.end]}{detail} |" in rows
        assert any("| a \\| b |" in row for row in rows) is bool(one.reason)


def test_the_page_counts_its_cells_and_stays_readable():
    text = page.write(outcomes(), 300.0)
    assert f"{len(CELLS)} real in the lab, " in text
    assert "in 5.0 minutes" in text
    columns = [
        line.replace("\\|", "").count("|") - 1 for line in text.splitlines() if line[:1] == "|"
    ]
    assert max(columns) <= 9


def test_a_page_of_some_cells_only_is_not_written():
    told = list(outcomes())
    assert missing(told) == set()
    assert len(missing(told[1:])) == 1


def test_a_page_that_was_written_before_is_of_these_cells(request):
    if request.config.getoption("--fault-matrix", None):
        return  # it is about to be written anew
    before = PAGE.read_text("utf-8") if PAGE.exists() else None
    counts = page.counts(len(CELLS), len(simulated_cells.cells())).removesuffix(".")
    assert before is None or counts in before
