"""Sources are not trusted: one that misbehaves costs some time, and never a wrong byte."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealift.client.transfer.errors import (
    BlobNotThere,
    SourceFailed,
    SourceTooSlow,
    SourceUnreachable,
    WrongAnswer,
)
from sealift.client.transfer.grpc_source import ServerContent
from sealift.client.transfer.presigned import PresignedContent
from sealift.client.transfer.source import BlobRange, Patience
from sealift.host import rpc
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from support.content_servers import TOKEN, GrpcContent, HttpContent, http_content
from support.releases import PIECE_BYTES, MadeRelease, make_release, noise
from support.s3 import S3Server

from .conftest import Device

Publish = Callable[[MadeRelease], MadeRelease]
Answer = Callable[[BaseHTTPRequestHandler, Digest, int, int], bool]
MODEL = noise(20 * PIECE_BYTES + 123)
HURRIED = Patience(connect_s=5, idle_s=5, grace_s=0.2, min_bytes_s=1e9)


def answering(status: int, *, body: int | None = None, **headers: str) -> Answer:
    """An answer with a status, some headers, and as many bytes as were asked for, or `body`."""

    def answer(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        length = end - start if body is None else body
        handler.send_response(status)
        sent = {
            "Content-Range": f"bytes {start}-{end - 1}/{len(MODEL)}",
            "Content-Length": str(length),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        for name, value in sent.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(bytes(length))
        return True

    return answer


NOT_WHAT_WAS_ASKED = {
    "the whole file": answering(200),
    "another range": answering(206, Content_Range=f"bytes 1-2/{len(MODEL)}"),
    "no range": answering(206, Content_Range=""),
    "another length of the whole": answering(206, Content_Range="bytes 0-9/99999999"),
    "encoded bytes": answering(206, Content_Encoding="gzip"),
    "fewer bytes": answering(206, body=10),
    "a redirect": answering(302, body=0, Location="http://127.0.0.1:1/elsewhere"),
    "not modified": answering(304, body=0),
    "a bad request": answering(400),
    "range not satisfiable": answering(416),
}


@pytest.mark.parametrize("what", NOT_WHAT_WAS_ASKED)
def test_an_answer_that_was_not_asked_for_ends_the_use_of_that_store(
    device: Device, publish: Publish, object_store: HttpContent, what: str
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    object_store.answer = NOT_WHAT_WAS_ASKED[what]
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() == sum(map(len, release.blobs.values()))
    assert len(object_store.headers) == 1


def test_without_an_own_source_the_wrong_answer_is_reported(
    server: GrpcContent, object_store: HttpContent
) -> None:
    with_source(server, object_store, NOT_WHAT_WAS_ASKED["the whole file"], WrongAnswer, "206")


def with_source(
    server: GrpcContent,
    object_store: HttpContent,
    answer: Answer | None,
    error: type[SourceFailed],
    match: str,
    patience: Patience | None = None,
) -> None:
    """Reads a whole blob from the object store alone, and expects an error."""
    digest = next(iter(make_release({"model.bin": MODEL}).blobs))
    server.blobs[digest] = object_store.blobs[digest] = MODEL
    object_store.answer = answer
    channel = rpc.open_channel(server.address)
    source = PresignedContent(
        ServerContent(channel, Namespace("acme"), TOKEN), patience=patience or Patience()
    )
    try:
        source.prepare([digest])
        with pytest.raises(error, match=match):
            read_all(source, digest)
    finally:
        source.close()
        channel.close()


def read_all(source: PresignedContent, digest: Digest) -> None:
    """Reads the model by one range."""
    stream = source.open(BlobRange(digest, len(MODEL), 0, len(MODEL)))
    try:
        stream.read_into(memoryview(bytearray(len(MODEL))))
    finally:
        stream.close()


def test_a_body_that_drips_has_an_end(server: GrpcContent, object_store: HttpContent) -> None:
    def drip(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(MODEL)}")
        handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        while not object_store.closing.wait(0.02):
            handler.wfile.write(b"x")
        return True

    with_source(server, object_store, drip, SourceTooSlow, "bytes a second", HURRIED)


def test_a_head_that_drips_has_an_end(server: GrpcContent, object_store: HttpContent) -> None:
    def drip(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
        while not object_store.closing.wait(0.02):
            handler.wfile.write(b"x")
        return True

    hurried = Patience(connect_s=0.1, idle_s=5, grace_s=0.1)
    with_source(server, object_store, drip, SourceTooSlow, "did not answer within", hurried)


def test_a_store_that_says_nothing_has_an_end(
    server: GrpcContent, object_store: HttpContent
) -> None:
    def silent(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        object_store.closing.wait()
        return True

    patience = Patience(idle_s=0.1)
    with_source(server, object_store, silent, SourceTooSlow, "does not answer", patience)


def test_an_answer_that_breaks_off_is_reported(
    server: GrpcContent, object_store: HttpContent
) -> None:
    def cut(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(MODEL)}")
        handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        handler.wfile.write(MODEL[:100])
        handler.close_connection = True
        return True

    with_source(server, object_store, cut, SourceUnreachable, "before the end")


def test_a_server_that_drips_has_an_end(device: Device, publish: Publish) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    device.patience = Patience(grace_s=0.05, min_bytes_s=1e9)

    gone = threading.Event()

    def stall(digest: Digest, offset: int, data: bytes) -> bytes:
        if offset:
            gone.wait()
        return data

    device.server.spoil = stall
    try:
        with pytest.raises(SourceTooSlow, match="the server"):
            device.fetch(release)
    finally:
        gone.set()
    device.check_not_installed(release)


def test_a_store_that_cannot_be_reached_is_replaced_by_the_server(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL, "a": b"1"}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, not listening: connections are refused
        device.server.urls = lambda digest: f"http://127.0.0.1:{port}/{digest}"
        device.fetch(release)
    device.check_installed(release)


def test_a_store_that_is_busy_is_asked_again(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    release = publish(make_release({"a": b"1"}))
    busy = iter([True, True])

    def sometimes(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        return next(busy, False) and answering(503)(handler, digest, start, end)

    object_store.answer = sometimes
    device.fetch(release)
    device.check_installed(release)
    assert object_store.reads.bytes_of() == 1


def test_connections_that_the_store_closes_are_opened_again(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    release = publish(make_release({f"f{number}": noise(50, number) for number in range(30)}))

    def closing(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        handler.close_connection = True  # without saying so
        return False

    object_store.answer = closing
    device.fetch(release)
    device.check_installed(release)
    assert object_store.reads.bytes_of() == 30 * 50


def test_an_address_that_expired_is_asked_for_anew(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    given = iter(range(1_000))
    device.server.urls = lambda digest: f"{object_store.url(digest)}&n={next(given)}"

    def expired(handler: BaseHTTPRequestHandler, digest: Digest, start: int, end: int) -> bool:
        if int(handler.path.rsplit("=", 1)[1]) < 2:
            handler.send_error(403)
            return True
        return False

    object_store.answer = expired
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() == 0


def test_an_address_that_never_works_is_given_up(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    object_store.answer = answering(403)
    device.fetch(release)
    device.check_installed(release)
    assert len(object_store.headers) <= 2


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://",
        "http://user:pass@127.0.0.1/x",
        "http://127.0.0.1:99999/x",
        "https://[::1/x",
        "http://store.example/x",
        "gopher",
    ],
)
def test_addresses_that_must_not_be_used_are_not(
    server: GrpcContent, object_store: HttpContent, url: str
) -> None:
    server.urls = lambda digest: url
    with_source(server, object_store, None, WrongAnswer, "address")


def test_without_an_address_the_server_is_read(
    server: GrpcContent, object_store: HttpContent
) -> None:
    server.urls = lambda digest: ""
    with_source(server, object_store, None, BlobNotThere, "no address")


def test_a_server_that_sends_too_much_is_not_believed(device: Device, publish: Publish) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    device.server.spoil = lambda digest, offset, data: data + b"more"
    with pytest.raises((WrongAnswer, SourceFailed), match="more than the range"):
        device.fetch(release)
    device.check_not_installed(release)


def test_a_server_that_sends_too_little_is_asked_again_and_then_reported(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"a": noise(1_000)}))
    device.server.spoil = lambda digest, offset, data: data[:-1]
    with pytest.raises(SourceUnreachable, match="before the end"):
        device.fetch(release)
    device.check_not_installed(release)


def test_a_server_that_is_down_says_so_after_some_attempts(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    device.server.refuse = Reason.UNAVAILABLE
    with pytest.raises(SourceUnreachable, match="the server") as raised:
        device.fetch(release)
    assert raised.value.reason is Reason.UNREACHABLE
    device.server.refuse = None
    device.fetch(release)
    device.check_installed(release)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_a_store_over_tls_is_used_only_if_its_certificate_is_trusted(
    device: Device, publish: Publish, certificate: Path, trusted: bool
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    release = publish(make_release({"model.bin": MODEL}))
    with http_content(context) as store:
        store.blobs.update(release.blobs)
        device.server.urls = store.url
        device.ca = certificate.read_text().partition("-----BEGIN PRIVATE")[0] if trusted else None
        device.fetch(release)
        device.check_installed(release)
        assert bool(store.headers) == trusted
        assert (device.server.reads.bytes_of() == 0) == trusted


def test_ranges_of_a_real_object_store(
    device: Device, publish: Publish, s3_server: S3Server
) -> None:
    settings = s3_server.make_bucket()
    client = s3_server.client()
    release = make_release({"model.bin": MODEL, "a": b"1", "empty": b""})
    device.server.blobs.update(release.blobs)
    for digest, data in release.blobs.items():
        client.put_object(
            bucket_name=settings.bucket, object_name=digest, data=io.BytesIO(data), length=len(data)
        )
    addresses = iter([timedelta(seconds=1)])

    def presign(digest: Digest) -> str:
        return client.presigned_get_object(
            bucket_name=settings.bucket,
            object_name=digest,
            expires=next(addresses, timedelta(hours=1)),
        )

    device.server.urls = presign
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() == 0
