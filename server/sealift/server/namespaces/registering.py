"""Making a namespace (rule T30). Its root comes from its publisher, by a submission."""

from __future__ import annotations

from securesystemslib.signer import Key
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server import audit
from sealift.server.access import tokens
from sealift.server.access.callers import PUBLISHER_RIGHTS, Caller, Right, require
from sealift.server.db.database import Database
from sealift.server.db.tables import NamespaceRow, TokenRow
from sealift.server.errors import Refused, check_request_id
from sealift.server.namespaces.online_keys import OnlineKeys


def create_namespace(
    database: Database,
    keys: OnlineKeys,
    caller: Caller,
    namespace: Namespace,
    *,
    request_id: str,
    token_sha256: bytes,
    public: bool,
    now: int,
) -> Key:
    """Makes a namespace and its online key; idempotent by `request_id`.

    The publisher's own token is registered with it, with the rights push, hold and invite.

    Returns:
        The online key's public part.

    Raises:
        Refused: If the caller may not create, or the name is another's.
    """
    require(caller, Right.CREATE)
    check_request_id(request_id)
    with database.transaction() as session:
        created = NamespaceRow(
            name=namespace, public=public, request_id=request_id, created_at=now, has_root=False
        )
        row = _insert_or_find(session, created)
        if row is created:
            audit.record(
                session,
                at=now,
                action="namespace",
                caller=caller,
                namespace_id=row.id,
                subject=namespace,
                detail=f"created {namespace}, {'public' if public else 'private'}",
            )
        known = session.scalar(select(TokenRow).where(TokenRow.sha256 == token_sha256))
        mine = known is not None and known.namespace_id == row.id
        if row.request_id != request_id or (row.has_root and not mine):
            raise Refused(
                Reason.ALREADY_EXISTS,
                f"the namespace {namespace} is taken",
                hint="Choose another name.",
            )
        if not mine:
            tokens.register(
                session,
                name=f"{namespace}-publisher",
                role="publisher",
                sha256=token_sha256,
                now=now,
                namespace_id=row.id,
                rights=PUBLISHER_RIGHTS,
            )
        # Under the transaction, so that of two callers one makes the key.
        public_key: Key = keys.create(namespace).public_key
    return public_key


def _insert_or_find(session: Session, created: NamespaceRow) -> NamespaceRow:
    """The new row, or the one that has its name already; of two callers at once one makes it."""
    try:
        with session.begin_nested():
            session.add(created)
    except IntegrityError:
        return session.scalars(
            select(NamespaceRow).where(NamespaceRow.name == created.name).with_for_update()
        ).one()
    return created
