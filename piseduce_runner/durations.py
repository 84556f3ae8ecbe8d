"""Durations and times as people type them."""

import re
import time
from datetime import datetime

from piseduce_runner.errors import UserError

_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])")
# Nobody knows whose nodes they are in more than a year.
LONGEST = 366 * 24 * 3600
# Who types a time to the minute means this minute too.
_TOLERANCE = 60


def parse_duration(text: str) -> float:
    """Seconds of `90m`, `12h` or `3d`, a year at most. Raises `UserError`."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UserError(f"duration {text!r} is not understood; write like 90m, 12h or 3d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST:
        raise UserError(f"duration {text!r} is more than a year (366d)")
    return seconds


def parse_time(text: str) -> float:
    """Seconds since the epoch of `2026-03-01T09:30`: ISO 8601, this machine's clock if no zone.

    Raises `UserError`.
    """
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(f"time {text!r} is not understood; write like 2026-03-01T09:30") from error


def parse_start(text: str | None, now: float) -> float:
    """When something is to start: a time, or `+2h` from now on; None is now.

    Raises `UserError` for the past, and for what is more than a year ahead.
    """
    if text is None:
        return now
    if text.startswith("+"):
        return now + parse_duration(text[1:])
    start = parse_time(text)
    if start < now - _TOLERANCE:
        raise UserError(f"start {text} is in the past")
    if start > now + LONGEST:
        raise UserError(f"start {text} is more than a year ahead")
    return max(start, now)


def end_after(duration: str | None, start: float | None = None) -> float | None:
    """When something ends that begins now, or at `start`; None when it has no end."""
    if duration is None:
        return None
    return (time.time() if start is None else start) + parse_duration(duration)
