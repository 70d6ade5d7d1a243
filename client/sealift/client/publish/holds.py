"""The brake on a rollout, set through the server's online key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import PublisherHome
from sealift.client.trust.admission import Admitted
from sealift.protocol.documents import Channel, HoldState
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactName, ChannelName
from sealift.v1 import publish_pb2

_WIRE = {
    HoldState.RUNNING: publish_pb2.HOLD_STATE_RUNNING,
    HoldState.PAUSED: publish_pb2.HOLD_STATE_PAUSED,
    HoldState.HALTED: publish_pb2.HOLD_STATE_HALTED,
    HoldState.REVERTED: publish_pb2.HOLD_STATE_REVERTED,
}


class HoldRefused(SealiftError):
    """A hold that cannot be set."""


@dataclass(frozen=True, slots=True)
class HoldSet:
    """What was set, on which rollout."""

    channel: Channel
    state: HoldState
    before: HoldState


def set_hold(
    home: PublisherHome,
    connection: PublisherConnection,
    artifact: ArtifactName,
    channel: ChannelName,
    state: HoldState,
    reason: str,
    *,
    dry_run: bool = False,
) -> HoldSet:
    """Sets the hold of a channel's present rollout.

    Raises:
        HoldRefused: If there is no rollout, or it cannot be held so.
        ServerRefused: If the token may not hold, or the hold is final.
    """
    admitted = connection.admit(home.trust())
    document = admitted.channel(artifact, channel)
    if document is None or document.release is None:
        raise HoldRefused(
            f"{artifact}:{channel} has no rollout",
            hint=f"See its channels: sealift show {home.namespace}/{artifact}",
        )
    before = _before(home, admitted, document)
    if state is HoldState.REVERTED:
        _check_revertible(home, document, artifact, channel)
    request = publish_pb2.SetHoldRequest(
        namespace=home.namespace,
        artifact=artifact,
        channel=channel,
        rollout_id=document.rollout.id,
        state=_WIRE[state],
        reason=reason,
        request_id=secrets.token_hex(16),
        validate_only=dry_run,
    )
    if state.is_final and not dry_run:
        # T27: remembered before it is ordered, so that a crash in between forgets nothing.
        home.remember_held(document.release.sha256)
    connection.set_hold(request)
    if not dry_run:
        connection.admit(home.trust())
    return HoldSet(document, state, before)


def _before(home: PublisherHome, admitted: Admitted, document: Channel) -> HoldState:
    status = admitted.hold_status(
        document.artifact.artifact, document, home.state().memory, home.clock.wall()
    )
    return status.state


def _check_revertible(
    home: PublisherHome, document: Channel, artifact: ArtifactName, channel: ChannelName
) -> None:
    if document.fallback is None:
        raise HoldRefused(
            f"{artifact}:{channel} has no fallback to send devices back to",
            hint=f"Halt it, then: sealift rollback {artifact}:{channel} --to VERSION",
        )
    if document.fallback.until <= home.clock.wall():
        raise HoldRefused(
            f"the fallback of {artifact}:{channel} has lapsed, so it cannot be reverted",
            hint=f"Halt it, then: sealift rollback {artifact}:{channel}",
        )
