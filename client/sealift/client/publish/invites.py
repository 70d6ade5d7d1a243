"""Join strings for devices, made from verified state (rule T29)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import PublisherHome
from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import ServerAddress
from sealift.host.tokens import make_token, token_sha256
from sealift.protocol import layout
from sealift.protocol.errors import SealiftError
from sealift.protocol.join import Follow, JoinString, RootAnchor
from sealift.protocol.names import STABLE, ArtifactName, Reference
from sealift.v1 import fleet_pb2


class InviteRefused(SealiftError):
    """An invite that cannot be made as it was asked for."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A join string, and what is worth knowing of it."""

    text: str
    content: JoinString
    remarks: tuple[str, ...]


def make_invite(
    home: PublisherHome,
    connection: PublisherConnection,
    address: ServerAddress,
    follow: list[Reference],
    *,
    uses: int,
    ttl_s: int,
    ca: str | None = None,
    dry_run: bool = False,
) -> Invite:
    """Makes a join string.

    Raises:
        InviteRefused: If it names an artifact that is not there, or a release that does not move.
    """
    admitted = connection.admit(home.trust())
    followed: list[Follow] = []
    remarks: list[str] = []
    for reference in follow:
        if not reference.moves or reference.namespace not in {None, home.namespace}:
            raise InviteRefused(
                f"{reference} is not a channel of {home.namespace}",
                hint="Follow ARTIFACT or ARTIFACT:CHANNEL.",
            )
        if reference.artifact not in admitted.artifacts:
            raise InviteRefused(
                f"{home.namespace} has no artifact {reference.artifact}",
                hint=f"It has: {', '.join(admitted.artifacts) or 'none yet'}.",
            )
        channel = reference.channel or STABLE
        if admitted.channel(reference.artifact, channel) is None:
            remarks.append(f"{reference.artifact}:{channel} points nowhere yet")
        followed.append(Follow(artifact=reference.artifact, channel=channel))
    token = make_token("invite")
    expires = home.clock.wall() + ttl_s
    if not dry_run:
        answer = connection.create_invite(
            fleet_pb2.CreateInviteRequest(
                namespace=home.namespace,
                token_sha256=token_sha256(token),
                kind=fleet_pb2.INVITE_KIND_DEVICE,
                uses=uses,
                ttl_s=ttl_s,
                request_id=secrets.token_hex(16),
            )
        )
        expires = answer.expires_at
    root = admitted.roles[layout.ROOT]
    artifacts: tuple[ArtifactName, ...] = tuple(one.artifact for one in followed)
    content = JoinString(
        server=str(address),
        ca=ca,
        namespace=home.namespace,
        purpose="device",
        root=RootAnchor(version=root.version, sha256=sha256_bytes(root.data)),
        marks=home.state().memory.for_invite(artifacts or admitted.artifacts),
        follow=tuple(followed),
        token=token,
        expires=expires,
    )
    return Invite(content.encode(), content, tuple(remarks))
