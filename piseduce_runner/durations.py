"""Durations and times as people type them."""

import re
import time

from piseduce_runner.errors import UserError

_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhd])")


def parse_duration(text: str) -> float:
    """Seconds of `90m`, `12h` or `3d`. Raises `UserError`."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise UserError(f"duration {text!r} is not understood; write like 90m, 12h or 3d")
    return int(match[1]) * _UNITS[match[2]]


def end_after(duration: str | None, start: float | None = None) -> float | None:
    """When something ends that begins now, or at `start`; None when it has no end."""
    if duration is None:
        return None
    return (time.time() if start is None else start) + parse_duration(duration)
