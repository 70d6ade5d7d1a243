"""Making a namespace (rule T30). Its root comes from its publisher, by a submission."""

from __future__ import annotations

from securesystemslib.signer import Key
from sqlalchemy import select

from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server import audit
from sealift.server.access import tokens
from sealift.server.access.callers import PUBLISHER_RIGHTS, Caller, Right, require
from sealift.server.db.database import Database
from sealift.server.db.tables import NamespaceRow, TokenRow
from sealift.server.errors import Refused
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
    if not request_id:
        raise Refused(Reason.INVALID_ARGUMENT, "a request_id is needed")
    with database.transaction() as session:
        row = session.scalar(select(NamespaceRow).where(NamespaceRow.name == namespace))
        if row is not None and row.request_id != request_id:
            raise Refused(
                Reason.ALREADY_EXISTS,
                f"the namespace {namespace} is taken",
                hint="Choose another name.",
            )
        if row is None:
            row = NamespaceRow(
                name=namespace,
                public=public,
                request_id=request_id,
                created_at=now,
                has_root=False,
            )
            session.add(row)
            session.flush()
            detail = "public" if public else "private"
            audit.record(
                session,
                at=now,
                action="namespace",
                caller=caller,
                namespace_id=row.id,
                subject=namespace,
                detail=f"created {namespace}, {detail}",
            )
        known = session.scalar(select(TokenRow).where(TokenRow.sha256 == token_sha256))
        if known is None or known.namespace_id != row.id:
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
