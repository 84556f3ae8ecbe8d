"""The driver's pen: writes into the store what becomes of its nodes, around each state."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from piseduce_runner.planner import Record, Status
from piseduce_runner.records import to_values
from piseduce_runner.store import Outcome, Store


@dataclass(frozen=True)
class Ledger:
    """Writes under one claim. Every method raises `NodeTaken` when the node is ours no more."""

    store: Store
    claim: str
    clock: Callable[[], float] = time.time

    def enter(self, record: Record, log: str) -> None:
        """The node is about to begin the state that it has entered."""
        self.store.enter(
            record.node,
            self.claim,
            position=record.state.position,
            state=record.state.name,
            attempt=record.attempt,
            log=log,
            now=self.clock(),
            record=to_values(record),
        )

    def prove(self, record: Record, facts: dict[str, Any]) -> None:
        """A state was proven, and this is what it learned; `record` is what follows.

        Its `note` is for people: it stands in the journal, and is not kept with the facts.
        """
        note = str(facts.get("note", ""))
        kept = {name: value for name, value in facts.items() if name != "note"}
        self._write(record, Outcome.PROVEN, note, kept)

    def fail(self, record: Record, reason: str) -> None:
        """A try has failed; `record` is what follows: another try, a power cycle, or the end."""
        self._write(record, Outcome.FAILED, reason, {})

    def settle(self, record: Record) -> None:
        """Of the node's state only the restart is left: stored at once, whatever comes."""
        self.store.set_record(record.node, self.claim, to_values(record))

    def cancel(self, record: Record) -> None:
        """Somebody has stopped the node."""
        self._write(record, Outcome.CANCELLED, record.reason, {})

    def release(self, node: str, reason: str) -> None:
        """Leave the node as it is to the next driver."""
        self.store.release(node, self.claim, now=self.clock(), reason=reason)

    def _write(self, record: Record, outcome: Outcome, reason: str, facts: dict[str, Any]) -> None:
        now, values = self.clock(), to_values(record)
        if record.status is Status.IN_PROGRESS:
            self.store.leave(record.node, self.claim, outcome, reason, now, values, facts=facts)
        else:
            self.store.end(
                record.node, self.claim, record.status, record.reason, now, values, facts=facts
            )
