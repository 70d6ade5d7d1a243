"""Ranges of versions, such as `>=1.4,<2`: which releases an app or a device takes.

A range is one or more comparators, separated by commas; a version must meet them all:

    >=1.4.2  >1.4.2  <=1.4.2  <1.4.2  =1.4.2  (== is the same as =, and so is no sign at all)

A version with parts left out stands for all that begin with it: `>=1.4` begins at 1.4.0, `<2` ends
before 2.0.0, `>1.4` begins at 1.5.0, `<=1.4` ends before 1.5.0, `=1.4` is any 1.4.x.

A pre-release matches only if the range names one of the same core: `>=1.5.0-rc.1` takes 1.5.0-rc.2,
and of 1.6.0 only the release itself; `<2` never takes 2.0.0-rc.1. Nobody gets one unasked.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from sealift.protocol.errors import InvalidName
from sealift.protocol.names import Version

MAX_RANGE_LENGTH = 200
"""Characters."""

_COMPARATOR = re.compile(r"\s*(>=|<=|==|=|>|<|)\s*([^\s<>=]+)\s*")
_PARTIAL = re.compile(r"(0|[1-9][0-9]{0,17})(?:\.(0|[1-9][0-9]{0,17}))?")
_OPERATORS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
}


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Which versions are wanted.

    Attributes:
        text: As it was written.
        bounds: An operator of `>= > <= < =` and a full version each; all must hold.
    """

    text: str
    bounds: tuple[tuple[str, Version], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Reads a range.

        Raises:
            InvalidName: If it is not one.
        """
        if len(text) > MAX_RANGE_LENGTH:
            raise _invalid(text[:40] + "…")
        bounds: list[tuple[str, Version]] = []
        for part in text.split(","):
            match = _COMPARATOR.fullmatch(part)
            if match is None:
                raise _invalid(text)
            bounds += _bounds(match[1], match[2], text)
        return cls(text, tuple(bounds))

    def __contains__(self, version: Version) -> bool:
        if version.prerelease and not any(
            bound.prerelease and _core(bound) == _core(version) for _, bound in self.bounds
        ):
            return False
        return all(_OPERATORS[sign](version, bound) for sign, bound in self.bounds)

    def __str__(self) -> str:
        return self.text


def _core(version: Version) -> tuple[int, int, int]:
    return version.major, version.minor, version.patch


def _bounds(sign: str, version: str, text: str) -> list[tuple[str, Version]]:
    sign = "=" if sign in {"", "=="} else sign
    partial = _PARTIAL.fullmatch(version)
    if partial is None:
        try:
            return [(sign, Version.parse(version))]
        except InvalidName:
            raise _invalid(text) from None
    major, minor = int(partial[1]), partial[2]
    first = Version(major, int(minor or 0), 0)
    after = Version(major + 1, 0, 0) if minor is None else Version(major, int(minor) + 1, 0)
    if sign == "=":
        return [(">=", first), ("<", after)]
    return [{">=": (">=", first), ">": (">=", after), "<": ("<", first), "<=": ("<", after)}[sign]]


def _invalid(text: str) -> InvalidName:
    return InvalidName(
        f"{text!r} is not a range of versions",
        hint="Write comparators separated by commas, such as >=1.4,<2 or =1.4.2.",
    )
