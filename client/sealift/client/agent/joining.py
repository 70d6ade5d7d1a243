"""How a device comes into a namespace, and leaves it (rules T5, T29, T30)."""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass

from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import DeviceState, JoinedNamespace
from sealift.client.connection import Connection
from sealift.client.trust.admission import Admitted
from sealift.client.trust.memory import Memory
from sealift.host import rpc
from sealift.host.files import make_folder, read_or_none, write_atomically
from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import ServerAddress
from sealift.host.tokens import make_token, token_sha256
from sealift.protocol import layout, metadata
from sealift.protocol.errors import RuleViolation, SealiftError, legible
from sealift.protocol.join import JoinString
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactId, Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.v1 import fleet_pb2, fleet_pb2_grpc

MAX_DEVICE_NAME = 200
"""Characters that are kept of the name that a server gives to a device."""


class JoinRefused(SealiftError):
    """A join string that this device cannot use."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What joining did.

    Attributes:
        namespace: The namespace.
        root_sha256: The root's fingerprint, to be compared with the publisher's.
        again: True if the device had joined before.
        replaced: Channels that were followed before and no longer are.
    """

    namespace: Namespace
    root_sha256: Digest
    again: bool
    replaced: tuple[str, ...]
    following: tuple[str, ...]


def join(home: DeviceHome, invite: JoinString, label: str) -> Joined:
    """Joins a namespace. A killed join is run again and spends no second use.

    Raises:
        JoinRefused: If the string is expired, for a publisher, or its root is another's.
        ServerRefused: If the server refuses its token.
        RuleViolation: If what the server sent is not what the string vouches for.
    """
    if invite.purpose != "device":
        raise JoinRefused(
            "this string is for a publisher's home, not for a device",
            hint="Ask for one for a device.",
        )
    if invite.expires <= home.clock.wall():
        raise JoinRefused(
            "this join string has expired (or this device's clock is wrong)",
            hint="Ask its publisher for a new one.",
        )
    home.secret()
    address = ServerAddress.parse(invite.server)
    with Connection.open(address, invite.token, invite.ca) as connection:
        known = home.state().namespaces.get(invite.namespace)
        root = _anchor(home, connection, invite, known)
        _begin(home, invite, root)
        home.step("join:root")
        _admit(home, connection, invite)
        home.step("join:admitted")
        device = _register(home, connection, invite, label)
    return _finish(home, invite, device, label, root, again=known is not None)


def _anchor(
    home: DeviceHome, connection: Connection, invite: JoinString, known: JoinedNamespace | None
) -> RoleFile:
    """The root that the string vouches for, or the newer one that the home has admitted since."""
    path = f"metadata/{invite.root.version}.root.json"
    limit = layout.length_limit(layout.ROOT)
    data = connection.source.read(invite.namespace, path, limit)
    if sha256_bytes(data) != invite.root.sha256:
        raise RuleViolation(
            "T29",
            Reason.ROOT_MISMATCH,
            f"the server's root of {invite.namespace} is not the one that the join string names",
            role=layout.ROOT,
        )
    root = RoleFile.parse(layout.ROOT, data)
    metadata.check_root(root, invite.namespace)
    held = read_or_none(home.identity_folder(invite.namespace) / "root.json")
    if held is None or known is None:
        return root
    return _on_chain(connection, invite, root, RoleFile.parse(layout.ROOT, held))


def _on_chain(
    connection: Connection, invite: JoinString, root: RoleFile, held: RoleFile
) -> RoleFile:
    """T5: the newer of the string's root and the home's own, if one leads to the other."""
    older, newer = sorted((root, held), key=lambda one: one.version)
    current = older
    while current.version < newer.version:
        path = f"metadata/{current.version + 1}.root.json"
        data = connection.source.read(invite.namespace, path, layout.length_limit(layout.ROOT))
        following = RoleFile.parse(layout.ROOT, data)
        metadata.check_signed(current.root, following)
        metadata.check_signed(following.root, following)
        metadata.check_next_version(current, following)
        current = following
    if current.data != newer.data:
        raise JoinRefused(
            f"this string's root of {invite.namespace} is not on the chain of the one that this "
            "device trusts",
            hint=f"If the namespace was begun anew: sealift leave {invite.namespace}, then join.",
        )
    return newer


def _begin(home: DeviceHome, invite: JoinString, root: RoleFile) -> None:
    """Root and marks are durable before anything is admitted."""
    folder = home.identity_folder(invite.namespace)
    make_folder(folder)
    write_atomically(folder / "root.json", root.data, step=home.step)

    def change(state: DeviceState) -> DeviceState:
        before = state.namespaces.get(invite.namespace)
        marks = Memory.from_invite(invite.marks)
        memory = before.memory.raised_by(marks) if before else marks
        joined = JoinedNamespace(
            server=invite.server,
            ca=invite.ca,
            device=before.device if before else "",
            memory=memory,
            problems=before.problems if before else {},
            admitted_at=before.admitted_at if before else 0,
        )
        return state.with_namespace(invite.namespace, joined)

    home.change("join", change)


def _admit(home: DeviceHome, connection: Connection, invite: JoinString) -> Admitted:
    artifacts = [ArtifactId(invite.namespace, one.artifact) for one in invite.follow]
    state = home.state()
    for one, follow in zip(artifacts, invite.follow, strict=True):
        state = state.with_following(one, follow.channel)
    return connection.admit(home.trust(invite.namespace, state))


def _register(home: DeviceHome, connection: Connection, invite: JoinString, label: str) -> str:
    """T30: the device makes its token; a repeated call with one request id spends one use."""
    folder = home.identity_folder(invite.namespace)
    pending = folder / "joining.json"
    said = json.loads(read_or_none(pending) or b"{}")
    if said.get("invite") != token_sha256(invite.token).hex():
        said = {
            "invite": token_sha256(invite.token).hex(),
            "request_id": secrets.token_hex(16),
            "token": make_token("device"),
        }
        write_atomically(pending, json.dumps(said).encode(), step=home.step)
    stub = fleet_pb2_grpc.FleetServiceStub(connection.channel)
    request = fleet_pb2.JoinRequest(
        namespace=invite.namespace,
        request_id=said["request_id"],
        token_sha256=token_sha256(said["token"]),
        label=label,
    )
    answer = rpc.within(stub.Join, request, token=connection.token)
    home.step("join:registered")
    write_atomically(folder / "token", said["token"].encode(), step=home.step)
    pending.unlink()
    return legible(answer.device, MAX_DEVICE_NAME)


def _finish(
    home: DeviceHome,
    invite: JoinString,
    device: str,
    label: str,
    root: RoleFile,
    *,
    again: bool,
) -> Joined:
    replaced: list[str] = []

    def change(state: DeviceState) -> DeviceState:
        joined = state.joined(invite.namespace).model_copy(update={"device": device})
        state = state.with_namespace(invite.namespace, joined)
        for one in invite.follow:
            artifact = ArtifactId(invite.namespace, one.artifact)
            before = state.following.get(str(artifact))
            if before is not None and before.channel != one.channel:
                replaced.append(f"{artifact}:{before.channel}")
            state = state.with_following(artifact, one.channel)
        labels = tuple(dict.fromkeys([*state.labels, *([label] if label else [])]))
        return DeviceState.model_validate(state.model_copy(update={"labels": labels}))

    home.change("join", change)
    home.record("joined", namespace=invite.namespace, server=invite.server)
    following = tuple(f"{invite.namespace}/{one.artifact}:{one.channel}" for one in invite.follow)
    return Joined(invite.namespace, sha256_bytes(root.data), again, tuple(replaced), following)


def leave(home: DeviceHome, namespace: Namespace) -> tuple[str, ...]:
    """Forgets a namespace: its root, marks, token, and what was followed and pinned of it.

    What is installed stays, and so does what is active, until it is removed.

    Returns:
        What is no longer followed.

    Raises:
        SealiftError: If the device has not joined it.
    """
    dropped: list[str] = []

    def change(state: DeviceState) -> DeviceState:
        state.joined(namespace)
        following = {}
        for key, one in state.following.items():
            if key.startswith(f"{namespace}/"):
                dropped.append(f"{key}:{one.channel}")
            else:
                following[key] = one
        pins = {key: pin for key, pin in state.pins.items() if not key.startswith(f"{namespace}/")}
        joined = {name: one for name, one in state.namespaces.items() if name != namespace}
        return state.model_copy(update={"following": following, "pins": pins, "namespaces": joined})

    home.change("leave", change)
    shutil.rmtree(home.identity_folder(namespace), ignore_errors=True)
    shutil.rmtree(home.folder / "trust" / namespace, ignore_errors=True)
    home.record("left", namespace=namespace)
    return tuple(dropped)
