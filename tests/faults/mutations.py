"""Safety rules, each switched off: the text that holds it, and what stands there without it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One rule, switched off in one file of the package."""

    rule: str
    file: str
    old: str
    new: str


def _in(file: str, *rules: tuple[str, str, str]) -> list[Mutation]:
    return [Mutation(rule, file, old, new) for rule, old, new in rules]


PLANNER = _in(
    "planner.py",
    (
        "what begins again is no longer proven",
        "proven=record.proven - _undone(record)",
        "proven=record.proven",
    ),
    (
        "what is written again undoes what lasts and was built upon it",
        "for s in later if state.durable or not s.durable",
        "for s in later if not s.durable",
    ),
    (
        "a power cycle leaves what earlier stages have done",
        "if state.power is not None and state.position < first:",
        "if False:",
    ),
    ("no state begins while its preconditions are gone", "    if missing:\n", "    if False:\n"),
    (
        "power is given only after it was cut",
        "if record.state.power is Power.ON and position in record.proven:",
        "if False:",
    ),
    (
        "a try that gives power cuts it first",
        "start = power[0]  #",
        "start = start + 0  #",
    ),
    (
        "a proof after the deadline is none",
        "case Proven() if now > record.entered + record.timeout:",
        "case Proven() if False:",
    ),
    (
        "nobody is overdue before the deadline",
        "if now < record.entered + record.timeout:",
        "if False:",
    ),
    (
        "no more tries than the table gives",
        "<= state.retries:",
        "<= state.retries + 1:",
    ),
    ("the tries end", "if record.failures[state.position] <= state.retries:", "if True:"),
    (
        "one power cycle for each state",
        "state.position not in record.cycled and can_power_cycle(record)",
        "can_power_cycle(record)",
    ),
    (
        "a power cycle only where the table has one",
        "if state.power_cycle and may_cycle:",
        "if may_cycle:",
    ),
    ("what is hopeless is not tried again", "    if hopeless:\n", "    if False:\n"),
    (
        "a node that needs only its restart gets it",
        "    if record.settled:\n        # The state",
        "    if False:\n        # The state",
    ),
    (
        "a power cycle is the restart",
        "record = replace(record, proven=record.proven | {position})",
        "pass",
    ),
    (
        "what does not last is done again",
        "stands = state.durable and state.position in",
        "stands = state.position in",
    ),
    (
        "what was not proven is done again",
        "state.durable and state.position in record.proven and not undone",
        "state.durable and not undone",
    ),
    (
        "what a new copy undoes is done again",
        "state.position in record.proven and not undone",
        "state.position in record.proven",
    ),
    (
        "a try begins where the table says",
        "if state.again_from is None:",
        "if True:",
    ),
    (
        "to switch again leaves the boot files",
        "    if state.position < _stage_start(record):\n",
        "    if False:\n",
    ),
    (
        "a resumed node is power-cycled",
        "return _power_cycle(record) if can_power_cycle(record) else _leave(record, record.plan)",
        "return _leave(record, record.plan)",
    ),
    (
        "a power cycle switches the power, also of a deployed system",
        "if off not in left or on not in left:",
        "if False:",
    ),
    (
        "a deployed system is not led back to the network boot",
        "left = _way(record, _stage_start(record))",
        "left = _way(record, 0)",
    ),
    (
        "who may have restarted unseen is power-cycled",
        "if record.state.reboots and can_power_cycle(record):",
        "if False:",
    ),
    (
        "drivers do not die for ever in one state",
        "> MOST_INTERRUPTIONS:",
        "> 10**9:",
    ),
    (
        "an event of another state is refused",
        "event.position != record.state.position or waits",
        "waits",
    ),
    (
        "an event of an ended node is refused",
        "    if record.status is not Status.IN_PROGRESS:\n        raise",
        "    if False:\n        raise",
    ),
    ("only what restarts settles", "case Settled() if state.reboots:", "case Settled():"),
    ("a run ends with a restart", "        if state.reboots:\n            break", "        pass"),
    (
        "a run does not cross from one system to another",
        "            if state.phase is not phase:\n                break\n",
        "",
    ),
    (
        "a node that boots keeps its place",
        "return is_in_it or record.booting == position",
        "return is_in_it",
    ),
)

RECORDS = _in(
    "records.py",
    ("what was proven is kept", '"proven": sorted(record.proven)', '"proven": []'),
    ("that a node settled is kept", '"settled": record.settled', '"settled": False'),
    ("that a state had begun is kept", '"entered": record.entered is not None', '"entered": False'),
    ("who was power-cycled is kept", '"cycled": sorted(record.cycled)', '"cycled": []'),
    (
        "how often drivers died is kept",
        '"interruptions": [list(pair) for pair in sorted(record.interruptions.items())]',
        '"interruptions": []',
    ),
    (
        "a record of other states is refused",
        'if values.get("states") != [state.name for state in process.states]:',
        "if False:",
    ),
)

WINDOWS = _in(
    "windows.py",
    ("no more than most", "inside >= state.window.most:", "inside > state.window.most:"),
    ("not closer than seconds", "max(now, last + state.window.seconds)", "now"),
    (
        "each switch has its own window",
        'self.switch_of.get(node, "") if per_switch else ""',
        '""',
    ),
    (
        "nodes of other drivers count",
        "for node, names in (elsewhere or {}).items()",
        "for node, names in {}.items()",
    ),
)

DRIVER = _in(
    "driver.py",
    (
        "the store knows of a state before it begins",
        "            self._ledger.enter(entered, str(run.batch.logs[record.node]))\n",
        "",
    ),
    ("that a node settled is stored at once", "self._ledger.settle(node.record)", "pass"),
    (
        "what is learned is stored only with a proof",
        "        if facts.get(SETTLED) is True and",
        "        self._store.remember(name, self._claim, node.facts)\n"
        "        if facts.get(SETTLED) is True and",
    ),
    (
        "a node that another driver has taken is left to it",
        "self._give_up(error.node, str(error))",
        "raise",
    ),
    (
        "who has waited longest goes first",
        "sorted(at_gates, key=lambda record: self._nodes[record.node].waiting_since)",
        "at_gates",
    ),
    ("a cancelled node is cancelled in the journal", "self._ledger.cancel(after)", "pass"),
)

MUTATIONS = PLANNER + RECORDS + WINDOWS + DRIVER
