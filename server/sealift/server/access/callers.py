"""Callers and their rights.

Roles: `admin` (namespaces, tokens), `publisher` (rights push, hold, invite in one namespace, given
apart), `device` (read, report itself), `viewer` (browse), `invite` (read metadata and join, until
spent or expired). Public namespaces and health are read by anyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealift.host.tokens import is_token, token_sha256
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.db.tables import NamespaceRow, TokenRow
from sealift.server.errors import Refused


class Right(StrEnum):
    """What a call needs."""

    CREATE = "create"
    READ_METADATA = "read_metadata"
    READ_CONTENT = "read_content"
    PUSH = "push"
    HOLD = "hold"
    INVITE = "invite"
    JOIN = "join"
    REPORT = "report"
    BROWSE = "browse"


PUBLISHER_RIGHTS = (Right.PUSH, Right.HOLD, Right.INVITE)
"""The rights of a publisher's token, given apart (rule T28)."""

_ROLE_RIGHTS: dict[str, frozenset[Right]] = {
    "admin": frozenset({Right.CREATE}),
    "publisher": frozenset({Right.READ_METADATA, Right.READ_CONTENT, Right.BROWSE}),
    "device": frozenset({Right.READ_METADATA, Right.READ_CONTENT, Right.REPORT}),
    "viewer": frozenset({Right.READ_METADATA, Right.BROWSE}),
    "invite": frozenset({Right.READ_METADATA, Right.JOIN}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        token_id: The token's row; None without a token.
        name: The token's name, for logs and denials.
        role: Its role; empty without a token.
        namespace: The only namespace that it counts in; None for all (admins) or none.
        rights: Rights beyond those of the role.
    """

    token_id: int | None = None
    name: str = "nobody"
    role: str = ""
    namespace: Namespace | None = None
    rights: frozenset[Right] = frozenset()

    def has(self, right: Right) -> bool:
        """True if the role or the token gives the right."""
        return right in self.rights or right in _ROLE_RIGHTS.get(self.role, frozenset())


ANYONE = Caller()


def authenticate(session: Session, token: str | None, now: int) -> Caller:
    """Finds out who calls.

    Args:
        session: A transaction.
        token: What was presented; None for nothing.
        now: Unix seconds.

    Raises:
        Refused: If the token is unknown, expired, spent or revoked; it is never repeated.
    """
    if token is None:
        return ANYONE
    digest = token_sha256(token)
    row = (
        session.scalar(select(TokenRow).where(TokenRow.sha256 == digest))
        if is_token(token)
        else None
    )
    if row is None or row.revoked_at is not None:
        what = "was revoked" if row is not None else "is not known here"
        name = f" {row.name}" if row is not None else ""
        raise Refused(
            Reason.UNAUTHENTICATED,
            f"the token{name} ({digest.hex()[:8]}…) {what}",
            hint="Ask the server's owner for a new one, or name the right server.",
        )
    if row.expires_at is not None and row.expires_at <= now:
        raise Refused(
            Reason.TOKEN_EXPIRED,
            f"the token {row.name} has expired",
            hint="Ask for a new one.",
        )
    namespace = None
    if row.namespace_id is not None:
        owner = session.get_one(NamespaceRow, row.namespace_id)
        namespace = Namespace(owner.name)
    rights = frozenset(Right(one) for one in row.rights.split(",") if one)
    return Caller(row.id, row.name, row.role, namespace, rights)


def require(caller: Caller, right: Right, namespace: NamespaceRow | None = None) -> None:
    """Refuses a caller who has not the right, in that namespace.

    A namespace that the caller may not read is reported in the same words whether it exists or
    not; see `states.find`.

    Raises:
        Refused: If the caller has not the right.
    """
    reads = right in {Right.READ_METADATA, Right.READ_CONTENT}
    if reads and namespace is not None and namespace.public:
        return
    mine = namespace is None or caller.namespace == namespace.name
    if caller.has(right) and mine:
        return
    if not caller.role:
        raise Refused(
            Reason.UNAUTHENTICATED,
            "a token is needed",
            hint="Give --token-file FILE, or use the home that has one.",
        )
    where = f" in {namespace.name}" if namespace is not None else ""
    raise Refused(
        Reason.PERMISSION_DENIED,
        f"the token {caller.name} ({caller.role}) may not {right.replace('_', ' ')}{where}",
        hint="Use a token that has this right.",
    )
