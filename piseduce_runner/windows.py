"""Windows: how many nodes may be in a state at once, and how close they follow each other. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from piseduce_runner import planner
from piseduce_runner.planner import Record
from piseduce_runner.processes import Scope, State


@dataclass
class Windows:
    """The windows of the nodes that one driver drives.

    `switch_of` gives the switch of each node. Times are seconds of one monotonic clock. Of other
    drivers' nodes it is counted which are inside, not when they entered.
    """

    switch_of: Mapping[str, str]
    _last_entry: dict[tuple[str, str], float] = field(default_factory=dict)

    def opens_at(
        self,
        record: Record,
        others: Iterable[Record],
        now: float,
        elsewhere: Mapping[str, set[str]] | None = None,
    ) -> float | None:
        """When the node may enter the state that it waits for: `now`, later, or None.

        None: not before another node has left the window. `others` are this driver's nodes;
        `elsewhere` gives, for each node of other drivers, the states whose places it holds.
        """
        state = record.state
        if state.window is None:
            return now
        key = self._key(record.node, state)
        inside = sum(
            self._key(other.node, theirs) == key
            for other in others
            if other.node != record.node
            for theirs in other.process.states
            if theirs.name == state.name and planner.holds_place(other, theirs.position)
        )
        inside += sum(
            state.name in names and self._key(node, state) == key
            for node, names in (elsewhere or {}).items()
        )
        if state.window.most and inside >= state.window.most:
            return None
        last = self._last_entry.get(key)
        return now if last is None else max(now, last + state.window.seconds)

    def note_entry(self, node: str, state: State, now: float) -> None:
        """The node has entered the state."""
        if state.window is not None:
            self._last_entry[self._key(node, state)] = now

    def _key(self, node: str, state: State) -> tuple[str, str]:
        per_switch = state.window is not None and state.window.per is Scope.SWITCH
        return state.name, self.switch_of.get(node, "") if per_switch else ""
