"""What every servicer needs: threads, the caller of a call, and errors on their way out."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import grpc
import structlog
from grpc_status import rpc_status

from sealift.host.clock import Clock
from sealift.host.files import DiskFull, Step
from sealift.host.rpc import status_of
from sealift.protocol.errors import InvalidName, RuleViolation, SealiftError
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, authenticate
from sealift.server.content.errors import ContentError, OffsetMismatch
from sealift.server.content.uploads import Uploads
from sealift.server.db.database import Database, DatabaseUnusable
from sealift.server.errors import Refused
from sealift.server.namespaces.freshness import ClockGuard
from sealift.server.namespaces.online_keys import OnlineKeys

log = structlog.get_logger("sealift.server")

P = ParamSpec("P")
T = TypeVar("T")

MAX_TEXT = 500
"""Characters of an error that are sent: a status travels in headers, which have a limit."""


@dataclass(frozen=True, slots=True)
class Server:
    """What the edge works on.

    Attributes:
        database: The signed state.
        keys: The online keys.
        uploads: Content on its way in, and the store behind it.
        clock: The machine's clocks.
        guard: Tells when the wall clock has jumped.
        threads: For transactions.
        content_threads: For blobs, so that a store that hangs keeps nobody from polling or holding.
        step: The crash hook.
    """

    database: Database
    keys: OnlineKeys
    uploads: Uploads
    clock: Clock
    guard: ClockGuard
    threads: ThreadPoolExecutor
    content_threads: ThreadPoolExecutor
    step: Step

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a synchronous function in a thread.

        A caller that goes away ends the waiting, not the function: what was begun is finished.
        """
        return await waited(self.threads.submit(function, *args, **kwargs))

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begins what works on content in a thread; it cannot be cancelled, only waited for."""
        return self.content_threads.submit(function, *args, **kwargs)

    def turns(self) -> Turns:
        """For content that only one thread at a time may use."""
        return Turns(self)

    def signing_time(self) -> int:
        """The wall clock, for what will be signed.

        Raises:
            Refused: If it has jumped (rule T20).
        """
        jump = self.guard.jump_s()
        if jump:
            raise Refused(
                Reason.CLOCK_JUMPED,
                f"the server's clock jumped by {jump:+,.0f} s, so it signs nothing",
                hint="Set the server's clock right; if it is right now, restart the server.",
            )
        return self.clock.wall()

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


class Turns:
    """Functions in threads, one after another, for what only one thread at a time may use.

    Whoever waits for one may go away at any time while it still runs.

    Args:
        server: Has the threads.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last: Future[Any] | None = None

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begins a function once the one before it has ended, however that ended."""
        before = self._last

        def turn() -> T:
            if before is not None:
                wait([before])  # begun earlier, so it runs or is done
            return function(*args, **kwargs)

        following = self._server.begin(turn)
        self._last = following
        return following

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Begins a function and waits for it."""
        return await waited(self.begin(function, *args, **kwargs))


async def waited(future: Future[T]) -> T:
    """Waits for what was begun; whoever is cancelled meanwhile leaves it alone."""
    inner = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(inner)
    except asyncio.CancelledError:
        inner.add_done_callback(_log_unheard)
        raise


def _log_unheard(done: asyncio.Future[Any]) -> None:
    """Takes an error whose caller has gone; only one that nobody expected is worth a line."""
    error = None if done.cancelled() else done.exception()
    if error is not None and not isinstance(error, SealiftError):
        log.error("failed after its caller had gone", exc_info=error)


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


def reason_of(error: SealiftError) -> Reason:
    """The stable reason of an error, for either edge."""
    if isinstance(error, Refused | RuleViolation | ContentError):
        return error.reason
    if isinstance(error, DiskFull):
        return Reason.DISK_FULL
    if isinstance(error, DatabaseUnusable):
        return Reason.UNAVAILABLE
    if isinstance(error, InvalidName):
        return Reason.INVALID_ARGUMENT
    return Reason.INTERNAL


def status_for(error: SealiftError) -> Any:
    """The wire's status for an error."""
    details: dict[str, str] = {}
    if isinstance(error, Refused):
        details = dict(error.details)
    elif isinstance(error, RuleViolation):
        details = {"rule": error.rule, "role": error.role[:MAX_TEXT]}
    elif isinstance(error, OffsetMismatch):
        details = {"offset": str(error.current)}
    if error.hint:
        details["hint"] = error.hint
    return status_of(reason_of(error), error.message[:MAX_TEXT], details)


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
            answers = behaviour(request, context)
            if inspect.isawaitable(answers):  # it writes to the context itself
                await answers
                return
            async for answer in answers:
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
    log.info(
        "refused", method=method, reason=str(reason_of(error)), detail=error.message[:MAX_TEXT]
    )
    await context.abort_with_status(_wire(status_for(error)))


async def _fail(context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    incident = report_incident(method, error)
    status = status_of(Reason.INTERNAL, f"the server failed; its log says more under {incident}")
    await context.abort_with_status(_wire(status))


def report_incident(method: str, error: Exception) -> str:
    """Logs what nobody expected; the id under which it is found there."""
    incident = uuid.uuid4().hex[:12]
    log.error("failed", method=method, incident=incident, exc_info=error)
    return incident


def _wire(status: Any) -> grpc.Status:
    converted: grpc.Status = rpc_status.to_status(status)  # type: ignore[no-untyped-call]
    return converted
