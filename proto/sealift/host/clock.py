"""The machine's clocks, as an argument."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What rules and programs ask of time."""

    def wall(self) -> int:
        """The wall clock, Unix seconds."""

    def boot_s(self) -> float:
        """Seconds since the machine was started, counting sleep where the system can."""

    def boot_id(self) -> str:
        """Which start of the machine this is; empty where the system cannot tell."""


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> int:
        """The wall clock, Unix seconds."""
        return int(time.time())

    def boot_s(self) -> float:
        """Seconds since the machine was started (CLOCK_BOOTTIME, else the monotonic clock)."""
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return time.clock_gettime(clock)

    def boot_id(self) -> str:
        """Linux's boot id; empty elsewhere."""
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            return ""
