"""RepositoryService: reading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from sealift.host.rpc import pieces
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason
from sealift.server.api.edge import Server, namespace_of, waited
from sealift.server.content import ownership
from sealift.server.errors import Refused
from sealift.server.namespaces import reading
from sealift.server.namespaces.reading import HeldState, PolledFile
from sealift.v1 import repository_pb2, repository_pb2_grpc

MAX_NAMESPACES = 100
MAX_LOCATED = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


class RepositoryServicer(repository_pb2_grpc.RepositoryServiceServicer):
    """Reads for whoever may."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def Poll(  # noqa: N802
        self, request: repository_pb2.PollRequest, context: Context
    ) -> AsyncIterator[repository_pb2.PollResponse]:
        """See the service."""
        caller = await self._server.caller(context)
        if len(request.namespaces) > MAX_NAMESPACES:
            raise Refused(Reason.INVALID_ARGUMENT, f"over {MAX_NAMESPACES} namespaces in one poll")
        held = [
            HeldState(
                one.namespace,
                dict(one.versions),
                frozenset(one.artifacts),
                one.all_artifacts,
                frozenset(one.documents),
            )
            for one in request.namespaces
        ]
        if len({one.namespace for one in held}) < len(held):
            raise Refused(Reason.INVALID_ARGUMENT, "a poll names each namespace once")
        # One after another, so that no more than one namespace's files are in memory.
        files = reading.poll(self._server.database, caller, held)
        while (file := await self._server.run(next, files, None)) is not None:
            for answer in _answers(file):
                yield answer

    async def ReadMetadata(  # noqa: N802
        self, request: repository_pb2.ReadMetadataRequest, context: Context
    ) -> AsyncIterator[repository_pb2.ReadMetadataResponse]:
        """See the service."""
        caller = await self._server.caller(context)
        data = await self._server.run(
            reading.read_file,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            request.path,
        )
        for piece, _ in pieces(data):
            yield repository_pb2.ReadMetadataResponse(data=piece)

    async def LocateBlobs(  # noqa: N802
        self, request: repository_pb2.LocateBlobsRequest, context: Context
    ) -> repository_pb2.LocateBlobsResponse:
        """See the service."""
        caller = await self._server.caller(context)
        if len(request.sha256) > MAX_LOCATED:
            raise Refused(Reason.INVALID_ARGUMENT, f"over {MAX_LOCATED} blobs in one call")
        located = await self._server.turns().run(
            ownership.locate,
            self._server.database,
            self._server.uploads.store,
            caller,
            namespace_of(request.namespace),
            [Digest.from_bytes(one) for one in request.sha256],
            self._server.clock.wall(),
        )
        return repository_pb2.LocateBlobsResponse(
            locations=[
                repository_pb2.BlobLocation(
                    sha256=one.digest.raw,
                    length=one.length,
                    url=one.url,
                    expires_at=one.expires_at,
                )
                for one in located
            ]
        )

    async def ReadBlob(  # noqa: N802
        self, request: repository_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[repository_pb2.ReadBlobResponse]:
        """See the service. The next frame is read while this one is sent."""
        server = self._server
        caller = await server.caller(context)
        digest = Digest.from_bytes(request.sha256)
        namespace = namespace_of(request.namespace)
        length = await server.run(ownership.length_of, server.database, caller, namespace, digest)
        wanted = request.length or length - request.offset
        if request.offset < 0 or wanted < 0 or request.offset + wanted > length:
            raise Refused(
                Reason.INVALID_ARGUMENT,
                f"bytes {request.offset} to {request.offset + wanted} of {length} were asked for",
            )
        if wanted == 0:
            return
        frames = server.uploads.store.read(digest, request.offset, wanted)
        turns = server.turns()
        coming = turns.begin(next, frames, None)
        try:
            while (frame := await waited(coming)) is not None:
                coming = turns.begin(next, frames, None)
                yield repository_pb2.ReadBlobResponse(data=frame)
        finally:
            turns.begin(frames.close)


def _answers(file: PolledFile) -> list[repository_pb2.PollResponse]:
    if file.refused is not None:
        return [
            repository_pb2.PollResponse(
                namespace=file.namespace,
                refused=file.refused.reason.value,
                detail=file.refused.message,
                last=True,
            )
        ]
    return [
        repository_pb2.PollResponse(namespace=file.namespace, path=file.path, data=piece, last=last)
        for piece, last in pieces(file.data)
    ]
