"""Moving channels: promotion, rollback, and the choice of the fallback."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from pydantic import ValidationError

from sealift.client.publish.home import PublisherHome
from sealift.client.trust.admission import Admitted
from sealift.protocol.documents import (
    Channel,
    FallbackPointer,
    HoldState,
    ReleasePointer,
    Rollout,
    Stage,
)
from sealift.protocol.errors import SealiftError
from sealift.protocol.layout import DAY_S
from sealift.protocol.names import ArtifactId, ArtifactName, ChannelName, Digest, Version
from sealift.protocol.rollout import fully_open_at

FALLBACK_AFTER_S = 7 * DAY_S
"""How long after its last stage a rollout can be reverted."""


class ChannelRefused(SealiftError):
    """A channel that cannot be moved as it was asked for."""


@dataclass(frozen=True, slots=True)
class ChannelMove:
    """Where a channel shall point.

    Attributes:
        artifact: The artifact.
        channel: The channel.
        release: The release.
        stages: The plan; empty opens to all at once.
        fallback: A version, `none`, or None to let the rules choose.
        floor: A version, `none`, or None to keep the channel's own.
        urgent: It cannot be reverted: for security fixes.
        without_fallback: No fallback of its own, as a rollback has it.
    """

    artifact: ArtifactName
    channel: ChannelName
    release: ReleasePointer
    stages: tuple[Stage, ...]
    fallback: str | None = None
    floor: str | None = None
    urgent: bool = False
    without_fallback: bool = False


def pointer_to(admitted: Admitted, artifact: ArtifactName, version: Version) -> ReleasePointer:
    """A released version's pointer.

    Raises:
        ChannelRefused: If it was not released.
    """
    listed = admitted.releases(artifact)
    if version not in listed:
        known = ", ".join(str(one) for one in sorted(listed, reverse=True)[:5]) or "none"
        raise ChannelRefused(
            f"{admitted.namespace}/{artifact}@{version} was not released",
            hint=f"Released are: {known}. Push it first: sealift push DIR {artifact}@{version}",
        )
    digest, length = listed[version]
    return ReleasePointer(version=version, sha256=digest, length=length)


def next_channel(home: PublisherHome, admitted: Admitted, move: ChannelMove) -> Channel:
    """The channel's next document.

    A new plan for the release now rolling out keeps salt and fallback, so that the same devices
    stay first; a new release draws a new salt. The rollout id is new each time.

    Raises:
        ChannelRefused: If fallback or floor cannot be.
    """
    home.remember_held(*held_releases(home, admitted))  # before the channel turns away from one
    current = admitted.channel(move.artifact, move.channel)
    same = current is not None and current.release == move.release
    salt = current.rollout.salt if current is not None and same else secrets.token_hex(16)
    floor = _floor(current, move)
    now = home.clock.wall()
    fallback = _fallback(home, admitted, current, move, floor)
    if fallback is not None:
        fallback = fallback.model_copy(update={"until": _until(move, now)})
    try:
        return Channel(
            artifact=ArtifactId(home.namespace, move.artifact),
            channel=move.channel,
            sequence=current.sequence + 1 if current else 1,
            release=move.release,
            rollout=Rollout(id=secrets.token_hex(16), salt=salt, stages=move.stages),
            fallback=fallback,
            floor=floor,
            urgent=move.urgent,
            created=now,
        )
    except ValidationError as error:
        raise ChannelRefused(
            f"{move.artifact}:{move.channel} cannot be moved so: {error.errors()[0]['msg']}"
        ) from error


def _until(move: ChannelMove, now: int) -> int:
    if move.urgent:
        return 0
    last = max((stage.not_before + stage.ramp_s for stage in move.stages), default=now)
    return max(last, now) + FALLBACK_AFTER_S


def _floor(current: Channel | None, move: ChannelMove) -> Version | None:
    if move.floor is None:
        return current.floor if current else None
    return None if move.floor == "none" else Version.parse(move.floor)


def _fallback(
    home: PublisherHome,
    admitted: Admitted,
    current: Channel | None,
    move: ChannelMove,
    floor: Version | None,
) -> FallbackPointer | None:
    if move.without_fallback or move.fallback == "none":
        return None
    if move.fallback is not None:
        chosen = pointer_to(admitted, move.artifact, Version.parse(move.fallback))
        problem = _unfit(home, admitted, move, chosen, floor)
        if problem:
            raise ChannelRefused(
                f"{chosen.version} cannot be the fallback: {problem}",
                hint="Name another --fallback, or none.",
            )
        return _as_fallback(chosen)
    candidate = _candidate(home, admitted, current, move)
    if candidate is None or _unfit(home, admitted, move, candidate, floor):
        return None
    return _as_fallback(candidate)


def _candidate(
    home: PublisherHome, admitted: Admitted, current: Channel | None, move: ChannelMove
) -> ReleasePointer | None:
    """The same release keeps it; else the open and never held release; else the document's own."""
    if current is None or current.release is None:
        return None
    if current.release == move.release:
        return current.fallback
    opened = fully_open_at(current.rollout.stages)
    hold = admitted.hold_status(
        move.artifact, current, home.state().memory, expiry_t=home.clock.wall()
    )
    is_open = opened is not None and opened <= home.clock.wall()
    if is_open and hold.known and hold.state is HoldState.RUNNING:
        return current.release
    return current.fallback


def _unfit(
    home: PublisherHome,
    admitted: Admitted,
    move: ChannelMove,
    candidate: ReleasePointer,
    floor: Version | None,
) -> str:
    """Why a release cannot be a fallback; empty if it can."""
    if candidate.sha256 == move.release.sha256:
        return "it is the release itself"
    if floor is not None and candidate.version < floor:
        return f"it is below the floor {floor}"
    stop = admitted.stop(move.artifact)
    if stop is not None and any(
        entry.sha256 == candidate.sha256 and entry.severity.forbids_activation
        for entry in stop.releases
    ):
        return "it is revoked"
    if candidate.sha256 in held_releases(home, admitted):
        return "its rollout was halted or reverted once"
    return ""


def held_releases(home: PublisherHome, admitted: Admitted) -> frozenset[Digest]:
    """T27: releases whose rollout was ever halted or reverted, as far as this home has seen."""
    seen = set(home.state().held)
    final = home.state().memory.final
    for artifact in admitted.artifacts:
        for channel in admitted.channels(artifact).values():
            if channel.rollout.id in final and channel.release is not None:
                seen.add(channel.release.sha256)
    return frozenset(seen)


def _as_fallback(pointer: ReleasePointer) -> FallbackPointer:
    return FallbackPointer(
        version=pointer.version, sha256=pointer.sha256, length=pointer.length, until=0
    )


def rollback_move(
    admitted: Admitted, artifact: ArtifactName, channel: ChannelName, to: Version | None
) -> ChannelMove:
    """The move that takes a channel back: no stages, no fallback of its own.

    Args:
        admitted: The verified state.
        artifact: The artifact.
        channel: The channel.
        to: A version; None goes to the named fallback.

    Raises:
        ChannelRefused: If there is nothing to go back to.
    """
    current = admitted.channel(artifact, channel)
    if current is None or current.release is None:
        raise ChannelRefused(
            f"{artifact}:{channel} points nowhere",
            hint=f"Promote a release first: sealift promote {artifact}@VERSION --to {channel}",
        )
    if to is None:
        if current.fallback is None:
            raise ChannelRefused(
                f"{artifact}:{channel} has no fallback to go back to",
                hint=f"Name the release: sealift rollback {artifact}:{channel} --to VERSION",
            )
        to = current.fallback.version
    return ChannelMove(
        artifact,
        channel,
        pointer_to(admitted, artifact, to),
        stages=(),
        without_fallback=True,
    )
