"""A thief of the server's disk and online key makes no device run what was not signed for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealift.client.agent.home import DeviceHome
from sealift.client.publish.channels import next_channel, rollback_move
from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import PublisherHome
from sealift.client.publish.keyring import Keyring
from sealift.client.publish.releases import submit
from sealift.client.publish.signing import NextState, SignedSet
from sealift.client.trust.fetcher import RepositoryFetcher
from sealift.client.trust.memory import Memory
from sealift.host.clock import SystemClock
from sealift.host.rpc import ServerAddress
from sealift.protocol import layout
from sealift.protocol.documents import Hold, HoldState
from sealift.protocol.errors import RuleViolation
from sealift.protocol.names import ArtifactId, ChannelName, Namespace, Version
from sealift.protocol.parsing import encode_document
from sealift.v1.publish_pb2 import SubmitResponse
from support.attack_scene import Device, Scene
from support.takeover import Impostor, Loot, serving
from support.walks import PASSPHRASE

ACME = Namespace("acme")
MODEL = ArtifactId.parse("acme/model")
STABLE = ChannelName("stable")
HOLD_PATH = layout.hold_path(MODEL.artifact, STABLE)


def _runs(device: Device, version: str) -> bool:
    return device.active == version and device.content == f"weights of {version}\n" * 1000


def _error(said: dict[str, Any]) -> str:
    return str(said["artifacts"][0].get("error", {}).get("reason", ""))


# --- older states -----------------------------------------------------------------------------


@pytest.mark.parametrize("forgetful", [False, True], ids=["", "without its cache"])
def test_an_older_disk_is_refused(scene: Scene, tmp_path: Path, forgetful: bool) -> None:
    device = scene.device(tmp_path, "second")
    if forgetful:
        device.forget_trust()
    said = device.update(Impostor(scene.first))
    assert (_error(said), said["code"]) == ("rolled_back", 1)
    assert _runs(device, "1.1.0")


@pytest.mark.parametrize("forgetful", [False, True], ids=["", "without its cache"])
@pytest.mark.parametrize("role", ["a.model.channels", "a.model.releases"])
def test_an_older_role_under_a_new_snapshot_is_refused(
    scene: Scene, tmp_path: Path, now: int, role: str, forgetful: bool
) -> None:
    device = scene.device(tmp_path, "second")
    if forgetful:
        device.forget_trust()
    older = scene.first.roles[role]
    documents = {path: data for path, data in scene.first.files.items() if "targets/" in path}
    loot = scene.second.signed(now, roles=[older], documents=documents)
    said = device.update(Impostor(loot))
    assert (_error(said), said["code"]) == ("rolled_back", 1)
    assert _runs(device, "1.1.0")


def test_a_new_channel_with_older_releases_is_refused(
    scene: Scene, tmp_path: Path, now: int
) -> None:
    """Mix and match, on a device that saw neither."""
    device = scene.device(tmp_path, "joined")
    older = scene.first.roles["a.model.releases"]
    said = device.update(Impostor(scene.second.signed(now, roles=[older])))
    assert (_error(said), said["code"]) == ("wrong_place", 1)
    assert not (device.home / "device" / "active.json").exists()


# --- files of elsewhere -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "role", ["root", "targets", "_stop", "a.model.releases", "a.model.channels"]
)
def test_a_file_of_another_namespace_is_refused(
    scene: Scene, tmp_path: Path, now: int, role: str
) -> None:
    """Also where it is signed by the same person, and listed by the namespace's own snapshot."""
    device = scene.device(tmp_path, "first")
    foreign = scene.rival.roles[role]
    if role == "root":
        files = dict(scene.second.files)
        files["metadata/2.root.json"] = foreign.data
        loot = replace(scene.second, files=files)
    else:
        documents = {path: data for path, data in scene.rival.files.items() if "targets/" in path}
        loot = scene.second.signed(now, roles=[foreign], documents=documents)
    said = device.update(Impostor(loot))
    assert said["code"] == 1
    assert _runs(device, "1.0.0")


@pytest.mark.parametrize(
    ("artifact", "channel"),
    [("acme/other", "stable"), ("rival/model", "stable"), ("acme/model", "beta")],
)
def test_a_hold_of_elsewhere_counts_as_none_known(
    scene: Scene, tmp_path: Path, now: int, artifact: str, channel: str
) -> None:
    device = scene.device(tmp_path, "first")
    hold = Hold(
        artifact=ArtifactId.parse(artifact),
        channel=ChannelName(channel),
        rollout=scene.second.channel("model").rollout.id,
        state=HoldState.RUNNING,
    )
    loot = scene.second.signed(now, holds={HOLD_PATH: encode_document(hold)})
    said = device.update(Impostor(loot))
    assert said["artifacts"][0]["decision"]["reasons"] == ["hold_unknown"]
    assert _runs(device, "1.0.0")


# --- halted is final --------------------------------------------------------------------------


@pytest.mark.parametrize("forgetful", [False, True], ids=["", "without its cache"])
def test_a_halt_that_was_seen_is_not_lifted(
    scene: Scene, tmp_path: Path, now: int, forgetful: bool
) -> None:
    device = scene.device(tmp_path, "first")
    device.update(Impostor(scene.second.with_hold(now, "model", HoldState.HALTED)))
    assert _runs(device, "1.0.0")
    if forgetful:
        device.forget_trust()
    for loot in (
        scene.second.with_hold(now + 1, "model", HoldState.RUNNING),
        scene.second.signed(now + 2, holds={}),
    ):
        said = device.update(Impostor(loot))
        assert said["artifacts"][0]["decision"]["reasons"][0] == "halted"
        assert _runs(device, "1.0.0")


# --- revocations ------------------------------------------------------------------------------


def test_a_revoked_fallback_is_not_taken_where_the_revocation_is_hidden(
    scene: Scene, tmp_path: Path, now: int
) -> None:
    """The device saw the revocation, then lost its cache; the server hides it and reverts."""
    device = scene.device(tmp_path, "revoked")
    device.forget_trust()
    loot = scene.revoked.with_hold(now, "model", HoldState.REVERTED)
    hidden = {path: data for path, data in loot.files.items() if "_stop" not in path}
    said = device.update(Impostor(replace(loot, files=hidden)))
    assert said["code"] == 1
    assert _runs(device, "1.1.0")


@pytest.mark.parametrize(
    ("state", "reason"), [("revoked", "revoked"), ("second", "missing")], ids=["revoked", "unknown"]
)
def test_a_pin_activates_nothing_where_no_signed_file_is_known(
    scene: Scene, tmp_path: Path, state: str, reason: str
) -> None:
    """The pinned release is installed, so nothing but the decision keeps it from running."""
    device = scene.device(tmp_path, state)
    home = DeviceHome.at(device.home)
    pin = scene.first.channel("model").release
    home.change("pin", lambda now: now.with_pin(MODEL, pin))
    device.forget_trust()
    said = device.update(Impostor(scene.first))
    assert (_error(said), said["code"]) == ("rolled_back", 1)
    assert said["artifacts"][0]["decision"]["reasons"] == [reason, "pinned"]
    assert _runs(device, "1.1.0")


# --- content ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        lambda request: iter([b"x" * request.length]),
        lambda request: iter([b"x"] * (request.length + 5)),
        lambda request: iter([b""] * 50),
    ],
    ids=["other bytes", "too many", "none"],
)
def test_content_that_was_not_signed_is_not_installed(
    scene: Scene, tmp_path: Path, lie: Callable[[object], object]
) -> None:
    device = scene.device(tmp_path, "first")
    said = device.update(Impostor(scene.second, blob=lie))  # type: ignore[arg-type]
    assert said["code"] == 1
    assert _runs(device, "1.0.0")
    assert device.update(Impostor(scene.second))["code"] == 0
    assert _runs(device, "1.1.0")


# --- two at once ------------------------------------------------------------------------------


class _Overtaken(RepositoryFetcher):
    """Answers slowly: another process of the device finishes an update meanwhile."""

    def __init__(self, loot: Loot, meanwhile: Callable[[], object]) -> None:
        super().__init__(ACME, None, loot.files, 1)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def read(self, path: str, most: int = 1 << 23) -> bytes:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().read(path, most)


def test_a_slow_answer_does_not_lower_what_another_process_saw(
    scene: Scene, tmp_path: Path, now: int
) -> None:
    """The server answers one process late and old, while another sees the new state."""
    device = scene.device(tmp_path, "first")
    home = DeviceHome.at(device.home)
    older = scene.first.signed(now)
    newer = scene.second.signed(now + 1)

    def meanwhile() -> None:
        home.trust(ACME, home.state()).admit(RepositoryFetcher(ACME, None, newer.files, 1))

    home.trust(ACME, home.state()).admit(_Overtaken(older, meanwhile))
    believed = home.trust(ACME, home.state()).believed()
    assert believed is None or believed.timestamp.version == newer.roles["timestamp"].version
    memory = home.state().joined(ACME).memory
    assert memory.channels["model:stable"].sequence == scene.second.channel("model").sequence
    assert memory.roles["timestamp"].version == newer.roles["timestamp"].version


def test_a_revert_that_was_seen_is_not_forgotten_by_a_halt() -> None:
    reverted = Memory(final={"a" * 16: HoldState.REVERTED})
    halted = Memory(final={"a" * 16: HoldState.HALTED})
    for memory in (reverted.raised_by(halted), halted.raised_by(reverted)):
        assert memory.final["a" * 16] is HoldState.REVERTED


# --- the publisher's side ---------------------------------------------------------------------


def test_a_server_that_hides_what_it_took_gets_no_signature_over_the_older_base(
    scene: Scene, tmp_path: Path
) -> None:
    """Else the next signature would bring back what the hidden one had taken away."""
    shutil.copytree(scene.publisher, tmp_path / "home")
    home = PublisherHome.at(tmp_path / "home", ACME, clock=SystemClock())
    keyring = Keyring(home, lambda _: PASSPHRASE["SEALIFT_PASSPHRASE"].encode())
    with (
        serving(Impostor(scene.revoked)) as address,
        _Hiding.open(ServerAddress.parse(address), None) as connection,
    ):
        admitted = connection.admit(home.trust())
        move = rollback_move(admitted, MODEL.artifact, STABLE, Version.parse("1.2.0"))
        state = NextState(home, admitted)
        document = encode_document(next_channel(home, admitted, move))
        state.put_document(layout.channel_path(MODEL.artifact, STABLE), document)
        for attempt in (
            lambda: submit(connection, state, keyring, admitted),
            lambda: connection.admit(home.trust()),
        ):
            with pytest.raises(RuleViolation) as refused:
                attempt()
            assert (refused.value.rule, refused.value.role) == ("T3", "a.model.channels")


class _Hiding(PublisherConnection):
    """Takes what is submitted, and goes on showing what was there before."""

    __slots__ = ()

    def submit(self, namespace: Namespace, signed: SignedSet) -> SubmitResponse:
        del namespace, signed
        return SubmitResponse()
