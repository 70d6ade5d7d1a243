"""Puts the server together and runs it until it is asked to stop.

Start: lock the home, bring the database up to date, check the store, sign anew what is due, bind
both ports, write `address.json` and `admin.token`; then it is ready. Stop (SIGTERM, SIGINT): health
says so, no new calls, those under way have `drain_s`, then everything is closed in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from sqlalchemy import select

from sealift.host.clock import Clock, SystemClock
from sealift.host.files import (
    FileLock,
    Step,
    make_folder,
    no_step,
    read_or_none,
    write_atomically,
)
from sealift.host.rpc import AHEAD_BYTES
from sealift.host.tokens import is_token, make_token, token_sha256
from sealift.protocol.errors import SealiftError
from sealift.server.access import tokens
from sealift.server.api.admin import AdminServicer
from sealift.server.api.catalog import CatalogServicer
from sealift.server.api.edge import ErrorInterceptor, Server
from sealift.server.api.fleet import FleetServicer
from sealift.server.api.publish import PublishServicer
from sealift.server.api.repository import RepositoryServicer
from sealift.server.content.uploads import Uploads
from sealift.server.db.database import Database
from sealift.server.db.tables import TokenRow
from sealift.server.namespaces.freshness import ClockGuard, resign_due
from sealift.server.namespaces.online_keys import OnlineKeys
from sealift.server.settings import Settings
from sealift.server.web.application import make_application
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

log = structlog.get_logger("sealift.server")

RESIGN_EVERY_S = 60.0
"""How often is looked whether anything is due."""
STALE_UPLOAD_S = 7 * 86_400
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
KEEPALIVE_MS = 30_000
_SERVICES = (
    admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
    catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
    fleet_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
    publish_pb2.DESCRIPTOR.services_by_name["PublishService"].full_name,
    repository_pb2.DESCRIPTOR.services_by_name["RepositoryService"].full_name,
)


class PortInUse(SealiftError):
    """Somebody else listens there."""

    def __init__(self, option: str, address: str) -> None:
        super().__init__(
            f"{address} is in use",
            hint=f"Stop what listens there, or give another --{option} HOST:PORT.",
        )


@contextmanager
def open_server(
    settings: Settings, *, clock: Clock | None = None, step: Step = no_step
) -> Iterator[Server]:
    """Opens database, store and threads for a block. What was begun in a thread is finished."""
    clock = clock or SystemClock()
    database = Database(settings.database_url)
    store = settings.open_store()
    threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="sealift")
    content_threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="sealift-content")
    try:
        database.migrate()
        store.check()
        yield Server(
            database,
            OnlineKeys(settings.home / "keys", step),
            Uploads(settings.home / "uploads", store, step=step),
            clock,
            ClockGuard(clock),
            threads,
            content_threads,
            step,
        )
    finally:
        content_threads.shutdown(wait=True)
        threads.shutdown(wait=True)
        store.close()
        database.close()


async def run_server(settings: Settings, *, step: Step = no_step) -> None:
    """Runs the server until SIGTERM or SIGINT.

    Raises:
        HomeLocked: If another server runs on this home.
        PortInUse: If somebody listens there.
        SealiftError: If database or store cannot be used.
    """
    make_folder(settings.home)
    with (
        FileLock(settings.home / "lock").held(wait_s=2, purpose="sealift-server run"),
        open_server(settings, step=step) as server,
    ):
        server.uploads.sweep(server.clock.wall() - STALE_UPLOAD_S)
        await server.run(resign_due, server.database, server.keys, server.clock.wall())
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with serving(server, settings) as (edges, health):
            await server.run(_announce, server, settings.home, edges.grpc, edges.http)
            await _until(stop, _keep_fresh(server, health))
            log.info("draining")
        log.info("stopped")


@dataclass(frozen=True, slots=True)
class Edges:
    """Where the server listens: `host:port` of each."""

    grpc: str
    http: str


@asynccontextmanager
async def serving(
    server: Server, settings: Settings
) -> AsyncIterator[tuple[Edges, HealthServicer]]:
    """Answers on both ports for a block; then both drain at once.

    Raises:
        PortInUse: If somebody listens there.
    """
    async with (
        _grpc(server, settings) as (edge, grpc_address, health),
        _http(server, settings) as (http, http_address),
    ):
        try:
            yield Edges(grpc_address, http_address), health
        finally:
            await health.enter_graceful_shutdown()
            http.should_exit = True
            await edge.stop(settings.drain_s)


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Works until it shall stop. Work that fails ends the server: nothing would stay fresh."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


# --- being ready ------------------------------------------------------------------------------


def _announce(server: Server, home: Path, grpc_address: str, http_address: str) -> None:
    token = _admin_token(server, home)
    address = {"grpc": grpc_address, "http": http_address}
    write_atomically(home / "address.json", json.dumps(address).encode())
    write_atomically(home / "admin.token", token.encode())
    sys.stdout.write(
        f"ready: gRPC on {grpc_address}, HTTP on {http_address}; "
        f"admin token in {home / 'admin.token'}\n"
    )
    sys.stdout.flush()


def _admin_token(server: Server, home: Path) -> str:
    """The admin's token: the one that is there, if it still counts, else a new one."""
    now = server.clock.wall()
    data = read_or_none(home / "admin.token")
    token = data.decode("ascii", "replace").strip() if data else ""
    with server.database.transaction() as session:
        if is_token(token):
            known = session.scalar(select(TokenRow).where(TokenRow.sha256 == token_sha256(token)))
            if known is not None and known.revoked_at is None:
                return token
        token = make_token("admin")
        tokens.register(session, name="admin", role="admin", sha256=token_sha256(token), now=now)
    return token


# --- the two edges ----------------------------------------------------------------------------


@asynccontextmanager
async def _grpc(
    server: Server, settings: Settings
) -> AsyncIterator[tuple[grpc.aio.Server, str, HealthServicer]]:
    options = [
        # Ports are not shared: two servers on one port would each answer half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", 1_000),
        # A caller that vanished without a word is noticed within a minute, not in two hours: its
        # upload keeps the next one from going on.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_MS // 2),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients ask as often, also while a store takes minutes to put an upload together.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        # As on the client's side: a stream is read ahead by this much, not by what a probe finds.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
    ]
    edge = grpc.aio.server(interceptors=[ErrorInterceptor()], options=options)
    repository_pb2_grpc.add_RepositoryServiceServicer_to_server(RepositoryServicer(server), edge)
    publish_pb2_grpc.add_PublishServiceServicer_to_server(PublishServicer(server), edge)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetServicer(server), edge)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(CatalogServicer(server), edge)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(server), edge)
    servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, edge)  # type: ignore[no-untyped-call]
    reflection.enable_server_reflection(  # type: ignore[no-untyped-call]
        (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), edge
    )
    host, _, asked = settings.listen.rpartition(":")
    if int(asked):  # first by ourselves: gRPC adds lines of its own, and does not say why
        _bind(host, int(asked), "listen", settings.listen).close()
    try:
        port = edge.add_insecure_port(settings.listen)
    except RuntimeError as error:
        raise PortInUse("listen", settings.listen) from error
    await edge.start()
    await _set_health(servicer, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield edge, f"{host}:{port}", servicer
    finally:
        await edge.stop(0)


async def _set_health(servicer: HealthServicer, state: Any) -> None:
    for name in ("", *_SERVICES):
        await servicer.set(name, state)


@asynccontextmanager
async def _http(server: Server, settings: Settings) -> AsyncIterator[tuple[_Uvicorn, str]]:
    host, _, port = settings.http.rpartition(":")
    listener = _bind(host, int(port), "http", settings.http)
    config = uvicorn.Config(
        make_application(server),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(settings.drain_s),
        server_header=False,
    )
    edge = _Uvicorn(config)
    serving = asyncio.create_task(edge.serve(sockets=[listener]))
    try:
        yield edge, f"{host}:{listener.getsockname()[1]}"
    finally:
        edge.should_exit = True
        await serving


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its own signal handlers: this program has them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


def _bind(host: str, port: int, option: str, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise SealiftError(
                f"cannot listen on {address}: {error.strerror}",
                hint=f"Give another --{option} HOST:PORT.",
            ) from error
        raise PortInUse(option, address) from error
    return listener


# --- staying fresh ----------------------------------------------------------------------------


async def _keep_fresh(server: Server, servicer: HealthServicer) -> None:
    while True:
        await asyncio.sleep(RESIGN_EVERY_S)
        await refresh(server, servicer)


async def refresh(server: Server, servicer: HealthServicer) -> None:
    """Signs anew what is due; not, and says so, when the clock has jumped (rule T20)."""
    states = health_pb2.HealthCheckResponse
    try:
        now = server.signing_time()
        done = await server.run(resign_due, server.database, server.keys, now)
    except SealiftError as error:
        log.error("nothing is signed anew", detail=error.message)
        await _set_health(servicer, states.NOT_SERVING)
        return
    await _set_health(servicer, states.SERVING)
    if done:
        log.info("signed anew", namespaces=len(done))
