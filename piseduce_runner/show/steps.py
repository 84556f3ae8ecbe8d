"""How far long work on this machine is: a bar on a terminal, lines elsewhere."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from piseduce_runner.images.steps import Progress as Work


@contextlib.contextmanager
def work_view(as_json: bool) -> Iterator[Work]:
    """A bar on a terminal, a line for each quarter of a step elsewhere, nothing with --json."""
    console = Console(highlight=False, stderr=as_json)
    if as_json or not console.is_terminal:
        yield _Lines(console, quiet=as_json)
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", visible=False)

    def step(self, title: str, total: int) -> None:
        self._progress.reset(self._task, description=title, total=total, visible=True)

    def at(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


class _Lines:
    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._title, self._total, self._quarter = "", 1, 0

    def step(self, title: str, total: int) -> None:
        self._title, self._total, self._quarter = title, max(total, 1), 0
        if not self._quiet:
            self._console.print(title, markup=False)

    def at(self, done: int) -> None:
        quarter = min(done, self._total) * 4 // self._total
        if quarter > self._quarter and not self._quiet:
            self._console.print(f"{self._title} {quarter * 25} %", markup=False)
        self._quarter = max(quarter, self._quarter)
