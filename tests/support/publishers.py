"""A publisher in memory: signs sets as they must be and, changed by a test, as they must not."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, TargetFile, Targets
from tuf.api.serialization.json import JSONSerializer

from sealift.host.hashing import sha256_bytes
from sealift.host.signers import new_private_key, signer_of
from sealift.protocol import layout
from sealift.protocol.documents import (
    Channel,
    Document,
    FallbackPointer,
    FileEntry,
    Kind,
    Manifest,
    ReleasePointer,
    Rollout,
    Severity,
    Stop,
    StoppedRelease,
)
from sealift.protocol.names import ArtifactId, ArtifactName, ChannelName, Namespace, Version
from sealift.protocol.parsing import encode_document
from sealift.server.namespaces.submitting import SubmittedSet

MODEL = ArtifactName("model")
STABLE = ChannelName("stable")
FIRST = "01" * 8
"""The first rollout id of a channel."""
SECOND = "02" * 8

Change = Callable[[str, Root | Targets], None]


def no_change(role: str, content: Root | Targets) -> None:
    """Leaves a role as it is."""


@dataclass
class Publisher:
    """Holds the keys of a namespace, and what the server has of it.

    Attributes:
        namespace: Whose.
        online: The server's online key.
        now: Unix seconds at which it signs.
        current: The files that were committed, by role.
    """

    namespace: Namespace
    online: Key
    now: int
    signer: CryptoSigner = field(default_factory=lambda: signer_of(new_private_key()))
    current: dict[str, bytes] = field(default_factory=dict)

    def draft(self) -> Draft:
        """Begins a set."""
        return Draft(self)

    def first(self) -> SubmittedSet:
        """Root, targets and `_stop` of a new namespace."""
        draft = self.draft()
        key, online = self.signer.public_key, self.online
        roles = {
            name: Role([(online if name in layout.ONLINE else key).keyid], 1)
            for name in layout.TOP_LEVEL
        }
        draft.root = Root(
            keys={one.keyid: one for one in (key, online)},
            roles=roles,
            consistent_snapshot=True,
            unrecognized_fields=self.fields,
        )
        draft.targets(layout.TARGETS).delegations = Delegations(keys={}, roles={})
        draft.delegate(layout.STOP, key)
        draft.delegate(layout.HOLD, online)
        draft.targets(layout.STOP)
        return draft.signed()

    @property
    def fields(self) -> dict[str, str]:
        """What every file of this namespace says."""
        return {layout.NAMESPACE_FIELD: str(self.namespace)}

    def took(self, submitted: SubmittedSet) -> None:
        """The server has taken a set: the next one is built on it."""
        self.current |= submitted.files

    def root(self) -> Root:
        """The newest root, to be changed."""
        return Metadata[Root].from_bytes(self.current[layout.ROOT]).signed

    # --- whole sets -----------------------------------------------------------------------

    def artifact(self, artifact: ArtifactName = MODEL) -> SubmittedSet:
        """A set with a new artifact."""
        draft = self.draft()
        draft.create(artifact)
        return draft.signed()

    def release(
        self,
        version: str = "1.0.0",
        content: bytes = b"weights",
        artifact: ArtifactName = MODEL,
        kind: Kind = Kind.MODEL,
    ) -> SubmittedSet:
        """A set with a release of one file."""
        draft = self.draft()
        draft.release(version, content, artifact, kind)
        return draft.signed()

    def channel(
        self,
        version: str = "1.0.0",
        content: bytes = b"weights",
        *,
        rollout: str = "",
        seq: int = 1,
    ) -> SubmittedSet:
        """A set that points `stable` to a release made by `release`."""
        draft = self.draft()
        draft.put(self.channel_document(version, content, rollout=rollout, seq=seq))
        return draft.signed()

    def channel_document(
        self,
        version: str = "1.0.0",
        content: bytes = b"weights",
        *,
        rollout: str = "",
        seq: int = 1,
        channel: ChannelName = STABLE,
        fallback: FallbackPointer | None = None,
    ) -> Channel:
        """Where a channel points."""
        return Channel(
            artifact=ArtifactId(self.namespace, MODEL),
            channel=channel,
            sequence=seq,
            release=self.pointer(version, content),
            rollout=Rollout(id=rollout or secrets.token_hex(16), salt=secrets.token_hex(16)),
            fallback=fallback,
            created=self.now,
        )

    def pointer(self, version: str = "1.0.0", content: bytes = b"weights") -> ReleasePointer:
        """The pointer to a release."""
        data = encode_document(self.manifest(version, content))
        return ReleasePointer(
            version=Version.parse(version), sha256=sha256_bytes(data), length=len(data)
        )

    def manifest(
        self,
        version: str = "1.0.0",
        content: bytes = b"weights",
        artifact: ArtifactName = MODEL,
        kind: Kind = Kind.MODEL,
    ) -> Manifest:
        """A release of one file, the same each time."""
        entry = FileEntry(
            path="model.bin",
            sha256=sha256_bytes(content),
            length=len(content),
            media_type="application/octet-stream",
        )
        return Manifest(
            artifact=ArtifactId(self.namespace, artifact),
            kind=kind,
            version=Version.parse(version),
            created=1_790_000_000,
            files=(entry,),
        )

    def stop(self, *severities: tuple[str, Severity]) -> Stop:
        """A revocation of releases made by `release`."""
        stopped = tuple(
            StoppedRelease(
                sha256=self.pointer(version).sha256,
                version=Version.parse(version),
                severity=severity,
            )
            for version, severity in severities
        )
        return Stop(artifact=ArtifactId(self.namespace, MODEL), releases=stopped)


@dataclass
class Draft:
    """A set before it is signed; every part can be changed."""

    publisher: Publisher
    root: Root | None = None
    roles: dict[str, Targets] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    def targets(self, role: str) -> Targets:
        """A role's next content, its version the next one."""
        if role not in self.roles:
            data = self.publisher.current.get(role)
            if data is None:
                self.roles[role] = Targets(unrecognized_fields=self.publisher.fields)
            else:
                self.roles[role] = Metadata[Targets].from_bytes(data).signed
                self.roles[role].version += 1
        return self.roles[role]

    def delegations(self) -> tuple[dict[str, Key], dict[str, DelegatedRole]]:
        """What `targets` delegates."""
        delegations = self.targets(layout.TARGETS).delegations
        assert delegations is not None
        assert delegations.roles is not None
        return delegations.keys, delegations.roles

    def delegate(self, role: str, key: Key) -> None:
        """Gives a role to a key."""
        keys, roles = self.delegations()
        keys[key.keyid] = key
        patterns = layout.delegated_path_patterns(role)
        roles[role] = DelegatedRole(role, [key.keyid], 1, True, patterns)

    def create(self, artifact: ArtifactName = MODEL) -> None:
        """An artifact's three roles."""
        for role in layout.artifact_roles(artifact):
            self.delegate(str(role), self.publisher.signer.public_key)
            self.targets(str(role))

    def release(
        self,
        version: str = "1.0.0",
        content: bytes = b"weights",
        artifact: ArtifactName = MODEL,
        kind: Kind = Kind.MODEL,
    ) -> None:
        """A release of one file."""
        self.put(self.publisher.manifest(version, content, artifact, kind))

    def put(self, document: Document, path: str = "") -> None:
        """Lists a document in its role."""
        data = encode_document(document)
        path = path or _path(document)
        self.documents[path] = data
        role = layout.parse_document_path(path).role
        self.targets(role).targets[path] = TargetFile.from_data(path, data, ["sha256"])

    def signed(
        self,
        *,
        change: Change = no_change,
        unsigned: str = "",
        documents: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> SubmittedSet:
        """The signed set.

        Args:
            change: Changes a role before it is signed.
            unsigned: A role that gets no signature.
            documents: To be sent in place of the right ones.
            request_id: A random one if empty.
        """
        publisher = self.publisher
        contents: dict[str, Root | Targets] = dict(self.roles)
        if self.root is not None:
            contents[layout.ROOT] = self.root
        files = {}
        for role, content in contents.items():
            expires = publisher.now + layout.lifetime_s(role)
            content.expires = datetime.fromtimestamp(expires, UTC)
            change(role, content)
            files[role] = _signed(content, [] if role == unsigned else [publisher.signer])
        base = {
            role: hashlib.sha256(publisher.current[role]).digest()
            for role in files
            if role in publisher.current
        }
        sent = self.documents if documents is None else documents
        return SubmittedSet(request_id or secrets.token_hex(8), base, files, dict(sent))


def _signed(content: Root | Targets, signers: list[CryptoSigner]) -> bytes:
    signed: Metadata[Root] | Metadata[Targets]
    if isinstance(content, Root):
        signed = Metadata(content)
    else:
        signed = Metadata(content)
    for signer in signers:
        signed.sign(signer, append=True)
    data: bytes = signed.to_bytes(JSONSerializer(compact=True))
    return data


def _path(document: Document) -> str:
    if isinstance(document, Manifest):
        return layout.release_path(document.artifact.artifact, document.version)
    if isinstance(document, Channel):
        return layout.channel_path(document.artifact.artifact, document.channel)
    assert isinstance(document, Stop)
    return layout.stop_path(document.artifact.artifact)


def again(submitted: SubmittedSet) -> SubmittedSet:
    """The same set as another request."""
    return replace(submitted, request_id=secrets.token_hex(8))
