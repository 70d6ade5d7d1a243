"""A publisher's calls to its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sealift.client.connection import Connection
from sealift.client.publish.signing import SignedSet
from sealift.client.trust.admission import Admitted
from sealift.client.trust.session import NamespaceTrust
from sealift.host import rpc
from sealift.host.hashing import Advance
from sealift.host.rpc import ServerRefused
from sealift.protocol import layout
from sealift.protocol.errors import RuleViolation
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    publish_pb2,
    publish_pb2_grpc,
)

SUBMIT_S = 120.0
MAX_PAGES = 1_000
BATCH = 1_000
"""Blobs asked for in one call."""


class PublisherConnection(Connection):
    """What a publisher asks of a server."""

    __slots__ = ()

    def admit(self, trust: NamespaceTrust) -> Admitted:
        """Brings the home's view of its namespace up to date.

        Raises:
            ServerRefused: If the server cannot be reached or refuses.
            RuleViolation: If what it sent was refused, in whole or in a role that publishing
                would build on.
        """
        admitted = super().admit(trust)
        for role, problem in admitted.problems.items():
            if role != layout.HOLD:
                raise RuleViolation(problem.rule, problem.reason, problem.message, role=role)
        return admitted

    def create_namespace(
        self, namespace: Namespace, request_id: str, token_sha256: bytes, *, public: bool
    ) -> admin_pb2.CreateNamespaceResponse:
        """Makes a namespace; idempotent by `request_id`."""
        stub = admin_pb2_grpc.AdminServiceStub(self.channel)
        request = admin_pb2.CreateNamespaceRequest(
            namespace=namespace, request_id=request_id, token_sha256=token_sha256, public=public
        )
        return rpc.within(stub.CreateNamespace, request, token=self.token)

    def missing_blobs(self, namespace: Namespace, blobs: Mapping[Digest, int]) -> dict[Digest, int]:
        """Which blobs the namespace has not uploaded, and how much of each is there, in bytes."""
        stub = publish_pb2_grpc.PublishServiceStub(self.channel)
        found: dict[Digest, int] = {}
        items = list(blobs.items())
        for start in range(0, len(items), BATCH):
            request = publish_pb2.FindMissingBlobsRequest(
                namespace=namespace,
                blobs=[
                    publish_pb2.BlobDescription(sha256=digest.raw, length=length)
                    for digest, length in items[start : start + BATCH]
                ],
            )
            answer = rpc.within(stub.FindMissingBlobs, request, token=self.token)
            for one in answer.missing:
                digest = Digest.from_bytes(one.sha256)
                if not 0 <= one.offset <= blobs.get(digest, -1):
                    raise ServerRefused(
                        Reason.MALFORMED, "the server answered about a blob that was not asked for"
                    )
                found[digest] = one.offset
        return found

    def upload(
        self,
        namespace: Namespace,
        blob: tuple[Digest, int],
        content: Path | bytes,
        *,
        offset: int,
        advance: Advance,
    ) -> publish_pb2.UploadBlobResponse:
        """Uploads a blob, given by digest and length in bytes, from an offset on.

        Raises:
            ServerRefused: If it is refused, or the connection breaks.
            OSError: If the file cannot be read.
        """
        stub = publish_pb2_grpc.PublishServiceStub(self.channel)
        digest, length = blob
        header = publish_pb2.UploadBlobRequest(
            namespace=namespace,
            blob=publish_pb2.BlobDescription(sha256=digest.raw, length=length),
            offset=offset,
        )

        def requests() -> Iterator[publish_pb2.UploadBlobRequest]:
            yield header
            for data in _frames(content, offset):
                yield publish_pb2.UploadBlobRequest(data=data)
                advance(len(data))

        with rpc.calling():
            return stub.UploadBlob(
                requests(), timeout=rpc.TRANSFER_S, metadata=rpc.call_metadata(self.token)
            )

    def submit(self, namespace: Namespace, signed: SignedSet) -> publish_pb2.SubmitResponse:
        """Submits a set; all of it is committed or nothing."""
        stub = publish_pb2_grpc.PublishServiceStub(self.channel)

        def requests() -> Iterator[publish_pb2.SubmitRequest]:
            yield publish_pb2.SubmitRequest(
                header=publish_pb2.SubmitHeader(
                    namespace=namespace, request_id=signed.request_id, base=dict(signed.base)
                )
            )
            named = {f"metadata/{role}.json": data for role, data in signed.files.items()}
            named |= {f"targets/{path}": data for path, data in signed.documents.items()}
            for path, data in named.items():
                for piece, last in rpc.pieces(data):
                    yield publish_pb2.SubmitRequest(
                        file=publish_pb2.SubmitFile(path=path, data=piece, last=last)
                    )

        with rpc.calling():
            return stub.Submit(requests(), timeout=SUBMIT_S, metadata=rpc.call_metadata(self.token))

    def set_hold(self, request: publish_pb2.SetHoldRequest) -> publish_pb2.SetHoldResponse:
        """Sets a hold."""
        stub = publish_pb2_grpc.PublishServiceStub(self.channel)
        return rpc.within(stub.SetHold, request, token=self.token)

    def create_invite(
        self, request: fleet_pb2.CreateInviteRequest
    ) -> fleet_pb2.CreateInviteResponse:
        """Registers an invite."""
        stub = fleet_pb2_grpc.FleetServiceStub(self.channel)
        return rpc.within(stub.CreateInvite, request, token=self.token)

    def audit_events(
        self, namespace: Namespace, artifact: str, count: int
    ) -> Sequence[catalog_pb2.AuditEvent]:
        """The newest events of the server's audit log."""
        stub = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        request = catalog_pb2.ListAuditEventsRequest(
            namespace=namespace, artifact=artifact, page_size=count
        )
        return rpc.within(stub.ListAuditEvents, request, token=self.token).events

    def devices(self, namespace: Namespace) -> list[catalog_pb2.Device]:
        """The namespace's devices, as they reported themselves."""
        stub = catalog_pb2_grpc.CatalogServiceStub(self.channel)
        found: list[catalog_pb2.Device] = []
        page = ""
        for _ in range(MAX_PAGES):
            request = catalog_pb2.ListDevicesRequest(
                namespace=namespace, page_size=BATCH, page_token=page
            )
            answer = rpc.within(stub.ListDevices, request, token=self.token)
            found.extend(answer.devices)
            page = answer.next_page_token
            if not page:
                break
        return found


def _frames(content: Path | bytes, offset: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for start in range(offset, len(content), rpc.FRAME_BYTES):
            yield content[start : start + rpc.FRAME_BYTES]
        return
    with content.open("rb", buffering=0) as file:
        file.seek(offset)
        while data := file.read(rpc.FRAME_BYTES):
            yield data


def is_conflict(error: BaseException) -> bool:
    """True if another publisher was faster: rebase and try again."""
    return isinstance(error, ServerRefused) and error.reason.value == "conflict"
