"""Bytes for the stock TUF client, from one poll or one read at a time, each with hard limits.

Nothing that comes from here is trusted. The limits are our own and absolute: the stock client
waives its limits where a signed parent declares a length (rule T6).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import grpc
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from sealift.host import rpc
from sealift.host.rpc import ServerRefused
from sealift.protocol import layout
from sealift.protocol.errors import InvalidName
from sealift.protocol.names import Namespace
from sealift.protocol.parsing import MAX_DOCUMENT_BYTES
from sealift.protocol.reasons import Reason
from sealift.v1 import repository_pb2, repository_pb2_grpc

BASE_URL = "sealift://repository/"
MAX_POLL_BYTES = 64 * 1024 * 1024
"""The most that one poll may bring for all namespaces."""
PIECE_BYTES = 1_024
"""What a piece of an answer counts for besides its bytes: names without content have an end too."""
POLL_S = 60.0
FILE_S = 60.0
"""Overall time for one file, however slowly it drips."""
READS_S = 600.0
"""Overall time for all the files that a poll did not bring."""
MAX_READ_BYTES = 64 * 1024 * 1024
"""The most that all of them may have together."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a home holds of a namespace, to be told in a poll."""

    namespace: Namespace
    versions: Mapping[str, int] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    all_artifacts: bool = False
    documents: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll brought of one namespace: files by path, or why there are none."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    refused: ServerRefused | None = None


class RepositorySource:
    """Reads signed files of one server.

    Args:
        channel: The open channel.
        token: The credential; None reads public namespaces only.
    """

    def __init__(self, channel: grpc.Channel, token: str | None) -> None:
        self._stub = repository_pb2_grpc.RepositoryServiceStub(channel)
        self._metadata = rpc.call_metadata(token)

    def poll(self, held: list[Held]) -> dict[Namespace, Polled]:
        """Asks for all that is new, for all namespaces in one call.

        Raises:
            ServerRefused: If the server cannot be reached, or refuses the call as a whole.
        """
        request = repository_pb2.PollRequest(
            namespaces=[
                repository_pb2.NamespaceState(
                    namespace=one.namespace,
                    versions=dict(one.versions),
                    artifacts=one.artifacts,
                    all_artifacts=one.all_artifacts,
                    documents=one.documents,
                )
                for one in held
            ]
        )
        files: dict[str, dict[str, bytearray]] = {one.namespace: {} for one in held}
        refused: dict[str, ServerRefused] = {}
        total = 0
        with rpc.calling():
            for piece in self._stub.Poll(request, timeout=POLL_S, metadata=self._metadata):
                total += piece.ByteSize() + PIECE_BYTES
                if total > MAX_POLL_BYTES:
                    raise ServerRefused(Reason.TOO_LARGE, "the server's answer has no end")
                if piece.namespace not in files:
                    continue
                if piece.refused:
                    refused[piece.namespace] = _refused(piece)
                    continue
                files[piece.namespace].setdefault(piece.path, bytearray()).extend(piece.data)
        return {
            one.namespace: Polled(
                {path: bytes(data) for path, data in files[one.namespace].items()},
                refused.get(one.namespace),
            )
            for one in held
        }

    def read(self, namespace: Namespace, path: str, limit_bytes: int) -> bytes:
        """Reads one file, at most `limit_bytes` of it.

        Raises:
            ServerRefused: If it is not there (`not_found`), longer than that (`too_large`), too
                slow (`too_slow`), or the server cannot be reached.
        """
        request = repository_pb2.ReadMetadataRequest(namespace=namespace, path=path)
        data = bytearray()
        deadline = time.monotonic() + FILE_S
        with rpc.calling():
            call = self._stub.ReadMetadata(request, timeout=FILE_S, metadata=self._metadata)
            for piece in call:
                data.extend(piece.data)
                if len(data) > limit_bytes:
                    call.cancel()
                    raise ServerRefused(Reason.TOO_LARGE, f"{path} is over {limit_bytes} bytes")
                if time.monotonic() > deadline:
                    call.cancel()
                    raise ServerRefused(Reason.TOO_SLOW, f"{path} took over {FILE_S:.0f} s")
        return bytes(data)


def _refused(piece: repository_pb2.PollResponse) -> ServerRefused:
    known = piece.refused in list(Reason)
    reason = Reason(piece.refused) if known else Reason.INTERNAL
    return ServerRefused(reason, piece.detail or reason.text)


class RepositoryFetcher(FetcherInterface):
    """Answers the stock client from what a poll brought, else by reading.

    Args:
        namespace: Whose files they are.
        source: Where to read what the poll did not bring; None answers from the poll alone.
        polled: Files by path.
        newest_root: Version of the newest root that the poll brought or the home holds. A poll
            brings every newer root there is, so the one after it is known to be missing.
    """

    def __init__(
        self,
        namespace: Namespace,
        source: RepositorySource | None,
        polled: Mapping[str, bytes],
        newest_root: int,
    ) -> None:
        self._namespace = namespace
        self._source = source
        self._polled = dict(polled)
        self._newest_root = newest_root
        self._deadline = time.monotonic() + READS_S
        self._left_bytes = MAX_READ_BYTES
        self.last_role = ""
        """The role whose file was asked for last, for errors; empty for a document."""

    @property
    def has_news(self) -> bool:
        """True if the poll brought anything."""
        return bool(self._polled)

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = unquote(url.removeprefix(BASE_URL))
        return iter([self.read(path)])

    def read(self, path: str, most: int = MAX_DOCUMENT_BYTES) -> bytes:
        """The file's bytes, within its role's limit and at most `most`.

        Raises:
            DownloadHTTPError: 404 if there is no such file.
            DownloadError: If it cannot be had otherwise.
        """
        limit = min(_limit(path), most)
        self.last_role = _role(path)
        data = self._polled.get(path)
        if data is None:
            if path == f"metadata/{self._newest_root + 1}.root.json" or self._source is None:
                raise DownloadHTTPError(f"{path} is not there", 404)
            data = self._read(self._source, path, limit)
        if len(data) > limit:
            raise DownloadLengthMismatchError(f"{path} is over {limit} bytes")
        return data

    def _read(self, source: RepositorySource, path: str, limit: int) -> bytes:
        if time.monotonic() > self._deadline:
            raise SlowRetrievalError(path)
        try:
            data = source.read(self._namespace, path, min(limit, self._left_bytes))
        except ServerRefused as error:
            if error.reason in {Reason.NOT_FOUND, Reason.CONTENT_MISSING}:
                raise DownloadHTTPError(f"{path} is not there", 404) from error
            if error.reason is Reason.TOO_LARGE:
                raise DownloadLengthMismatchError(error.message) from error
            if error.reason in {Reason.TOO_SLOW, Reason.DEADLINE}:
                raise SlowRetrievalError(path) from error
            raise DownloadError(error.message) from error
        self._left_bytes -= len(data)
        return data


def _limit(path: str) -> int:
    folder, slash, name = path.partition("/")
    if folder == "metadata" and slash:
        try:
            return layout.length_limit(layout.parse_metadata_file_name(name)[0])
        except InvalidName as error:
            raise DownloadHTTPError(f"{path} is not there", 404) from error
    return MAX_DOCUMENT_BYTES


def _role(path: str) -> str:
    folder, _, name = path.partition("/")
    return layout.parse_metadata_file_name(name)[0] if folder == "metadata" else ""


def fetcher_of(
    source: RepositorySource | None,
    namespace: Namespace,
    files: Mapping[str, bytes],
    held: Mapping[str, int],
) -> RepositoryFetcher:
    """A fetcher over what a poll brought."""
    newest = held[layout.ROOT]
    for path in files:
        folder, _, name = path.partition("/")
        with contextlib.suppress(InvalidName):  # whatever else a server calls a file
            role, version = layout.parse_metadata_file_name(name)
            if folder == "metadata" and role == layout.ROOT:
                newest = max(newest, version or 0)
    return RepositoryFetcher(namespace, source, files, newest)
