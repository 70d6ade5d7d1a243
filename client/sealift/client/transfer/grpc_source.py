"""Content from the device's own server, by gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from sealift.client.transfer.errors import (
    BlobNotThere,
    SourceFailed,
    SourceTooSlow,
    SourceUnreachable,
    WrongAnswer,
)
from sealift.client.transfer.source import BlobRange, Patience
from sealift.host import rpc
from sealift.host.rpc import ServerRefused
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.v1 import repository_pb2, repository_pb2_grpc

NAME = "the server"
LOCATE_BATCH = 1_000
"""Blobs located in one call."""

_MAY_RETRY = {
    Reason.UNREACHABLE,
    Reason.UNAVAILABLE,
    Reason.DEADLINE,
    Reason.RESOURCE_EXHAUSTED,
    Reason.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where a blob can be read besides.

    Attributes:
        url: An address that answers ranged GETs by itself; empty if there is none.
        expires_at: Unix seconds after which the address is void, by the server's clock; 0 if never.
    """

    url: str
    expires_at: int


class ServerContent:
    """A namespace's blobs on its server.

    Args:
        channel: An open channel to the server; its owner closes it.
        namespace: Whose blobs.
        token: The device's credential; None reads public namespaces.
        patience: How long to wait.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        namespace: Namespace,
        token: str | None,
        patience: Patience | None = None,
    ) -> None:
        self._stub = repository_pb2_grpc.RepositoryServiceStub(channel)
        self._namespace = namespace
        self._token = token
        self._patience = patience or Patience()

    @property
    def name(self) -> str:
        """For people."""
        return NAME

    def prepare(self, digests: Sequence[Digest]) -> None:
        """Nothing to do: the server finds each blob when it is asked."""

    def locate(self, digests: Sequence[Digest]) -> dict[Digest, Location]:
        """Asks where blobs are; those that the namespace does not own are left out.

        Raises:
            ServerRefused: If the server says no.
            SourceFailed: If it cannot be asked.
        """
        found: dict[Digest, Location] = {}
        for start in range(0, len(digests), LOCATE_BATCH):
            batch = digests[start : start + LOCATE_BATCH]
            request = repository_pb2.LocateBlobsRequest(
                namespace=self._namespace, sha256=[digest.raw for digest in batch]
            )
            try:
                answer = rpc.within(self._stub.LocateBlobs, request, token=self._token)
            except ServerRefused as error:
                raise _failure(error) from error
            for one in answer.locations:
                if len(one.sha256) == 32:
                    location = Location(one.url, one.expires_at)
                    found[Digest.from_bytes(one.sha256)] = location
        return found

    def open(self, wanted: BlobRange) -> ServerStream:
        """See `ContentSource.open`."""
        request = repository_pb2.ReadBlobRequest(
            namespace=self._namespace,
            sha256=wanted.digest.raw,
            offset=wanted.offset,
            length=wanted.length,
        )
        call = self._stub.ReadBlob(
            request,
            timeout=self._patience.allowed_s(wanted.length),
            metadata=rpc.call_metadata(self._token),
        )
        return ServerStream(call, wanted)


class _Call(Protocol):
    """What is used of a streaming call."""

    def __next__(self) -> repository_pb2.ReadBlobResponse: ...
    def cancel(self) -> object: ...


class ServerStream:
    """One `ReadBlob` call."""

    def __init__(self, call: _Call, wanted: BlobRange) -> None:
        self._call = call
        self._left = wanted.length
        self._frame = memoryview(b"")

    def read_into(self, view: memoryview) -> None:
        """See `ByteStream.read_into`."""
        filled = 0
        while filled < len(view):
            if not self._frame:
                self._frame = self._next()
            count = min(len(self._frame), len(view) - filled)
            view[filled : filled + count] = self._frame[:count]
            self._frame = self._frame[count:]
            filled += count

    def _next(self) -> memoryview:
        try:
            data = next(self._call).data
        except StopIteration:
            message = f"it ended {self._left:,} bytes before the end of a range"
            raise SourceUnreachable(NAME, message) from None
        except grpc.RpcError as error:
            raise _failure(rpc.refusal_of(error)) from error
        self._left -= len(data)
        if self._left < 0:
            raise WrongAnswer(NAME, "it sent more than the range that it was asked for")
        return memoryview(data)

    def close(self) -> None:
        """See `ByteStream.close`."""
        self._call.cancel()

    def abort(self) -> None:
        """See `ByteStream.abort`."""
        self._call.cancel()


def _failure(error: ServerRefused) -> SourceFailed | ServerRefused:
    """What the server's refusal means for the transfer; one that a person must read stays."""
    if error.reason in {Reason.NOT_FOUND, Reason.CONTENT_MISSING}:
        return BlobNotThere(NAME, error.message)
    if error.reason is Reason.DEADLINE:
        return SourceTooSlow(NAME, "it did not send a range in time")
    if error.reason in _MAY_RETRY:
        return SourceUnreachable(NAME, error.message)
    if error.reason is Reason.CONTENT_MISMATCH:
        return WrongAnswer(NAME, error.message)
    return error
