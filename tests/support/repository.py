"""A namespace signed in memory, and a device that admits it: real keys, real files, no network.

Everything is built from `tuf.api.metadata` objects that a test may change as it likes before they
are signed, so that what an attacker with some of the keys could make can be made here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import time_machine
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import DeviceState, JoinedNamespace
from sealift.client.trust.admission import Admitted
from sealift.client.trust.fetcher import RepositoryFetcher, fetcher_of
from sealift.client.trust.memory import Memory
from sealift.host.files import Step, make_folder, no_step
from sealift.host.hashing import sha256_bytes
from sealift.host.signers import new_private_key, signer_of
from sealift.protocol import layout, metadata
from sealift.protocol.documents import (
    Channel,
    FallbackPointer,
    FileEntry,
    Hold,
    HoldState,
    Kind,
    Manifest,
    ReleasePointer,
    Rollout,
    Severity,
    Stage,
    Stop,
    StoppedRelease,
)
from sealift.protocol.layout import RoleClass
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactId, ArtifactName, ChannelName, Namespace, Version
from sealift.protocol.parsing import encode_document

START = 1_800_000_000
"""When every fake clock begins, Unix seconds."""
ACME = Namespace("acme")
MODEL = ArtifactName("model")
STABLE = ChannelName("stable")
Content = Root | Targets | Snapshot | Timestamp
Files = Mapping[str, bytes]
"""Published files by path, as a server would answer them."""


@dataclass(slots=True)
class FakeClock:
    """A machine's clocks, set by the test."""

    now: int = START
    up_s: float = 1_000.0
    boot: str = "boot-1"

    def wall(self) -> int:
        """The wall clock."""
        return self.now

    def boot_s(self) -> float:
        """Seconds since the boot."""
        return self.up_s

    def boot_id(self) -> str:
        """Which boot."""
        return self.boot

    def pass_s(self, seconds: int) -> None:
        """Time passes, on both clocks."""
        self.now += seconds
        self.up_s += seconds

    def standing(self) -> AbstractContextManager[Any]:
        """Python's own clock, which the stock client reads, stands at the wall clock."""
        return time_machine.travel(self.now, tick=False)


def new_signer() -> CryptoSigner:
    """A signer with a new Ed25519 key."""
    return signer_of(new_private_key())


def spki(signer: CryptoSigner) -> bytes:
    """The signer's key as SubjectPublicKeyInfo."""
    return metadata.subject_public_key_info(signer.public_key)


def encode(content: Content, signers: Sequence[CryptoSigner]) -> bytes:
    """The signed file of a role."""
    signed: Metadata[Any] = Metadata(content)
    for signer in signers:
        signed.sign(signer, append=True)
    return bytes(signed.to_bytes(JSONSerializer(compact=True)))


def resigned(data: bytes, signers: Sequence[CryptoSigner], change: Callable[[Any], None]) -> bytes:
    """A role's file with its signed JSON changed by hand, signed anew."""
    said = json.loads(data)
    change(said["signed"])
    said["signatures"] = []
    signed = Metadata.from_dict(said)
    for signer in signers:
        signed.sign(signer, append=True)
    return bytes(signed.to_bytes(JSONSerializer(compact=True)))


def manifest_of(artifact: str, version: str, content: bytes = b"weights") -> bytes:
    """A release's manifest, of one small file."""
    entry = FileEntry(
        path="model.gguf",
        sha256=sha256_bytes(content),
        length=len(content),
        media_type="application/octet-stream",
    )
    return encode_document(
        Manifest(
            artifact=ArtifactId.parse(artifact),
            kind=Kind.MODEL,
            version=Version.parse(version),
            created=START,
            files=(entry,),
        )
    )


def pointer_of(data: bytes) -> ReleasePointer:
    """The pointer to a manifest."""
    return ReleasePointer(
        version=Manifest.parse(data).version, sha256=sha256_bytes(data), length=len(data)
    )


@dataclass
class SignedNamespace:
    """A namespace's publisher and server in one.

    Attributes:
        name: The namespace.
        clock: By which it signs.
        root: The next root's content; like every content, to be changed and then published.
        roles: The next content of targets and every delegated role.
        signers: Who signs each role; `*` every one that is not named.
        files: What is published, by path.
    """

    name: Namespace = ACME
    clock: FakeClock = field(default_factory=FakeClock)
    daily: CryptoSigner = field(default_factory=new_signer)
    recovery: CryptoSigner = field(default_factory=new_signer)
    online: CryptoSigner = field(default_factory=new_signer)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    roles: dict[str, Targets] = field(default_factory=dict)
    current: dict[str, RoleFile] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    root: Root = field(init=False)
    artifacts: tuple[ArtifactName, ...] = (MODEL,)

    def __post_init__(self) -> None:
        """Signs the first state: root, targets, `_stop`, `_hold`, the artifacts' empty roles."""
        self.root = Root(consistent_snapshot=True, unrecognized_fields=self._said())
        self.root.roles = {
            layout.ROOT: Role([], 1),
            layout.TARGETS: Role([], 1),
            layout.SNAPSHOT: Role([], 1),
            layout.TIMESTAMP: Role([], 1),
        }
        self.set_root_keys(layout.ROOT, [self.daily, self.recovery])
        self.set_root_keys(layout.TARGETS, [self.daily])
        self.set_root_keys(layout.SNAPSHOT, [self.online])
        self.set_root_keys(layout.TIMESTAMP, [self.online])
        self.signers = {"*": [self.daily], layout.HOLD: [self.online]}
        self.roles[layout.TARGETS] = self._empty()
        self.roles[layout.TARGETS].delegations = Delegations({}, {})
        self.delegate(layout.STOP, [self.daily])
        self.delegate(layout.HOLD, [self.online])
        for artifact in self.artifacts:
            self.add_artifact(artifact)
        self.publish_root(bump=False)
        self.publish(*self.roles)

    def _said(self) -> dict[str, Any]:
        return {layout.NAMESPACE_FIELD: str(self.name)}

    def _empty(self) -> Targets:
        content = Targets(unrecognized_fields=self._said())
        content.version = 0  # the first that is published is 1
        return content

    # --- keys -----------------------------------------------------------------------------

    def set_root_keys(self, role: str, signers: list[CryptoSigner], threshold: int = 1) -> None:
        """Names a top-level role's keys in the next root."""
        for signer in signers:
            self.root.keys[signer.public_key.keyid] = signer.public_key
        keyids = [signer.public_key.keyid for signer in signers]
        self.root.roles[role] = Role(keyids, threshold)
        used = {keyid for entry in self.root.roles.values() for keyid in entry.keyids}
        self.root.keys = {keyid: key for keyid, key in self.root.keys.items() if keyid in used}

    @property
    def delegations(self) -> Delegations:
        """What the next targets delegates."""
        found = self.roles[layout.TARGETS].delegations
        if found is None:
            raise AssertionError("targets delegates nothing")
        return found

    @property
    def delegated(self) -> dict[str, DelegatedRole]:
        """The delegations of the next targets, by role."""
        roles = self.delegations.roles
        if roles is None:
            raise AssertionError("targets delegates by hash bins")
        return roles

    def delegate(self, role: str, signers: list[CryptoSigner], threshold: int = 1) -> None:
        """Names a delegated role's keys in the next targets; the role itself is there too."""
        for signer in signers:
            self.delegations.keys[signer.public_key.keyid] = signer.public_key
        keyids = [signer.public_key.keyid for signer in signers]
        patterns = layout.delegated_path_patterns(role)
        self.delegated[role] = DelegatedRole(role, keyids, threshold, True, patterns)
        self.signers[role] = signers
        self.roles.setdefault(role, self._empty())

    def add_artifact(self, artifact: ArtifactName) -> None:
        """The three roles of an artifact, empty."""
        for role in layout.artifact_roles(artifact):
            self.delegate(str(role), [self.daily])

    def add_key_of(self, role: str, key: Key) -> None:
        """One more key for a delegated role."""
        self.delegations.keys[key.keyid] = key
        self.delegated[role].keyids.append(key.keyid)

    # --- documents ------------------------------------------------------------------------

    def put(self, path: str, data: bytes, role: str | None = None) -> None:
        """Lists a document in its role, or in another one."""
        owner = role or layout.parse_document_path(path).role
        target = TargetFile.from_data(path, data, ["sha256"])
        self.roles[owner].targets[path] = target
        self.documents[path] = data
        hashed = layout.hashed_document_path(path, sha256_bytes(data))
        self.files[f"targets/{hashed}"] = data

    def release(self, version: str, artifact: ArtifactName = MODEL) -> ReleasePointer:
        """Publishes a release."""
        data = manifest_of(f"{self.name}/{artifact}", version, version.encode())
        self.put(layout.release_path(artifact, Version.parse(version)), data)
        self.publish(layout.role_name(artifact, RoleClass.RELEASES))
        return pointer_of(data)

    def channel(
        self,
        release: ReleasePointer | None,
        sequence: int = 1,
        *,
        stages: tuple[Stage, ...] = (),
        fallback: ReleasePointer | None = None,
        until: int = START + 10**9,
        rollout: str | None = None,
        artifact: ArtifactName = MODEL,
        channel: ChannelName = STABLE,
        publish: bool = True,
        **more: Any,
    ) -> Channel:
        """Publishes a channel's document; the rollout id is the sequence's, the salt all zeros."""
        back = FallbackPointer(**dict(fallback), until=until) if fallback else None
        plan = Rollout(id=rollout or f"{sequence:016x}", salt="0" * 32, stages=stages)
        document = Channel(
            artifact=ArtifactId(self.name, artifact),
            channel=channel,
            sequence=sequence,
            release=release,
            rollout=plan,
            fallback=back,
            created=START,
            **more,
        )
        self.put(layout.channel_path(artifact, channel), encode_document(document))
        if publish:
            self.publish(layout.channel_role(artifact, channel))
        return document

    def hold(
        self,
        rollout: str,
        state: HoldState,
        artifact: ArtifactName = MODEL,
        channel: ChannelName = STABLE,
        **more: Any,
    ) -> None:
        """Publishes a hold."""
        document = Hold(
            artifact=ArtifactId(self.name, artifact),
            channel=channel,
            rollout=rollout,
            state=state,
            **more,
        )
        self.put(layout.hold_path(artifact, channel), encode_document(document))
        self.publish(layout.HOLD)

    def stop(
        self,
        release: ReleasePointer,
        severity: Severity = Severity.STOP,
        artifact: ArtifactName = MODEL,
    ) -> None:
        """Publishes a revocation."""
        entry = StoppedRelease(sha256=release.sha256, version=release.version, severity=severity)
        document = Stop(artifact=ArtifactId(self.name, artifact), releases=(entry,))
        self.put(layout.stop_path(artifact), encode_document(document))
        self.publish(layout.STOP)

    # --- signing --------------------------------------------------------------------------

    def publish_root(self, signers: list[CryptoSigner] | None = None, *, bump: bool = True) -> None:
        """Signs the next root."""
        if bump:
            self.root.version += 1
        self._expire(layout.ROOT, self.root)
        self._write(layout.ROOT, encode(self.root, signers or [self.daily, self.recovery]))

    def publish(self, *roles: str) -> None:
        """Signs the next version of these roles, then snapshot and timestamp."""
        for role in roles:
            content = self.roles[role]
            following = content.version + 1
            if role in layout.ONLINE:
                following = metadata.next_online_version(content.version, self.clock.now)
            content.version = following
            self._expire(role, content)
            self._write(role, encode(content, self.signers.get(role, self.signers["*"])))
        self.refresh()

    def put_file(self, role: str, data: bytes) -> None:
        """Publishes a role's file as it stands, then snapshot and timestamp."""
        self._write(role, data)
        self.refresh()

    def refresh(
        self,
        *,
        issued: object = None,
        version: int | None = None,
        meta: Mapping[str, MetaFile] | None = None,
        without: Sequence[str] = (),
        lifetime_s: int | None = None,
    ) -> None:
        """Signs snapshot and timestamp anew.

        Args:
            issued: What the timestamp says, in place of now.
            version: Of both, in place of the right one.
            meta: Entries of the snapshot in place of the right ones.
            without: Roles that the snapshot leaves out.
            lifetime_s: Of the timestamp, in place of the right one.
        """
        listed = {
            f"{role}.json": MetaFile.from_data(file.version, file.data, ["sha256"])
            for role, file in self.current.items()
            if role not in {layout.ROOT, layout.SNAPSHOT, layout.TIMESTAMP, *without}
        }
        snapshot = Snapshot(meta={**listed, **(meta or {})})
        snapshot.version = version or self._online_version(layout.SNAPSHOT)
        self._expire(layout.SNAPSHOT, snapshot)
        file = self._write(layout.SNAPSHOT, encode(snapshot, [self.online]))
        timestamp = Timestamp(
            snapshot_meta=MetaFile.from_data(file.version, file.data, ["sha256"]),
            unrecognized_fields={layout.ISSUED_FIELD: self.clock.now if issued is None else issued},
        )
        timestamp.version = version or self._online_version(layout.TIMESTAMP)
        self._expire(layout.TIMESTAMP, timestamp, lifetime_s)
        self._write(layout.TIMESTAMP, encode(timestamp, [self.online]))

    def _online_version(self, role: str) -> int:
        before = self.current.get(role)
        mine = before is not None and self.online.public_key.keyid in before.metadata.signatures
        previous = before.version if before is not None and mine else None
        return metadata.next_online_version(previous, self.clock.now)

    def _expire(self, role: str, content: Content, lifetime_s: int | None = None) -> None:
        lasts = layout.lifetime_s(role) if lifetime_s is None else lifetime_s
        content.expires = datetime.fromtimestamp(self.clock.now + lasts, UTC)

    def _write(self, role: str, data: bytes) -> RoleFile:
        signed: Metadata[Any] = Metadata.from_bytes(data)
        file = RoleFile(role, data, signed)
        self.current[role] = file
        self.files[f"metadata/{layout.metadata_file_name(role, file.version)}"] = data
        return file

    # --- presented ------------------------------------------------------------------------

    def fetcher(self, held_root: int, files: Files | None = None) -> RepositoryFetcher:
        """What answers a home, from the published files or from others."""
        return fetcher_of(
            None, self.name, self.files if files is None else files, {layout.ROOT: held_root}
        )

    def published(self) -> dict[str, bytes]:
        """A copy of what is published now, to be replayed later."""
        return dict(self.files)


@dataclass(frozen=True)
class Device:
    """A device's real home in a folder, that admits from a `SignedNamespace` in memory."""

    folder: Path
    namespace: Namespace
    clock: FakeClock

    @classmethod
    def joined(
        cls,
        folder: Path,
        signed: SignedNamespace,
        *artifacts: ArtifactName,
        memory: Memory | None = None,
    ) -> Device:
        """A device that trusts the namespace's present root and follows artifacts on stable."""
        device = cls(folder, signed.name, signed.clock)
        make_folder(device.home.identity_folder(signed.name))
        device.root_file.write_bytes(signed.current[layout.ROOT].data)
        joined = JoinedNamespace(server="127.0.0.1:1", memory=memory or Memory())
        state = DeviceState().with_namespace(signed.name, joined)
        for artifact in artifacts or (MODEL,):
            state = state.with_following(ArtifactId(signed.name, artifact), STABLE)
        device.home.change("join", lambda _: state)
        return device

    @property
    def home(self) -> DeviceHome:
        """The device's home."""
        return DeviceHome.at(self.folder, clock=self.clock)

    @property
    def root_file(self) -> Path:
        """The newest admitted root."""
        return self.home.identity_folder(self.namespace) / "root.json"

    @property
    def memory(self) -> Memory:
        """What it remembers."""
        return self.home.state().joined(self.namespace).memory

    def admit(
        self, signed: SignedNamespace, files: Files | None = None, step: Step = no_step
    ) -> Admitted:
        """Admits what is published, or other files, as if they were all that there is."""
        home = replace(self.home, step=step)
        trust = home.trust(self.namespace, home.state())
        held = RoleFile.parse(layout.ROOT, self.root_file.read_bytes()).version
        with self.clock.standing():
            return trust.admit(signed.fetcher(held, files))

    def believed(self) -> Admitted | None:
        """What it believes, read back."""
        home = self.home
        return home.trust(self.namespace, home.state()).believed()

    def lose_cache(self) -> None:
        """Deletes all that may be deleted without lowering what was seen."""
        shutil.rmtree(self.home.folder / "trust", ignore_errors=True)

    def copied(self, to: Path) -> Device:
        """The home as it stands on the disk, elsewhere: what a crash at this moment leaves."""
        shutil.copytree(self.folder, to, symlinks=True)
        return replace(self, folder=to)


def listing(folder: Path) -> list[str]:
    """The names of all files below a folder."""
    return sorted(
        str((Path(root) / name).relative_to(folder))
        for root, _, names in os.walk(folder)
        for name in names
    )
