"""Which time counts (rules T15 to T19). Pure: clocks come in as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from sealift.protocol.layout import DAY_S

BUILD_DATE = 1_790_000_000
"""Unix seconds before which this version of Sealift did not exist: no clock can be earlier."""


@dataclass(frozen=True, slots=True)
class SignedBound:
    """The newest signed time that a home has admitted.

    Attributes:
        issued: `x-sealift-issued` of that timestamp, Unix seconds.
        boot_id: The boot during which it was admitted.
        boot_s: Seconds since that boot when a strictly newer timestamp was last admitted.
    """

    issued: int
    boot_id: str
    boot_s: float


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """The time that rules go by.

    Attributes:
        t: For stages, `until` and windows: the wall clock where it is plausible, else the signed
            bound plus the time since it was admitted (rule T16).
        expiry_t: For expiry: the later of wall clock and bound (rule T17).
        plausible: False makes the device say `clock`.
        timestamp_age_s: How old the newest admitted timestamp is; None if it cannot be known
            (rule T18).
        wall: The wall clock, to be shown.
        bound: The signed bound, to be shown.
    """

    t: int
    expiry_t: int
    plausible: bool
    timestamp_age_s: int | None
    wall: int
    bound: int


def trusted_time(
    wall: int, boot_id: str, boot_s: float, signed: SignedBound | None, build_date: int = BUILD_DATE
) -> TrustedTime:
    """Judges the clock of a machine.

    Args:
        wall: The wall clock, Unix seconds.
        boot_id: Which boot this is; empty where the system cannot tell, which counts as another.
        boot_s: Seconds since then, counting sleep.
        signed: The newest signed time admitted; None before the first.
        build_date: No clock can be earlier.
    """
    bound = max(signed.issued, build_date) if signed else build_date
    plausible = wall >= build_date and wall >= bound - DAY_S
    same_boot = signed is not None and signed.boot_id == boot_id != ""
    since = max(0, int(boot_s - signed.boot_s)) if signed and same_boot else None
    if plausible:
        age = max(0, wall - signed.issued) if signed else None
        return TrustedTime(wall, max(wall, bound), True, age, wall, bound)
    return TrustedTime(bound + (since or 0), max(wall, bound), False, since, wall, bound)
