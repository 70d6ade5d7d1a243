"""The server's refusals.

Refused          a caller is told no, with a stable reason and what to do
└── others keep their own classes: RuleViolation, ContentError, DatabaseUnusable, DiskFull
"""

from __future__ import annotations

from sealift.protocol.errors import SealiftError
from sealift.protocol.reasons import Reason


class Refused(SealiftError):
    """A caller is told no.

    Args:
        reason: The stable reason.
        message: What is wrong, for people.
        hint: What to do.
        details: What machines may want, as strings.
    """

    def __init__(
        self, reason: Reason, message: str, *, hint: str = "", details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.details = details or {}


def check_request_id(text: str) -> None:
    """Refuses what cannot be a request_id.

    Raises:
        Refused: If it is empty, over 100 characters, or has some that cannot be printed.
    """
    if not 0 < len(text) <= 100 or not text.isprintable():
        raise Refused(Reason.INVALID_ARGUMENT, "a request_id of 1 to 100 characters is needed")
