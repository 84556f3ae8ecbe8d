"""How long work tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Is told of one step of the work after the other."""

    def step(self, title: str, total: int) -> None:
        """A step begins; `total` is in bytes."""

    def at(self, done: int) -> None:
        """So many bytes of the step are done."""


class Silent:
    """Nobody looks."""

    def step(self, title: str, total: int) -> None:
        pass

    def at(self, done: int) -> None:
        pass


SILENT = Silent()
