"""PublishService: taking content and signed sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import grpc

from sealift.protocol.documents import HoldState
from sealift.protocol.names import ArtifactName, ChannelName, Digest
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller
from sealift.server.api.edge import Server, namespace_of, waited
from sealift.server.content import ownership
from sealift.server.content.uploads import Upload
from sealift.server.errors import Refused
from sealift.server.namespaces import holding, submitting
from sealift.server.namespaces.submitting import SubmittedSet
from sealift.v1 import publish_pb2, publish_pb2_grpc

MAX_SET_BYTES = 64 * 1024 * 1024
MAX_SET_FILES = 5_000
MAX_BLOBS = 10_000

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {
    publish_pb2.HOLD_STATE_RUNNING: HoldState.RUNNING,
    publish_pb2.HOLD_STATE_PAUSED: HoldState.PAUSED,
    publish_pb2.HOLD_STATE_HALTED: HoldState.HALTED,
    publish_pb2.HOLD_STATE_REVERTED: HoldState.REVERTED,
}


class PublishServicer(publish_pb2_grpc.PublishServiceServicer):
    """Takes what publishers send."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def FindMissingBlobs(  # noqa: N802
        self, request: publish_pb2.FindMissingBlobsRequest, context: Context
    ) -> publish_pb2.FindMissingBlobsResponse:
        """See the service."""
        caller = await self._server.caller(context)
        if len(request.blobs) > MAX_BLOBS:
            raise Refused(Reason.INVALID_ARGUMENT, f"over {MAX_BLOBS} blobs in one call")
        blobs = {Digest.from_bytes(one.sha256): one.length for one in request.blobs}
        missing = await self._server.turns().run(
            ownership.missing,
            self._server.database,
            self._server.uploads,
            caller,
            namespace_of(request.namespace),
            blobs,
        )
        return publish_pb2.FindMissingBlobsResponse(
            missing=[
                publish_pb2.MissingBlob(sha256=digest.raw, offset=offset)
                for digest, offset in missing.items()
            ]
        )

    async def UploadBlob(  # noqa: N802
        self, requests: AsyncIterator[publish_pb2.UploadBlobRequest], context: Context
    ) -> publish_pb2.UploadBlobResponse:
        """See the service. What arrived before a break stays, and the next upload goes on there."""
        server = self._server
        caller = await server.caller(context)
        first = await anext(requests, None)
        if first is None:
            raise Refused(Reason.INVALID_ARGUMENT, "the upload names no blob")
        namespace = namespace_of(first.namespace)
        digest, length = Digest.from_bytes(first.blob.sha256), first.blob.length
        await server.run(ownership.check_upload, server.database, caller, namespace, length)
        turns = server.turns()
        beginning = turns.begin(server.uploads.begin, namespace, digest, length, first.offset)
        try:
            upload = await waited(beginning)
            if first.data:
                await turns.run(upload.append, first.data)
            async for request in requests:
                await turns.run(upload.append, request.data)
            await turns.run(self._finish, upload, caller, namespace, digest)
        finally:
            # Also one whose caller left while it began; and before the answer, so that whoever
            # begins again at once finds it closed.
            await turns.run(_close, beginning)
        return publish_pb2.UploadBlobResponse(offset=length, complete=True)

    def _finish(self, upload: Upload, caller: Caller, namespace: Any, digest: Digest) -> None:
        upload.commit()
        now = self._server.clock.wall()
        ownership.own(self._server.database, caller, namespace, digest, upload.length, now)

    async def Submit(  # noqa: N802
        self, requests: AsyncIterator[publish_pb2.SubmitRequest], context: Context
    ) -> publish_pb2.SubmitResponse:
        """See the service."""
        caller = await self._server.caller(context)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise Refused(Reason.INVALID_ARGUMENT, "the submission does not begin with its header")
        header = first.header
        namespace = namespace_of(header.namespace)
        # Before its files are taken in.
        await self._server.run(submitting.check_caller, self._server.database, caller, namespace)
        collected = _Collected()
        async for request in requests:
            collected.take(request)
        committed = await self._server.run(
            submitting.submit,
            self._server.database,
            self._server.keys,
            caller,
            namespace,
            collected.submitted(header),
            now=self._server.signing_time(),
            step=self._server.step,
        )
        return publish_pb2.SubmitResponse(
            snapshot_version=committed.snapshot_version, committed_at=committed.committed_at
        )

    async def SetHold(  # noqa: N802
        self, request: publish_pb2.SetHoldRequest, context: Context
    ) -> publish_pb2.SetHoldResponse:
        """See the service."""
        caller = await self._server.caller(context)
        if request.state not in _STATES:
            raise Refused(Reason.INVALID_ARGUMENT, "the hold's state is not said")
        version = await self._server.run(
            holding.set_hold,
            self._server.database,
            self._server.keys,
            caller,
            namespace_of(request.namespace),
            ArtifactName(request.artifact),
            ChannelName(request.channel),
            rollout_id=request.rollout_id,
            state=_STATES[request.state],
            reason=request.reason,
            validate_only=request.validate_only,
            now=self._server.signing_time(),
        )
        return publish_pb2.SetHoldResponse(hold_version=version)


def _close(beginning: Future[Upload]) -> None:
    if beginning.exception() is None:
        beginning.result().close()


@dataclass(slots=True)
class _Collected:
    """A submission as it comes in, within its limits."""

    files: dict[str, bytearray] = field(default_factory=dict)
    size: int = 0

    def take(self, request: publish_pb2.SubmitRequest) -> None:
        """Takes the next message."""
        if request.WhichOneof("part") != "file":
            raise Refused(Reason.INVALID_ARGUMENT, "the submission has two headers")
        self.size += len(request.file.data)
        self.files.setdefault(request.file.path, bytearray()).extend(request.file.data)
        if self.size > MAX_SET_BYTES or len(self.files) > MAX_SET_FILES:
            raise Refused(
                Reason.INVALID_ARGUMENT,
                f"a submission has at most {MAX_SET_FILES} files and {MAX_SET_BYTES:,} bytes",
            )

    def submitted(self, header: publish_pb2.SubmitHeader) -> SubmittedSet:
        """The whole set."""
        roles: dict[str, bytes] = {}
        documents: dict[str, bytes] = {}
        for path, data in self.files.items():
            folder, _, name = path.partition("/")
            if folder == "metadata" and name.endswith(".json"):
                roles[name.removesuffix(".json")] = bytes(data)
            elif folder == "targets":
                documents[name] = bytes(data)
            else:
                raise Refused(Reason.INVALID_ARGUMENT, f"a submission has no {path[:200]!r}")
        return SubmittedSet(header.request_id, dict(header.base), roles, documents)
