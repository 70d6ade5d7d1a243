"""Taking a publisher's submission: all of it, checked as one next state, or nothing (rule T21)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from sealift.host.files import Step, no_step
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Channel, Hold
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.plan import format_share
from sealift.protocol.reasons import Reason
from sealift.protocol.submission import (
    AcceptedSubmission,
    RepositoryState,
    Submission,
    check_submission,
)
from sealift.server import audit
from sealift.server.access.callers import Caller, Right
from sealift.server.db.database import Database
from sealift.server.db.tables import BlobRow, KindRow, NamespaceRow, SubmissionRow
from sealift.server.errors import Refused, check_request_id
from sealift.server.namespaces import states
from sealift.server.namespaces.freshness import OnlineSigner, sign_state
from sealift.server.namespaces.online_keys import OnlineKeys

NAMED_BLOBS = 5
"""How many missing blobs an error names."""


@dataclass(frozen=True, slots=True)
class SubmittedSet:
    """What arrived.

    Attributes:
        request_id: Makes it idempotent.
        base: SHA-256 (32 bytes) of the file that each role's next version was built on.
        files: Role files, by role.
        documents: Documents, by target path.
    """

    request_id: str
    base: Mapping[str, bytes]
    files: Mapping[str, bytes]
    documents: Mapping[str, bytes]

    def content_sha256(self) -> str:
        """What tells a repeated request from another one under the same id."""
        total = hashlib.sha256()
        for name, data in sorted({**self.files, **self.documents}.items()):
            total.update(f"{name}\0{len(data)}\0".encode())
            total.update(data)
        return total.hexdigest()


@dataclass(frozen=True, slots=True)
class Committed:
    """The set is current."""

    snapshot_version: int
    committed_at: int


def check_caller(database: Database, caller: Caller, namespace: Namespace) -> None:
    """Refuses a caller who may not push.

    Raises:
        Refused: If the caller may not.
    """
    with database.reading() as session:
        states.find(session, caller, namespace, Right.PUSH)


def submit(
    database: Database,
    keys: OnlineKeys,
    caller: Caller,
    namespace: Namespace,
    submitted: SubmittedSet,
    *,
    now: int,
    step: Step = no_step,
) -> Committed:
    """Checks and commits a set in one transaction.

    Steps: `commit:begin`, `commit:checked`, `commit:signed`, `commit:done`.

    Raises:
        Refused: If the caller may not push, another publisher was faster (`conflict`), or blobs
            are missing (`blob_missing`).
        RuleViolation: If a rule is broken.
    """
    submission = Submission.parse(submitted.files, submitted.documents)
    step("commit:begin")
    with database.transaction() as session:
        row = states.find(session, caller, namespace, Right.PUSH, lock=True)
        before = _answered(session, row, submitted)
        if before is not None:
            return before
        current, _ = states.repository_state(session, row.id)
        _check_base(current, submitted)
        signer = keys.signer(namespace)
        accepted = check_submission(
            namespace,
            current,
            submission,
            now=now,
            online_key=metadata.subject_public_key_info(signer.public_key),
        )
        _check_blobs(session, row, accepted)
        step("commit:checked")
        _write(session, row, submission, accepted, now)
        files = states.current_files(session, row.id)
        holds = _next_holds(session, row, current, accepted)
        snapshot = sign_state(
            session, row, OnlineSigner(namespace, signer, now), files, holds=holds
        )
        session.add(
            SubmissionRow(
                namespace_id=row.id,
                request_id=submitted.request_id,
                content_sha256=submitted.content_sha256(),
                snapshot_version=snapshot.version,
                committed_at=now,
            )
        )
        _audit(session, row, caller, accepted, submission, now)
        row.has_root = True
        step("commit:signed")
    step("commit:done")
    return Committed(snapshot.version, now)


def _answered(session: Session, row: NamespaceRow, submitted: SubmittedSet) -> Committed | None:
    check_request_id(submitted.request_id)
    known = session.get(SubmissionRow, (row.id, submitted.request_id))
    if known is None:
        return None
    if known.content_sha256 != submitted.content_sha256():
        raise Refused(Reason.ALREADY_EXISTS, "this request_id was used for another set")
    return Committed(known.snapshot_version, known.committed_at)


def _check_base(current: RepositoryState, submitted: SubmittedSet) -> None:
    """Two publishers racing are told apart by what they built on: the later one rebases."""
    for role in submitted.files:
        file = current.roles.get(role)
        built_on = submitted.base.get(role)
        now = metadata.sha256_digest(file.data) if file else None
        if built_on != now:
            raise Refused(
                Reason.CONFLICT,
                f"{role} was changed by somebody else meanwhile",
                hint="Run the same command again: it builds on what is there now.",
                details={"role": role},
            )


def _check_blobs(session: Session, row: NamespaceRow, accepted: AcceptedSubmission) -> None:
    wanted = accepted.blobs()
    if not wanted:
        return
    owned: dict[str, int] = {}
    names = list(wanted)
    for start in range(0, len(names), 500):
        query = select(BlobRow).where(
            BlobRow.namespace_id == row.id, BlobRow.sha256.in_(names[start : start + 500])
        )
        owned |= {blob.sha256: blob.length for blob in session.scalars(query)}
    missing = [digest for digest, length in wanted.items() if owned.get(digest) != length]
    if missing:
        named = ", ".join(Digest(one).short for one in missing[:NAMED_BLOBS])
        raise Refused(
            Reason.BLOB_MISSING,
            f"{len(missing)} of the blobs that the set names were not uploaded here: {named}",
            hint="Push again; it uploads what is missing.",
        )


def _write(
    session: Session,
    row: NamespaceRow,
    submission: Submission,
    accepted: AcceptedSubmission,
    now: int,
) -> None:
    for file in submission.roles.values():
        states.write_file(session, row.id, file, now)
    for path, data in submission.documents.items():
        states.write_document(session, row.id, path, data)
    for artifact, kind in accepted.state.kinds.items():
        if session.get(KindRow, (row.id, artifact)) is None:
            session.add(KindRow(namespace_id=row.id, artifact=artifact, kind=kind))
    session.flush()


def _next_holds(
    session: Session, row: NamespaceRow, current: RepositoryState, accepted: AcceptedSubmission
) -> dict[str, bytes] | None:
    """A hold goes when its channel turns to another rollout; None if none goes."""
    hold = current.roles.get(layout.HOLD)
    if hold is None:
        return {}
    holds = states.listed_documents(session, row.id, [hold])
    kept = {}
    for path, data in holds.items():
        place = layout.parse_document_path(path)
        if place.channel is None:
            continue
        document = accepted.state.documents.get(layout.channel_path(place.artifact, place.channel))
        if document and Channel.parse(document).rollout.id == Hold.parse(data).rollout:
            kept[path] = data
    return None if kept == holds else kept


def _audit(
    session: Session,
    row: NamespaceRow,
    caller: Caller,
    accepted: AcceptedSubmission,
    submission: Submission,
    now: int,
) -> None:
    lines: list[tuple[str, str, str, str]] = []
    if layout.ROOT in submission.roles:
        version = submission.roles[layout.ROOT].version
        lines.append(("root", "", layout.ROOT, f"root {version}"))
    lines += [("artifact", name, name, f"new artifact {name}") for name in accepted.new_artifacts]
    for manifest in accepted.manifests.values():
        artifact = manifest.artifact.artifact
        subject = f"{artifact}@{manifest.version}"
        lines.append(("release", artifact, subject, f"released {subject} ({manifest.kind})"))
    for path, data in submission.documents.items():
        if layout.parse_document_path(path).channel is not None:
            lines.append(_channel_line(Channel.parse(data)))
    if not lines:
        roles = ", ".join(f"{role} {file.version}" for role, file in submission.roles.items())
        lines.append(("submit", "", "", f"signed {roles}"))
    for action, about, subject, detail in lines:
        audit.record(
            session,
            at=now,
            action=action,
            caller=caller,
            namespace_id=row.id,
            artifact=about,
            subject=subject,
            detail=detail,
        )


def _channel_line(channel: Channel) -> tuple[str, str, str, str]:
    artifact = channel.artifact.artifact
    subject = f"{artifact}:{channel.channel}"
    if channel.release is None:
        return "channel", artifact, subject, f"{subject} closed"
    stages = channel.rollout.stages
    shares = ", ".join(format_share(stage.basis_points) for stage in stages) or "all at once"
    fallback = f", fallback {channel.fallback.version}" if channel.fallback else ""
    detail = f"{subject} → {channel.release.version}, {shares}{fallback}"
    return "channel", artifact, subject, detail
