"""Acts 5 and 6: the server falls into the wrong hands, and comes back."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo import intruder, mail
from deploy.demo.cast import MODEL, PROMPTS, Cast, shortened

from sealift.protocol.reasons import Reason

NEXT = f"{PROMPTS.artifact}@1.9.3"
COPY = "server.copy"


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack, and the refusal that it must meet.

    Attributes:
        name: As `intruder.py` calls it.
        title: For people.
        about: What it is in full.
        reason: The stable reason that every gateway must give.
    """

    name: str
    title: str
    about: str
    reason: Reason


ATTACKS = (
    Attack(
        "swap-bytes",
        "swapped bytes",
        "other bytes of the same length in the place of the new prompts",
        Reason.CONTENT_MISMATCH,
    ),
    Attack(
        "edit-manifest",
        "an edited manifest",
        "poisoned prompts, released in full: blob, manifest, releases and channel agree",
        Reason.BAD_SIGNATURE,
    ),
    Attack(
        "replay",
        "a replayed old state",
        "the whole namespace as it was in act 3, every signature genuine, the halt lifted",
        Reason.ROLLED_BACK,
    ),
    Attack(
        "open-now",
        "a forged '100 % now'",
        "3.3 for everyone at once, in a rollout that nobody halted; new prompts held back",
        Reason.BAD_SIGNATURE,
    ),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an attack ended."""

    attack: Attack
    refused_by: str
    runs: str

    @property
    def row(self) -> tuple[str, str, str]:
        """For the table."""
        return self.attack.title, self.refused_by, self.runs


def the_intruder(cast: Cast) -> list[Refusal]:
    """Four attacks on the server's disk with its online key."""
    stage = cast.stage
    stage.act(
        "The intruder",
        "New prompts are released; before any gateway fetches them, someone takes over the "
        "server: its disk, its database, its blobs and its online key. What a server may sign, "
        "he signs. Only the publisher's keys are not there to be stolen.",
    )
    cast.publisher.run("sealift", "push", "prompts-1.9.3", NEXT, "--to", "stable")
    added, removed = _changed_lines(cast, "prompts-0.203.1", "prompts-1.9.3")
    stage.say(f"in the prompts {added} lines are new and {removed} are gone")
    cast.server.stop()
    shutil.copytree(cast.server.home, cast.folder / COPY)
    stage.say(f"the server is stopped; an honest copy of its disk is kept in {COPY}")
    return [_carry_out(cast, attack) for attack in ATTACKS]


def _changed_lines(cast: Cast, before: str, after: str) -> tuple[int, int]:
    """How many lines of the prompts are new, and how many are gone."""
    old, new = (
        (cast.folder / release / "en.json").read_text().splitlines() for release in (before, after)
    )
    marks = [line[0] for line in difflib.unified_diff(old, new, n=0, lineterm="")][2:]
    return marks.count("+"), marks.count("-")


def _carry_out(cast: Cast, attack: Attack) -> Refusal:
    stage = cast.stage
    restore(cast)
    before = _running(cast)
    cast.intruder.run("python", "intruder.py", attack.name, "server")
    stage.say(f"{attack.title}: {attack.about}")
    cast.server.start()
    said = cast.update_all(codes=(1,))
    cast.server.drain()
    refusals = [_refusals(one) for one in said]
    reasons = {reason for one in refusals for reason, _ in one}
    stage.expect(
        reasons == {attack.reason} and all(refusals),
        f"all three refuse it: {', '.join(sorted(reasons))} ({attack.reason.text})",
    )
    witness = cast.gateways[ATTACKS.index(attack) % len(cast.gateways)]
    (verdict,) = witness.classify([mail.SMALL_ZIP])
    stage.expect(
        _running(cast) == before and (verdict.kind, verdict.verdict) == ("zip", "delivered"),
        f"nothing changed on any gateway, and the model still answers on {witness.name}",
    )
    cast.server.stop()
    runs = f"model {verdict.model}, prompts {verdict.prompts}: zip {verdict.score:.2f}"
    return Refusal(attack, _refused_by(refusals[0]), runs)


def _refusals(said: dict[str, Any]) -> list[tuple[str, str]]:
    """Reason and message of what a gateway refused."""
    errors = [one["error"] for one in said["artifacts"] if "error" in one]
    return [(error["reason"], error["message"]) for error in errors]


def _refused_by(refusals: list[tuple[str, str]]) -> str:
    return "\n".join(
        f"{reason}: {shortened(message)}" for reason, message in dict(refusals).items()
    )


def _running(cast: Cast) -> list[Any]:
    return [gateway.active(artifact) for gateway in cast.gateways for artifact in (MODEL, PROMPTS)]


def restore(cast: Cast) -> None:
    """Puts the honest copy of the disk in the server's place."""
    shutil.rmtree(cast.server.home)
    shutil.copytree(cast.folder / COPY, cast.server.home)


def the_real_server_returns(cast: Cast) -> None:
    """The honest copy comes back, and everything heals."""
    stage, publisher = cast.stage, cast.publisher
    stage.act(
        "The real server returns",
        "The disk is put back from the copy. The publisher pauses the rollout while people look, "
        "and lifts the pause. That is all: no gateway is touched, nothing is installed anew.",
    )
    restore(cast)
    cast.server.start()
    channel = f"{PROMPTS.artifact}:stable"
    publisher.run("sealift", "pause", channel, "--reason", "the server was broken into")
    first = cast.gateways[0]
    first.run("sealift", "update")
    stage.expect(
        first.version(PROMPTS) == "0.203.1", "the real server is believed again; paused is paused"
    )
    publisher.run("sealift", "resume", channel, "--reason", "its disk was restored")
    cast.update_all()
    stage.expect(
        cast.versions(PROMPTS) == ["1.9.3"] * 3 and cast.versions(MODEL) == ["3.2.0"] * 3,
        "the new prompts arrive on all three, the model stays 3.2",
    )
    first.run("sealift", "verify", str(PROMPTS))
    (verdict,) = first.classify([mail.SMALL_ZIP])
    stage.expect(
        verdict.verdict == "delivered" and intruder.BAD.decode() not in verdict.prompt,
        f"the app goes on, with the prompts that were signed: “…{verdict.prompt.splitlines()[0]}…”",
    )


def copy_intruder(folder: Path) -> None:
    """Puts the intruder's program beside the homes, so that its command lines are short."""
    shutil.copy(intruder.__file__, folder)
