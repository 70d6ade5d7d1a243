"""Which time counts, and what a wrong clock or a thief of the online key can do with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealift.client.agent.decisions import Judgement, judge
from sealift.protocol import layout
from sealift.protocol.documents import HoldState, Stage
from sealift.protocol.errors import RuleViolation
from sealift.protocol.layout import DAY_S, HOUR_S, RoleClass
from sealift.protocol.names import ArtifactId, Digest
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import Action, activation_refusal
from sealift.protocol.trusted_time import BUILD_DATE, SignedBound, trusted_time
from support.repository import (
    MODEL,
    START,
    Device,
    FakeClock,
    SignedNamespace,
    new_signer,
)

ARTIFACT = ArtifactId.parse("acme/model")
RELEASES = layout.role_name(MODEL, RoleClass.RELEASES)
YEAR_S = 365 * DAY_S


def decided(device: Device, active: Digest | None = None) -> Judgement:
    """What the device decides of the artifact, from what it believes."""
    home = device.home
    state = home.state()
    trust = home.trust(ARTIFACT.namespace, state)
    moment = trust.moment(device.memory)
    return judge(home, state, trust.believed(), moment, ARTIFACT, active=active)


def rotate_online_key(acme: SignedNamespace) -> None:
    """Root names a new online key; targets gives it `_hold` too."""
    acme.online = new_signer()
    acme.set_root_keys(layout.SNAPSHOT, [acme.online])
    acme.set_root_keys(layout.TIMESTAMP, [acme.online])
    acme.delegations.keys.clear()
    for role in acme.delegated:
        acme.delegate(role, [acme.online if role == layout.HOLD else acme.daily])
    acme.roles[layout.HOLD].version = 0
    acme.publish_root()
    acme.publish(layout.TARGETS, layout.HOLD)


# --- T15 --------------------------------------------------------------------------------------


def test_t15_only_signed_time_is_kept(acme: SignedNamespace, device: Device) -> None:
    acme.refresh()
    acme.clock.now += 5 * HOUR_S
    device.admit(acme)

    bound = device.memory.bound
    assert bound is not None
    assert bound.issued == START
    assert str(device.clock.now) not in device.memory.model_dump_json()


def test_t15_signed_time_goes_not_back_under_one_key(acme: SignedNamespace, device: Device) -> None:
    device.admit(acme)
    acme.clock.pass_s(60)
    acme.refresh(issued=START - 1)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.rule == "T15"


@pytest.mark.parametrize("issued", [True, "1800000000", -1, [START]])
def test_t15_a_timestamp_says_when_it_was_issued(
    acme: SignedNamespace, device: Device, issued: object
) -> None:
    acme.refresh(issued=issued)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.rule == "T15"


def test_t15_the_bound_falls_with_the_key_that_signed_it(
    acme: SignedNamespace, device: Device
) -> None:
    """A thief moved a device with a wrong clock far ahead; clock and root are set right."""
    device = replace(device, clock=FakeClock())
    device.admit(acme)
    device.clock.now = START - 2 * DAY_S
    ahead = START + 300 * DAY_S
    acme.refresh(issued=ahead)
    device.admit(acme)
    bound = device.memory.bound
    assert bound is not None
    assert bound.issued == ahead
    acme.clock.pass_s(HOUR_S)
    rotate_online_key(acme)
    device.clock.now = acme.clock.now

    admitted = device.admit(acme)

    assert not admitted.problems
    fallen = device.memory.bound
    assert fallen is not None
    assert fallen.issued == START + HOUR_S


# --- T16 --------------------------------------------------------------------------------------


def test_t16_a_timestamp_issued_over_a_day_ahead_is_refused(
    acme: SignedNamespace, device: Device
) -> None:
    acme.refresh(issued=START + DAY_S + 1)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.reason is Reason.ISSUED_TOO_FAR
    acme.refresh(issued=START + DAY_S)
    assert not device.admit(acme).problems


def test_t16_the_online_key_opens_no_stage_early_on_a_right_clock(
    acme: SignedNamespace, device: Device
) -> None:
    opens = START + 4 * HOUR_S
    release = acme.release("1.0.0")
    acme.channel(release, stages=(Stage(basis_points=10_000, not_before=opens),))
    acme.refresh(issued=START + 5 * HOUR_S, lifetime_s=11 * HOUR_S)
    device.admit(acme)
    assert decided(device).facts.t == START
    assert decided(device).decision.reasons == (Reason.SCHEDULE,)

    device.clock.pass_s(4 * HOUR_S)

    assert decided(device).decision.action is Action.ACTIVATE


@pytest.mark.parametrize(
    ("wall", "issued", "plausible", "t"),
    [
        (START, None, True, START),
        (START, START, True, START),
        (START, START + DAY_S, True, START),
        (START, START + DAY_S + 1, False, START + DAY_S + 1 + 5),
        (BUILD_DATE - 1, None, False, BUILD_DATE),
        (BUILD_DATE, None, True, BUILD_DATE),
        (0, START, False, START + 5),
        (START + 50 * YEAR_S, START, True, START + 50 * YEAR_S),
        (START, 5, True, START),
    ],
)
def test_t16_a_clock_is_plausible_from_the_build_date_and_a_day_before_the_bound(
    wall: int, issued: int | None, plausible: bool, t: int
) -> None:
    signed = None if issued is None else SignedBound(issued, "boot", 100.0)

    judged = trusted_time(wall, "boot", 105.0, signed)

    assert (judged.plausible, judged.t) == (plausible, t)
    assert judged.expiry_t == max(wall, BUILD_DATE, issued or 0)


# --- T17 --------------------------------------------------------------------------------------


def test_t17_expiry_goes_by_the_later_of_clock_and_bound(
    acme: SignedNamespace, device: Device
) -> None:
    """The stock client believes a clock that was set back; the bound knows better."""
    device = replace(device, clock=FakeClock(now=START))
    acme.clock.pass_s(5 * HOUR_S)
    acme.refresh()
    device.admit(acme)
    acme.refresh(lifetime_s=-60)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert (refused.value.rule, refused.value.reason) == ("T17", Reason.EXPIRED)


@pytest.mark.parametrize("role", [layout.STOP, RELEASES])
def test_t17_a_delegated_role_that_expired_is_refused(
    acme: SignedNamespace, device: Device, role: str
) -> None:
    acme.clock.now = START + 366 * DAY_S
    acme.publish_root()
    acme.publish(*(one for one in acme.roles if one != role))

    assert device.admit(acme).problems[role].reason is Reason.EXPIRED


def test_t17_an_online_file_expires_at_most_twice_its_lifetime_ahead(
    acme: SignedNamespace, device: Device
) -> None:
    acme.refresh(lifetime_s=12 * HOUR_S)
    device.admit(acme)
    acme.clock.pass_s(60)
    acme.refresh(lifetime_s=13 * HOUR_S)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.reason is Reason.EXPIRY_TOO_FAR


def test_t17_an_online_version_is_at_most_a_day_ahead(
    acme: SignedNamespace, device: Device
) -> None:
    """Else one stolen key could use up all versions for ever."""
    acme.refresh(version=START + DAY_S)
    device.admit(acme)
    acme.refresh(version=START + DAY_S + 1)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.reason is Reason.VERSION_TOO_FAR


def test_t17_a_hold_version_far_ahead_pauses_only(acme: SignedNamespace, device: Device) -> None:
    acme.roles[layout.HOLD].version = 2**52
    acme.publish(layout.HOLD)

    admitted = device.admit(acme)

    assert admitted.problems[layout.HOLD].reason is Reason.VERSION_TOO_FAR
    assert set(admitted.problems) == {layout.HOLD}


# --- T18, T19 ---------------------------------------------------------------------------------


def offered(acme: SignedNamespace, device: Device) -> None:
    """One release is open to all."""
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)


def test_t18_nothing_activates_on_an_old_timestamp(acme: SignedNamespace, device: Device) -> None:
    offered(acme, device)
    assert decided(device).decision.action is Action.ACTIVATE
    device.clock.pass_s(7_199)
    assert decided(device).decision.action is Action.ACTIVATE
    device.clock.pass_s(1)

    assert decided(device).decision.action is Action.KEEP
    assert decided(device).decision.reasons == (Reason.HOLD_TOO_OLD,)


def test_t18_going_back_never_needs_freshness(acme: SignedNamespace, device: Device) -> None:
    good, bad = acme.release("1.0.0"), acme.release("1.1.0")
    channel = acme.channel(bad, fallback=good)
    acme.hold(channel.rollout.id, HoldState.REVERTED)
    device.admit(acme)
    device.clock.pass_s(30 * DAY_S)

    judgement = decided(device, active=bad.sha256)

    assert judgement.decision.action is Action.FALL_BACK
    assert judgement.decision.release is not None
    assert judgement.decision.release.sha256 == good.sha256


def test_t18_the_boundary() -> None:
    assert activation_refusal(600, 599) is None
    assert activation_refusal(600, 600) is Reason.HOLD_TOO_OLD
    assert activation_refusal(600, None) is Reason.HOLD_TOO_OLD


@pytest.mark.parametrize(
    ("boot", "boot_s", "age"),
    [("boot", 160.0, 60), ("other", 160.0, None), ("other", 5.0, None), ("boot", 100.0, 0)],
)
def test_t18_without_a_plausible_clock_age_is_boot_time_and_unknown_after_a_reboot(
    boot: str, boot_s: float, age: int | None
) -> None:
    judged = trusted_time(0, boot, boot_s, SignedBound(START, "boot", 100.0))

    assert judged.timestamp_age_s == age


def test_t18_a_system_that_cannot_tell_its_boots_apart_knows_no_age() -> None:
    judged = trusted_time(0, "", 5.0, SignedBound(START, "", 100.0))

    assert judged.timestamp_age_s is None


@pytest.mark.parametrize("wrong", [0, START - 2 * DAY_S, START + 20 * YEAR_S])
def test_t19_a_wrong_clock_leaves_nothing_behind(
    acme: SignedNamespace, device: Device, wrong: int
) -> None:
    device = replace(device, clock=FakeClock())
    offered(acme, device)
    before = device.memory
    device.clock.now = wrong
    if wrong > START:
        assert decided(device).decision.action is Action.KEEP
        with pytest.raises(RuleViolation) as refused:
            device.admit(acme)
        assert refused.value.reason is Reason.EXPIRED
    else:
        assert decided(device).moment.time.plausible is False
        device.admit(acme)
    device.clock.now = START

    assert device.memory == before
    assert decided(device).decision.action is Action.ACTIVATE
    assert not device.admit(acme).problems


@pytest.mark.parametrize("wrong", [0, START + 20 * YEAR_S])
def test_t19_what_runs_goes_on_running_whatever_the_clock_says(
    acme: SignedNamespace, device: Device, wrong: int
) -> None:
    release = acme.release("1.0.0")
    acme.channel(release)
    device.admit(acme)
    device.clock.now = wrong

    decision = decided(device, active=release.sha256).decision

    assert (decision.action, decision.release) == (Action.KEEP, release)


def test_stale_is_the_reason_once_the_timestamp_expired(
    acme: SignedNamespace, device: Device
) -> None:
    offered(acme, device)
    device.clock.pass_s(6 * HOUR_S)

    assert decided(device).decision.reasons == (Reason.STALE,)
