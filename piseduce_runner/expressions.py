"""Expressions in the process table: a timeout that depends on what is known of a deployment."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Expression:
    """Arithmetic on what is known when a state begins, as it stands in the table."""

    text: str
