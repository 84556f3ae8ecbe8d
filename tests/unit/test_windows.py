"""Windows: never more inside than allowed, never closer than allowed, and everybody gets in."""

from hypothesis import given, settings
from hypothesis import strategies as st

from piseduce_runner import planner
from piseduce_runner.planner import Entered, Failed, Proven, Status
from piseduce_runner.processes import Phase, Power, Process, Scope, State, Window
from piseduce_runner.windows import Windows

NODES = tuple("abcdef")
SWITCH_OF = {node: "left" if node < "d" else "right" for node in NODES}
OFF, ON, ANSWERS, COPY = range(4)


def process(power=None, copy=None):
    return Process(
        "deploy",
        "",
        (
            State(OFF, "turn_off", Phase.NFS, 10.0, power=Power.OFF),
            State(ON, "turn_on", Phase.NFS, 10.0, power=Power.ON, window=power, retries=1),
            State(ANSWERS, "ssh_test", Phase.NFS, 10.0, power_cycle=True),
            State(COPY, "env_copy", Phase.NFS, 10.0, window=copy, retries=1),
        ),
    )


class Room:
    """Nodes that go through a process, at one clock, past its windows."""

    def __init__(self, process, nodes=NODES):
        self.windows = Windows(SWITCH_OF)
        self.records = {node: planner.begin(process, node, frozenset()) for node in nodes}
        self.now = 0.0
        self.entries = []

    def opens_at(self, node):
        return self.windows.opens_at(self.records[node], self.records.values(), self.now)

    def enter(self, node):
        record = self.records[node]
        self.windows.note_entry(node, record.state, self.now)
        self.entries.append((record.state.name, SWITCH_OF[node], self.now))
        self.apply(node, Entered(record.state.position, 10.0))

    def prove(self, node):
        self.apply(node, Proven(self.records[node].state.position))

    def fail(self, node):
        self.apply(node, Failed(self.records[node].state.position, "it broke"))

    def apply(self, node, event):
        self.records[node] = planner.apply(self.records[node], event, self.now)

    def step(self, node, fails=False):
        """The node enters what it waits for, if it may, or leaves what it is in."""
        record = self.records[node]
        if record.status is not Status.IN_PROGRESS:
            return
        if record.entered is not None:
            (self.fail if fails else self.prove)(node)
        elif (opens := self.opens_at(node)) is not None and opens <= self.now:
            self.enter(node)

    def inside(self, position, switch=None):
        return sum(
            planner.holds_place(record, position) and switch in (None, SWITCH_OF[record.node])
            for record in self.records.values()
        )

    def to(self, position, *nodes):
        for node in nodes:
            while self.records[node].state.position != position:
                self.enter(node)
                self.prove(node)


windows = st.builds(
    Window, st.integers(0, 3), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from(Scope)
)
turns = st.lists(
    st.tuples(st.sampled_from(NODES), st.booleans(), st.sampled_from([0.0, 0.3, 1.0])), max_size=80
)


@settings(deadline=None)
@given(power=windows, copy=windows, turns=turns)
def test_never_more_are_inside_nor_closer_than_the_window_says_and_all_get_in(power, copy, turns):
    room = Room(process(power, copy))
    # Whatever the order at first; then each in its turn, and nothing fails any more.
    fair = [(node, False, 0.2) for node in NODES] * 100
    for node, fails, pause in turns + fair:
        room.now += pause
        room.step(node, fails)
        for position, window in ((ON, power), (COPY, copy)):
            most = window.most or len(NODES)
            scopes = ("left", "right") if window.per is Scope.SWITCH else (None,)
            assert all(room.inside(position, scope) <= most for scope in scopes)
    assert all(record.status is not Status.IN_PROGRESS for record in room.records.values())
    for name, window in (("turn_on", power), ("env_copy", copy)):
        for scope in ("left", "right") if window.per is Scope.SWITCH else (None,):
            times = [at for n, s, at in room.entries if n == name and scope in (None, s)]
            gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
            assert all(gap >= window.seconds - 1e-9 for gap in gaps)


def test_a_full_window_opens_when_somebody_leaves_it():
    room = Room(process(copy=Window(most=2)))
    room.to(COPY, "a", "b", "c")
    room.enter("a")
    room.enter("b")
    assert room.opens_at("c") is None
    room.prove("a")
    assert room.opens_at("c") == room.now


def test_a_node_that_is_lost_or_power_cycled_leaves_its_place():
    room = Room(process(power=Window(most=1)))
    room.to(ANSWERS, "a")
    room.to(ON, "b")
    assert room.opens_at("b") is None
    room.enter("a")
    assert room.opens_at("b") is None
    room.fail("a")
    assert room.opens_at("b") == room.now


def test_a_window_per_switch_counts_the_nodes_of_that_switch_only():
    room = Room(process(copy=Window(most=1, seconds=5.0, per=Scope.SWITCH)))
    room.to(COPY, "a", "b", "e")
    room.enter("a")
    assert room.opens_at("b") is None
    assert room.opens_at("e") == room.now


def test_a_window_counts_a_state_in_whichever_process_it_is():
    room = Room(process(copy=Window(most=1)), nodes=("a", "b"))
    capture = Process("capture", "", (State(0, "env_copy", Phase.NFS, 10.0, window=Window(1)),))
    room.records["c"] = planner.begin(capture, "c", frozenset())
    room.to(COPY, "a")
    assert room.opens_at("c") == room.now
    room.enter("a")
    assert room.opens_at("c") is None


def test_a_window_of_seconds_only_lets_any_number_in():
    room = Room(process(copy=Window(seconds=2.0)))
    room.to(COPY, *NODES)
    for node in NODES:
        room.now = room.opens_at(node)
        room.enter(node)
    assert room.now == 2.0 * (len(NODES) - 1)
    assert room.inside(COPY) == len(NODES)


def test_nodes_of_other_drivers_count_too():
    room = Room(process(copy=Window(most=1, per=Scope.SWITCH)))
    room.to(COPY, "a")
    record, others = room.records["a"], room.records.values()
    for elsewhere, opens in (
        ({"b": {"env_copy"}}, None),
        ({"b": {"ssh_test"}}, 0.0),
        ({"d": {"env_copy"}}, 0.0),
    ):
        assert room.windows.opens_at(record, others, 0.0, elsewhere) == opens
