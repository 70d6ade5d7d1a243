"""From what a device believes to what it decides: facts are gathered here, and only here."""

from __future__ import annotations

from dataclasses import dataclass

from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import DeviceState
from sealift.client.trust.admission import Admitted, Moment, Problem
from sealift.protocol import layout
from sealift.protocol.documents import Channel, Severity
from sealift.protocol.names import ArtifactId, ChannelName, Digest
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import (
    Decision,
    Facts,
    HoldStatus,
    activation_refusal,
    decide,
)

DEFAULT_HOLD_AGE_S = 7_200
"""For a release that is pinned without a channel."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision with all that a person may ask about it.

    Attributes:
        artifact: What it is about.
        channel_name: The channel that is followed; None if only pinned.
        channel: The channel's document; None if there is none.
        facts: What the decision depends on.
        decision: What to do.
        moment: The time by which it was judged.
        problem: Why the artifact's newest signed files were not admitted.
    """

    artifact: ArtifactId
    channel_name: ChannelName | None
    channel: Channel | None
    facts: Facts
    decision: Decision
    moment: Moment
    problem: Problem | None


def judge(
    home: DeviceHome,
    state: DeviceState,
    admitted: Admitted | None,
    moment: Moment,
    artifact: ArtifactId,
    *,
    active: Digest | None,
    channel_name: ChannelName | None = None,
    at: int | None = None,
) -> Judgement:
    """Decides about one artifact.

    Args:
        home: The device's home.
        state: What it remembers.
        admitted: What it believes of the artifact's namespace; None if nothing yet.
        moment: The trusted time.
        artifact: The artifact.
        active: The release that runs.
        channel_name: The channel; None takes the one that is followed.
        at: Another time for the schedule, to ask what would be.
    """
    followed = state.following.get(str(artifact))
    name = channel_name or (followed.channel if followed else None)
    pin = state.pins.get(str(artifact))
    channel = admitted.channel(artifact.artifact, name) if admitted and name else None
    problem = admitted.problem(artifact.artifact, name) if admitted else None
    hold = HoldStatus()
    if admitted is not None and channel is not None:
        memory = state.joined(artifact.namespace).memory
        hold = admitted.hold_status(artifact.artifact, channel, memory, moment.time.expiry_t)
    facts = Facts(
        t=at if at is not None else moment.time.t,
        channel=channel,
        hold=hold,
        secret=home.secret(),
        labels=frozenset(state.labels),
        active=active,
        revoked=_revoked(state, admitted, artifact),
        denylist=frozenset(state.denylist),
        pin=pin.release if pin else None,
        blocked=_blocked(admitted, moment, problem, channel),
    )
    return Judgement(artifact, name, channel, facts, decide(facts), moment, problem)


def revocations(admitted: Admitted | None, artifact: ArtifactId) -> dict[Digest, Severity]:
    """The artifact's revoked releases, as far as they are known."""
    stop = admitted.stop(artifact.artifact) if admitted else None
    return {entry.sha256: entry.severity for entry in stop.releases} if stop else {}


def _revoked(
    state: DeviceState, admitted: Admitted | None, artifact: ArtifactId
) -> dict[Digest, Severity]:
    """The revocations that count: where `_stop` is not known, also those in `state.json`."""
    known = revocations(admitted, artifact)
    if admitted is not None and layout.STOP not in admitted.problems:
        return known
    return dict.fromkeys(state.revoked, Severity.NO_NEW) | known


def _blocked(
    admitted: Admitted | None, moment: Moment, problem: Problem | None, channel: Channel | None
) -> Reason | None:
    """Why nothing new may activate at all: stale or refused files, or an old hold (rule T18)."""
    if admitted is None:
        return Reason.MISSING  # what was revoked or held is not known either
    if admitted.timestamp.expires <= moment.time.expiry_t:
        return Reason.STALE
    for role in (layout.SNAPSHOT, layout.TARGETS, layout.ROOT):
        if admitted.roles[role].expires <= moment.time.expiry_t:
            return Reason.EXPIRED
    if problem is not None:
        return problem.reason
    limit = channel.rollout.max_hold_age_s if channel else DEFAULT_HOLD_AGE_S
    return activation_refusal(limit, moment.time.timestamp_age_s)
