"""Makes trouble in one state of a simulated deployment, as a kind of failure would."""

import time

from bench import Bench
from simulated import CRASH, FAIL, HANG, HOPELESS, SETTLE

from matrix.simulated_cells import Kind
from matrix.states import LABELS
from piseduce_runner.runs import StateProven

NODE = "node-1"
LONGER_THAN_ANY_DEADLINE = 5000.0  # seconds
_WORDS = {
    Kind.FAILS: [FAIL],
    Kind.FAILS_TWICE: [FAIL] * 2,
    Kind.KEEPS_FAILING: [FAIL] * 99,
    Kind.HOPELESS: [HOPELESS],
    Kind.HANGS: [HANG],
    Kind.LATE: [HANG],  # but for the proof, which comes too late
    Kind.CRASH: [CRASH],
    Kind.CANCELLED: [HANG],
    Kind.SETTLED_HANGS: [SETTLE],
    Kind.SETTLED_KILLED: [SETTLE],
}


class DriverKilled(BaseException):
    """The driver ends here, and writes nothing more."""


class Trouble:
    """Trouble of one kind at a position, the first time that the node is there.

    `clock` stands for the driver's `time`: what hangs lets it go on without anybody waiting.
    """

    time = staticmethod(time.time)

    def __init__(self, bench: Bench, kind: Kind, position: int) -> None:
        self._bench, self._kind, self._position = bench, kind, position
        self._ahead = 0.0
        self._has_power = True
        self._begun = self._has_settled = False
        bench.runner.script = {(NODE, position): list(_WORDS.get(kind, []))}
        bench.runner.on_state = self._on_state
        self._set_record = bench.store.set_record
        bench.store.set_record = self._on_settled

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def clear(self) -> None:
        """From now on all goes well."""
        self._bench.runner.script = {}
        self._bench.runner.on_state = lambda node, position: None
        self._bench.store.set_record = self._set_record

    def _on_state(self, node: str, position: int) -> None:
        if LABELS[position] == "turn_on":
            self._has_power = True
        if position == self._position and not self._begun:
            self._begun = True
            self._make(position)
        if not self._has_power and LABELS[position] not in ("boot_conf", "turn_off"):
            self._bench.runner.script[(NODE, position)] = [FAIL]

    def _make(self, position: int) -> None:
        match self._kind:
            case Kind.HANGS:
                self._ahead += LONGER_THAN_ANY_DEADLINE
            case Kind.LATE:
                self._ahead += LONGER_THAN_ANY_DEADLINE
                run = self._bench.runner.runs[-1]
                run.report(StateProven(run, NODE, position, at=self.monotonic()))
            case Kind.KILLED:
                self._bench.runner.played.append((NODE, position))
                raise DriverKilled
            case Kind.POWER_CUT:
                self._has_power = False
            case Kind.CANCELLED:
                self._bench.store.ask_cancel(NODE, "alice", time.time())

    def _on_settled(self, node: str, claim: str, record: dict) -> None:
        self._set_record(node, claim, record)
        if record["plan"][0] != self._position or self._has_settled:
            return
        self._has_settled = True
        if self._kind is Kind.SETTLED_KILLED:
            raise DriverKilled
        if self._kind is Kind.SETTLED_HANGS:
            self._ahead += LONGER_THAN_ANY_DEADLINE
