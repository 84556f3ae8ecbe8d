"""The entries of the deploy process by names of their own: `ssh_test` is there three times."""

from collections import Counter

from bench import DEPLOY


def _labels() -> list[str]:
    seen: Counter[str] = Counter()
    labels = []
    for state in DEPLOY.states:
        seen[state.name] += 1
        labels.append(state.name if seen[state.name] == 1 else f"{state.name} {seen[state.name]}")
    return labels


LABELS = _labels()  # by position
POSITION = {label: position for position, label in enumerate(LABELS)}
