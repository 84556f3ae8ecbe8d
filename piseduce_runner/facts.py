"""What states remember of a node. It comes from the node, so it may be anything: checked here."""

import re
from typing import Any

# What the states of this project remember, and its form: from a node it may be anything.
_FACT_FORMS = {
    "boot_id": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "host_key": re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{60,100}=*"),
    "power": re.compile(r"on|off"),
}
_TRUTHS = ("settled",)
_MOST_FACTS = 20


def are_facts(facts: Any) -> bool:
    """Whether these can be stored: they come from a node, and go into files and variables."""
    return (
        isinstance(facts, dict)
        and len(facts) <= _MOST_FACTS
        and all(_is_fact(str(name), value) for name, value in facts.items())
    )


def _is_fact(name: str, value: Any) -> bool:
    if name in _TRUTHS:
        return isinstance(value, bool)
    if form := _FACT_FORMS.get(name):
        return isinstance(value, str) and form.fullmatch(value) is not None
    is_short_text = isinstance(value, str) and len(value) <= 200 and value.isprintable()
    return re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name) is not None and (
        is_short_text or isinstance(value, bool | int)
    )
