"""Runs checks side by side: none hides another, and none is waited for without end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from piseduce_runner.doctor.findings import Finding, not_checked, problem
from piseduce_runner.errors import UserError


@dataclass(frozen=True)
class Check:
    """Something to look at. `id` and `subject` stand in a finding when it does not come to one."""

    id: str
    subject: str
    look: Callable[[], list[Finding]]


class Checks:
    """Checks that are under way, each in a thread of its own."""

    def __init__(self) -> None:
        self._started: list[Check] = []
        self._results: SimpleQueue[tuple[int, list[Finding]]] = SimpleQueue()

    def start(self, *checks: Check) -> None:
        """Begin with these."""
        for check in checks:
            number = len(self._started)
            self._started.append(check)
            # A daemon: what hangs for ever (a dead NFS server) must not keep the command alive.
            threading.Thread(
                target=self._work, args=(number, check), name=check.id, daemon=True
            ).start()

    def _work(self, number: int, check: Check) -> None:
        self._results.put((number, _findings(check)))

    def collect(self, seconds: float) -> list[Finding]:
        """All findings, in the order in which the checks were started; waits `seconds` at most."""
        end = time.monotonic() + seconds
        results: dict[int, list[Finding]] = {}
        while len(results) < len(self._started):
            try:
                number, findings = self._results.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                break
            results[number] = findings
        late = f"it did not come to an end within {seconds:g} s"
        for number, check in enumerate(self._started):
            remedy = "look at what it reads: a dead file server or disk?"
            results.setdefault(number, [not_checked(check.id, check.subject, late, remedy)])
        return [finding for number in sorted(results) for finding in results[number]]


def _findings(check: Check) -> list[Finding]:
    try:
        return check.look()
    except UserError as error:
        return [problem(check.id, check.subject, str(error), "mend what it says")]
    except FileNotFoundError as error:
        why = f"{error.filename} is not there"
    except OSError as error:
        why = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    # A fault of ours in one check must not hide what the others find.
    except Exception as error:  # noqa: BLE001
        why = f"the check itself failed, which is a fault of piseduce-run: {error!r}"
    return [not_checked(check.id, check.subject, why)]
