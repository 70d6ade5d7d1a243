"""What a device follows and what it is pinned to, changed by its owner."""

from __future__ import annotations

from dataclasses import dataclass

from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import DeviceState
from sealift.client.connection import Connection
from sealift.client.store.store import Store
from sealift.client.trust.admission import Admitted
from sealift.host.active import ActivePointer
from sealift.protocol.documents import MAX_MANIFEST_BYTES, ReleasePointer
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, ChannelName, Digest, Reference


class NotOffered(SealiftError):
    """A channel or release that the namespace does not have."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What `follow` did: the channel before and whether the new one points anywhere yet."""

    before: ChannelName | None
    has_release: bool


def follow(
    home: DeviceHome, connection: Connection, artifact: ArtifactId, channel: ChannelName
) -> Followed:
    """Follows a channel; a device follows one channel of an artifact.

    Raises:
        NotOffered: If the namespace has no such artifact.
        SealiftError: If the namespace was not joined, or cannot be admitted.
    """
    before = home.state().following.get(str(artifact))
    admitted = _admit_with(home, connection, artifact)
    _require(admitted, artifact)
    document = admitted.channel(artifact.artifact, channel)
    home.change("follow", lambda state: state.with_following(artifact, channel))
    home.record("followed", artifact=str(artifact), channel=channel)
    return Followed(before.channel if before else None, document is not None)


def pin(
    home: DeviceHome, connection: Connection, artifact: ArtifactId, reference: Reference
) -> ReleasePointer:
    """Pins an artifact to a release; the version is resolved to a digest once, here (T12).

    A pin forgives a release that was left before.

    Raises:
        NotOffered: If there is no such release.
    """
    admitted = _admit_with(home, connection, artifact)
    _require(admitted, artifact)
    release = _resolve(admitted, artifact, reference)

    def change(state: DeviceState) -> DeviceState:
        return state.without_denied(release.sha256).with_pin(artifact, release)

    home.change("pin", change)
    home.record(
        "pinned", artifact=str(artifact), version=str(release.version), digest=release.sha256
    )
    return release


def _admit_with(home: DeviceHome, connection: Connection, artifact: ArtifactId) -> Admitted:
    state = home.state()
    state.joined(artifact.namespace)
    channel = ChannelName("stable")
    wanted = state if artifact in state.artifacts() else state.with_following(artifact, channel)
    return connection.admit(home.trust(artifact.namespace, wanted))


def _require(admitted: Admitted, artifact: ArtifactId) -> None:
    if artifact.artifact not in admitted.artifacts:
        known = ", ".join(admitted.artifacts) or "none"
        raise NotOffered(
            f"{artifact.namespace} has no artifact {artifact.artifact}", hint=f"It has: {known}."
        )


def _resolve(admitted: Admitted, artifact: ArtifactId, reference: Reference) -> ReleasePointer:
    listed = admitted.releases(artifact.artifact)
    for version, (digest, length) in listed.items():
        if reference.version == version or reference.digest == digest:
            if length > MAX_MANIFEST_BYTES:
                raise NotOffered(f"{reference} has a manifest that is longer than is permitted")
            return ReleasePointer(version=version, sha256=digest, length=length)
    newest = ", ".join(str(one) for one in sorted(listed, reverse=True)[:5]) or "none"
    raise NotOffered(f"{reference} was not released", hint=f"Released are: {newest}.")


def unpin(home: DeviceHome, artifact: ArtifactId) -> None:
    """Lets the channel decide again.

    Raises:
        NotOffered: If the artifact is not pinned.
    """
    if str(artifact) not in home.state().pins:
        raise NotOffered(f"{artifact} is not pinned")
    home.change("unpin", lambda state: state.with_pin(artifact, None))
    home.record("unpinned", artifact=str(artifact))


def unfollow(home: DeviceHome, artifact: ArtifactId, *, remove: bool) -> list[Digest]:
    """No longer follows an artifact; what is active stays, unless it is to be removed.

    Returns:
        The releases that were removed.

    Raises:
        NotOffered: If it is neither followed nor pinned nor active.
        ReleaseInUse: If an app uses it.
    """
    pointer = ActivePointer.load(home.pointer_file)
    entry = pointer.get(artifact)
    if artifact not in home.state().artifacts() and not (remove and entry):
        raise NotOffered(f"{artifact} is not followed")

    def change(state: DeviceState) -> DeviceState:
        return state.with_following(artifact, None).with_pin(artifact, None)

    home.change("unfollow", change)
    home.record("unfollowed", artifact=str(artifact))
    if not remove or entry is None:
        return []
    with home.locked("removal"):
        pointer = ActivePointer.load(home.pointer_file)
        pointer.without(artifact).save(home.pointer_file, step=home.step)
        store = Store(home.store_folder, home.step)
        gone = [entry.active.digest, *([entry.last_good.digest] if entry.last_good else [])]
        removed = [digest for digest in gone if store.has(digest)]
        for digest in removed:
            store.remove(digest)
    return removed
