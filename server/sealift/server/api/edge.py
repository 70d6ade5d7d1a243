"""What every servicer needs: threads, the caller of a call, and errors on their way out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import grpc
import structlog
from grpc_status import rpc_status

from sealift.host.clock import Clock
from sealift.host.files import DiskFull, Step, Unwritable
from sealift.host.rpc import status_of
from sealift.protocol.errors import RuleViolation, SealiftError
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, authenticate
from sealift.server.content.errors import ContentError, OffsetMismatch
from sealift.server.content.uploads import Uploads
from sealift.server.db.database import Database, DatabaseUnusable
from sealift.server.errors import Refused
from sealift.server.namespaces.online_keys import OnlineKeys

log = structlog.get_logger("sealift.server")

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Server:
    """What the edge works on.

    Attributes:
        database: The signed state.
        keys: The online keys.
        uploads: Content on its way in, and the store behind it.
        clock: The machine's clocks.
        threads: For transactions and disks.
        step: The crash hook.
    """

    database: Database
    keys: OnlineKeys
    uploads: Uploads
    clock: Clock
    threads: ThreadPoolExecutor
    step: Step

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a synchronous function in a thread.

        A caller that goes away ends the waiting, not the function: what was begun is finished.
        """
        return await asyncio.shield(self.begin(function, *args, **kwargs))

    def begin(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Begins a synchronous function in a thread; it cannot be cancelled, only waited for."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self.threads, partial(function, *args, **kwargs))

    async def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Who makes this call.

        Raises:
            Refused: If the token counts for nothing.
        """
        token = bearer(context)
        if token is None:
            return Caller()
        return await self.run(self.authenticate, token)

    def authenticate(self, token: str) -> Caller:
        """Who has this token.

        Raises:
            Refused: If it counts for nothing.
        """
        with self.database.reading() as session:
            return authenticate(session, token, self.clock.wall())


def bearer(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """The token of a call.

    Raises:
        Refused: If there is an authorization that is no bearer token.
    """
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value if isinstance(value, str) else value.decode("ascii", "replace")
            scheme, _, token = text.partition(" ")
            if scheme != "Bearer" or not token:
                raise Refused(Reason.UNAUTHENTICATED, "the call's authorization is no token")
            return token
    return None


def namespace_of(text: str) -> Namespace:
    """A namespace from a request.

    Raises:
        InvalidName: If it cannot be one.
    """
    return Namespace(text)


def status_for(error: SealiftError) -> Any:
    """The wire's status for an error."""
    details: dict[str, str] = {}
    reason = Reason.INVALID_ARGUMENT
    if isinstance(error, Refused):
        reason, details = error.reason, dict(error.details)
    elif isinstance(error, RuleViolation):
        reason, details = error.reason, {"rule": error.rule, "role": error.role}
    elif isinstance(error, ContentError):
        reason = error.reason
        if isinstance(error, OffsetMismatch):
            details["offset"] = str(error.current)
    elif isinstance(error, DiskFull):
        reason = Reason.DISK_FULL
    elif isinstance(error, DatabaseUnusable):
        reason = Reason.UNAVAILABLE
    elif isinstance(error, Unwritable):
        reason = Reason.INTERNAL
    if error.hint:
        details["hint"] = error.hint
    return status_of(reason, error.message, details)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Outermost: expected errors become a status with a reason; others an id, their text the log.

    Without it grpc would send the text of an unexpected exception to the caller.
    """

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps a method's handler."""
        handler = await continuation(details)
        if handler is None:
            return handler
        method = str(details.method)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _guard(handler.unary_unary, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _guard(handler.stream_unary, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return handler


def _guard(behaviour: Any, method: str) -> Any:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except SealiftError as error:
            await _refuse(context, method, error)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # noqa: BLE001 - its text must not reach the caller
            await _fail(context, method, error)

    return guarded


def _guard_stream(behaviour: Any, method: str) -> Any:
    async def guarded(
        request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for answer in behaviour(request, context):
                yield answer
        except SealiftError as error:
            await _refuse(context, method, error)
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - its text must not reach the caller
            await _fail(context, method, error)

    return guarded


async def _refuse(
    context: grpc.aio.ServicerContext[Any, Any], method: str, error: SealiftError
) -> None:
    reason = getattr(error, "reason", Reason.INVALID_ARGUMENT)
    log.info("refused", method=method, reason=str(reason), detail=error.message)
    await context.abort_with_status(_wire(status_for(error)))


async def _fail(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    incident = uuid.uuid4().hex[:12]
    log.error("failed", method=method, incident=incident, exc_info=error)
    status = status_of(Reason.INTERNAL, f"the server failed; its log says more under {incident}")
    await context.abort_with_status(_wire(status))


def _wire(status: Any) -> grpc.Status:
    converted: grpc.Status = rpc_status.to_status(status)  # type: ignore[no-untyped-call]
    return converted
