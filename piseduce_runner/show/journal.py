"""Where nodes have been: the journal, and the logs."""

import re
import time
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from piseduce_runner.planner import Status
from piseduce_runner.show.text import (
    duration,
    local_time,
    new_console,
    new_table,
    print_json,
    utc_time,
)
from piseduce_runner.store import Act, Deployment, Outcome, Transition

# runlog.py writes such a line where a state begins.
_HEAD = re.compile(r"^--- (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  (\S+)\n", re.MULTILINE)
_COLOURS = {"proven": "green", "failed": "red"}


def history(as_json: bool, transitions: list[Transition], acts: list[Act], limit: int) -> None:
    """What nodes went through and what people asked of them, oldest first; the newest `limit`."""
    lines = [(one.started, one) for one in transitions] + [(act.at, act) for act in acts]
    newest = [one for _, one in sorted(lines, key=lambda line: line[0])][-limit:]
    if as_json:
        print_json(
            {
                "transitions": [_transition(one) for one in newest if isinstance(one, Transition)],
                "acts": [_act(one) for one in newest if isinstance(one, Act)],
            }
        )
        return
    if not newest:
        click.echo("nothing was done yet")
        return
    table = new_table("#", "STARTED", "NODE", "STATE", "TRY", "TOOK", "OUTCOME", "REASON")
    for one in newest:
        if isinstance(one, Act):
            words = " ".join(word for word in (one.what, one.detail) if word)
            force = " by force" if one.forced else ""
            asked = Text(f"{one.who}: {words}{force}")
            table.add_row("", local_time(one.at), one.node, "", "", "", "asked", asked)
            continue
        outcome = one.outcome.value if one.outcome else "under way"
        table.add_row(
            str(one.deployment),
            local_time(one.started),
            one.node,
            one.state,
            str(one.attempt),
            duration((time.time() if one.ended is None else one.ended) - one.started),
            Text(outcome, style=_COLOURS.get(outcome, "yellow")),
            Text(one.reason.removeprefix(f"{one.state}: ")),
        )
    new_console().print(table)


def _transition(one: Transition) -> dict[str, Any]:
    return {
        "deployment": one.deployment,
        "node": one.node,
        "process": one.process,
        "state": one.state,
        "attempt": one.attempt,
        "started": utc_time(one.started),
        "seconds": None if one.ended is None else round(one.ended - one.started, 3),
        "outcome": one.outcome.value if one.outcome else None,
        "reason": one.reason,
        "log": one.log,
    }


def _act(one: Act) -> dict[str, Any]:
    return {
        "at": utc_time(one.at),
        "who": one.who,
        "what": one.what,
        "node": one.node,
        "forced": one.forced,
        "detail": one.detail,
    }


def choose_transition(transitions: list[Transition], held: Deployment | None) -> Transition:
    """The one that people want to read about: of a lost node the last that failed, else the last.

    `held` is the node's last deployment; there is at least one transition.
    """
    if held is not None and held.status is Status.LOST:
        for one in reversed(transitions):
            if one.deployment == held.id and one.outcome is Outcome.FAILED:
                return one
    return transitions[-1]


def log(as_json: bool, chosen: Transition, everything: bool) -> None:
    """What Ansible said during a state, or with `everything` during the whole deployment."""
    path = Path(chosen.log)
    text = path.read_text("utf-8", errors="replace") if chosen.log and path.is_file() else ""
    if not everything:
        text = _section(text, chosen)
    if as_json:
        print_json(
            {
                "node": chosen.node,
                "state": chosen.state,
                "attempt": chosen.attempt,
                "outcome": chosen.outcome.value if chosen.outcome else None,
                "reason": chosen.reason,
                "file": chosen.log,
                "text": text,
            }
        )
        return
    where = f", from {path}" if chosen.log else ""
    click.echo(f"{chosen.node}, {chosen.state}, try {chosen.attempt}{where}")
    said = text or ("Ansible has said nothing." if chosen.ended else "Ansible said nothing yet.")
    click.echo(said, nl=not said.endswith("\n"))
    if chosen.reason:
        click.echo(f"reason: {chosen.reason}")


def _section(text: str, chosen: Transition) -> str:
    """The part of a deployment's log that is about one try of a state.

    The line at its head is written when the node stands in front of the state, so it is the last
    of that name before the state was entered.
    """
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    sections = [
        (head, end) for head, end in zip(heads, ends, strict=True) if head[2] == chosen.state
    ]
    if not sections:
        return ""
    before = [one for one in sections if _epoch(one[0][1]) <= chosen.started]
    head, end = before[-1] if before else sections[0]
    return text[head.start() : end]


def _epoch(stamp: str) -> float:
    return time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))
