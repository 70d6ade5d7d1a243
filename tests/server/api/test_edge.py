"""What every call has: callers, reasons, limits, and silence about the unexpected."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import call_metadata
from sealift.server.app import MAX_MESSAGE_BYTES
from sealift.server.content.store import BlobStore
from sealift.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    publish_pb2,
    publish_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
)
from support.servers import ACME, Running, parts, running

CALL_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def acme(served: Running) -> None:
    served.parts.released()


def _error(call: Any) -> tuple[grpc.StatusCode, str, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.RpcError) as failed:
        call()
    error = failed.value
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return error.code(), error.details() or "", info


def _read(channel: grpc.Channel, namespace: str, token: str | None) -> list[Any]:
    stub = repository_pb2_grpc.RepositoryServiceStub(channel)
    request = repository_pb2.ReadMetadataRequest(
        namespace=namespace, path="metadata/timestamp.json"
    )
    return list(stub.ReadMetadata(request, timeout=CALL_S, metadata=call_metadata(token)))


def test_an_error_carries_reason_and_hint(channel: grpc.Channel) -> None:
    code, text, info = _error(lambda: _read(channel, ACME, None))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert text == "a token is needed"
    assert (info.reason, info.domain) == ("unauthenticated", "sealift")
    assert "--token-file" in info.metadata["hint"]


def test_a_broken_rule_is_named(served: Running, channel: grpc.Channel) -> None:
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    token = served.parts.tokens[ACME]

    def submit() -> None:
        header = publish_pb2.SubmitHeader(namespace=ACME, request_id="x")
        file = publish_pb2.SubmitFile(path="metadata/timestamp.json", data=b"{}", last=True)
        stub.Submit(
            iter([publish_pb2.SubmitRequest(header=header), publish_pb2.SubmitRequest(file=file)]),
            timeout=CALL_S,
            metadata=call_metadata(token),
        )

    code, _, info = _error(submit)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert (info.metadata["rule"], info.metadata["role"]) == ("T22", "timestamp")


def test_a_token_is_never_repeated(channel: grpc.Channel) -> None:
    token = "sl_admin_" + "s" * 43
    code, text, info = _error(lambda: _read(channel, ACME, token))
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert token not in text + str(info)


@pytest.mark.parametrize("value", ["Basic x", "Bearer", "Bearer ", "sl_admin_x"])
def test_an_authorization_that_is_no_token_is_refused(channel: grpc.Channel, value: str) -> None:
    stub = repository_pb2_grpc.RepositoryServiceStub(channel)
    code, _, info = _error(
        lambda: list(
            stub.Poll(
                repository_pb2.PollRequest(), timeout=CALL_S, metadata=(("authorization", value),)
            )
        )
    )
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


def test_what_nobody_expected_is_told_by_an_id_alone(served: Running, tmp_path: Path) -> None:
    """The text of an exception may hold anything; only the log gets it."""

    class Broken(BlobStore):
        def __getattribute__(self, name: str) -> Any:
            raise ZeroDivisionError("the secret in an exception")

    Broken.__abstractmethods__ = frozenset()
    with parts(tmp_path / "broken") as made:
        made.released()
        made.server.uploads.store = Broken()  # type: ignore[abstract]

        with running(made) as opened, opened.channel() as channel:
            publish = publish_pb2_grpc.PublishServiceStub(channel)
            repository = repository_pb2_grpc.RepositoryServiceStub(channel)
            weights = sha256_bytes(b"weights")
            metadata = call_metadata(made.tokens[ACME])
            missing = publish_pb2.FindMissingBlobsRequest(
                namespace=ACME,
                blobs=[publish_pb2.BlobDescription(sha256=weights.raw, length=7)],
            )
            read = repository_pb2.ReadBlobRequest(namespace=ACME, sha256=weights.raw)
            for call in (
                lambda: publish.FindMissingBlobs(missing, timeout=CALL_S, metadata=metadata),
                lambda: list(repository.ReadBlob(read, timeout=CALL_S, metadata=metadata)),
            ):
                with structlog.testing.capture_logs() as logs:
                    code, text, info = _error(call)
                assert code is grpc.StatusCode.INTERNAL
                assert "secret" not in text + str(info)
                (line,) = [one for one in logs if one["event"] == "failed"]
                assert line["incident"] in text
                assert "secret" in str(line["exc_info"])


def test_a_message_over_the_limit_is_refused_before_it_is_read(channel: grpc.Channel) -> None:
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    big = publish_pb2.UploadBlobRequest(data=bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(grpc.RpcError) as failed:
        stub.UploadBlob(iter([big]), timeout=CALL_S)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_long_text_does_not_break_the_answer(served: Running, channel: grpc.Channel) -> None:
    """A status travels in headers, which have a limit."""
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    path = "targets/" + "é" * 100_000

    def submit() -> None:
        header = publish_pb2.SubmitHeader(namespace=ACME, request_id="long")
        role = publish_pb2.SubmitFile(path=f"metadata/{'é' * 100_000}.json", data=b"{", last=True)
        file = publish_pb2.SubmitFile(path=path, data=b"{}", last=True)
        requests = [
            publish_pb2.SubmitRequest(header=header),
            publish_pb2.SubmitRequest(file=role),
            publish_pb2.SubmitRequest(file=file),
        ]
        metadata = call_metadata(served.parts.tokens[ACME])
        stub.Submit(iter(requests), timeout=CALL_S, metadata=metadata)

    code, _, info = _error(submit)
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_digest_of_another_length_is_an_invalid_argument(
    served: Running, channel: grpc.Channel, length: int
) -> None:
    metadata = call_metadata(served.parts.tokens[ACME])
    repository = repository_pb2_grpc.RepositoryServiceStub(channel)
    publish = publish_pb2_grpc.PublishServiceStub(channel)
    admin = admin_pb2_grpc.AdminServiceStub(channel)
    fleet = fleet_pb2_grpc.FleetServiceStub(channel)
    digest = bytes(length)
    blob = publish_pb2.BlobDescription(sha256=digest, length=1)
    admins = call_metadata(served.parts.token("admin"))
    calls: list[Any] = [
        lambda: list(
            repository.ReadBlob(
                repository_pb2.ReadBlobRequest(namespace=ACME, sha256=digest),
                timeout=CALL_S,
                metadata=metadata,
            )
        ),
        lambda: repository.LocateBlobs(
            repository_pb2.LocateBlobsRequest(namespace=ACME, sha256=[digest]),
            timeout=CALL_S,
            metadata=metadata,
        ),
        lambda: publish.FindMissingBlobs(
            publish_pb2.FindMissingBlobsRequest(namespace=ACME, blobs=[blob]),
            timeout=CALL_S,
            metadata=metadata,
        ),
        lambda: publish.UploadBlob(
            iter([publish_pb2.UploadBlobRequest(namespace=ACME, blob=blob)]),
            timeout=CALL_S,
            metadata=metadata,
        ),
        lambda: admin.CreateNamespace(
            admin_pb2.CreateNamespaceRequest(
                namespace=f"new-{length}", request_id="x", token_sha256=digest
            ),
            timeout=CALL_S,
            metadata=admins,
        ),
        lambda: fleet.CreateInvite(
            fleet_pb2.CreateInviteRequest(
                namespace=ACME,
                kind=fleet_pb2.INVITE_KIND_DEVICE,
                uses=1,
                ttl_s=60,
                token_sha256=digest,
            ),
            timeout=CALL_S,
            metadata=metadata,
        ),
    ]
    for call in calls:
        code, _, info = _error(call)
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument")


@pytest.mark.parametrize("size", [0, 1_000, 2**31 - 1])
def test_a_page_of_any_size_is_answered(served: Running, channel: grpc.Channel, size: int) -> None:
    """AIP-158: what is more than there may be is cut down."""
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    metadata = call_metadata(served.parts.token("viewer", ACME))
    request = catalog_pb2.ListAuditEventsRequest(namespace=ACME, page_size=size)
    assert stub.ListAuditEvents(request, timeout=CALL_S, metadata=metadata).events


@pytest.mark.parametrize(
    ("size", "token", "artifact"),
    [(-1, "", ""), (0, "-1", ""), (0, "9" * 18, ""), (0, "x", ""), (0, "٣", ""), (0, "", "a\0")],
)
def test_a_page_that_cannot_be_is_refused(
    served: Running, channel: grpc.Channel, size: int, token: str, artifact: str
) -> None:
    stub = catalog_pb2_grpc.CatalogServiceStub(channel)
    metadata = call_metadata(served.parts.token("viewer", ACME))
    request = catalog_pb2.ListAuditEventsRequest(
        namespace=ACME, page_size=size, page_token=token, artifact=artifact
    )
    code, _, info = _error(lambda: stub.ListAuditEvents(request, timeout=CALL_S, metadata=metadata))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument")


def test_nothing_of_a_set_is_taken_in_from_a_caller_who_may_not_push(
    served: Running, channel: grpc.Channel
) -> None:
    """The refusal comes after the header, while the files are still to come."""
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    refused = threading.Event()

    def requests() -> Iterator[publish_pb2.SubmitRequest]:
        header = publish_pb2.SubmitHeader(namespace=ACME, request_id="x")
        yield publish_pb2.SubmitRequest(header=header)
        refused.wait(CALL_S)

    call = stub.Submit.future(requests(), timeout=CALL_S)
    try:
        error = call.exception(CALL_S)
        assert isinstance(error, grpc.Call)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    finally:
        refused.set()


def test_t20_nothing_is_signed_while_the_clock_is_wrong(
    served: Running, channel: grpc.Channel
) -> None:
    stub = publish_pb2_grpc.PublishServiceStub(channel)
    metadata = call_metadata(served.parts.tokens[ACME])
    request = publish_pb2.SetHoldRequest(
        namespace=ACME,
        artifact="model",
        channel="stable",
        rollout_id="01" * 8,
        state=publish_pb2.HOLD_STATE_PAUSED,
    )
    served.parts.clock.now += 86_400
    try:
        code, text, info = _error(lambda: stub.SetHold(request, timeout=CALL_S, metadata=metadata))
    finally:
        served.parts.clock.now -= 86_400
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "clock_jumped")
    assert "+86,400 s" in text
    assert stub.SetHold(request, timeout=CALL_S, metadata=metadata).hold_version


# --- health and reflection --------------------------------------------------------------------


def test_health_is_answered_to_anyone(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    for service in ("", "sealift.v1.PublishService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    with pytest.raises(grpc.RpcError) as failed:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=CALL_S)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_every_service(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=CALL_S)))
    assert {one.name for one in answer.list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        *(
            f"sealift.v1.{name}Service"
            for name in ("Admin", "Catalog", "Fleet", "Publish", "Repository")
        ),
    }
