"""The errors of this package, and the root of every error that Sealift shows to a person.

SealiftError                   anything that a person should read; has a `hint`
├── InvalidName                a name, version, digest or reference that cannot be one
├── InvalidDocument            bytes that are not the document that they should be
├── InvalidPlan                a rollout plan that cannot be carried out
├── InvalidJoinString          a join string that is damaged or not one
├── InvalidKey                 a key that cannot be one
└── RuleViolation              signed metadata that breaks a rule of trust
"""

from __future__ import annotations

import unicodedata

from sealift.protocol.reasons import Reason

MAX_TEXT = 2_000
"""Characters of a message. What others say is in it, so it must have an end."""


def legible(text: str, most: int | None = MAX_TEXT) -> str:
    """Text of others made fit for terminals and logs: bounded, and without control characters."""
    if most is not None and len(text) > most:
        text = text[:most] + "…"
    return "".join(
        "\ufffd" if unicodedata.category(one).startswith("C") and one not in "\n\t" else one
        for one in text
    )


class SealiftError(Exception):
    """An error that is meant for people: what is wrong, and what to do about it.

    Args:
        message: One line that says what is wrong, with the names that a person needs.
        hint: What to do next, or empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = legible(message)
        self.hint = legible(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidName(SealiftError, ValueError):
    """A name, version, digest or reference that cannot be one."""


class InvalidDocument(SealiftError, ValueError):
    """Bytes that are not the document that they should be."""


class InvalidPlan(SealiftError, ValueError):
    """A rollout plan that cannot be carried out."""


class InvalidJoinString(SealiftError, ValueError):
    """A join string that is damaged, or that is not one."""


class InvalidKey(SealiftError, ValueError):
    """A key that cannot be one."""


class RuleViolation(SealiftError):
    """Signed metadata that breaks a rule of trust.

    Args:
        rule: The rule's number in the trust document, such as `T9`.
        reason: The stable reason that is reported.
        message: What was found, where.
        role: The role whose file is at fault, or empty.
    """

    def __init__(self, rule: str, reason: Reason, message: str, *, role: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.reason = reason
        self.role = role
