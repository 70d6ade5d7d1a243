"""Namespaces over plain HTTP, as any TUF client asks for them.

    /NS/metadata/timestamp.json, /NS/metadata/3.root.json, …
    /NS/targets/ART/releases/HASH.1.4.0.json, and /NS/targets/HASH.ART/releases/1.4.0.json
    /NS/blobs/sha256/HEX           with one Range
    /healthz

Versioned files never change and may be cached; `timestamp.json` and what is not there may not be:
a cached 404 of the next root would hide a key rotation. Nothing is compressed: lengths are signed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Generator
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sealift.protocol.errors import InvalidName, SealiftError
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import ANYONE, Caller
from sealift.server.api.edge import MAX_TEXT, Server, Turns, reason_of, report_incident, waited
from sealift.server.content import ownership
from sealift.server.errors import Refused
from sealift.server.namespaces.reading import read_file

log = structlog.get_logger("sealift.server")

FOREVER = "public, max-age=31536000, immutable"
PRIVATE = "private, no-store"
NEVER = "no-store"
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_STATUS = {
    Reason.UNAUTHENTICATED: 401,
    Reason.TOKEN_EXPIRED: 401,
    Reason.TOKEN_SPENT: 401,
    Reason.PERMISSION_DENIED: 403,
    Reason.INVALID_ARGUMENT: 400,
    Reason.NOT_FOUND: 404,
    Reason.CONTENT_MISSING: 404,
    Reason.UNAVAILABLE: 503,
    Reason.CLOCK_JUMPED: 503,
}


def make_application(server: Server) -> Starlette:
    """The HTTP application."""

    async def metadata(request: Request) -> Response:
        path = f"{request.path_params['kind']}/{request.path_params['path']}"
        namespace = Namespace(request.path_params["namespace"])
        caller = await _caller(server, request)
        data = await server.run(read_file, server.database, caller, namespace, path)
        cache = NEVER if path == "metadata/timestamp.json" else _cache(caller)
        return Response(data, media_type="application/json", headers={"cache-control": cache})

    async def blob(request: Request) -> Response:
        namespace = Namespace(request.path_params["namespace"])
        digest = Digest(request.path_params["digest"])
        caller = await _caller(server, request)
        length = await server.run(ownership.length_of, server.database, caller, namespace, digest)
        return await _blob_response(server, request, digest, length, _cache(caller))

    async def health(request: Request) -> Response:
        del request
        server.signing_time()
        return JSONResponse({"status": "ok"}, headers={"cache-control": NEVER})

    async def refused(request: Request, error: Exception) -> Response:
        del request
        if not isinstance(error, SealiftError):
            raise error
        # A path that cannot be is one that is not there.
        code = 404 if isinstance(error, InvalidName) else _STATUS.get(reason_of(error), 500)
        headers = {"cache-control": NEVER}
        if code >= 500:
            log.error("failed", method="http", reason=str(reason_of(error)), detail=error.message)
        if code == 401:
            headers["www-authenticate"] = "Bearer"
        return PlainTextResponse(f"{error.message[:MAX_TEXT]}\n", code, headers=headers)

    async def nowhere(request: Request, error: Exception) -> Response:
        del request, error
        return PlainTextResponse("there is no such page\n", 404, headers={"cache-control": NEVER})

    async def failed(request: Request, error: Exception) -> Response:
        del request
        incident = report_incident("http", error)
        text = f"the server failed; its log says more under {incident}\n"
        return PlainTextResponse(text, 500, headers={"cache-control": NEVER})

    handlers: dict[Any, Any] = {SealiftError: refused, 404: nowhere, 500: failed}
    return Starlette(
        routes=[
            Route("/healthz", health),
            Route("/{namespace}/blobs/sha256/{digest}", blob),
            Route("/{namespace}/{kind:str}/{path:path}", metadata),
        ],
        exception_handlers=handlers,
    )


async def _caller(server: Server, request: Request) -> Caller:
    authorization = request.headers.get("authorization")
    if authorization is None:
        return ANYONE
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(Reason.UNAUTHENTICATED, "the request's authorization is no token")
    return await server.run(server.authenticate, token)


def _cache(caller: Caller) -> str:
    """What was read with a token stays with its reader; the rest never changes."""
    return FOREVER if caller is ANYONE else PRIVATE


async def _blob_response(
    server: Server, request: Request, digest: Digest, length: int, cache: str
) -> Response:
    etag = f'"{digest}"'
    headers = {
        "accept-ranges": "bytes",
        "etag": etag,
        "cache-control": cache,
        "content-type": "application/octet-stream",
    }
    start, end, code = 0, length, 200
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    asked = request.method == "GET" and request.headers.get("if-range", etag) == etag
    if asked and match and (match[1] or match[2]):
        start, end = _range(match[1], match[2], length)
        code = 206
        if start >= end:
            nothing = {"content-range": f"bytes */{length}", "cache-control": NEVER}
            return Response(status_code=416, headers=nothing)
        headers["content-range"] = f"bytes {start}-{end - 1}/{length}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD" or start == end:
        return Response(status_code=code, headers=headers)
    frames = server.uploads.store.read(digest, start, end - start)
    turns = server.turns()
    # The first frame before the status, so that a blob that the store has lost is a 404.
    first = await turns.run(next, frames, None)
    return StreamingResponse(_stream(turns, frames, first), code, headers=headers)


def _range(first: str, last: str, length: int) -> tuple[int, int]:
    """RFC 9110 section 14.1.2: `first-last`, `first-` or `-suffix`, as a half-open range."""
    if not first:
        return max(0, length - int(last)), length
    return int(first), min(length, int(last) + 1) if last else length


async def _stream(
    turns: Turns, frames: Generator[bytes, None, None], frame: bytes | None
) -> AsyncIterator[bytes]:
    try:
        while frame is not None:
            coming = turns.begin(next, frames, None)
            yield frame
            frame = await waited(coming)
    finally:
        turns.begin(frames.close)
