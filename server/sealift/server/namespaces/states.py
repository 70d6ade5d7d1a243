"""Reading and writing a namespace's state within a transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout
from sealift.protocol.documents import Kind
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, Namespace
from sealift.protocol.reasons import Reason
from sealift.protocol.submission import RepositoryState
from sealift.server.access.callers import Caller, Right, require
from sealift.server.db.tables import (
    CurrentRow,
    DocumentRow,
    KindRow,
    MetadataRow,
    NamespaceRow,
)
from sealift.server.errors import Refused

BATCH = 1_000
"""Values in one query: databases have a limit."""


def find(
    session: Session, caller: Caller, namespace: Namespace, right: Right, *, lock: bool = False
) -> NamespaceRow:
    """The namespace, for a caller who has the right there.

    Whoever may not read it is told the same whether it exists or not.

    Args:
        session: A transaction.
        caller: Who asks.
        namespace: Which.
        right: What it is needed for.
        lock: True to hold its row until the transaction ends.

    Raises:
        Refused: If there is none, or the caller has not the right.
    """
    row = session.scalar(select(NamespaceRow).where(NamespaceRow.name == namespace))
    if row is not None:
        require(caller, right, row)
        if lock:  # only now, so that nobody else makes its publishers wait
            session.refresh(row, with_for_update=True)
        return row
    if caller.namespace != namespace:
        require(caller, right, NamespaceRow(name=namespace, public=False))
    raise Refused(Reason.NOT_FOUND, f"there is no namespace {namespace}")


def current_files(
    session: Session, namespace_id: int, roles: Iterable[str] | None = None
) -> dict[str, RoleFile]:
    """The current file of each role, or of those that are named."""
    query = (
        select(MetadataRow)
        .join(
            CurrentRow,
            and_(
                CurrentRow.namespace_id == MetadataRow.namespace_id,
                CurrentRow.role == MetadataRow.role,
                CurrentRow.version == MetadataRow.version,
            ),
        )
        .where(MetadataRow.namespace_id == namespace_id)
    )
    if roles is not None:
        query = query.where(MetadataRow.role.in_(list(roles)))
    return {row.role: RoleFile.parse(row.role, row.data) for row in session.scalars(query)}


def write_file(session: Session, namespace_id: int, file: RoleFile, now: int) -> None:
    """Makes a file its role's current one.

    The unique version is what keeps two writers from signing one version twice.
    """
    session.add(
        MetadataRow(
            namespace_id=namespace_id,
            role=file.role,
            version=file.version,
            data=file.data,
            created_at=now,
        )
    )
    current = session.get(CurrentRow, (namespace_id, file.role))
    if current is None:
        session.add(CurrentRow(namespace_id=namespace_id, role=file.role, version=file.version))
    else:
        current.version = file.version
    session.flush()


def write_document(session: Session, namespace_id: int, path: str, data: bytes) -> None:
    """Keeps a document; the same bytes at the same path are kept once."""
    digest = sha256_bytes(data)
    known = session.scalar(
        select(DocumentRow.id).where(
            DocumentRow.namespace_id == namespace_id,
            DocumentRow.path == path,
            DocumentRow.sha256 == digest,
        )
    )
    if known is None:
        session.add(DocumentRow(namespace_id=namespace_id, path=path, sha256=digest, data=data))
        session.flush()


def listed_documents(
    session: Session, namespace_id: int, files: Iterable[RoleFile]
) -> dict[str, bytes]:
    """The channel, preview, hold and stop documents that role files list, by path."""
    wanted: dict[str, str] = {}
    for file in files:
        if file.role in layout.TOP_LEVEL or file.role.endswith(f".{layout.RoleClass.RELEASES}"):
            continue
        for path, target in file.targets.targets.items():
            wanted[path] = target.hashes["sha256"]
    if not wanted:
        return {}
    found: dict[str, bytes] = {}
    names = list(wanted)
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        rows = session.scalars(
            select(DocumentRow).where(
                DocumentRow.namespace_id == namespace_id,
                DocumentRow.path.in_(batch),
                DocumentRow.sha256.in_([wanted[path] for path in batch]),
            )
        )
        found |= {row.path: row.data for row in rows if wanted[row.path] == row.sha256}
    return found


def repository_state(session: Session, namespace_id: int) -> tuple[RepositoryState, dict[str, int]]:
    """The state that a submission follows, and the versions of snapshot and timestamp."""
    files = current_files(session, namespace_id)
    freshness = {
        role: files.pop(role).version
        for role in (layout.SNAPSHOT, layout.TIMESTAMP)
        if role in files
    }
    documents = listed_documents(session, namespace_id, files.values())
    rows = session.scalars(select(KindRow).where(KindRow.namespace_id == namespace_id))
    kinds = {ArtifactName(row.artifact): Kind(row.kind) for row in rows}
    return RepositoryState(files, documents, kinds), freshness
