"""What everyone reads: role files and documents by path, and polls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealift.protocol import layout, metadata
from sealift.protocol.errors import InvalidName
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.database import Database
from sealift.server.db.tables import CurrentRow, DocumentRow, MetadataRow, NamespaceRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states

MAX_ROOTS = 256
"""The most roots that one poll brings; a home that is further behind asks again."""


@dataclass(frozen=True, slots=True)
class HeldState:
    """What a poll says that its caller holds of a namespace."""

    namespace: str
    versions: dict[str, int]
    artifacts: frozenset[str]
    all_artifacts: bool
    documents: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class PolledFile:
    """A file for the caller of a poll, or why a namespace has none."""

    namespace: str
    path: str = ""
    data: bytes = b""
    refused: Refused | None = None


def poll(database: Database, caller: Caller, held: list[HeldState]) -> Iterator[PolledFile]:
    """All that is new for a caller. A namespace that is refused touches no other."""
    for one in held:
        try:
            with database.reading() as session:
                row = states.find(session, caller, Namespace(one.namespace), Right.READ_METADATA)
                files = _poll_namespace(session, row, one)
        except InvalidName as error:
            yield PolledFile(one.namespace, refused=Refused(Reason.INVALID_ARGUMENT, error.message))
        except Refused as error:
            yield PolledFile(one.namespace, refused=error)
        else:
            yield from files


def _poll_namespace(session: Session, row: NamespaceRow, held: HeldState) -> list[PolledFile]:
    if not row.has_root:
        raise Refused(Reason.NOT_FOUND, f"the namespace {row.name} has no root yet")
    found = [
        PolledFile(row.name, f"metadata/{root.version}.root.json", root.data)
        for root in _newer_roots(session, row, held.versions.get(layout.ROOT, 0))
    ]
    versions = {
        current.role: current.version
        for current in session.scalars(select(CurrentRow).where(CurrentRow.namespace_id == row.id))
    }
    wanted = [role for role in versions if role != layout.ROOT and _wants(held, role)]
    newer = [role for role in wanted if held.versions.get(role) != versions[role]]
    files = states.current_files(session, row.id, newer) if newer else {}
    for role, file in files.items():
        name = layout.metadata_file_name(role, file.version)
        found.append(PolledFile(row.name, f"metadata/{name}", file.data))
    return found + _new_documents(session, row, held, files)


def _newer_roots(session: Session, row: NamespaceRow, held: int) -> list[MetadataRow]:
    query = (
        select(MetadataRow)
        .where(
            MetadataRow.namespace_id == row.id,
            MetadataRow.role == layout.ROOT,
            MetadataRow.version > held,
        )
        .order_by(MetadataRow.version)
        .limit(MAX_ROOTS)
    )
    return list(session.scalars(query))


def _wants(held: HeldState, role: str) -> bool:
    if role in layout.TOP_LEVEL or role in {layout.STOP, layout.HOLD} or held.all_artifacts:
        return True
    return layout.parse_role_name(role).artifact in held.artifacts


def _new_documents(
    session: Session, row: NamespaceRow, held: HeldState, files: dict[str, RoleFile]
) -> list[PolledFile]:
    """Documents change only with their role's file, so only those of newer files are looked at."""
    found = []
    for path, data in states.listed_documents(session, row.id, files.values()).items():
        place = layout.parse_document_path(path)
        wanted = held.all_artifacts or place.artifact in held.artifacts
        digest = metadata.sha256_digest(data)
        if wanted and digest not in held.documents:
            hashed = layout.hashed_document_path(path, Digest.from_bytes(digest))
            found.append(PolledFile(row.name, f"targets/{hashed}", data))
    return found


def read_file(database: Database, caller: Caller, namespace: Namespace, path: str) -> bytes:
    """One file of a namespace's TUF repository, old versions included.

    Args:
        database: The database.
        caller: Who asks.
        namespace: Whose.
        path: `metadata/3.root.json`, `metadata/timestamp.json`,
            `targets/llama/releases/HASH.1.4.0.json`, or tough's `targets/HASH.llama/…`.

    Raises:
        Refused: If there is no such file, or the caller may not read.
    """
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.READ_METADATA)
        folder, _, name = path.partition("/")
        data = None
        if folder == "metadata":
            data = _read_metadata(session, row, name)
        elif folder == "targets":
            data = _read_document(session, row, name)
    if data is None:
        raise Refused(Reason.NOT_FOUND, f"{namespace} has no {path[:200]}")
    return data


def _read_metadata(session: Session, row: NamespaceRow, name: str) -> bytes | None:
    try:
        role, version = layout.parse_metadata_file_name(name)
    except InvalidName:
        return None
    if version is not None and layout.metadata_file_name(role, version) != name:
        return None  # a file has one name: none with zeros before it
    if version is None:
        files = states.current_files(session, row.id, [role])
        return files[role].data if role in files else None
    return session.scalar(
        select(MetadataRow.data).where(
            MetadataRow.namespace_id == row.id,
            MetadataRow.role == role,
            MetadataRow.version == version,
        )
    )


def _read_document(session: Session, row: NamespaceRow, name: str) -> bytes | None:
    for path, digest in _spellings(name):
        try:
            place, sha256 = layout.parse_document_path(path), Digest(digest)
        except InvalidName:
            continue
        data = session.scalar(
            select(DocumentRow.data).where(
                DocumentRow.namespace_id == row.id,
                DocumentRow.path == place.path,
                DocumentRow.sha256 == sha256,
            )
        )
        if data is not None:
            return data
    return None


def _spellings(name: str) -> Iterator[tuple[str, str]]:
    """Both layouts: the hash before the last name, and before the whole path."""
    folder, slash, last = name.rpartition("/")
    digest, dot, rest = last.partition(".")
    if dot:
        yield f"{folder}{slash}{rest}", digest
    digest, dot, rest = name.partition(".")
    if dot:
        yield rest, digest
