"""Times and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def time_text(t: int) -> str:
    """Unix seconds as a UTC time."""
    try:
        return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{t} s"


def duration_text(seconds: int) -> str:
    """Seconds in the largest whole unit and the next: `2d 3h`."""
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
