"""The arithmetic of a rollout, and every decision that is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.host.hashing import sha256_bytes
from sealift.protocol.documents import (
    Channel,
    FallbackPointer,
    Hold,
    HoldState,
    ReleasePointer,
    Rollout,
    Severity,
    Stage,
)
from sealift.protocol.errors import InvalidPlan
from sealift.protocol.names import ArtifactId, ChannelName, Version
from sealift.protocol.plan import format_share, parse_duration, parse_plan
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import (
    Action,
    Facts,
    HoldStatus,
    decide,
    fully_open_at,
    minimum_floor,
    opens_at,
    share_at,
    ticket,
)

T0 = 1_800_000_000
SECRET = b"s" * 32
LABELS = st.lists(st.sampled_from(["lab", "edge"]), max_size=2, unique=True).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Stage, ...]:
    """Stages as a document may have them."""
    stages: list[Stage] = []
    newest: dict[tuple[str, ...], Stage] = {}
    for _ in range(draw(st.integers(0, 5))):
        labels = draw(LABELS)
        before = newest.get(labels)
        lowest = before.basis_points + 1 if before else 1
        if lowest > 10_000:
            continue
        earliest = before.not_before if before else T0
        stage = Stage(
            basis_points=draw(st.integers(lowest, 10_000)),
            not_before=earliest + draw(st.integers(0, 5_000)),
            ramp_s=draw(st.sampled_from([0, 1, 7, 3_600])),
            labels=labels,
        )
        newest[labels] = stage
        stages.append(stage)
    Rollout(id="0" * 16, salt="0" * 32, stages=tuple(stages))
    return tuple(stages)


PLACES = st.integers(0, 9_999)
DEVICE_LABELS = st.frozensets(st.sampled_from(["lab", "edge", "other"]))
TIMES = st.integers(T0 - 10, T0 + 30_000)


@settings(max_examples=200)
@given(plans(), DEVICE_LABELS, PLACES, TIMES)
def test_a_device_is_offered_exactly_while_its_ticket_is_below_the_share(
    stages: tuple[Stage, ...], labels: frozenset[str], place: int, t: int
) -> None:
    opening = opens_at(stages, labels, place)

    assert (opening is not None and t >= opening) == (place < share_at(stages, labels, t))


@settings(max_examples=200)
@given(plans(), DEVICE_LABELS, PLACES)
def test_opens_at_is_the_first_second_of_the_offer(
    stages: tuple[Stage, ...], labels: frozenset[str], place: int
) -> None:
    opening = opens_at(stages, labels, place)
    if opening is None:
        assert place >= share_at(stages, labels, T0 + 10**9)
    elif stages:
        assert place < share_at(stages, labels, opening)
        assert place >= share_at(stages, labels, opening - 1)


@settings(max_examples=200)
@given(plans(), DEVICE_LABELS, TIMES, st.integers(0, 5_000))
def test_a_share_never_falls(
    stages: tuple[Stage, ...], labels: frozenset[str], t: int, later: int
) -> None:
    assert share_at(stages, labels, t) <= share_at(stages, labels, t + later)


@settings(max_examples=100)
@given(plans(), DEVICE_LABELS, PLACES, st.integers(0, 9_999))
def test_a_lower_ticket_is_never_later(
    stages: tuple[Stage, ...], labels: frozenset[str], place: int, other: int
) -> None:
    first, second = sorted((place, other))
    early, late = opens_at(stages, labels, first), opens_at(stages, labels, second)
    assert late is None or (early is not None and early <= late)


@settings(max_examples=100)
@given(plans(), DEVICE_LABELS, TIMES)
def test_more_labels_never_take_away(
    stages: tuple[Stage, ...], labels: frozenset[str], t: int
) -> None:
    assert share_at(stages, frozenset(), t) <= share_at(stages, labels, t)


@settings(max_examples=100)
@given(plans())
def test_fully_open_is_when_the_last_ticket_opens(stages: tuple[Stage, ...]) -> None:
    opened = fully_open_at(stages)
    if opened is not None:
        assert share_at(stages, frozenset(), max(opened, T0)) == 10_000 or not stages
        assert opened == 0 or share_at(stages, frozenset(), opened - 1) < 10_000


def test_without_stages_all_are_offered_at_once() -> None:
    assert opens_at((), frozenset(), 9_999) == 0
    assert share_at((), frozenset(), 0) == 10_000


def test_a_wider_stage_only_adds_to_a_ramp() -> None:
    stages = parse_plan("10%~10s/5s,50%~10s", T0)
    assert [share_at(stages, frozenset(), T0 + s) for s in (0, 1, 5, 6, 15)] == [
        0,
        100,
        1_000,
        1_400,
        5_000,
    ]


@settings(max_examples=100)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_tickets_are_places(salt: bytes, secret: bytes) -> None:
    assert 0 <= ticket(salt, secret) < 10_000
    assert ticket(salt, secret) == ticket(salt, secret)


# --- decisions --------------------------------------------------------------------------------


def pointer(name: str, version: str) -> ReleasePointer:
    """A pointer to a release."""
    return ReleasePointer(
        version=Version.parse(version), sha256=sha256_bytes(name.encode()), length=1
    )


NEW, OLD, OTHER = pointer("new", "1.1.0"), pointer("old", "1.0.0"), pointer("other", "0.9.0")
OPEN: tuple[Stage, ...] = ()
LATER = (Stage(basis_points=10_000, not_before=T0 + 60),)
LAB = (Stage(basis_points=10_000, not_before=T0, labels=("lab",)),)


def channel(stages: tuple[Stage, ...] = OPEN, until: int = T0 + 100, **more: Any) -> Channel:
    """A channel on the new release, with the old one as its fallback."""
    said: dict[str, Any] = {
        "artifact": ArtifactId.parse("acme/model"),
        "channel": ChannelName("stable"),
        "sequence": 1,
        "release": NEW,
        "rollout": Rollout(id="0" * 16, salt="0" * 32, stages=stages),
        "fallback": FallbackPointer(**dict(OLD), until=until),
        "created": T0,
    }
    return Channel(**{**said, **more})


def facts(where: Channel | None, **more: Any) -> Facts:
    """What a decision depends on; all is well but for what is given."""
    said = {"t": T0, "channel": where, "hold": HoldStatus(), "secret": SECRET}
    return Facts(**{**said, **more})


HALTED, PAUSED = HoldStatus(HoldState.HALTED), HoldStatus(HoldState.PAUSED)
REVERTED, UNKNOWN = HoldStatus(HoldState.REVERTED), HoldStatus(known=False)
CAPPED = HoldStatus(cap=0)
STOPPED = {NEW.sha256: Severity.STOP}
NO_NEW = {NEW.sha256: Severity.NO_NEW}
WARNED = {NEW.sha256: Severity.WARN}
DENIED = frozenset({NEW.sha256})
KEEP, ACTIVATE, BACK = Action.KEEP, Action.ACTIVATE, Action.FALL_BACK
OFF = channel(release=None, fallback=None)
ALONE = channel(fallback=None)
R = Reason


@pytest.mark.parametrize(
    ("given_facts", "action", "release", "reasons"),
    [
        # nothing to decide on
        (facts(None), KEEP, None, (R.NOTHING_OFFERED,)),
        (facts(None, blocked=R.STALE), KEEP, None, (R.STALE,)),
        (facts(OFF, active=NEW.sha256), KEEP, None, (R.CLOSED,)),
        # offered
        (facts(channel()), ACTIVATE, NEW, (R.OFFERED,)),
        (facts(channel(), active=OLD.sha256), ACTIVATE, NEW, (R.OFFERED,)),
        (facts(channel(), active=NEW.sha256), KEEP, NEW, (R.CURRENT,)),
        (facts(channel(), revoked=WARNED), ACTIVATE, NEW, (R.OFFERED,)),
        (facts(channel(), blocked=R.HOLD_TOO_OLD), KEEP, NEW, (R.HOLD_TOO_OLD,)),
        # revoked
        (facts(channel(), revoked=STOPPED), BACK, OLD, (R.REVOKED, R.FALLBACK)),
        (facts(channel(), revoked=NO_NEW), BACK, OLD, (R.REVOKED, R.FALLBACK)),
        (facts(ALONE, revoked=STOPPED), KEEP, NEW, (R.REVOKED,)),
        (facts(channel(), active=NEW.sha256, revoked=NO_NEW), KEEP, NEW, (R.CURRENT, R.REVOKED)),
        (
            facts(channel(), active=NEW.sha256, revoked=STOPPED),
            BACK,
            OLD,
            (R.REVOKED, R.FALLBACK),
        ),
        (
            facts(channel(), revoked={**STOPPED, OLD.sha256: Severity.NO_NEW}),
            KEEP,
            NEW,
            (R.REVOKED,),
        ),
        # the order: revoked, denylisted, hold, schedule
        (facts(channel(), revoked=STOPPED, denylist=DENIED, hold=PAUSED), BACK, OLD, None),
        (facts(channel(), denylist=DENIED), BACK, OLD, (R.DENYLISTED, R.FALLBACK)),
        (facts(channel(), denylist=DENIED, hold=PAUSED), BACK, OLD, (R.DENYLISTED, R.FALLBACK)),
        (facts(channel(LATER), hold=PAUSED), KEEP, NEW, (R.PAUSED,)),
        (facts(channel(LATER), hold=UNKNOWN, active=OTHER.sha256), KEEP, NEW, (R.HOLD_UNKNOWN,)),
        # held
        (facts(channel(), hold=HALTED), BACK, OLD, (R.HALTED, R.FALLBACK)),
        (facts(channel(), hold=HALTED, active=OLD.sha256), KEEP, OLD, (R.HALTED, R.FALLBACK)),
        (facts(channel(), hold=HALTED, active=NEW.sha256), KEEP, NEW, (R.CURRENT, R.HALTED)),
        (facts(channel(), hold=HALTED, active=OTHER.sha256), BACK, OLD, (R.HALTED, R.FALLBACK)),
        (facts(ALONE, hold=HALTED, active=OTHER.sha256), KEEP, NEW, (R.HALTED,)),
        (facts(channel(), hold=REVERTED, active=NEW.sha256), BACK, OLD, None),
        (
            facts(channel(until=T0), hold=REVERTED, active=NEW.sha256),
            KEEP,
            NEW,
            (R.CURRENT, R.REVERTED),
        ),
        (facts(ALONE, hold=REVERTED, active=NEW.sha256), KEEP, NEW, (R.CURRENT, R.REVERTED)),
        (facts(channel(), hold=PAUSED, active=NEW.sha256), KEEP, NEW, (R.PAUSED,)),
        # going back needs no freshness
        (facts(channel(), hold=REVERTED, active=NEW.sha256, blocked=R.STALE), BACK, OLD, None),
        # scheduled
        (facts(channel(LATER)), BACK, OLD, (R.SCHEDULE, R.FALLBACK)),
        (facts(channel(LATER), active=OLD.sha256), KEEP, OLD, (R.SCHEDULE, R.FALLBACK)),
        (facts(channel(LATER), active=NEW.sha256), KEEP, NEW, (R.CURRENT, R.SCHEDULE)),
        (facts(channel(LATER), t=T0 + 60), ACTIVATE, NEW, (R.OFFERED,)),
        (facts(channel(), hold=CAPPED), BACK, OLD, (R.CAP, R.FALLBACK)),
        (facts(channel(), hold=CAPPED, active=NEW.sha256), KEEP, NEW, (R.CURRENT, R.CAP)),
        (facts(channel(LAB)), BACK, OLD, (R.NOT_FOR_THIS_DEVICE, R.FALLBACK)),
        (facts(channel(LAB), labels=frozenset({"lab"})), ACTIVATE, NEW, (R.OFFERED,)),
        # pinned: whatever stage or hold says; floor and revocation still apply
        (facts(channel(LATER), pin=OTHER, hold=PAUSED), ACTIVATE, OTHER, (R.PINNED,)),
        (facts(None, pin=OTHER), ACTIVATE, OTHER, (R.PINNED,)),
        (facts(None, pin=OTHER, blocked=R.MISSING), KEEP, OTHER, (R.MISSING, R.PINNED)),
        (facts(None, pin=NEW, revoked=NO_NEW), KEEP, NEW, (R.REVOKED, R.PINNED)),
        (facts(None, pin=NEW, active=NEW.sha256), KEEP, NEW, (R.CURRENT, R.PINNED)),
        (
            facts(channel(floor=Version.parse("1.0.0")), pin=OTHER),
            KEEP,
            OTHER,
            (R.FLOOR, R.PINNED),
        ),
    ],
)
def test_every_decision(
    given_facts: Facts,
    action: Action,
    release: ReleasePointer | None,
    reasons: tuple[Reason, ...] | None,
) -> None:
    decision = decide(given_facts)

    chosen = decision.release
    assert decision.action is action
    assert (chosen and chosen.sha256) == (release and release.sha256)
    assert reasons is None or decision.reasons == reasons


def test_a_no_says_when_it_becomes_a_yes() -> None:
    decision = decide(facts(channel(LATER)))

    assert decision.opens_at == T0 + 60
    assert decision.place == ticket(bytes(16), SECRET)
    assert decide(facts(channel(LATER), t=T0 + 59)).action is not ACTIVATE


def test_t14_a_hold_of_another_rollout_is_void() -> None:
    hold = Hold(
        artifact=ArtifactId.parse("acme/model"),
        channel=ChannelName("stable"),
        rollout="1" * 16,
        state=HoldState.HALTED,
        cap=1,
    )

    assert HoldStatus.of(hold, "2" * 16, {}) == HoldStatus()
    assert HoldStatus.of(hold, "1" * 16, {}) == HoldStatus(HoldState.HALTED, 1)


def test_the_higher_floor_counts() -> None:
    low, high = Version.parse("1.0.0"), Version.parse("1.0.1")
    assert minimum_floor(low, high) == minimum_floor(high, low) == high
    assert minimum_floor(None, low) == low
    assert minimum_floor(None, None) is None


# --- plans as people write them ---------------------------------------------------------------


def test_a_plan_is_read() -> None:
    assert parse_plan("1%~30m/1d,10%@lab/12h,100%", T0) == (
        Stage(basis_points=100, not_before=T0, ramp_s=1_800),
        Stage(basis_points=1_000, not_before=T0 + 86_400, labels=("lab",)),
        Stage(basis_points=10_000, not_before=T0 + 86_400 + 43_200),
    )
    assert parse_plan("now", T0) == ()
    assert parse_plan("0.01%/1.5h, 100%", T0)[1].not_before == T0 + 5_400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auto",
        "0%",
        "100.01%",
        "101%",
        "1.001%",
        "-1%",
        "1",
        "1%/1d",
        "1%,100%",
        "10%/1d,10%",
        "10%/1d,5%",
        "1%/1w,100%",
        "1%~/1d,100%",
        "1%@UP/1d,100%",
        "1%@lab~1m/1d,100%",
        "1%/1d,,100%",
        "now,100%",
        "1%~999999d/1d,100%",
        "\u0661%",
        "1%/1.234h,100%",
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlan):
        parse_plan(text, T0)


@settings(max_examples=50)
@given(st.integers(1, 10_000))
def test_shares_are_written_as_they_are_read(basis_points: int) -> None:
    assert parse_plan(format_share(basis_points), T0)[0].basis_points == basis_points


def test_durations() -> None:
    assert [parse_duration(text) for text in ("1s", "1.5m", "2h", "0.25d")] == [1, 90, 7200, 21600]
    for text in ("", "1", "1x", "-1s", "1 s", "1e3s", "1.s"):
        with pytest.raises(InvalidPlan):
            parse_duration(text)
