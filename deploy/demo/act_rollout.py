"""Acts 3 and 4: a staged rollout, and how it is taken back when it breaks something."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.demo import mail
from deploy.demo.cast import MODEL, Cast, Gateway
from deploy.demo.commands import StoryBroken, together, wait_until
from deploy.demo.gateway import THRESHOLD

from sealift.protocol.documents import Rollout
from sealift.protocol.plan import format_share
from sealift.protocol.rollout import opens_at, ticket

CHANNEL = f"{MODEL.artifact}:stable"
OLD, NEW = "3.2.0", "3.3.0"
TRIES = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway says of its place in the rollout, and what arithmetic says."""

    gateway: Gateway
    said: dict[str, Any]
    place: int
    opens: int | None

    @classmethod
    def check(cls, gateway: Gateway, said: dict[str, Any], rollout: Rollout) -> Answer:
        """Computes the same from the signed rollout and the gateway's secret."""
        place = ticket(bytes.fromhex(rollout.salt), gateway.secret())
        opens = opens_at(rollout.stages, frozenset(), place)
        runs_it = gateway.version(MODEL) == NEW
        return cls(gateway, said, place, None if runs_it else opens)

    @property
    def agrees(self) -> bool:
        """True if both say the same."""
        return bool(self.said["ticket"] == self.place and self.said["opens_at"] == self.opens)

    def __str__(self) -> str:
        when = f", opens {_day(self.said['opens_at'])}" if self.said["opens_at"] else ""
        return f"ticket {self.said['ticket']:>4} of 10000 ({', '.join(self.said['reasons'])}{when})"


def share_between(lowest: int, middle: int) -> int | None:
    """A share, in basis points, that offers to the lowest ticket and not to the middle one."""
    share = (lowest + middle + 1) // 2
    return share if lowest < share <= middle else None


def staged(cast: Cast) -> Gateway:
    """Opens 3.3 to exactly one gateway; returns which."""
    stage = cast.stage
    stage.act(
        "Staged",
        "Now for everyone, carefully: first almost nobody, the rest in 30 days. Each gateway "
        "computes its own ticket from a secret that it never sends, so nobody chooses who is "
        "first, and the server cannot hurry.",
    )
    answers, rollout, share = _first_plan(cast)
    stage.expect(
        cast.versions(MODEL) == [OLD] * 3 and all(one.agrees for one in answers),
        "0.01% of three is nobody; each ticket is what the published arithmetic gives",
    )
    stage.say(f"a first stage of {format_share(share)} lies between the lowest ticket and the next")
    wider = _promote(cast, NEW, f"{format_share(share)}/30d,100%")
    stage.expect(
        wider.salt == rollout.salt and wider.id != rollout.id,
        "the same release keeps its salt, so the same go first",
    )
    said = [_decision(one) for one in cast.update_all()]
    answers = [
        Answer.check(gateway, one, wider) for gateway, one in zip(cast.gateways, said, strict=True)
    ]
    took = [one for one in answers if one.gateway.version(MODEL) == NEW]
    others = [one for one in answers if one not in took]
    stage.expect(
        [one.place < share for one in took] == [True] and all(one.place >= share for one in others),
        f"exactly one took 3.3: {took[0].gateway.name}, the one with the lowest ticket",
    )
    others[0].gateway.run("sealift", "why", str(MODEL))
    stage.expect(
        all(one.agrees and one.opens == wider.stages[1].not_before for one in others),
        f"the others know when it is their turn: {_day(others[0].opens)} UTC",
    )
    return took[0].gateway


def _first_plan(cast: Cast) -> tuple[list[Answer], Rollout, int]:
    """Promotes with a first stage for nobody; again, if two tickets are the same by chance."""
    for _ in range(TRIES):
        rollout = _promote(cast, NEW, "0.01%/30d,100%")
        cast.update_all()
        words = ("sealift", "why", str(MODEL), "--output", "json")
        cast.stage.command("gateway-1, 2, 3", " ".join(words))
        said = together(cast.gateways, lambda gateway: gateway.quietly(*words).document)  # noqa: B023
        answers = [
            Answer.check(gateway, one, rollout)
            for gateway, one in zip(cast.gateways, said, strict=True)
        ]
        for one in answers:
            cast.stage.output(str(one), prefix=f"{one.gateway.name}  ")
        lowest, middle, _ = sorted(one.place for one in answers)
        share = share_between(lowest, middle)
        if share is not None and lowest > 0:
            return answers, rollout, share
        cast.stage.say("two tickets are the same, or one is 0: a new salt gives others")
        _promote(cast, OLD, "now")
        cast.update_all()
    raise StoryBroken(f"no three tickets in {TRIES} draws; that cannot be chance")


def _promote(cast: Cast, version: str, plan: str) -> Rollout:
    """Promotes a release on stable; the signed rollout."""
    release = f"{MODEL.artifact}@{version}"
    said = cast.publisher.ask("sealift", "promote", release, "--to", "stable", "--plan", plan)
    fallback = said["fallback"]["version"] if said["fallback"] else "none"
    cast.stage.output(f"sequence {said['sequence']}, {plan}; fallback {fallback}")
    return Rollout.model_validate(said["rollout"], strict=False)


def _decision(said: dict[str, Any]) -> dict[str, Any]:
    """What an update decided about the model."""
    (found,) = (one["decision"] for one in said["artifacts"] if one["artifact"] == str(MODEL))
    decision: dict[str, Any] = found
    return decision


def _day(t: int | None) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M}" if t else "never"


def it_breaks(cast: Cast, first: Gateway) -> None:
    """The first gateway meets a file that 3.3 does not recognise."""
    stage, publisher = cast.stage, cast.publisher
    stage.act(
        "It breaks",
        "A file arrives that the preview never saw: a small zip without compression. From here "
        "the gateways update by themselves, every second instead of every five minutes.",
    )
    cast.start_agents()
    said = dict(
        zip((one.name for one in cast.gateways), cast.classify_all([mail.SMALL_ZIP]), strict=True)
    )
    broken = said.pop(first.name)[0]
    good = [verdicts[0] for verdicts in said.values()]
    stage.expect(
        broken.score < THRESHOLD
        and all(one.kind == "zip" and one.score > THRESHOLD for one in good),
        f"3.3 says {broken.kind} with {broken.score:.2f}, 3.2 with {good[0].score:.2f}; the "
        f"threshold is {THRESHOLD}: {first.name} quarantines good mail",
    )
    began = time.monotonic()
    publisher.run("sealift", "halt", CHANNEL, "--reason", "small zips are not recognised")
    publisher.run("sealift", "rollback", CHANNEL)
    wait_until("the way back", lambda: first.version(MODEL) == OLD)
    healed = first.classify([mail.SMALL_ZIP])[0]
    seconds = time.monotonic() - began
    stage.expect(
        healed.kind == "zip" and healed.score > THRESHOLD,
        f"{first.name} is right again {seconds:.1f} s after the decision to halt "
        "(its poll of 1 s included; it is 300 s by default)",
    )
    codes = cast.stop_agents()
    stage.expect(
        cast.versions(MODEL) == [OLD] * 3 and codes == [0] * 3,
        "all run 3.2 again; nobody touched a gateway",
    )
