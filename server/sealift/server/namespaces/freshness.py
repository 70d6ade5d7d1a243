"""What the server signs: `_hold`, snapshot and timestamp, and when it signs them anew.

Versions are `max(previous + 1, unix seconds)`, `previous` counting only files of the current key
(rule T17). Timestamps carry when they were signed (T15). All of it happens in the transaction that
holds the namespace's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from securesystemslib.signer import CryptoSigner
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from sealift.host.clock import Clock
from sealift.host.signers import KeyUnavailable
from sealift.protocol import layout, metadata
from sealift.protocol.layout import DAY_S, HOUR_S
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import Namespace
from sealift.server.db.database import Database
from sealift.server.db.tables import NamespaceRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.online_keys import OnlineKeys

log = structlog.get_logger("sealift.server")

TIMESTAMP_EVERY_S = HOUR_S
SNAPSHOT_EVERY_S = DAY_S
JUMP_S = 600
"""A wall clock that jumps by more than this against the monotonic one is not signed by (T20)."""


@dataclass(frozen=True, slots=True)
class OnlineSigner:
    """Signs a namespace's online roles.

    Attributes:
        namespace: Whose.
        signer: Its online key.
        now: Unix seconds.
    """

    namespace: Namespace
    signer: CryptoSigner
    now: int

    def hold(self, current: RoleFile | None, documents: Mapping[str, bytes]) -> RoleFile:
        """The next `_hold`, listing these documents by path."""
        targets = Targets(
            version=self._version(current),
            expires=self._expires(layout.HOLD),
            targets={
                path: TargetFile.from_data(path, data, ["sha256"])
                for path, data in documents.items()
            },
            unrecognized_fields={layout.NAMESPACE_FIELD: str(self.namespace)},
        )
        return self._sign(layout.HOLD, Metadata(targets))

    def snapshot(self, current: RoleFile | None, files: Mapping[str, RoleFile]) -> RoleFile:
        """The next snapshot, of these role files; roles that it once had stay in it."""
        meta = dict(current.snapshot.meta) if current else {}
        for role, file in files.items():
            if role not in {layout.ROOT, layout.SNAPSHOT, layout.TIMESTAMP}:
                meta[f"{role}.json"] = _meta_file(file)
        snapshot = Snapshot(
            version=self._version(current), expires=self._expires(layout.SNAPSHOT), meta=meta
        )
        return self._sign(layout.SNAPSHOT, Metadata(snapshot))

    def timestamp(self, current: RoleFile | None, snapshot: RoleFile) -> RoleFile:
        """The next timestamp, of this snapshot."""
        timestamp = Timestamp(
            version=self._version(current),
            expires=self._expires(layout.TIMESTAMP),
            snapshot_meta=_meta_file(snapshot),
            unrecognized_fields={layout.ISSUED_FIELD: self.now},
        )
        return self._sign(layout.TIMESTAMP, Metadata(timestamp))

    def _version(self, current: RoleFile | None) -> int:
        mine = current is not None and self.signer.public_key.keyid in current.metadata.signatures
        return metadata.next_online_version(current.version if current and mine else None, self.now)

    def _expires(self, role: str) -> datetime:
        return datetime.fromtimestamp(self.now + layout.lifetime_s(role), UTC)

    def _sign(
        self, role: str, signed: Metadata[Snapshot] | Metadata[Timestamp] | Metadata[Targets]
    ) -> RoleFile:
        signed.sign(self.signer)
        return RoleFile.parse(role, signed.to_bytes(JSONSerializer(compact=True)))


def _meta_file(file: RoleFile) -> MetaFile:
    return MetaFile.from_data(file.version, file.data, ["sha256"])


def sign_state(
    session: Session,
    row: NamespaceRow,
    online: OnlineSigner,
    files: Mapping[str, RoleFile],
    *,
    holds: Mapping[str, bytes] | None,
) -> RoleFile:
    """Signs a namespace's next state and writes it.

    Args:
        session: The transaction that holds the namespace's row.
        row: The namespace.
        online: Its online key, now.
        files: The current file of every role, publishers' next ones included.
        holds: The next hold documents by path; None leaves `_hold` as it is.

    Returns:
        The snapshot.
    """
    now = online.now
    following = dict(files)
    if holds is not None or layout.HOLD not in files:
        hold = online.hold(files.get(layout.HOLD), holds or {})
        states.write_file(session, row.id, hold, now)
        following[layout.HOLD] = hold
    snapshot = online.snapshot(files.get(layout.SNAPSHOT), following)
    timestamp = online.timestamp(files.get(layout.TIMESTAMP), snapshot)
    states.write_file(session, row.id, snapshot, now)
    states.write_file(session, row.id, timestamp, now)
    return snapshot


class ClockGuard:
    """T20: tells when the wall clock jumped against the monotonic clock.

    Args:
        clock: The machine's clocks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.boot_s()

    def jump_s(self) -> float:
        """By how much the wall clock has jumped since the start, in seconds; 0 within limits."""
        jump = self._clock.wall() - self._clock.boot_s() - self._offset
        return jump if abs(jump) > JUMP_S else 0.0


def resign_due(database: Database, keys: OnlineKeys, now: int) -> list[Namespace]:
    """Signs anew what is due: timestamps hourly, snapshots and `_hold` daily.

    Returns:
        The namespaces that got new files.
    """
    with database.reading() as session:
        rows = session.scalars(select(NamespaceRow).where(NamespaceRow.has_root)).all()
        due = [row.name for row in rows if _is_due(session, row, now)]
    done = []
    for name in due:
        try:
            if _resign(database, keys, Namespace(name), now):
                done.append(Namespace(name))
        except (Refused, KeyUnavailable) as error:  # its own key is gone; the others go on
            log.error("could not sign anew", namespace=name, detail=error.message)
    return done


def _is_due(session: Session, row: NamespaceRow, now: int) -> bool:
    files = states.current_files(session, row.id, layout.ONLINE)
    return _timestamp_due(files, now) or _snapshot_due(files, now)


def _timestamp_due(files: Mapping[str, RoleFile], now: int) -> bool:
    return now - metadata.issued_of(files[layout.TIMESTAMP]) >= TIMESTAMP_EVERY_S


def _snapshot_due(files: Mapping[str, RoleFile], now: int) -> bool:
    return any(
        files[role].expires - layout.lifetime_s(role) + SNAPSHOT_EVERY_S <= now
        for role in (layout.SNAPSHOT, layout.HOLD)
    )


def _resign(database: Database, keys: OnlineKeys, namespace: Namespace, now: int) -> bool:
    with database.transaction() as session:
        row = session.scalar(
            select(NamespaceRow).where(NamespaceRow.name == namespace).with_for_update()
        )
        if row is None or not _is_due(session, row, now):
            return False  # another replica was faster
        files = states.current_files(session, row.id)
        online = OnlineSigner(namespace, keys.signer(namespace), now)
        if _snapshot_due(files, now):
            holds = states.listed_documents(session, row.id, [files[layout.HOLD]])
            sign_state(session, row, online, files, holds=holds)
        else:
            fresh = online.timestamp(files[layout.TIMESTAMP], files[layout.SNAPSHOT])
            states.write_file(session, row.id, fresh, now)
        return True
