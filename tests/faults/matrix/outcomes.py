"""What happened in the cells of the matrix, kept for its page."""

from dataclasses import dataclass

from matrix.ends import End


@dataclass(frozen=True)
class Outcome:
    """How a cell ended, seen and judged.

    `fault` is its column and `state` its row; `tries` how often the state was entered before the
    node had ended; `reason` the node's own, empty where nothing failed. `seconds` until it had
    ended, None where time is not real.
    """

    state: str
    fault: str
    end: End
    tries: int
    reason: str
    seconds: float | None = None

    @property
    def is_real(self) -> bool:
        """Whether it happened in the lab."""
        return self.seconds is not None
