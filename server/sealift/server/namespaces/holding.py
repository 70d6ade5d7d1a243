"""The brake on a rollout: holds, signed by the online key. They only subtract (rule T14)."""

from __future__ import annotations

from sealift.protocol import layout
from sealift.protocol.documents import Channel, Hold, HoldState
from sealift.protocol.names import ArtifactId, ArtifactName, ChannelName, Namespace
from sealift.protocol.parsing import encode_document
from sealift.protocol.reasons import Reason
from sealift.server import audit
from sealift.server.access.callers import Caller, Right
from sealift.server.db.database import Database
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.freshness import OnlineSigner, sign_state
from sealift.server.namespaces.online_keys import OnlineKeys

MAX_REASON = 2_000
"""Characters."""


def set_hold(
    database: Database,
    keys: OnlineKeys,
    caller: Caller,
    namespace: Namespace,
    artifact: ArtifactName,
    channel: ChannelName,
    *,
    rollout_id: str,
    state: HoldState,
    reason: str,
    validate_only: bool,
    now: int,
) -> int:
    """Sets the hold of a channel's present rollout. Setting the same state again does nothing.

    Returns:
        The version of `_hold`.

    Raises:
        Refused: If the caller may not hold, the rollout is another one (`conflict`), or its hold
            is final (`failed_precondition`).
    """
    if len(reason) > MAX_REASON:
        raise Refused(
            Reason.INVALID_ARGUMENT, f"a hold's reason has at most {MAX_REASON:,} characters"
        )
    with database.transaction() as session:
        row = states.find(session, caller, namespace, Right.HOLD, lock=True)
        files = states.current_files(session, row.id)
        role = layout.channel_role(artifact, channel)
        if layout.HOLD not in files or role not in files:
            raise Refused(Reason.NOT_FOUND, f"{namespace} has no artifact {artifact}")
        documents = states.listed_documents(session, row.id, [files[role], files[layout.HOLD]])
        path = layout.hold_path(artifact, channel)
        current = Hold.parse(documents[path]) if path in documents else None
        _check_rollout(documents, artifact, channel, rollout_id)
        before = HoldState.RUNNING
        if current is not None and current.rollout == rollout_id:
            before = current.state
        if before is state or (validate_only and _allowed(before, state)):
            return files[layout.HOLD].version
        if not _allowed(before, state):
            raise Refused(
                Reason.FAILED_PRECONDITION,
                f"{artifact}:{channel} is {before}, which is final for this rollout",
                hint="Going on needs a new one: sealift promote, or sealift rollback.",
            )
        hold = Hold(
            artifact=ArtifactId(namespace, artifact),
            channel=channel,
            rollout=rollout_id,
            state=state,
            reason=reason,
        )
        data = encode_document(hold)
        holds = {one: doc for one, doc in documents.items() if one.startswith("_hold/")}
        holds[path] = data
        states.write_document(session, row.id, path, data)
        online = OnlineSigner(namespace, keys.signer(namespace), now)
        sign_state(session, row, online, files, holds=holds)
        audit.record(
            session,
            at=now,
            action="hold",
            caller=caller,
            namespace_id=row.id,
            artifact=artifact,
            subject=f"{artifact}:{channel}",
            detail=f"{artifact}:{channel} {before} → {state}: {reason}",
        )
        return states.current_files(session, row.id, [layout.HOLD])[layout.HOLD].version


def _allowed(before: HoldState, state: HoldState) -> bool:
    """A final hold stays; but what was halted may still be reverted."""
    return not before.is_final or state is HoldState.REVERTED or state is before


def _check_rollout(
    documents: dict[str, bytes], artifact: ArtifactName, channel: ChannelName, rollout_id: str
) -> None:
    data = documents.get(layout.channel_path(artifact, channel))
    if data is None:
        raise Refused(Reason.NOT_FOUND, f"{artifact} has no channel {channel}")
    if Channel.parse(data).rollout.id != rollout_id:
        raise Refused(
            Reason.CONFLICT,
            f"{artifact}:{channel} has turned to another rollout meanwhile",
            hint="Look at it again: sealift status",
        )
