"""What callers who are slow, gone, greedy or many can do to the others: nothing."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import event

from sealift.host.rpc import ServerRefused, call_metadata, calling
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason
from sealift.server import app
from sealift.server.content.uploads import Upload
from sealift.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    publish_pb2,
    publish_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
)
from support.publishers import FIRST
from support.servers import ACME, Parts, Running, running

WEIGHTS = hashlib.sha256(b"weights").digest()
OTHER = Digest(hashlib.sha256(b"other weights").hexdigest())


@pytest.fixture
def open_server(one_server: Parts) -> Iterator[Running]:
    """A namespace with a release, both ports open."""
    one_server.released()
    with running(one_server) as run:
        yield run


@pytest.fixture
def channel(open_server: Running) -> Iterator[grpc.Channel]:
    """A channel to it."""
    with open_server.channel() as channel:
        yield channel


def _who(run: Running) -> tuple[tuple[str, str], ...]:
    return call_metadata(run.parts.tokens[ACME])


def _poll(run: Running, channel: grpc.Channel, times: int = 1) -> list[str]:
    state = repository_pb2.NamespaceState(namespace=ACME, all_artifacts=True)
    request = repository_pb2.PollRequest(namespaces=[state] * times)
    stub = repository_pb2_grpc.RepositoryServiceStub(channel)
    with calling():
        return [one.path for one in stub.Poll(request, timeout=20, metadata=_who(run))]


def _upload(
    run: Running, channel: grpc.Channel, data: bytes, offset: int = 0
) -> publish_pb2.UploadBlobResponse:
    blob = publish_pb2.BlobDescription(sha256=OTHER.raw, length=len(b"other weights"))
    first = publish_pb2.UploadBlobRequest(namespace=ACME, blob=blob, offset=offset)
    messages = [first, publish_pb2.UploadBlobRequest(data=data)]
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    with calling():
        return stub.UploadBlob(iter(messages), timeout=20, metadata=_who(run))


def _until(done: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_store_that_hangs_keeps_nobody_from_polling(
    open_server: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_server.parts
    read, waiting, go_on = (
        parts.server.uploads.store.read,
        threading.Semaphore(0),
        threading.Event(),
    )

    def hang(digest: Digest, offset: int, length: int) -> Generator[bytes, None, None]:
        waiting.release()
        go_on.wait(60)
        yield from read(digest, offset, length)

    monkeypatch.setattr(parts.server.uploads.store, "read", hang)
    request = repository_pb2.ReadBlobRequest(namespace=ACME, sha256=WEIGHTS)
    stub = repository_pb2_grpc.RepositoryServiceStub(channel)
    readers = [
        stub.ReadBlob(request, metadata=_who(open_server))
        for _ in range(parts.settings.workers + 4)
    ]
    try:
        for _ in range(parts.settings.workers):
            assert waiting.acquire(timeout=20)
        assert "metadata/timestamp.json" in _poll(open_server, channel)
    finally:
        go_on.set()
    assert {b"".join(frame.data for frame in reader) for reader in readers} == {b"weights"}


def test_an_upload_that_is_given_up_while_it_begins_keeps_no_other_from_beginning(
    open_server: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = open_server.parts.server.uploads
    begin, begun, go_on = uploads._begin, threading.Event(), threading.Event()

    def slowly(*arguments: object) -> object:
        begun.set()
        go_on.wait(60)
        return begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(uploads, "_begin", slowly)
    blob = publish_pb2.BlobDescription(sha256=OTHER.raw, length=13)
    first = publish_pb2.UploadBlobRequest(namespace=ACME, blob=blob)
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    given_up = stub.UploadBlob.future(iter([first]), metadata=_who(open_server))
    assert begun.wait(20)
    given_up.cancel()
    go_on.set()
    _until(lambda: not uploads._running)
    assert _upload(open_server, channel, b"other weights").complete


def test_after_a_refused_upload_the_next_begins_at_once(
    open_server: Running, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Upload.close

    def on_a_slow_disk(upload: Upload) -> None:
        time.sleep(0.3)
        close(upload)

    monkeypatch.setattr(Upload, "close", on_a_slow_disk)
    with pytest.raises(ServerRefused) as refused:
        _upload(open_server, channel, b"other")
    assert refused.value.reason is Reason.OFFSET_MISMATCH
    assert _upload(open_server, channel, b" weights", offset=5).complete


def test_the_upload_of_a_caller_that_vanished_goes_on_soon(
    one_server: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(app, "KEEPALIVE_MS", 2_000)
    one_server.released()
    with running(one_server) as run, run.channel() as channel:
        program = tmp_path / "vanishing.py"
        program.write_text(
            f"""
import grpc, time
from sealift.v1 import publish_pb2, publish_pb2_grpc

def messages():
    blob = publish_pb2.BlobDescription(sha256=bytes.fromhex({str(OTHER)!r}), length=13)
    yield publish_pb2.UploadBlobRequest(namespace="acme", blob=blob)
    yield publish_pb2.UploadBlobRequest(data=b"other")
    time.sleep(600)

stub = publish_pb2_grpc.PublishServiceStub(grpc.insecure_channel({run.edges.grpc!r}))
stub.UploadBlob(messages(), metadata={_who(run)!r})
"""
        )
        uploads = one_server.server.uploads
        vanishing = subprocess.Popen([sys.executable, str(program)])
        try:
            _until(lambda: uploads.staged(ACME, OTHER) == 5)
            # Its machine is gone: nobody says that the connection has ended.
            vanishing.send_signal(signal.SIGSTOP)
            _until(lambda: not uploads._running)
            assert _upload(run, channel, b" weights", offset=5).complete
        finally:
            vanishing.kill()
            vanishing.wait()


def test_a_poll_that_names_one_namespace_twice_is_refused(
    open_server: Running, channel: grpc.Channel
) -> None:
    with pytest.raises(ServerRefused) as refused:
        _poll(open_server, channel, times=2)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def _hold(run: Running, channel: grpc.Channel, state: int, reason: str) -> None:
    request = publish_pb2.SetHoldRequest(
        namespace=ACME,
        artifact="model",
        channel="stable",
        rollout_id=FIRST,
        state=publish_pb2.HoldState.ValueType(state),
        reason=reason,
    )
    with calling():
        publish_pb2_grpc.PublishServiceStub(channel).SetHold(
            request, timeout=20, metadata=_who(run)
        )


def test_no_reason_is_so_long_that_the_log_cannot_be_read(
    open_server: Running, channel: grpc.Channel
) -> None:
    with pytest.raises(ServerRefused) as refused:
        _hold(open_server, channel, publish_pb2.HOLD_STATE_PAUSED, "x" * 2_001)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    _hold(open_server, channel, publish_pb2.HOLD_STATE_PAUSED, "x" * 2_000)
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    request = catalog_pb2.ListAuditEventsRequest(namespace=ACME)
    events = stub.ListAuditEvents(request, metadata=_who(open_server)).events
    assert max(len(one.detail) for one in events) < 2_100


def test_a_full_disk_under_the_database_is_told_as_that(
    open_server: Running, channel: grpc.Channel
) -> None:
    engine = open_server.parts.server.database.engine
    engine.dispose()

    def limit(connection: object, record: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]

    event.listen(engine, "connect", limit)
    states = [publish_pb2.HOLD_STATE_PAUSED, publish_pb2.HOLD_STATE_RUNNING]

    def fill() -> None:
        for number in range(200):
            _hold(open_server, channel, states[number % 2], "x" * 2_000)

    with pytest.raises(ServerRefused) as refused:
        fill()
    assert refused.value.reason is Reason.DISK_FULL


@pytest.mark.parametrize("name", ["01.root.json", "000000000000000011.root.json"])
def test_a_role_file_has_one_name(open_server: Running, channel: grpc.Channel, name: str) -> None:
    request = repository_pb2.ReadMetadataRequest(namespace=ACME, path=f"metadata/{name}")
    with pytest.raises(ServerRefused) as refused, calling():
        list(
            repository_pb2_grpc.RepositoryServiceStub(channel).ReadMetadata(
                request, metadata=_who(open_server)
            )
        )
    assert refused.value.reason is Reason.NOT_FOUND
