"""Small real servers of content, which can be told to misbehave: gRPC and ranged HTTP."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from sealift.host import rpc
from sealift.host.rpc import ServerAddress
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason
from sealift.v1 import repository_pb2, repository_pb2_grpc

TOKEN = "sl_device_secret"
FRAME_BYTES = 16 * 1024


@dataclass
class Reads:
    """What was read, range by range."""

    ranges: list[tuple[Digest, int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, digest: Digest, offset: int, length: int) -> None:
        """Notes that bytes of a range were sent."""
        with self.lock:
            self.ranges.append((digest, offset, length))

    def bytes_of(self, *digests: Digest) -> int:
        """Bytes sent of these blobs; of all if none is named."""
        with self.lock:
            return sum(n for digest, _, n in self.ranges if not digests or digest in digests)


Spoil = Callable[[Digest, int, bytes], bytes]
"""Gets a blob, an offset and the bytes from there, and gives those that are sent instead."""


def honest(digest: Digest, offset: int, data: bytes) -> bytes:
    """Sends what was asked for."""
    return data


def flips(at: int, times: int = 1_000_000) -> Spoil:
    """Flips a bit of the byte at an offset of every blob, the first times that it is sent."""
    left = [times]

    def spoil(digest: Digest, offset: int, data: bytes) -> bytes:
        if offset <= at < offset + len(data) and left[0] > 0:
            left[0] -= 1
            changed = bytearray(data)
            changed[at - offset] ^= 1
            return bytes(changed)
        return data

    return spoil


class GrpcContent(repository_pb2_grpc.RepositoryServiceServicer):
    """`RepositoryService` over blobs in memory."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.urls: Callable[[Digest], str] = lambda digest: ""
        self.spoil: Spoil = honest
        self.refuse: Reason | None = None
        self.reads = Reads()
        self.located: list[Digest] = []
        self.address = ServerAddress("", tls=False)

    def _check(self, context: grpc.ServicerContext) -> None:
        tokens = dict(context.invocation_metadata())
        if tokens.get("authorization") != f"Bearer {TOKEN}":
            self._abort(context, Reason.UNAUTHENTICATED, "no token")
        if self.refuse is not None:
            self._abort(context, self.refuse, "refused by the test")

    def _abort(self, context: grpc.ServicerContext, reason: Reason, text: str) -> None:
        status = rpc_status.to_status(rpc.status_of(reason, text))  # type: ignore[no-untyped-call]
        context.abort_with_status(status)

    def Poll(self, request: object, context: object) -> NoReturn:
        raise NotImplementedError

    def ReadMetadata(self, request: object, context: object) -> NoReturn:
        raise NotImplementedError

    def LocateBlobs(
        self, request: repository_pb2.LocateBlobsRequest, context: grpc.ServicerContext
    ) -> repository_pb2.LocateBlobsResponse:
        self._check(context)
        answer = repository_pb2.LocateBlobsResponse()
        for raw in request.sha256:
            digest = Digest.from_bytes(raw)
            self.located.append(digest)
            if digest in self.blobs:
                answer.locations.add(
                    sha256=raw, length=len(self.blobs[digest]), url=self.urls(digest)
                )
        return answer

    def ReadBlob(
        self, request: repository_pb2.ReadBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[repository_pb2.ReadBlobResponse]:
        self._check(context)
        digest = Digest.from_bytes(request.sha256)
        if digest not in self.blobs:
            self._abort(context, Reason.CONTENT_MISSING, "no such blob")
        end = request.offset + request.length
        for start in range(request.offset, end, FRAME_BYTES):
            data = self.blobs[digest][start : min(start + FRAME_BYTES, end)]
            self.reads.add(digest, start, len(data))
            yield repository_pb2.ReadBlobResponse(data=self.spoil(digest, start, data))


@contextmanager
def grpc_content() -> Iterator[GrpcContent]:
    """A running gRPC server."""
    servicer = GrpcContent()
    server = grpc.server(ThreadPoolExecutor(8))
    repository_pb2_grpc.add_RepositoryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    servicer.address = ServerAddress(f"127.0.0.1:{port}", tls=False)
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()


@dataclass
class HttpContent:
    """An object store over blobs in memory. What it answers can be changed for each request."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    spoil: Spoil = honest
    answer: Callable[[BaseHTTPRequestHandler, Digest, int, int], bool] | None = None
    """Answers in place of the server if it returns True."""
    reads: Reads = field(default_factory=Reads)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    port: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    scheme: str = "http"

    def url(self, digest: Digest) -> str:
        """The address of a blob."""
        return f"{self.scheme}://127.0.0.1:{self.port}/{digest}?signature=x"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    content: HttpContent

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        content = self.content
        content.headers.append(dict(self.headers))
        content.paths.append(self.path)
        digest = Digest(self.path[1:65])
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        start, end = int(found[1]), int(found[2]) + 1
        if content.answer is not None and content.answer(self, digest, start, end):
            return
        if digest not in content.blobs:
            self.send_error(404)
            return
        self.send_range(digest, start, end)

    def send_range(self, digest: Digest, start: int, end: int) -> None:
        """The right answer."""
        blob = self.content.blobs[digest]
        data = blob[start:end]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(blob)}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.content.reads.add(digest, start, len(data))
        self.wfile.write(self.content.spoil(digest, start, data))


@contextmanager
def http_content(tls: ssl.SSLContext | None = None) -> Iterator[HttpContent]:
    """A running HTTP server, or HTTPS with the certificate of `tls`."""
    content = HttpContent(scheme="https" if tls else "http")
    handler = type("Handler", (_Handler,), {"content": content})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    content.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield content
    finally:
        content.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
