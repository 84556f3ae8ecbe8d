"""The fault matrix in the lab: cards, images and services."""

import pytest

from matrix.judge import unexplained
from matrix.waves import Waves, cells_of, chosen
from matrix.waves_of_cards import WAVES

pytestmark = pytest.mark.matrix
CELLS = cells_of(WAVES)


@pytest.fixture(scope="module")
def waves(request, make_lab) -> Waves:
    """All waves of this file are run, or those cells of them that were chosen."""
    ran = Waves(make_lab("--nodes", str(max(map(len, WAVES)))))
    ran.run(chosen(WAVES, request.session.items))
    return ran


@pytest.mark.parametrize("cell", CELLS, ids=[cell.name for cell in CELLS])
def test_real_cell(waves, tell, cell):
    evidence = waves.evidence[cell]
    assert evidence.was_hit, f"the node did not get there in {waves.tries} deployments"
    tell(waves.outcome(cell))
    assert evidence.problems() == []


def test_nothing_else_has_failed(waves):
    assert [line for chain in waves.nodes for line in unexplained(chain)] == []
