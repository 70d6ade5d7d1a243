"""Content in and out over gRPC: what is broken off goes on, and nothing is left open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import grpc
import pytest

from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import FRAME_BYTES, call_metadata
from sealift.protocol.names import Digest, Namespace
from sealift.server.content.store import BlobStore, Publication
from sealift.v1 import (
    publish_pb2,
    publish_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
)
from support.blobs import Blob
from support.servers import ACME, Running

CALL_S = 60.0
MIB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def acme(served: Running) -> None:
    served.parts.released()


@pytest.fixture
def publish(channel: grpc.Channel) -> publish_pb2_grpc.PublishServiceStub:
    return publish_pb2_grpc.PublishServiceStub(channel)


@pytest.fixture
def repository(channel: grpc.Channel) -> repository_pb2_grpc.RepositoryServiceStub:
    return repository_pb2_grpc.RepositoryServiceStub(channel)


@pytest.fixture
def metadata(served: Running) -> tuple[tuple[str, str], ...]:
    return call_metadata(served.parts.tokens[ACME])


def _frames(
    blob: Blob, offset: int = 0, end: int | None = None, namespace: str = ACME
) -> Iterator[publish_pb2.UploadBlobRequest]:
    yield publish_pb2.UploadBlobRequest(
        namespace=namespace,
        blob=publish_pb2.BlobDescription(sha256=blob.digest.raw, length=len(blob.data)),
        offset=offset,
    )
    end = len(blob.data) if end is None else end
    for start in range(offset, end, FRAME_BYTES):
        data = blob.data[start : min(end, start + FRAME_BYTES)]
        yield publish_pb2.UploadBlobRequest(data=data)


def _missing(publish: Any, metadata: Any, *blobs: Blob, namespace: str = ACME) -> dict[Digest, int]:
    request = publish_pb2.FindMissingBlobsRequest(
        namespace=namespace,
        blobs=[
            publish_pb2.BlobDescription(sha256=blob.digest.raw, length=len(blob.data))
            for blob in blobs
        ],
    )
    answer = publish.FindMissingBlobs(request, timeout=CALL_S, metadata=metadata)
    return {Digest.from_bytes(one.sha256): one.offset for one in answer.missing}


def _read(
    repository: Any, metadata: Any, digest: Digest, offset: int = 0, length: int = 0
) -> bytes:
    request = repository_pb2.ReadBlobRequest(
        namespace=ACME, sha256=digest.raw, offset=offset, length=length
    )
    frames = repository.ReadBlob(request, timeout=CALL_S, metadata=metadata)
    return b"".join(frame.data for frame in frames)


def _code(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    assert isinstance(failed.value, grpc.Call)
    return failed.value.code()


class Slow(BlobStore):
    """A store that reads on only when a test lets it, and says what became of its readers."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self.committing = threading.Event()
        self.arrived = threading.Event()
        self.awaited = 0
        self._kept: list[object] = []

    def read(
        self, digest: Digest, offset: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """In the middle of the second frame it waits. Nobody but its reader closes it."""
        frames = self._read(digest, offset, length)
        self._kept.append(frames)
        return frames

    def _read(
        self, digest: Digest, offset: int, length: int | None
    ) -> Generator[bytes, None, None]:
        try:
            for number, frame in enumerate(self._store.read(digest, offset, length)):
                if number == 1:
                    self.reading.set()
                    assert self.go_on.wait(CALL_S)
                yield frame
        finally:
            self.closed.set()

    def publish(self, digest: Digest, path: Any, length: int) -> Publication:
        """Before it commits it waits; it says when what is awaited has arrived."""
        publication = self._store.publish(digest, path, length)
        commit, advance = publication.commit, publication.advance

        def advancing(available: int) -> None:
            advance(available)
            if available == self.awaited:
                self.arrived.set()

        def slowly() -> None:
            self.committing.set()
            assert self.go_on.wait(CALL_S)
            commit()

        publication.commit = slowly  # type: ignore[method-assign]
        publication.advance = advancing  # type: ignore[method-assign]
        return publication

    def stat(self, digest: Digest) -> int | None:
        """As the store."""
        return self._store.stat(digest)

    def delete(self, digest: Digest) -> None:
        """As the store."""
        self._store.delete(digest)

    def presign(self, digest: Digest, ttl_s: int) -> str | None:
        """As the store."""
        return self._store.presign(digest, ttl_s)

    def check(self) -> None:
        """As the store."""

    def close(self) -> None:
        """As the store."""


@pytest.fixture
def slow(served: Running) -> Iterator[Slow]:
    uploads = served.parts.server.uploads
    store, slow = uploads.store, Slow(uploads.store)
    uploads.store = slow
    try:
        yield slow
    finally:
        slow.go_on.set()
        uploads.store = store


def _settled(served: Running) -> None:
    """Every thread is done with what was begun before."""
    workers = served.parts.settings.workers
    barrier = threading.Barrier(workers)
    for future in [served.parts.server.begin(barrier.wait) for _ in range(workers)]:
        future.result(CALL_S)


# --- upload -----------------------------------------------------------------------------------


def test_what_was_uploaded_is_read_back(publish: Any, repository: Any, metadata: Any) -> None:
    blob = Blob.make(3 * FRAME_BYTES + 5, 1)
    assert _missing(publish, metadata, blob) == {blob.digest: 0}
    done = publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata)
    assert (done.offset, done.complete) == (len(blob.data), True)
    assert _missing(publish, metadata, blob) == {}
    assert _read(repository, metadata, blob.digest) == blob.data


def test_an_upload_that_ends_early_goes_on_where_it_ended(publish: Any, metadata: Any) -> None:
    blob = Blob.make(3 * FRAME_BYTES, 2)
    half = FRAME_BYTES + 100
    early = _code(lambda: publish.UploadBlob(_frames(blob, 0, half), metadata=metadata))
    assert early is grpc.StatusCode.ABORTED
    assert _missing(publish, metadata, blob) == {blob.digest: half}
    wrong = _code(lambda: publish.UploadBlob(_frames(blob, 0), metadata=metadata))
    assert wrong is grpc.StatusCode.ABORTED
    assert publish.UploadBlob(_frames(blob, half), metadata=metadata).complete
    assert _missing(publish, metadata, blob) == {}


def test_a_cut_upload_goes_on_where_it_was_cut(slow: Slow, publish: Any, metadata: Any) -> None:
    blob = Blob.make(4 * FRAME_BYTES, 3)
    slow.go_on.set()
    slow.awaited = 2 * FRAME_BYTES
    cut = threading.Event()

    def requests() -> Iterator[publish_pb2.UploadBlobRequest]:
        yield from _frames(blob, 0, 2 * FRAME_BYTES)
        cut.wait(CALL_S)

    call = publish.UploadBlob.future(requests(), timeout=CALL_S, metadata=metadata)
    assert slow.arrived.wait(CALL_S)
    call.cancel()
    cut.set()
    assert _missing(publish, metadata, blob) == {blob.digest: 2 * FRAME_BYTES}
    assert _upload(publish, metadata, blob, 2 * FRAME_BYTES).complete


def _upload(publish: Any, metadata: Any, blob: Blob, offset: int) -> Any:
    """Uploads once the server has noticed that the upload before was cut."""
    while True:
        try:
            return publish.UploadBlob(_frames(blob, offset), timeout=CALL_S, metadata=metadata)
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or error.code() != grpc.StatusCode.UNAVAILABLE:
                raise


def test_a_client_that_leaves_while_its_blob_is_stored_leaves_it_stored_and_owned(
    served: Running, slow: Slow, publish: Any, metadata: Any
) -> None:
    blob = Blob.make(FRAME_BYTES, 4)
    call = publish.UploadBlob.future(_frames(blob), timeout=CALL_S, metadata=metadata)
    assert slow.committing.wait(CALL_S)
    call.cancel()
    slow.go_on.set()
    _settled(served)
    assert _missing(publish, metadata, blob) == {}
    assert not served.parts.server.uploads.path(ACME, blob.digest).exists()


def test_a_blob_that_was_stored_and_never_owned_is_uploaded_again(
    served: Running, publish: Any, repository: Any, metadata: Any
) -> None:
    """As after a power cut between the two."""
    blob = Blob.make(1_000, 5)
    with served.parts.server.uploads.begin(ACME, blob.digest, len(blob.data), 0) as upload:
        upload.append(blob.data)
        upload.commit()
    assert _missing(publish, metadata, blob) == {blob.digest: 0}
    assert publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata).complete
    assert _missing(publish, metadata, blob) == {}
    assert _read(repository, metadata, blob.digest) == blob.data


def test_a_blob_that_the_store_lost_is_missing_again(
    served: Running, publish: Any, repository: Any, metadata: Any
) -> None:
    blob = Blob.make(1_000, 6)
    publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata)
    served.parts.server.uploads.store.delete(blob.digest)
    lost = _code(lambda: _read(repository, metadata, blob.digest))
    assert lost is grpc.StatusCode.NOT_FOUND
    assert _missing(publish, metadata, blob) == {blob.digest: 0}
    publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata)
    assert _read(repository, metadata, blob.digest) == blob.data


def test_other_bytes_than_announced_are_refused_and_leave_nothing(
    served: Running, publish: Any, metadata: Any
) -> None:
    blob = Blob(b"other", Blob.make(5, 7).digest)
    code = _code(lambda: publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert _missing(publish, metadata, blob) == {blob.digest: 0}
    assert served.parts.server.uploads.store.stat(blob.digest) is None


def test_data_in_the_first_message_counts(publish: Any, metadata: Any) -> None:
    blob = Blob.make(100, 8)
    (first, second) = _frames(blob)
    first.data = second.data
    assert publish.UploadBlob(iter([first]), timeout=CALL_S, metadata=metadata).complete


def test_an_empty_blob_is_uploaded_and_read(publish: Any, repository: Any, metadata: Any) -> None:
    blob = Blob.make(0)
    assert publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata).complete
    assert _read(repository, metadata, blob.digest) == b""


def test_who_may_not_push_uploads_nothing(served: Running, publish: Any, metadata: Any) -> None:
    blob = Blob.make(1_000, 9)
    device = call_metadata(served.parts.token("device", ACME))
    assert (
        _code(lambda: publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=device))
        is grpc.StatusCode.PERMISSION_DENIED
    )
    assert not served.parts.server.uploads.path(ACME, blob.digest).exists()


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 0), (0, 1), (1, 2), (FRAME_BYTES - 1, 2), (5, FRAME_BYTES * 2), (2 * FRAME_BYTES + 9, 1)],
)
def test_a_range_is_exactly_that(
    publish: Any, repository: Any, metadata: Any, offset: int, length: int
) -> None:
    blob = Blob.make(2 * FRAME_BYTES + 10, 10)
    if _missing(publish, metadata, blob):
        publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata)
    end = offset + length if length else len(blob.data)
    assert _read(repository, metadata, blob.digest, offset, length) == blob.data[offset:end]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 8), (8, 0), (2**62, 2**62)])
def test_a_range_beyond_the_blob_is_refused(
    served: Running, repository: Any, metadata: Any, offset: int, length: int
) -> None:
    digest = served.parts.upload(ACME, b"weights")
    code = _code(lambda: _read(repository, metadata, digest, offset, length))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("role", ["invite", "viewer", "admin"])
def test_content_is_not_for_everyone(served: Running, repository: Any, role: Any) -> None:
    digest = served.parts.upload(ACME, b"weights")
    token = served.parts.token(role, None if role == "admin" else ACME)
    code = _code(lambda: _read(repository, call_metadata(token), digest))
    assert code is grpc.StatusCode.PERMISSION_DENIED


def test_another_namespaces_blob_is_not_there(
    served: Running, publish: Any, repository: Any, metadata: Any
) -> None:
    """Even though the store has it."""
    other = Namespace("other")
    served.parts.create(other)
    blob = Blob.make(50, 11)
    served.parts.upload(other, blob.data)
    assert _code(lambda: _read(repository, metadata, blob.digest)) is grpc.StatusCode.NOT_FOUND
    request = repository_pb2.LocateBlobsRequest(namespace=ACME, sha256=[blob.digest.raw])
    located = repository.LocateBlobs(request, timeout=CALL_S, metadata=metadata)
    assert list(located.locations) == []
    assert _missing(publish, metadata, blob) == {blob.digest: 0}


def test_a_reader_that_leaves_in_the_middle_of_a_frame_leaves_nothing_open(
    served: Running, slow: Slow, repository: Any, metadata: Any
) -> None:
    blob = Blob.make(8 * FRAME_BYTES, 12)
    slow.go_on.set()
    served.parts.upload(ACME, blob.data)
    slow.go_on.clear()
    request = repository_pb2.ReadBlobRequest(namespace=ACME, sha256=blob.digest.raw)
    call = repository.ReadBlob(request, timeout=CALL_S, metadata=metadata)
    assert next(iter(call)).data
    assert slow.reading.wait(CALL_S)
    call.cancel()
    slow.go_on.set()
    assert slow.closed.wait(CALL_S)


def test_three_hundred_megabytes_go_both_ways(publish: Any, repository: Any, metadata: Any) -> None:
    piece = Blob.make(MIB, 13).data
    data = piece * 300
    blob = Blob(data, sha256_bytes(data))
    done = publish.UploadBlob(_frames(blob), timeout=CALL_S, metadata=metadata)
    assert done.complete
    request = repository_pb2.ReadBlobRequest(namespace=ACME, sha256=blob.digest.raw)
    length = 0
    for frame in repository.ReadBlob(request, timeout=CALL_S, metadata=metadata):
        length += len(frame.data)
    assert length == len(blob.data)
