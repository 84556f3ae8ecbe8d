"""What happened in the cells of the matrix, kept for its page."""

from dataclasses import asdict, dataclass

from matrix.ends import End


@dataclass(frozen=True)
class Outcome:
    """How a cell ended, seen and judged.

    `fault` is its column and `state` its row; `detail` the fault's parameters; `tries` how often
    the state was entered before all was well, or the node lost; `reason` why the node is lost, else
    why it failed first, empty where nothing did. `seconds` from the fault until then, None where
    time is not real.
    """

    state: str
    fault: str
    end: End
    tries: int
    reason: str
    detail: str = ""
    seconds: float | None = None

    @property
    def is_real(self) -> bool:
        """Whether it happened in the lab."""
        return self.seconds is not None

    def to_values(self) -> dict:
        """Plain values, for the way from one process of pytest to the other."""
        return asdict(self) | {"end": self.end.name}

    @classmethod
    def from_values(cls, values: dict) -> "Outcome":
        """What `to_values` gave."""
        return cls(**values | {"end": End[values["end"]]})
