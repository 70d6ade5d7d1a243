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

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sealift.protocol.errors import InvalidName, SealiftError
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import ANYONE, Caller
from sealift.server.api.edge import Server
from sealift.server.content import ownership
from sealift.server.content.errors import ContentError
from sealift.server.errors import Refused
from sealift.server.namespaces.reading import read_file

FOREVER = "public, max-age=31536000, immutable"
NEVER = "no-store"
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_STATUS = {
    Reason.UNAUTHENTICATED: 401,
    Reason.TOKEN_EXPIRED: 401,
    Reason.TOKEN_SPENT: 401,
    Reason.PERMISSION_DENIED: 403,
    Reason.NOT_FOUND: 404,
    Reason.CONTENT_MISSING: 404,
    Reason.UNAVAILABLE: 503,
}


def make_application(server: Server) -> Starlette:
    """The HTTP application."""

    async def metadata(request: Request) -> Response:
        path = f"{request.path_params['kind']}/{request.path_params['path']}"
        namespace = Namespace(request.path_params["namespace"])
        caller = await _caller(server, request)
        data = await server.run(read_file, server.database, caller, namespace, path)
        cache = NEVER if path == "metadata/timestamp.json" else FOREVER
        headers = {"cache-control": cache if caller is ANYONE else "private, no-store"}
        return Response(data, media_type="application/json", headers=headers)

    async def blob(request: Request) -> Response:
        namespace = Namespace(request.path_params["namespace"])
        digest = Digest(request.path_params["digest"])
        caller = await _caller(server, request)
        length = await server.run(ownership.length_of, server.database, caller, namespace, digest)
        return _blob_response(server, request, digest, length)

    async def health(request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok"})

    async def refused(request: Request, error: Exception) -> Response:
        del request
        reason = getattr(error, "reason", Reason.NOT_FOUND)
        message = error.message if isinstance(error, SealiftError) else str(error)
        code = _STATUS.get(reason, 404 if isinstance(error, InvalidName) else 400)
        headers = {"cache-control": NEVER}
        if code == 401:
            headers["www-authenticate"] = "Bearer"
        return PlainTextResponse(f"{message}\n", status_code=code, headers=headers)

    async def nowhere(request: Request, error: Exception) -> Response:
        del request, error
        return PlainTextResponse("there is no such page\n", 404, headers={"cache-control": NEVER})

    handlers: dict[Any, Any] = {
        Refused: refused,
        InvalidName: refused,
        ContentError: refused,
        404: nowhere,
    }
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


def _blob_response(server: Server, request: Request, digest: Digest, length: int) -> Response:
    headers = {
        "accept-ranges": "bytes",
        "etag": f'"{digest}"',
        "cache-control": FOREVER,
        "content-type": "application/octet-stream",
    }
    start, end, code = 0, length, 200
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match and (match[1] or match[2]):
        start, end = _range(match[1], match[2], length)
        code = 206
        if start >= end:
            return Response(
                status_code=416, headers={**headers, "content-range": f"bytes */{length}"}
            )
        headers["content-range"] = f"bytes {start}-{end - 1}/{length}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD" or start == end:
        return Response(status_code=code, headers=headers)
    frames = server.uploads.store.read(digest, start, end - start)
    return StreamingResponse(_stream(server, frames), code, headers=headers)


def _range(first: str, last: str, length: int) -> tuple[int, int]:
    """RFC 9110 section 14.1.2: `first-last`, `first-` or `-suffix`, as a half-open range."""
    if not first:
        return max(0, length - int(last)), length
    return int(first), min(length, int(last) + 1) if last else length


async def _stream(server: Server, frames: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    try:
        while (frame := await server.run(next, frames, None)) is not None:
            yield frame
    finally:
        await server.run(frames.close)
