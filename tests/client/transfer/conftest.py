"""A device's store, and servers of content that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealift.client.store.store import Store
from sealift.client.transfer.fetching import Tuning, fetch_release
from sealift.client.transfer.server import server_sources
from sealift.client.transfer.source import Patience
from sealift.client.transfer.streams import Retries
from sealift.host import rpc
from sealift.host.files import Step, no_step
from sealift.host.hashing import Advance
from sealift.protocol.names import Namespace
from support.content_servers import (
    TOKEN,
    GrpcContent,
    HttpContent,
    grpc_content,
    http_content,
)
from support.releases import PIECE_BYTES, MadeRelease

QUICK = Retries(first_s=0.001, longest_s=0.002)


@pytest.fixture
def server() -> Iterator[GrpcContent]:
    """The device's server, without an object store."""
    with grpc_content() as running:
        yield running


@pytest.fixture
def object_store(server: GrpcContent) -> Iterator[HttpContent]:
    """The object store that the server points to."""
    with http_content() as running:
        server.urls = running.url
        yield running


@dataclass
class Device:
    """A device with its store and its server."""

    store: Store
    server: GrpcContent
    token: str = TOKEN
    tuning: Tuning = field(
        default_factory=lambda: Tuning(batch_bytes=4 * PIECE_BYTES, retries=QUICK)
    )
    patience: Patience = field(default_factory=Patience)
    ca: str | None = None
    told: list[int] = field(default_factory=list)

    def fetch(
        self, release: MadeRelease, *, advance: Advance | None = None, step: Step = no_step
    ) -> None:
        """Fetches a release from the server and its object store."""
        self.told.clear()
        channel = rpc.open_channel(self.server.address)
        try:
            with server_sources(
                channel,
                self.server.address,
                Namespace("acme"),
                self.token,
                patience=self.patience,
                ca=self.ca,
            ) as sources:
                fetch_release(
                    release.manifest,
                    release.digest,
                    release.data,
                    self.store,
                    sources,
                    advance or self.told.append,
                    step,
                    tuning=self.tuning,
                )
        finally:
            channel.close()

    def check_installed(self, release: MadeRelease) -> None:
        """Sees that the release is installed, whole, and nothing is left of the transfer."""
        assert self.store.verify(release.digest).ok
        assert self.store.is_whole(release.digest)
        assert list(self.store.partial.iterdir()) == []
        assert not [one for one in self.store.releases.iterdir() if one.name.startswith(".")]

    def check_not_installed(self, release: MadeRelease) -> None:
        """Sees that nothing of the release can be used."""
        assert not self.store.has(release.digest)


@pytest.fixture
def device(tmp_path: Path, server: GrpcContent) -> Device:
    """A device that has nothing yet."""
    return Device(Store(tmp_path / "store"), server)


@pytest.fixture
def publish(
    server: GrpcContent, request: pytest.FixtureRequest
) -> Callable[[MadeRelease], MadeRelease]:
    """Puts a release's blobs on the server, and in the object store if the test has one."""

    def put(release: MadeRelease) -> MadeRelease:
        server.blobs.update(release.blobs)
        if "object_store" in request.fixturenames:
            request.getfixturevalue("object_store").blobs.update(release.blobs)
        return release

    return put


@pytest.fixture(autouse=True)
def no_stray_threads() -> Iterator[None]:
    """Every transfer ends its threads, whatever happened."""
    yield
    assert not [one for one in threading.enumerate() if one.name.startswith("transfer")]
