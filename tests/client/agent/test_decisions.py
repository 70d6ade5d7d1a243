"""From what a device believes to what it decides, and what it must not forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.client.agent.decisions import Judgement, judge
from sealift.client.agent.state import DamagedState, DeviceState
from sealift.protocol import layout
from sealift.protocol.documents import HoldState, ReleasePointer, Severity, Stage
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, Digest, Namespace
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import Action
from support.repository import MODEL, STABLE, START, Device, SignedNamespace

ARTIFACT = ArtifactId.parse("acme/model")


@pytest.fixture
def acme() -> SignedNamespace:
    """A namespace with one artifact."""
    return SignedNamespace()


@pytest.fixture
def device(acme: SignedNamespace, tmp_path: Path) -> Device:
    """A device that follows the artifact on stable."""
    return Device.joined(tmp_path, acme)


def judged(device: Device, active: Digest | None = None, at: int | None = None) -> Judgement:
    """What the device decides."""
    home = device.home
    state = home.state()
    trust = home.trust(device.namespace, state)
    moment = trust.moment(device.memory)
    return judge(home, state, trust.believed(), moment, ARTIFACT, active=active, at=at)


def pin(device: Device, release: ReleasePointer, *, follow: bool = True) -> None:
    """Pins the artifact; without `follow` it is no longer followed."""

    def change(state: DeviceState) -> DeviceState:
        pinned = state.with_pin(ARTIFACT, release)
        return pinned if follow else pinned.with_following(ARTIFACT, None)

    device.home.change("pin", change)


def test_what_is_believed_and_open_is_activated(acme: SignedNamespace, device: Device) -> None:
    release = acme.release("1.0.0")
    acme.channel(release)
    device.admit(acme)

    decision = judged(device).decision

    assert (decision.action, decision.release) == (Action.ACTIVATE, release)


def test_another_time_asks_what_would_be(acme: SignedNamespace, device: Device) -> None:
    stages = (Stage(basis_points=10_000, not_before=START + 60),)
    acme.channel(acme.release("1.0.0"), stages=stages)
    device.admit(acme)

    assert judged(device).decision.opens_at == START + 60
    assert judged(device, at=START + 60).decision.action is Action.ACTIVATE


def test_t07_nothing_activates_through_a_role_that_was_refused(
    acme: SignedNamespace, device: Device
) -> None:
    release = acme.release("1.0.0")
    acme.channel(release)
    device.admit(acme)
    acme.roles[layout.STOP].unrecognized_fields = {}
    acme.publish(layout.STOP)
    device.admit(acme)

    judgement = judged(device)

    assert judgement.decision.action is Action.KEEP
    assert judgement.problem is not None
    assert judgement.problem.role == layout.STOP
    assert judged(device, active=release.sha256).decision.reasons == (Reason.CURRENT,)


@pytest.mark.parametrize("follow", [True, False])
def test_t07_nor_does_a_pin(acme: SignedNamespace, device: Device, follow: bool) -> None:
    release = acme.release("1.0.0")
    device.admit(acme)
    pin(device, release, follow=follow)
    assert judged(device).decision.action is Action.ACTIVATE
    acme.roles[layout.STOP].unrecognized_fields = {}
    acme.publish(layout.STOP)
    device.admit(acme)

    assert judged(device).decision.action is Action.KEEP


@pytest.mark.parametrize("severity", [Severity.NO_NEW, Severity.STOP])
def test_a_revoked_pin_is_not_activated_nor_when_nothing_is_known(
    acme: SignedNamespace, device: Device, severity: Severity
) -> None:
    release = acme.release("1.0.0")
    acme.stop(release, severity)
    device.admit(acme)
    pin(device, release)
    assert judged(device).decision.reasons == (Reason.REVOKED, Reason.PINNED)

    device.lose_cache()

    assert judged(device).decision.action is Action.KEEP
    assert judged(device).decision.reasons == (Reason.MISSING, Reason.PINNED)


def test_t14_a_halt_outlives_the_cache_in_what_is_decided(
    acme: SignedNamespace, device: Device
) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    acme.hold(channel.rollout.id, HoldState.HALTED)
    device.admit(acme)
    acme.hold(channel.rollout.id, HoldState.RUNNING)
    device.lose_cache()
    device.admit(acme)

    assert judged(device).decision.reasons == (Reason.HALTED,)


def test_a_release_that_was_left_is_not_taken_again(acme: SignedNamespace, device: Device) -> None:
    release = acme.release("1.0.0")
    acme.channel(release)
    device.admit(acme)
    device.home.change("undo", lambda state: state.with_denied(release.sha256))
    assert judged(device).decision.reasons == (Reason.DENYLISTED,)

    device.home.change("retry", lambda state: state.without_denied(release.sha256))

    assert judged(device).decision.action is Action.ACTIVATE


# --- state.json -------------------------------------------------------------------------------


def test_state_is_read_as_it_is_written(acme: SignedNamespace, device: Device) -> None:
    release = acme.release("1.0.0")
    channel = acme.channel(release)
    acme.hold(channel.rollout.id, HoldState.REVERTED)
    device.admit(acme)
    pin(device, release)
    device.home.change("undo", lambda state: state.with_denied(release.sha256))

    state = device.home.state()

    assert DeviceState.parse(state.encode(), "state.json") == state
    assert state.final_rollouts(acme.name) == {channel.rollout.id: HoldState.REVERTED}
    assert state.artifacts() == (ARTIFACT,)
    assert state.following[str(ARTIFACT)].channel == STABLE
    assert state.with_following(ARTIFACT, None).with_pin(ARTIFACT, None).artifacts() == ()
    assert ARTIFACT.artifact == MODEL


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"schema":"x"}', b'{"denylist":["x"]}'])
def test_a_damaged_state_is_never_taken_for_an_empty_one(device: Device, data: bytes) -> None:
    (device.home.folder / "state.json").write_bytes(data)

    with pytest.raises(DamagedState, match="is damaged"):
        device.home.state()


@pytest.mark.parametrize("data", [b'{"schema":2}', b'{"schema":2,"denylist":{"new":"form"}}'])
def test_a_newer_state_asks_for_a_newer_sealift(device: Device, data: bytes) -> None:
    with pytest.raises(DamagedState, match="newer Sealift"):
        DeviceState.parse(data, "state.json")


def test_a_namespace_that_was_not_joined_is_named() -> None:
    with pytest.raises(SealiftError, match="has not joined other"):
        DeviceState().joined(Namespace("other"))


def test_a_device_has_a_secret_of_its_own(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = device.home.secret()
    assert len(secret) == 32
    assert device.home.secret() == secret

    monkeypatch.setattr("sealift.client.agent.home.machine_id", lambda: b"a clone")

    assert device.home.secret() != secret
