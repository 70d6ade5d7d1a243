"""gRPC as both sides use it: addresses, channels, deadlines, and errors to and from the wire."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sealift.protocol.errors import InvalidName, SealiftError
from sealift.protocol.reasons import Reason

ERROR_DOMAIN = "sealift"
FRAME_BYTES = 1024 * 1024 - 1024
"""The most bytes that a streamed message carries: frames stay under 1 MiB."""
AHEAD_BYTES = 4 * 1024 * 1024
"""How much of a stream may be on its way: 40 MB a second and stream at 100 ms of latency."""
CALL_S = 30.0
"""Deadline of a call that carries little."""
TRANSFER_S = 24 * 3600.0
"""Deadline of a call that carries content; its progress is watched apart."""

_STATUS: dict[Reason, grpc.StatusCode] = {
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_SPENT: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.CONTENT_MISSING: grpc.StatusCode.NOT_FOUND,
    Reason.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.CONFLICT: grpc.StatusCode.ABORTED,
    Reason.OFFSET_MISMATCH: grpc.StatusCode.ABORTED,
    Reason.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CLOCK_JUMPED: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.THRESHOLD_NOT_MET: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.BLOB_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
}
_BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: Reason.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.RESOURCE_EXHAUSTED,
}

T = TypeVar("T")


class ServerRefused(SealiftError):
    """The server answered no, or did not answer.

    Args:
        reason: The stable reason.
        message: What the server said.
        details: What it said besides, as strings.
    """

    def __init__(
        self, reason: Reason, message: str, *, hint: str = "", details: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.details = details or {}


class InvalidAddress(InvalidName):
    """An address that cannot be one."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is: `host:port` with `tls` set or not."""

    target: str
    tls: bool

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Reads an address.

        `https://…` is always TLS; a bare `host:port` is plain for 127.0.0.0/8, ::1 and
        `localhost`, else TLS.

        Raises:
            InvalidAddress: If it is not one.
        """
        secure = text.startswith("https://")
        target = text.removeprefix("https://").rstrip("/")
        host, colon, port = target.rpartition(":")
        if secure and (not colon or not port.isdigit()):
            host, port, target = target, "443", f"{target}:443"
        if "://" in target or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidAddress(
                f"{text!r} is not a server's address", hint="Write host:port or https://host."
            )
        return cls(target, secure or not is_loopback(host.strip("[]")))

    def __str__(self) -> str:
        return f"https://{self.target}" if self.tls else self.target


def is_loopback(host: str) -> bool:
    """True for 127.0.0.0/8, ::1 and `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_channel(address: ServerAddress, ca: bytes | None = None) -> grpc.Channel:
    """A channel to a server; close it when done.

    Args:
        address: Where the server is.
        ca: The certificate to trust, in PEM, in place of the machine's own.
    """
    options = [
        ("grpc.max_receive_message_length", 4 * 1024 * 1024),
        ("grpc.enable_retries", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # The address is used as it is: no proxy from the environment stands between.
        ("grpc.enable_http_proxy", 0),
        # A stream reads this far ahead, not what a probe finds: that took 270 MB on a busy machine.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
    ]
    if address.tls:
        return grpc.secure_channel(address.target, grpc.ssl_channel_credentials(ca), options)
    return grpc.insecure_channel(address.target, options)


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that is made with a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


def status_of(
    reason: Reason, message: str, details: dict[str, str] | None = None
) -> status_pb2.Status:
    """An error as it goes over the wire: a status with `google.rpc.ErrorInfo` (AIP-193)."""
    code = _STATUS.get(reason, grpc.StatusCode.INVALID_ARGUMENT)
    info = any_pb2.Any()
    info.Pack(
        error_details_pb2.ErrorInfo(
            reason=reason.value, domain=ERROR_DOMAIN, metadata=details or {}
        )
    )
    return status_pb2.Status(code=code.value[0], message=message, details=[info])


def refusal_of(error: grpc.RpcError) -> ServerRefused:
    """What a failed call means, with the server's own reason where it gave one."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = (error.details() if isinstance(error, grpc.Call) else None) or str(code)
    info = _error_info(error) if isinstance(error, grpc.Call) else None
    if info is not None:
        known = info.reason in list(Reason)
        reason = Reason(info.reason) if known else Reason.INTERNAL
        extra = dict(info.metadata)
        return ServerRefused(reason, text, hint=extra.pop("hint", ""), details=extra)
    reason = _BY_CODE.get(code, Reason.INTERNAL)
    if reason is Reason.UNREACHABLE:
        return ServerRefused(
            reason,
            "the server cannot be reached",
            hint="Check that it runs and that the address is right (--server ADDRESS).",
        )
    return ServerRefused(reason, f"the server answered {code.name}: {text}")


def _error_info(error: grpc.Call) -> error_details_pb2.ErrorInfo | None:
    """What the server attached to its refusal; None for nothing, or for what cannot be read."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[no-untyped-call]
        details: list[any_pb2.Any] = list(status.details) if status else []
        for detail in details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == ERROR_DOMAIN:
                return info
    except (ValueError, DecodeError):
        pass  # a server may attach anything
    return None


@contextmanager
def calling() -> Iterator[None]:
    """Turns gRPC's errors into `ServerRefused` for a block that makes calls."""
    try:
        yield
    except grpc.RpcError as error:
        raise refusal_of(error) from error


def pieces(data: bytes, frame_bytes: int = FRAME_BYTES) -> Iterator[tuple[bytes, bool]]:
    """Cuts bytes into frames; the flag is True on the last one. Empty bytes are one frame."""
    for start in range(0, max(len(data), 1), frame_bytes):
        yield data[start : start + frame_bytes], start + frame_bytes >= len(data)


def within(call: Callable[..., T], request: object, *, token: str | None) -> T:
    """Makes a short unary call with a deadline.

    Raises:
        ServerRefused: If the server says no, or does not answer in time.
    """
    with calling():
        return call(request, timeout=CALL_S, metadata=call_metadata(token))
