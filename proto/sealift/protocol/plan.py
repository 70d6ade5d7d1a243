"""Rollout plans as people write them: `1%~30m/1d,10%@lab/12h,100%`.

`SHARE[~RAMP][@LABEL][/WAIT]`, separated by commas. SHARE is over 0 and at most 100 percent, with
two decimals at most. RAMP is how long the share takes to open. WAIT runs from this stage's start
to the next one's. Durations are a number with two decimals at most and s, m, h or d.
"""

from __future__ import annotations

import re
from decimal import Decimal

from pydantic import ValidationError

from sealift.protocol.documents import FULL_BP, Stage
from sealift.protocol.errors import InvalidPlan

FORMS = (
    "A plan is `now`, or stages such as `1%/1d,10%/1d,100%`: SHARE[~RAMP][@LABEL][/WAIT], "
    "comma-separated; WAIT runs from this stage's start to the next one's (s, m, h, d)."
)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,2})?)([smhd])")
_STAGE = re.compile(
    r"(?P<share>[0-9]{1,3}(?:\.[0-9]{1,2})?)%"
    r"(?:~(?P<ramp>[^@/]+))?(?:@(?P<label>[^/]+))?(?:/(?P<wait>.+))?"
)


def parse_duration(text: str) -> int:
    """Reads a duration such as `30m` or `1.5h`, in whole seconds.

    Raises:
        InvalidPlan: If it is not one.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidPlan(
            f"{text!r} is not a duration", hint="Write a number and s, m, h or d, such as 30m."
        )
    return int(Decimal(match[1]) * _UNITS[match[2]])


def parse_plan(text: str, start: int) -> tuple[Stage, ...]:
    """Reads a plan whose first stage starts at `start` (Unix seconds). `now` has no stages.

    Raises:
        InvalidPlan: If it cannot be carried out.
    """
    if text == "now":
        return ()
    if text == "auto":
        raise InvalidPlan("a plan cannot be chosen automatically yet", hint=FORMS)
    stages: list[Stage] = []
    begins = start
    parts = text.split(",")
    for index, part in enumerate(parts):
        match = _STAGE.fullmatch(part.strip())
        if match is None:
            raise InvalidPlan(f"{part.strip()!r} is not a stage", hint=FORMS)
        last = index == len(parts) - 1
        if match["wait"] is None and not last:
            raise InvalidPlan(
                f"the stage {part.strip()!r} does not say when the next begins", hint=FORMS
            )
        if match["wait"] is not None and last:
            raise InvalidPlan(f"the last stage {part.strip()!r} waits for nothing", hint=FORMS)
        stages.append(_stage(part.strip(), match, begins))
        begins += parse_duration(match["wait"]) if match["wait"] else 0
    _check_rising(stages)
    return tuple(stages)


def _stage(text: str, match: re.Match[str], begins: int) -> Stage:
    share = int(Decimal(match["share"]) * 100)
    if not 0 < share <= FULL_BP:
        raise InvalidPlan(f"{match['share']}% is not over 0 and at most 100", hint=FORMS)
    try:
        return Stage(
            basis_points=share,
            not_before=begins,
            ramp_s=parse_duration(match["ramp"]) if match["ramp"] else 0,
            labels=(match["label"],) if match["label"] else (),
        )
    except ValidationError as error:
        raise InvalidPlan(
            f"{text!r} is not a stage: {error.errors()[0]['msg']}", hint=FORMS
        ) from error


def _check_rising(stages: list[Stage]) -> None:
    highest: dict[tuple[str, ...], int] = {}
    for stage in stages:
        if stage.basis_points <= highest.get(stage.labels, 0):
            raise InvalidPlan(
                "each stage must open to more devices than the one before it", hint=FORMS
            )
        highest[stage.labels] = stage.basis_points


def format_share(basis_points: int) -> str:
    """Basis points as people write them: `0.01%`, `100%`."""
    return f"{Decimal(basis_points) / 100:f}%" if basis_points % 100 else f"{basis_points // 100}%"
