"""A small model of a machine room: one node with its card, its port, and its TFTP folder.

It knows physics and nothing of plans. A state's work *needs* something (`unmet`), and *changes*
something, in whole or in part (`work`). What a state's flags say of it decides how it is modelled:

* `durable`: a layer on the card. Whoever begins to write it destroys what was built upon it, and
  leaves it half-written until it is done.
* neither: something in the memory of the system that runs (a mount). It is gone with that start.
* `reboots`: puts the card's boot files into the TFTP folder, releases the card, restarts the node.
* `power`: cuts or gives it. States in front of the one that gives power run on the manager.
* `boot_conf`, `turn_off`, `destroying`, and `network_boot`, which is content with any system and
  with none, are known by their names.

A layer may be *wrong* although its state was content: a bad copy, a resize that a power cut ended.
The state that tries again from there (`again_from`, `retries`) sees that and fails.
"""

from enum import IntEnum

from piseduce_runner.planner import applies
from piseduce_runner.processes import Ends, Phase, Power, Process, State

# States that change the TFTP folder, and whose system it then holds.
FOLDERS = {"boot_conf": Phase.NFS, "destroying": None}
DONE = "done"


class Depth(IntEnum):
    """How far a state's work got."""

    NOTHING = 0
    HALF = 1
    READY = 2  # of a state that reboots the node only the restart is left
    DONE = 3


class Board:
    """One node, on which `process` is carried out under `conditions`.

    When `fragile`, each loss of power spoils what is written but not yet checked, as long as the
    card is in use.
    """

    def __init__(
        self, process: Process, conditions: frozenset[str] = frozenset(), *, fragile: bool = False
    ) -> None:
        self.process = process
        self.states = [s for s in process.states if applies(s, conditions)]
        self.fragile = fragile
        self.layers: dict[int, str] = {}
        self.wrong: set[int] = set()
        self.memory: dict[int, int] = {}  # by position, in which start of the system it was done
        self.released = 0  # what was done before this many restarts is safe on the card
        self.starts = 0
        self.powered = process.states[0].phase is Phase.DEPLOYED
        self.folder: Phase | None = Phase.DEPLOYED if self.powered else None
        self.running: Phase | None = self.folder
        # Somebody has pulled the plug since the driver last switched the node on: it cannot know.
        self.disturbed = False
        # That the power is off was proven, and that it is on not proven since.
        self.seen_off = False

    # what happens to it

    def pull_plug(self) -> None:
        """The power is gone for a moment: the board starts again, with what its folder holds."""
        if self.powered:
            self._lose_power()
            self._give_power()
            self.disturbed = True

    def work(self, state: State, depth: Depth, *, badly: bool = False) -> None:
        """The state's work as far as `depth`; `badly`: what it leaves is wrong, unnoticed."""
        if depth is Depth.NOTHING:
            return
        self._undo_what_is_built_on(state)
        if not self._is_on_manager(state):
            self.released = self._stage(state.position)
        done = depth is Depth.DONE
        if state.power is Power.OFF or state.name == "turn_off":
            self._lose_power()
            self.disturbed = False
        elif state.power is Power.ON:
            self._give_power()
        elif state.name in FOLDERS:
            self.folder = FOLDERS[state.name] if done else self.folder  # one rename
        elif state.reboots:
            self._change_systems(state, depth)
        elif state.durable:
            self.layers[state.position] = DONE if done else "half"
            if done and badly and self._checkers(state):
                self.wrong.add(state.position)
        elif done:
            self.memory[state.position] = self.starts

    def note_proof(self, state: State) -> None:
        """The store knows that the state was proven."""
        if state.power is not None:
            self.seen_off = state.power is Power.OFF

    # how it is

    def unmet(self, state: State) -> list[str]:
        """What the state's work needs, and is not so."""
        if state.power is Power.ON:
            return [] if self.seen_off else ["power that was seen off"]
        if self._is_on_manager(state):
            return []
        missing = [] if self.running is state.phase else [f"a running {state.phase.value} system"]
        return missing + self._missing(state.position)

    def sees_wrong(self, state: State) -> bool:
        """Whether the state finds something wrong. One that has no other try does not look."""
        first = state.position if state.again_from is None else state.again_from
        return state.retries > 0 and any(
            first <= position < state.position for position in self.wrong
        )

    def not_reached(self) -> list[str]:
        """What the end of the process promises, and is not so."""
        missing = [f"that {position} is right" for position in sorted(self.wrong)]
        is_destroyed = self.process.ends is Ends.DESTROYED
        # What a pulled plug has taken after it was proven, nobody can know.
        lasting = is_destroyed or self.disturbed
        missing += self._missing(len(self.process.states), only_durable=lasting)
        if is_destroyed:
            return missing + ["power off"] * self.powered + ["no folder"] * bool(self.folder)
        phase = self.process.states[-1].phase
        return missing + [f"a running {phase.value} system"] * (self.running is not phase)

    # the inside

    def _is_on_manager(self, state: State) -> bool:
        on = next((s.position for s in self.states if s.power is Power.ON), -1)
        return state.position <= on or state.name in ("network_boot", "turn_off", *FOLDERS)

    def _stage(self, position: int) -> int:
        """How often the node is restarted before the state there."""
        return sum(s.reboots for s in self.states if s.position < position)

    def _missing(self, end: int, *, only_durable: bool = False) -> list[str]:
        """What the states before `end` should have left, and is not there."""
        missing = []
        for state in self.states:
            if state.position >= end or self._is_on_manager(state) or state.reboots:
                continue
            if state.durable:
                there = self.layers.get(state.position) == DONE
            else:
                is_past = only_durable or self._stage(state.position) < self._stage(end)
                there = is_past or self.memory.get(state.position) == self.starts
            missing += [] if there else [f"{state.name} ({state.position})"]
        return missing

    def _checkers(self, written: State) -> list[State]:
        """The states to come that would find what `written` has left to be wrong."""
        return [
            state
            for state in self.states
            if state.again_from is not None
            and state.again_from <= written.position < state.position
            and state.retries > 0
            and not (state.reboots or self._is_on_manager(state))
            and self.released <= self._stage(state.position) == self._stage(written.position)
            and self.layers.get(state.position) != DONE
            and self.memory.get(state.position) != self.starts
        ]

    def _undo_what_is_built_on(self, state: State) -> None:
        for position in range(state.position, len(self.process.states)):
            self.memory.pop(position, None)
            if state.durable:
                self.layers.pop(position, None)
                self.wrong.discard(position)

    def _lose_power(self) -> None:
        self.powered, self.running, self.memory = False, None, {}
        written = [s for s in self.states if self.layers.get(s.position) == DONE]
        if self.fragile:
            self.wrong |= {s.position for s in written if self._checkers(s)}

    def _give_power(self) -> None:
        if not self.powered:
            self.powered = True
            self._boot()

    def _boot(self) -> None:
        self.starts, self.memory = self.starts + 1, {}
        on_card = Phase.DEPLOYED if self._card_is_whole() else None
        self.running = on_card if self.folder is Phase.DEPLOYED else self.folder

    def _card_is_whole(self) -> bool:
        layers = [s.position for s in self.states if s.durable and s.phase is Phase.NFS]
        return all(self.layers.get(position) == DONE for position in layers)

    def _change_systems(self, state: State, depth: Depth) -> None:
        self.folder = next(
            (s.phase for s in self.states if s.position > state.position), state.phase
        )
        if depth >= Depth.READY:
            self.released = self._stage(state.position) + 1
        if depth is Depth.DONE:
            self._boot()
