"""A server in the hands of someone else: it has disk and online key, and says what it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from sealift.client.trust.fetcher import Held, RepositorySource
from sealift.host import rpc
from sealift.host.rpc import ServerAddress
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Channel, Hold, HoldState
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactId, ChannelName, Digest, Namespace
from sealift.protocol.parsing import encode_document
from sealift.server.namespaces.freshness import OnlineSigner
from sealift.server.namespaces.online_keys import OnlineKeys
from sealift.v1 import repository_pb2 as wire
from sealift.v1 import repository_pb2_grpc

FRAME = 512 * 1024
Context = grpc.ServicerContext


@dataclass(frozen=True)
class Loot:
    """One state of a namespace, as a thief of the server's disk has it.

    Attributes:
        namespace: Whose.
        files: Signed files by path.
        blobs: Where the content lies.
        keys: The folder of the online keys.
    """

    namespace: Namespace
    files: Mapping[str, bytes]
    blobs: Path
    keys: Path

    @classmethod
    def of(cls, server: Path, address: str, namespace: str, token: str) -> Loot:
        """What a server has of a namespace now."""
        name = Namespace(namespace)
        channel = rpc.open_channel(ServerAddress.parse(address))
        try:
            source = RepositorySource(channel, token)
            files = dict(source.poll([Held(name, all_artifacts=True)])[name].files)
            for role, file in _roles(files).items():
                if role.endswith(".releases"):
                    for path, target in file.targets.targets.items():
                        digest = Digest(target.hashes["sha256"])
                        hashed = f"targets/{layout.hashed_document_path(path, digest)}"
                        files[hashed] = source.read(name, hashed, target.length)
        finally:
            channel.close()
        return cls(name, files, server / "blobs" / "sha256", server / "keys")

    @property
    def roles(self) -> dict[str, RoleFile]:
        """The newest file of each role."""
        return _roles(self.files)

    def document(self, path: str) -> bytes:
        """A document's bytes, by its target path."""
        file = self.roles[layout.parse_document_path(path).role]
        digest = Digest(file.targets.targets[path].hashes["sha256"])
        return self.files[f"targets/{layout.hashed_document_path(path, digest)}"]

    def channel(self, artifact: str, channel: str = "stable") -> Channel:
        """A channel's document."""
        name = ArtifactId.parse(f"{self.namespace}/{artifact}").artifact
        return Channel.parse(self.document(layout.channel_path(name, ChannelName(channel))))

    # --- what the online key can do -------------------------------------------------------

    def signed(
        self,
        now: int,
        *,
        roles: Iterable[RoleFile] = (),
        holds: Mapping[str, bytes] | None = None,
        documents: Mapping[str, bytes] | None = None,
    ) -> Loot:
        """The state with `_hold`, snapshot and timestamp signed anew by the stolen key.

        Args:
            now: The time that the signatures claim.
            roles: Role files to list in place of the newest ones.
            holds: All the documents of `_hold`, by path; None keeps them.
            documents: Other files, by their whole path.
        """
        signer = OnlineSigner(self.namespace, OnlineKeys(self.keys).signer(self.namespace), now)
        found = {**self.roles, **{file.role: file for file in roles}}
        files = {path: data for path, data in self.files.items() if "/" in path}
        files |= documents or {}
        if holds is None:
            listed = found[layout.HOLD].targets.targets
            holds = {path: self.document(path) for path in listed}
        for path, data in holds.items():
            digest = Digest.from_bytes(metadata.sha256_digest(data))
            files[f"targets/{layout.hashed_document_path(path, digest)}"] = data
        found[layout.HOLD] = signer.hold(found[layout.HOLD], holds)
        rest = {role: file for role, file in found.items() if role not in {"snapshot", "timestamp"}}
        found[layout.SNAPSHOT] = signer.snapshot(found[layout.SNAPSHOT], rest)
        found[layout.TIMESTAMP] = signer.timestamp(found[layout.TIMESTAMP], found[layout.SNAPSHOT])
        kept = {path: data for path, data in files.items() if not path.startswith("metadata/")}
        roots = {path: data for path, data in files.items() if path.endswith(".root.json")}
        named = {
            f"metadata/{layout.metadata_file_name(role, file.version)}": file.data
            for role, file in found.items()
        }
        return replace(self, files={**kept, **roots, **named})

    def with_hold(self, now: int, artifact: str, state: HoldState, channel: str = "stable") -> Loot:
        """The state with one hold, on the present rollout of a channel."""
        hold = Hold(
            artifact=ArtifactId.parse(f"{self.namespace}/{artifact}"),
            channel=ChannelName(channel),
            rollout=self.channel(artifact, channel).rollout.id,
            state=state,
        )
        path = layout.hold_path(hold.artifact.artifact, hold.channel)
        return self.signed(now, holds={path: encode_document(hold)})


def _roles(files: Mapping[str, bytes]) -> dict[str, RoleFile]:
    found: dict[str, RoleFile] = {}
    for path, data in files.items():
        folder, _, name = path.partition("/")
        if folder == "metadata":
            role, _ = layout.parse_metadata_file_name(name)
            file = RoleFile.parse(role, data)
            if role not in found or found[role].version < file.version:
                found[role] = file
    return found


@dataclass
class Impostor(repository_pb2_grpc.RepositoryServiceServicer):
    """Answers what it likes.

    Attributes:
        loot: What it serves where nothing else is said.
        poll: Answers a poll in place of that.
        read: Answers a read in place of that; None answers as usual.
        url: The address that it gives for every blob.
        blob: Answers a blob in place of its bytes.
    """

    loot: Loot
    poll: Callable[[Any, Context], Iterator[wire.PollResponse]] | None = None
    read: Callable[[str, Context], bytes | None] | None = None
    url: str = ""
    blob: Callable[[Any], Iterator[bytes]] | None = None
    polls: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def Poll(self, request: Any, context: Context) -> Iterator[wire.PollResponse]:
        """Brings all that there is."""
        self.polls.append(request)
        if self.poll is not None:
            yield from self.poll(request, context)
            return
        yield from answers(self.loot)

    def ReadMetadata(self, request: Any, context: Context) -> Iterator[wire.ReadMetadataResponse]:
        """Reads one file."""
        self.asked.append(request.path)
        data = self.read(request.path, context) if self.read is not None else None
        data = self.loot.files.get(request.path) if data is None else data
        if data is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such file")
        for start in range(0, max(len(data), 1), FRAME):
            yield wire.ReadMetadataResponse(data=data[start : start + FRAME])

    def LocateBlobs(self, request: Any, context: Context) -> wire.LocateBlobsResponse:
        """Says where blobs are."""
        del context
        return wire.LocateBlobsResponse(
            locations=[wire.BlobLocation(sha256=one, url=self.url) for one in request.sha256]
        )

    def ReadBlob(self, request: Any, context: Context) -> Iterator[wire.ReadBlobResponse]:
        """Reads content."""
        if self.blob is not None:
            for data in self.blob(request):
                yield wire.ReadBlobResponse(data=data)
            return
        name = request.sha256.hex()
        path = self.loot.blobs / name[:2] / name
        if not path.exists():
            context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        data = path.read_bytes()[request.offset :][: request.length or None]
        for start in range(0, len(data), FRAME):
            yield wire.ReadBlobResponse(data=data[start : start + FRAME])


def answers(loot: Loot) -> Iterator[wire.PollResponse]:
    """A poll's answer that brings a whole state."""
    for path, data in loot.files.items():
        for start in range(0, max(len(data), 1), FRAME):
            yield wire.PollResponse(
                namespace=loot.namespace, path=path, data=data[start : start + FRAME]
            )


@contextmanager
def serving(impostor: Impostor) -> Iterator[str]:
    """Runs an impostor for a block, and gives its address."""
    server = grpc.server(ThreadPoolExecutor(8))
    repository_pb2_grpc.add_RepositoryServiceServicer_to_server(impostor, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
