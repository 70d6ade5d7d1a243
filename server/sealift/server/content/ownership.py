"""Which blobs a namespace uploaded in full: the only ones that it may name and serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.content.store import BlobStore
from sealift.server.content.uploads import Uploads
from sealift.server.db.database import Database
from sealift.server.db.tables import BlobRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states

PRESIGNED_S = 3_600
"""How long an address for a blob is valid."""
MAX_BLOB_BYTES = 2 * 1024**4


@dataclass(frozen=True, slots=True)
class Located:
    """Where a blob is; without an address it is read over gRPC."""

    digest: Digest
    length: int
    url: str
    expires_at: int


def missing(
    database: Database,
    uploads: Uploads,
    caller: Caller,
    namespace: Namespace,
    blobs: Mapping[Digest, int],
) -> dict[Digest, int]:
    """Which blobs the namespace has not uploaded, and how many bytes of each are staged.

    A blob that the store has lost is missing again. Another namespace's upload counts for nothing.

    Raises:
        Refused: If the caller may not push.
    """
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.PUSH)
        query = select(BlobRow).where(
            BlobRow.namespace_id == row.id, BlobRow.sha256.in_(list(blobs))
        )
        owned = {blob.sha256: blob.length for blob in session.scalars(query)}
    return {
        digest: uploads.staged(namespace, digest)
        for digest, length in blobs.items()
        if owned.get(digest) != length or uploads.store.stat(digest) != length
    }


def check_upload(database: Database, caller: Caller, namespace: Namespace, length: int) -> None:
    """Refuses an upload before its first byte.

    Raises:
        Refused: If the caller may not push, or the blob is too long.
    """
    with database.reading() as session:
        states.find(session, caller, namespace, Right.PUSH)
    if not 0 <= length <= MAX_BLOB_BYTES:
        raise Refused(Reason.INVALID_ARGUMENT, f"a blob of {length} bytes cannot be uploaded")


def own(
    database: Database, caller: Caller, namespace: Namespace, digest: Digest, length: int, now: int
) -> None:
    """Records that the namespace uploaded a blob in full; it is durable in the store."""
    with database.transaction() as session:
        row = states.find(session, caller, namespace, Right.PUSH, lock=True)
        known = session.get(BlobRow, (row.id, digest))
        if known is None:
            session.add(BlobRow(namespace_id=row.id, sha256=digest, length=length, uploaded_at=now))
        else:
            known.length = length
            known.uploaded_at = now


def length_of(database: Database, caller: Caller, namespace: Namespace, digest: Digest) -> int:
    """The length of a blob of the namespace, for a caller who may read it.

    Raises:
        Refused: If the namespace has no such blob, or the caller may not read it.
    """
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.READ_CONTENT)
        blob = session.get(BlobRow, (row.id, digest))
    if blob is None:
        raise Refused(
            Reason.CONTENT_MISSING,
            f"{namespace} has no blob {digest.reference}",
            hint="Push the release again to restore it.",
        )
    return blob.length


def locate(
    database: Database,
    store: BlobStore,
    caller: Caller,
    namespace: Namespace,
    digests: Sequence[Digest],
    now: int,
) -> list[Located]:
    """Where the namespace's blobs are; those that it does not own are left out.

    Raises:
        Refused: If the caller may not read.
    """
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.READ_CONTENT)
        query = select(BlobRow).where(
            BlobRow.namespace_id == row.id, BlobRow.sha256.in_(list(digests))
        )
        blobs = session.scalars(query).all()
    found = []
    for blob in blobs:
        digest = Digest(blob.sha256)
        url = store.presign(digest, PRESIGNED_S)
        found.append(Located(digest, blob.length, url or "", now + PRESIGNED_S if url else 0))
    return found
