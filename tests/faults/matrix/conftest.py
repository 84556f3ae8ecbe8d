"""Collects what happened in the cells, and writes the page when all of them are as expected."""

from collections.abc import Callable

import pytest

from matrix.outcomes import Outcome

OUTCOMES = pytest.StashKey[list[Outcome]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[Outcome], None]:
    """tell(outcome): it belongs on the page."""
    return request.config.stash.setdefault(OUTCOMES, []).append
