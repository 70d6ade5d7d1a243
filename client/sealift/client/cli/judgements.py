"""A decision as people and scripts see it."""

from __future__ import annotations

from typing import Any

from sealift.client.agent.decisions import Judgement
from sealift.client.cli.words import duration_text, time_text
from sealift.host.active import ActiveRelease
from sealift.host.console import Out
from sealift.protocol.documents import FULL_BP
from sealift.protocol.plan import format_share
from sealift.protocol.rollout import share_at


def judgement_document(judgement: Judgement) -> dict[str, Any]:
    """For `--output json`."""
    decision, facts = judgement.decision, judgement.facts
    channel = judgement.channel
    stages = channel.rollout.stages if channel else ()
    return {
        "channel": judgement.channel_name,
        "action": decision.action,
        "release": (
            {"version": str(decision.release.version), "digest": decision.release.sha256}
            if decision.release
            else None
        ),
        "reasons": list(decision.reasons),
        "opens_at": decision.opens_at,
        "ticket": decision.place,
        "share": share_at(stages, facts.labels, facts.t) if channel else None,
        "rollout": channel.rollout.id if channel else None,
        "hold": facts.hold.state,
        "hold_known": facts.hold.known,
        "time": facts.t,
        "clock_plausible": judgement.moment.time.plausible,
        "signed_time": judgement.moment.time.bound,
        "timestamp_age_s": judgement.moment.time.timestamp_age_s,
        "problem": (
            {
                "role": judgement.problem.role,
                "reason": judgement.problem.reason,
                "message": judgement.problem.message,
            }
            if judgement.problem
            else None
        ),
    }


def show_judgement(out: Out, judgement: Judgement, active: ActiveRelease | None) -> None:
    """For people: what runs, what would, and why."""
    decision, facts = judgement.decision, judgement.facts
    place = f":{judgement.channel_name}" if judgement.channel_name else ""
    out.heading(f"{judgement.artifact}{place}")
    out.line(f"  active    {active.active.version if active else 'nothing'}")
    channel = judgement.channel
    if channel is not None and channel.release is not None:
        out.line(f"  channel   {channel.release.version}")
    out.line(
        f"  decision  {decision.action.replace('_', ' ')}"
        f"{f' {decision.release.version}' if decision.release else ''}"
    )
    for reason in decision.reasons:
        out.line(f"            {reason.text}")
    if decision.opens_at is not None:
        left = decision.opens_at - facts.t
        ahead = f", in {duration_text(left)}" if left > 0 else ""
        out.line(f"  opens     {time_text(decision.opens_at)}{ahead}")
    if decision.place is not None and channel is not None and channel.rollout.stages:
        share = share_at(channel.rollout.stages, facts.labels, facts.t)
        out.line(
            f"  ticket    {decision.place} of {FULL_BP}; open to those below {share} "
            f"({format_share(share)})"
        )
    out.line(f"  hold      {facts.hold.state}{'' if facts.hold.known else ' (cannot be verified)'}")
    if not judgement.moment.time.plausible:
        out.line(
            f"  clock     says {time_text(judgement.moment.time.wall)}, but "
            f"{time_text(judgement.moment.time.bound)} was signed already"
        )
    if judgement.problem is not None:
        out.line(f"  refused   {judgement.problem.message}")
