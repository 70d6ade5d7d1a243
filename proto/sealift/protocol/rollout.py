"""The arithmetic of a rollout, and the decision that a device makes of it.

Pure, and the only place where it is decided what a device should run: used unchanged by the
agent, by `why`, and by whatever simulates or shows a rollout. Times are Unix seconds, shares are
basis points (1/10,000 of the devices).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from sealift.protocol.documents import (
    FULL_BP,
    Channel,
    Hold,
    HoldState,
    ReleasePointer,
    Severity,
    Stage,
)
from sealift.protocol.names import Digest, Version
from sealift.protocol.reasons import Reason


def ticket(salt: bytes, secret: bytes) -> int:
    """A device's place in a rollout, 0 to 9999; the lowest go first.

    Args:
        salt: 16 bytes, the rollout's; new for each release that a channel turns to.
        secret: 32 bytes, the device's; never sent.
    """
    return int.from_bytes(sha256(salt + b"\0" + secret).digest()[:8], "big") % FULL_BP


def previous_share(stages: Sequence[Stage], index: int) -> int:
    """Basis points of the earlier stage with the same labels; 0 if there is none."""
    labels = stages[index].labels
    earlier = (stage.basis_points for stage in stages[:index] if stage.labels == labels)
    return max(earlier, default=0)


def stage_share(stage: Stage, previous: int, t: int) -> int:
    """How many basis points the stage has opened to at time `t`."""
    if t < stage.not_before:
        return 0
    if stage.ramp_s == 0:
        return stage.basis_points
    elapsed = min(t - stage.not_before, stage.ramp_s)
    return previous + (stage.basis_points - previous) * elapsed // stage.ramp_s


def stage_opens_at(stage: Stage, previous: int, place: int) -> int | None:
    """The first second at which the stage offers to a ticket; None if it never does."""
    if place >= stage.basis_points:
        return None
    if stage.ramp_s == 0 or place < previous:
        return stage.not_before
    needed = (place + 1 - previous) * stage.ramp_s
    return stage.not_before + -(-needed // (stage.basis_points - previous))


def matching_stages(stages: Sequence[Stage], labels: frozenset[str]) -> list[tuple[Stage, int]]:
    """The stages for a device with these labels, each with the share of the one before it."""
    return [
        (stage, previous_share(stages, index))
        for index, stage in enumerate(stages)
        if not stage.labels or labels.intersection(stage.labels)
    ]


def share_at(stages: Sequence[Stage], labels: frozenset[str], t: int) -> int:
    """The share that is open to devices with these labels at time `t`, in basis points."""
    if not stages:
        return FULL_BP
    return max(
        (stage_share(stage, before, t) for stage, before in matching_stages(stages, labels)),
        default=0,
    )


def opens_at(stages: Sequence[Stage], labels: frozenset[str], place: int) -> int | None:
    """The first second at which a ticket is offered the release; None if never.

    With no stages it is 0: at once.
    """
    if not stages:
        return 0
    times = [
        time
        for stage, before in matching_stages(stages, labels)
        if (time := stage_opens_at(stage, before, place)) is not None
    ]
    return min(times, default=None)


def fully_open_at(stages: Sequence[Stage]) -> int | None:
    """The first second at which every device is offered the release; None if never."""
    return opens_at(stages, frozenset(), FULL_BP - 1)


class Action(StrEnum):
    """What a device does about an artifact."""

    KEEP = "keep"
    ACTIVATE = "activate"
    FALL_BACK = "fall_back"


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """What is known of the hold on the admitted channel's rollout."""

    state: HoldState = HoldState.RUNNING
    cap: int = FULL_BP
    known: bool = True
    """False: it could not be verified, so it counts as paused (rule T13)."""

    @classmethod
    def of(cls, hold: Hold | None, rollout_id: str, final: Mapping[str, HoldState]) -> HoldStatus:
        """The state that counts for a rollout.

        Args:
            hold: The admitted document, or None if a verified `_hold` lacks one.
            rollout_id: Of the admitted channel document. A hold of another rollout is void.
            final: Rollout ids that this home has seen halted or reverted (rule T14).
        """
        applies = hold is not None and hold.rollout == rollout_id
        state = hold.state if hold is not None and applies else HoldState.RUNNING
        seen = final.get(rollout_id)
        if seen is not None and state is not HoldState.REVERTED:
            state = seen
        cap = hold.cap if hold is not None and applies else FULL_BP
        return cls(state, cap)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision depends on."""

    t: int
    """The time that counts: the wall clock where it is plausible (rule T16)."""
    channel: Channel | None
    hold: HoldStatus
    secret: bytes
    labels: frozenset[str] = frozenset()
    active: Digest | None = None
    """The release that runs."""
    revoked: Mapping[Digest, Severity] = field(default_factory=dict)
    denylist: frozenset[Digest] = frozenset()
    pin: ReleasePointer | None = None
    blocked: Reason | None = None
    """Why nothing new may activate at all: `stale`, or the reason that refused the artifact's
    newest signed files (rule T7)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, with every reason, most important first.

    Attributes:
        action: What to do.
        release: The release to have after it; None if there is none to have.
        reasons: Why, and why not something else.
        opens_at: Unix seconds at which the `no` becomes a `yes` by itself; None if unknown.
        place: The device's ticket in the rollout; None without a channel.
    """

    action: Action
    release: ReleasePointer | None
    reasons: tuple[Reason, ...]
    opens_at: int | None = None
    place: int | None = None


def decide(facts: Facts) -> Decision:
    """Decides what a device runs of an artifact.

    The order is revoked, denylisted, floor, pin, range, hold, schedule. A device that is offered
    the release takes it. One that is not keeps it if it is the active one, else takes the
    fallback, else keeps what it has. While a rollout is paused nothing moves.
    """
    if facts.pin is not None:
        return _decide_pinned(facts, facts.pin)
    channel = facts.channel
    if channel is None:
        return Decision(Action.KEEP, None, (facts.blocked or Reason.NOTHING_OFFERED,))
    place = ticket(bytes.fromhex(channel.rollout.salt), facts.secret)
    if channel.release is None:
        return Decision(Action.KEEP, None, (Reason.CLOSED,), place=place)
    refusal = _refusal(facts, channel, channel.release, place)
    if refusal is None:
        if facts.active == channel.release.sha256:
            return Decision(Action.KEEP, channel.release, (Reason.CURRENT,), place=place)
        if facts.blocked is not None:
            return Decision(Action.KEEP, channel.release, (facts.blocked,), place=place)
        return Decision(Action.ACTIVATE, channel.release, (Reason.OFFERED,), place=place)
    reason, later = refusal
    return _not_offered(facts, channel, reason, later, place)


def _decide_pinned(facts: Facts, pin: ReleasePointer) -> Decision:
    floor = facts.channel.floor if facts.channel is not None else None
    if facts.active == pin.sha256:
        return Decision(Action.KEEP, pin, (Reason.CURRENT, Reason.PINNED))
    if _forbidden(facts, pin.sha256):
        return Decision(Action.KEEP, pin, (Reason.REVOKED, Reason.PINNED))
    if floor is not None and pin.version < floor:
        return Decision(Action.KEEP, pin, (Reason.FLOOR, Reason.PINNED))
    if facts.blocked is not None:
        return Decision(Action.KEEP, pin, (facts.blocked, Reason.PINNED))
    return Decision(Action.ACTIVATE, pin, (Reason.PINNED,))


def _forbidden(facts: Facts, digest: Digest) -> bool:
    severity = facts.revoked.get(digest)
    return severity is not None and severity.forbids_activation


def _refusal(
    facts: Facts, channel: Channel, release: ReleasePointer, place: int
) -> tuple[Reason, int | None] | None:
    """The first reason for which the channel's release is not offered, and when that ends."""
    if _forbidden(facts, release.sha256):
        return Reason.REVOKED, None
    if release.sha256 in facts.denylist:
        return Reason.DENYLISTED, None
    if channel.floor is not None and release.version < channel.floor:
        return Reason.FLOOR, None
    if not facts.hold.known:
        return Reason.HOLD_UNKNOWN, None
    held = {
        HoldState.PAUSED: Reason.PAUSED,
        HoldState.HALTED: Reason.HALTED,
        HoldState.REVERTED: Reason.REVERTED,
    }.get(facts.hold.state)
    if held is not None:
        return held, None
    stages = channel.rollout.stages
    if stages and not matching_stages(stages, facts.labels):
        return Reason.NOT_FOR_THIS_DEVICE, None
    opening = opens_at(stages, facts.labels, place)
    if place >= facts.hold.cap:
        return Reason.CAP, None
    if opening is None or facts.t < opening:
        return Reason.SCHEDULE, opening
    return None


def _not_offered(
    facts: Facts, channel: Channel, reason: Reason, later: int | None, place: int
) -> Decision:
    release = channel.release
    keep = Decision(Action.KEEP, release, (reason,), later, place)
    if reason in {Reason.PAUSED, Reason.HOLD_UNKNOWN}:
        return keep
    fallback = channel.fallback
    usable = fallback is not None and not (
        _forbidden(facts, fallback.sha256) or fallback.sha256 in facts.denylist
    )
    if facts.active is not None and release is not None and facts.active == release.sha256:
        sent_back = fallback is not None and reason is Reason.REVERTED and facts.t < fallback.until
        stopped = facts.revoked.get(release.sha256) is Severity.STOP
        if not (sent_back or stopped):
            return Decision(Action.KEEP, release, (Reason.CURRENT, reason), None, place)
    if fallback is None or not usable:
        return keep
    if facts.active == fallback.sha256:
        return Decision(Action.KEEP, fallback, (reason, Reason.FALLBACK), later, place)
    return Decision(Action.FALL_BACK, fallback, (reason, Reason.FALLBACK), later, place)


def activation_refusal(max_hold_age_s: int, timestamp_age_s: int | None) -> Reason | None:
    """Whether a downloaded release may activate now (rule T18). Going back never asks this.

    Args:
        max_hold_age_s: The channel's.
        timestamp_age_s: Age of the newest admitted timestamp; None if it cannot be known.
    """
    if timestamp_age_s is None or timestamp_age_s >= max_hold_age_s:
        return Reason.HOLD_TOO_OLD
    return None


def minimum_floor(first: Version | None, second: Version | None) -> Version | None:
    """The higher of two floors; None stands for no floor."""
    floors = [floor for floor in (first, second) if floor is not None]
    return max(floors, default=None)
