"""What happened, for people: one row a change, in the change's own transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from sealift.server.access.callers import Caller
from sealift.server.db.tables import AuditRow


def record(
    session: Session,
    *,
    at: int,
    action: str,
    caller: Caller,
    namespace_id: int | None = None,
    artifact: str = "",
    subject: str = "",
    detail: str = "",
) -> None:
    """Writes what happened.

    Args:
        session: The change's transaction.
        at: Unix seconds.
        action: What, in a word.
        caller: Who.
        namespace_id: Where.
        artifact: About which artifact, if one.
        subject: About what: a release, a channel.
        detail: One line for people.
    """
    session.add(
        AuditRow(
            namespace_id=namespace_id,
            at=at,
            action=action,
            actor=caller.name,
            artifact=artifact,
            subject=subject[:300],
            detail="".join(one if one.isprintable() else " " for one in detail),
        )
    )
