"""A server in this process: its parts, or with both its ports open, on a clock that tests turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from sealift.host.files import Step, no_step
from sealift.host.hashing import sha256_bytes
from sealift.host.tokens import TokenRole, make_token, token_sha256
from sealift.protocol.names import Digest, Namespace
from sealift.server.access import tokens
from sealift.server.access.callers import Caller, Right
from sealift.server.api.edge import Server
from sealift.server.app import Edges, open_server, serving
from sealift.server.content import ownership
from sealift.server.db.tables import NamespaceRow
from sealift.server.namespaces.registering import create_namespace
from sealift.server.namespaces.submitting import Committed, SubmittedSet, submit
from sealift.server.settings import Settings
from support.publishers import FIRST, Publisher

NOW = 1_800_000_000
ACME = Namespace("acme")


@dataclass
class TurnedClock:
    """Both clocks, which only move when a test turns them."""

    now: int = NOW
    boot: float = 1_000.0

    def wall(self) -> int:
        """The wall clock, Unix seconds."""
        return self.now

    def boot_s(self) -> float:
        """Seconds since the start."""
        return self.boot

    def boot_id(self) -> str:
        """One start only."""
        return "test"

    def pass_s(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        self.boot += seconds


@dataclass
class Parts:
    """A server's parts, and the tokens that were made for it."""

    server: Server
    clock: TurnedClock
    settings: Settings
    tokens: dict[str, str] = field(default_factory=dict)

    def token(self, role: TokenRole, namespace: Namespace | None = None, *rights: Right) -> str:
        """A new token."""
        token = make_token(role)
        with self.server.database.transaction() as session:
            row = None
            if namespace is not None:
                row = session.query(NamespaceRow).filter_by(name=namespace).one().id
            tokens.register(
                session,
                name=f"{role}-{len(self.tokens)}",
                role=role,
                sha256=token_sha256(token),
                now=self.clock.now,
                namespace_id=row,
                rights=rights,
            )
        self.tokens[token] = role
        return token

    def caller(self, role: TokenRole, namespace: Namespace | None = None, *rights: Right) -> Caller:
        """Somebody with a new token."""
        return self.server.authenticate(self.token(role, namespace, *rights))

    def pusher(self, namespace: Namespace = ACME) -> Caller:
        """Somebody who may push to a namespace, and not hold."""
        return self.caller("publisher", namespace, Right.PUSH)

    def create(
        self, namespace: Namespace = ACME, *, public: bool = False, request_id: str = "begin"
    ) -> Publisher:
        """A namespace without a root; its publisher."""
        key = create_namespace(
            self.server.database,
            self.server.keys,
            self.caller("admin"),
            namespace,
            request_id=request_id,
            token_sha256=token_sha256(self.tokens.setdefault(namespace, make_token("publisher"))),
            public=public,
            now=self.clock.now,
        )
        return Publisher(namespace, key, self.clock.now)

    def submit(
        self, publisher: Publisher, submitted: SubmittedSet, caller: Caller | None = None
    ) -> Committed:
        """Submits a set; if it is committed the publisher builds on it."""
        done = submit(
            self.server.database,
            self.server.keys,
            caller or self.pusher(publisher.namespace),
            publisher.namespace,
            submitted,
            now=self.clock.now,
        )
        publisher.took(submitted)
        return done

    def begun(self, namespace: Namespace = ACME, *, public: bool = False) -> Publisher:
        """A namespace with its root."""
        publisher = self.create(namespace, public=public)
        self.submit(publisher, publisher.first())
        return publisher

    def released(self, namespace: Namespace = ACME, *, public: bool = False) -> Publisher:
        """A namespace with a release of one blob, `weights`, and `stable` at it."""
        publisher = self.begun(namespace, public=public)
        self.upload(namespace, b"weights")
        draft = publisher.draft()
        draft.create()
        draft.release()
        draft.put(publisher.channel_document(rollout=FIRST, seq=5))
        self.submit(publisher, draft.signed())
        return publisher

    def upload(self, namespace: Namespace, content: bytes) -> Digest:
        """A blob that the namespace owns."""
        digest = sha256_bytes(content)
        upload = self.server.uploads.begin(namespace, digest, len(content), 0)
        with upload:
            upload.append(content)
            upload.commit()
        ownership.own(
            self.server.database,
            self.pusher(namespace),
            namespace,
            digest,
            len(content),
            self.clock.now,
        )
        return digest


@contextmanager
def parts(home: Path, database_url: str = "", *, step: Step = no_step) -> Iterator[Parts]:
    """The parts of a server, for a block."""
    home.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        home=home, database=database_url, listen="127.0.0.1:0", http="127.0.0.1:0", drain_s=5
    )
    clock = TurnedClock()
    with open_server(settings, clock=clock, step=step) as server:
        yield Parts(server, clock, settings)


@dataclass
class Running:
    """A server whose ports are open."""

    parts: Parts
    edges: Edges
    loop: asyncio.AbstractEventLoop

    def channel(self) -> grpc.Channel:
        """A channel to it; close it."""
        return grpc.insecure_channel(self.edges.grpc)


@contextmanager
def running(made: Parts) -> Iterator[Running]:
    """Opens a server's ports for a block, in a thread with a loop of its own."""
    ready = threading.Event()
    found: list[Running] = []
    failed: list[BaseException] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(made.server, made.settings) as (edges, _):
            found.append(Running(made, edges, asyncio.get_running_loop()))
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    assert found, failed
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(stop.set)
        thread.join()
