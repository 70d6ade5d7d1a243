"""A publisher, devices, and the states that a thief of the server's disk may serve them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import PublisherHome
from sealift.client.publish.keyring import Keyring
from sealift.client.publish.releases import submit
from sealift.client.publish.signing import NextState
from sealift.host.clock import SystemClock
from sealift.host.rpc import ServerAddress
from sealift.protocol import layout
from sealift.protocol.documents import Severity, Stop, StoppedRelease
from sealift.protocol.names import ArtifactId, ArtifactName, Namespace, Version
from sealift.protocol.parsing import encode_document
from support.takeover import Impostor, Loot, serving
from support.walks import PASSPHRASE, Walk, walking

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


@dataclass(frozen=True)
class Scene:
    """What the attacks begin with.

    Attributes:
        walk: The honest server.
        publisher: The home that publishes `acme` and `rival`.
        first: `acme/model:stable` is at 1.0.0.
        second: It is at 1.1.0, with 1.0.0 as the fallback.
        revoked: The same, and 1.0.0 is revoked.
        rival: A namespace of the same publisher.
        devices: A device's home at each of these states, and one that has only joined.
    """

    walk: Walk
    publisher: Path
    first: Loot
    second: Loot
    revoked: Loot
    rival: Loot
    devices: Path

    def device(self, folder: Path, name: str) -> Device:
        """A copy of a device: `joined`, `first`, `second` or `revoked`."""
        home = folder / "device-home"
        shutil.copytree(self.devices / name, home)
        return Device(self.walk, home)


@dataclass(frozen=True)
class Device:
    """One device."""

    walk: Walk
    home: Path

    def update(self, impostor: Impostor, *arguments: str) -> dict[str, Any]:
        """Updates from an impostor: what the command says, and its exit code as `code`."""
        with serving(impostor) as address:
            done = self.walk.run(
                self.home, "update", "--server", address, "--output", "json", *arguments
            )
        assert "Traceback" not in done.stderr, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return {**said, "code": done.returncode, "stderr": done.stderr}

    @property
    def active(self) -> str:
        """The version that runs."""
        pointer = json.loads((self.home / "device" / "active.json").read_text())
        return str(pointer["artifacts"]["acme/model"]["active"]["version"])

    @property
    def content(self) -> str:
        """What an app gets."""
        done = self.walk.done(self.home, "path", "acme/model")
        return (Path(done.stdout.strip()) / "weights.txt").read_text()

    def forget_trust(self) -> None:
        """Deletes the cache, as users do first."""
        shutil.rmtree(self.home / "device" / "trust")


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The states, each made by the real commands."""
    folder = tmp_path_factory.mktemp("takeover")
    with walking(folder) as walk:
        publisher, devices = folder / "publisher-home", folder / "devices"
        for namespace in ("acme", "rival"):
            done = walk.init(publisher, namespace)
            assert done.returncode == 0, done.stderr
        _push(walk, publisher, folder, "rival", "9.0.0", "stable")
        _push(walk, publisher, folder, "acme", "1.0.0", "stable")
        join = _on(walk, publisher, "acme", "invite", "--follow", "model", "--uses", "9")
        walk.done(devices / "joined", "join", join.strip())
        first = _copy(devices, "joined", "first")
        walk.done(first, "update")
        at_first = _loot(walk, publisher, "acme")
        for version in VERSIONS[1:]:
            _push(walk, publisher, folder, "acme", version)
        _on(walk, publisher, "acme", "promote", "model@1.1.0", "--to", "stable", "--plan", "now")
        second = _copy(devices, "first", "second")
        walk.done(second, "update")
        at_second = _loot(walk, publisher, "acme")
        revoke(walk, publisher, "1.0.0")
        revoked = _copy(devices, "second", "revoked")
        walk.done(revoked, "update")
        at_revoked, rival = _loot(walk, publisher, "acme"), _loot(walk, publisher, "rival")
        yield Scene(walk, publisher, at_first, at_second, at_revoked, rival, devices)


def _copy(devices: Path, before: str, after: str) -> Path:
    return Path(shutil.copytree(devices / before, devices / after))


def _on(walk: Walk, home: Path, namespace: str, *arguments: str) -> str:
    return walk.done(home, *arguments, "--namespace", namespace).stdout


def _loot(walk: Walk, publisher: Path, namespace: str) -> Loot:
    token = (publisher / "publisher" / namespace / "token").read_text().strip()
    return Loot.of(walk.server, walk.address, namespace, token)


def _push(
    walk: Walk, publisher: Path, folder: Path, namespace: str, version: str, channel: str = ""
) -> None:
    content = folder / f"content-{version}"
    content.mkdir()
    (content / "weights.txt").write_text(f"weights of {version}\n" * 1000)
    options = ["--kind", "model", *(["--to", channel] if channel else [])]
    _on(walk, publisher, namespace, "push", str(content), f"model@{version}", *options)


def revoke(walk: Walk, publisher: Path, version: str) -> None:
    """Signs that a release of `acme/model` must not be run, and submits it."""
    home = PublisherHome.at(publisher, Namespace("acme"), clock=SystemClock())
    address, token = ServerAddress.parse(walk.address), home.token()
    with PublisherConnection.open(address, token) as connection:
        admitted = connection.admit(home.trust())
        model = ArtifactName("model")
        digest, _ = admitted.releases(model)[Version.parse(version)]
        entry = StoppedRelease(
            sha256=digest, version=Version.parse(version), severity=Severity.STOP
        )
        stop = Stop(artifact=ArtifactId(home.namespace, model), releases=(entry,))
        state = NextState(home, admitted)
        state.put_document(layout.stop_path(model), encode_document(stop))
        passphrase = PASSPHRASE["SEALIFT_PASSPHRASE"].encode()
        submit(connection, state, Keyring(home, lambda _: passphrase), admitted)


@pytest.fixture
def now() -> int:
    """A second that no honest signature has claimed yet."""
    return int(time.time()) + 60
