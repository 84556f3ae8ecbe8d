"""What a check finds: how bad it is, on what, what is wrong, and how to mend it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # works, or may be meant so, but an admin should know of it
    PROBLEM = "problem"  # a deployment fails, or is not safe
    NOT_CHECKED = "not checked"  # nobody knows; the message says why


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    `id` names the check and stays what it is from version to version: programs look for it.
    `subject` is what was looked at; `message` says what is so, `remedy` what to do about it.
    """

    id: str
    level: Level
    subject: str
    message: str
    remedy: str = ""


def ok(check: str, subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, subject, message)


def warning(check: str, subject: str, message: str, remedy: str) -> Finding:
    """Not as it should be, but nothing fails for it."""
    return Finding(check, Level.WARNING, subject, message, remedy)


def problem(check: str, subject: str, message: str, remedy: str) -> Finding:
    """Something fails for it, or will."""
    return Finding(check, Level.PROBLEM, subject, message, remedy)


def not_checked(check: str, subject: str, why: str, remedy: str = "") -> Finding:
    """It was not possible, or makes no sense before something else is mended."""
    return Finding(check, Level.NOT_CHECKED, subject, why, remedy)


def of_level(findings: Iterable[Finding], level: Level) -> list[Finding]:
    """Those of one level, in their order."""
    return [one for one in findings if one.level is level]
