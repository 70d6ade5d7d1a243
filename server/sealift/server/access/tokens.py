"""Making, listing and revoking tokens. The server keeps hashes only."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealift.host.tokens import TokenRole
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Right
from sealift.server.db.tables import TokenRow
from sealift.server.errors import Refused


def register(
    session: Session,
    *,
    name: str,
    role: TokenRole,
    sha256: bytes,
    now: int,
    namespace_id: int | None = None,
    rights: Iterable[Right] = (),
    expires_at: int | None = None,
    uses_left: int | None = None,
) -> TokenRow:
    """Registers a token that its owner made, by its hash (rule T30).

    Raises:
        Refused: If the hash has not 32 bytes, or is another's.
    """
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise Refused(Reason.INVALID_ARGUMENT, "a token's name has 1 to 100 printable characters")
    if len(sha256) != 32:
        raise Refused(Reason.INVALID_ARGUMENT, "a token's hash has 32 bytes")
    if session.scalar(select(TokenRow.id).where(TokenRow.sha256 == sha256)) is not None:
        raise Refused(Reason.ALREADY_EXISTS, "this token is registered already")
    row = TokenRow(
        name=name,
        role=role,
        namespace_id=namespace_id,
        rights=",".join(sorted(rights)),
        sha256=sha256,
        created_at=now,
        expires_at=expires_at,
        uses_left=uses_left,
    )
    session.add(row)
    session.flush()
    return row


def revoke(session: Session, name: str, now: int) -> int:
    """Revokes every token of that name.

    Returns:
        How many there were.

    Raises:
        Refused: If there is none.
    """
    rows = session.scalars(
        select(TokenRow).where(TokenRow.name == name, TokenRow.revoked_at.is_(None))
    ).all()
    if not rows:
        raise Refused(
            Reason.NOT_FOUND, f"there is no token {name!r}", hint="See: sealift-server token list"
        )
    for row in rows:
        row.revoked_at = now
    return len(rows)
