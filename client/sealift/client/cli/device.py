"""Commands of devices and apps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from sealift.client.agent import following
from sealift.client.agent.cycle import Cycle, Outcome, judge_artifact
from sealift.client.agent.cycle import undo as undo_release
from sealift.client.agent.joining import join as join_namespace
from sealift.client.agent.joining import leave as leave_namespace
from sealift.client.agent.service import POLL_S, Agent
from sealift.client.cli.context import Context, current, require_device
from sealift.client.cli.judgements import judgement_document, show_judgement
from sealift.client.cli.words import time_text
from sealift.client.connection import Connection
from sealift.host.active import ActivePointer, ActiveRelease
from sealift.host.console import EXIT_FAILED, Out, UsageError
from sealift.host.hashing import Advance
from sealift.host.installed import Lease, ReleaseFolders
from sealift.protocol.errors import SealiftError
from sealift.protocol.join import JoinString
from sealift.protocol.names import STABLE, ArtifactId, Digest, Namespace, Reference
from sealift.protocol.plan import parse_duration
from sealift.protocol.rollout import Action

app = typer.Typer()
agent_app = typer.Typer(no_args_is_help=True)
PANEL = "Device"
EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126

Ref = Annotated[str, typer.Argument(metavar="REF", show_default=False)]
Art = Annotated[str, typer.Argument(metavar="ART", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")]


@app.command(rich_help_panel=PANEL)
def join(
    string: Annotated[str, typer.Argument(metavar="STRING|-", show_default=False)],
    label: Annotated[
        str, typer.Option(metavar="L", help="A label of this device, for stages and views.")
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Join a namespace with a string from its publisher; - reads it from stdin."""
    context = current()
    text = sys.stdin.read() if string == "-" else string
    invite = JoinString.decode(text)
    if context.server is not None:
        invite = invite.model_copy(update={"server": context.server})
    if dry_run:
        follow = [f"{one.artifact}:{one.channel}" for one in invite.follow]
        said = {
            "namespace": invite.namespace,
            "server": invite.server,
            "follow": follow,
            "root_sha256": invite.root.sha256,
            "expires": invite.expires,
        }
        context.out.remark("nothing was changed (--dry-run)")
        context.out.show(said, lambda out: out.table(["", ""], list(said.items())))
        return
    done = join_namespace(context.device, invite, label)
    for replaced in done.replaced:
        context.out.remark(f"no longer follows {replaced}")
    document = {
        "namespace": done.namespace,
        "root_sha256": done.root_sha256,
        "again": done.again,
        "following": list(done.following),
    }

    def people(out: Out) -> None:
        out.line(f"joined {done.namespace}{' again' if done.again else ''}")
        out.line(f"root {done.root_sha256.reference}")
        out.line("Compare it with what the publisher sees in `sealift status`.")
        for one in done.following:
            out.line(f"follows {one}")
        out.line("Next: sealift update")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def leave(namespace: Annotated[str, typer.Argument(metavar="NS", show_default=False)]) -> None:
    """Forget a namespace; what is installed stays."""
    context = current()
    home = require_device(context)
    dropped = leave_namespace(home, Namespace(namespace))
    document = {"namespace": namespace, "dropped": list(dropped)}

    def people(out: Out) -> None:
        out.line(f"left {namespace}")
        for one in dropped:
            out.line(f"no longer follows {one}")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def follow(reference: Ref) -> None:
    """Follow a channel of an artifact, in place of the one followed before."""
    context = current()
    home = require_device(context)
    wanted = Reference.parse(reference)
    if not wanted.moves:
        raise UsageError(
            f"{wanted} does not move, so it cannot be followed",
            hint=f"Pin it: sealift pin {wanted}",
        )
    artifact = context.artifact(wanted)
    channel = wanted.channel or STABLE
    with connected(context)(artifact.namespace) as connection:
        done = following.follow(home, connection, artifact, channel)
    if not done.has_release:
        context.out.remark(f"{artifact}:{channel} points nowhere yet")
    before = f"{artifact}:{done.before}" if done.before else None
    document = {"following": f"{artifact}:{channel}", "before": before}

    def people(out: Out) -> None:
        changed = f", no longer {before}" if before and done.before != channel else ""
        out.line(f"follows {artifact}:{channel}{changed}")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def unfollow(
    artifact: Art,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is installed of it, too.")
    ] = False,
) -> None:
    """No longer follow an artifact."""
    context = current()
    home = require_device(context)
    name = context.artifact(Reference.parse(artifact))
    removed = following.unfollow(home, name, remove=remove)
    document = {"unfollowed": str(name), "removed": list(removed)}

    def people(out: Out) -> None:
        out.line(f"no longer follows {name}")
        for digest in removed:
            out.line(f"removed {digest.reference}")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def pin(release: Annotated[str, typer.Argument(metavar="ART@VERSION", show_default=False)]) -> None:
    """Keep an artifact at one release, whatever its channel says, and install it."""
    context = current()
    home = require_device(context)
    wanted = Reference.parse(release)
    if wanted.moves:
        raise UsageError(f"{wanted} moves, so it is no pin", hint="Write ARTIFACT@1.4.0.")
    artifact = context.artifact(wanted)
    with connected(context)(artifact.namespace) as connection:
        following.pin(home, connection, artifact, wanted)
    _show_outcomes(context, make_cycle(context).run(artifact))


@app.command(rich_help_panel=PANEL)
def unpin(artifact: Art) -> None:
    """Let the channel decide again."""
    context = current()
    home = require_device(context)
    name = context.artifact(Reference.parse(artifact))
    following.unpin(home, name)
    document = {"unpinned": str(name)}
    context.out.show(document, lambda out: out.line(f"{name} is no longer pinned"))


@app.command(rich_help_panel=PANEL)
def update(
    reference: Annotated[str | None, typer.Argument(metavar="[REF]", show_default=False)] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would happen; fetch and activate nothing.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Take a release again that was left before.")
    ] = False,
) -> None:
    """The whole cycle, now: poll, verify, fetch, check, activate."""
    context = current()
    home = require_device(context)
    only = None
    if reference is not None:
        wanted = Reference.parse(reference)
        only = context.artifact(wanted)
        if only not in home.state().artifacts():
            raise SealiftError(
                f"{only} is neither followed nor pinned",
                hint=f"Follow it: sealift follow {wanted}",
            )
    cycle = make_cycle(context, check_only=check, retry=retry)
    _show_outcomes(context, cycle.run(only), check=check)


def _show_outcomes(context: Context, outcomes: list[Outcome], *, check: bool = False) -> None:
    document = {"artifacts": [_outcome_document(outcome) for outcome in outcomes]}

    def people(out: Out) -> None:
        if not outcomes:
            out.line("nothing is followed; see: sealift follow --help")
        for outcome in outcomes:
            _show_outcome(out, outcome, check=check)

    context.out.show(document, people)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        if outcome.error is not None and not context.out.as_json:
            context.out.error(
                SealiftError(
                    f"{outcome.artifact}: {outcome.error.message}", hint=outcome.error.hint
                )
            )
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    document: dict[str, Any] = {
        "artifact": str(outcome.artifact),
        "changed": outcome.changed,
        "before": _release_document(outcome.before),
        "active": _release_document(outcome.after),
    }
    if outcome.judgement is not None:
        document["decision"] = judgement_document(outcome.judgement)
    if outcome.error is not None:
        reason = str(getattr(outcome.error, "reason", ""))
        document["error"] = {"message": outcome.error.message, "reason": reason}
    return document


def _release_document(active: ActiveRelease | None) -> dict[str, str] | None:
    if active is None:
        return None
    return {"version": str(active.active.version), "digest": active.active.digest}


def _show_outcome(out: Out, outcome: Outcome, *, check: bool) -> None:
    after = outcome.after.active.version if outcome.after else None
    if outcome.changed:
        before = outcome.before.active.version if outcome.before else "nothing"
        out.line(f"{outcome.artifact}: {before} → {after}")
        return
    judgement = outcome.judgement
    if judgement is None:
        out.line(f"{outcome.artifact}: {after or 'nothing'} stays")
        return
    decision = judgement.decision
    if check and decision.action is not Action.KEEP and decision.release is not None:
        out.line(f"{outcome.artifact}: {after or 'nothing'} → {decision.release.version} (would)")
        return
    later = f"; opens {time_text(decision.opens_at)}" if decision.opens_at else ""
    out.line(f"{outcome.artifact}: {after or 'nothing'} stays, {decision.reasons[0].text}{later}")


@app.command(rich_help_panel=PANEL)
def undo(artifact: Art) -> None:
    """Go back to the last good release; the one that is left is not taken again."""
    context = current()
    home = require_device(context)
    name = context.artifact(Reference.parse(artifact))
    left, entered = undo_release(home, name)
    document = {
        "artifact": str(name),
        "left": _release_document(left),
        "active": _release_document(entered),
    }
    context.out.show(
        document,
        lambda out: out.line(f"{name}: {left.active.version} → {entered.active.version}"),
    )


@app.command(rich_help_panel=PANEL)
def path(reference: Ref) -> None:
    """Print the folder of an installed release."""
    context = current()
    digest, name, lease = _installed(context, Reference.parse(reference))
    lease.close()
    folder = ReleaseFolders(context.device.store_folder).files_folder(digest)
    document = {"release": name, "digest": digest, "path": str(folder)}
    context.out.show(document, lambda out: out.line(str(folder)))


@app.command(rich_help_panel=PANEL, context_settings={"allow_interspersed_args": False})
def use(
    reference: Ref,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", show_default=False)],
) -> None:
    """Run a command with a release: SEALIFT_PATH, SEALIFT_RELEASE, SEALIFT_DIGEST."""
    context = current()
    if command and command[0] == "--":
        command = command[1:]
    if not command:
        raise UsageError("there is no command to run", hint="Write: sealift use REF -- CMD …")
    digest, name, lease = _installed(context, Reference.parse(reference))
    folder = ReleaseFolders(context.device.store_folder).files_folder(digest)
    said = {"SEALIFT_PATH": str(folder), "SEALIFT_RELEASE": name, "SEALIFT_DIGEST": digest}
    with lease:
        code = _run(command, {**os.environ, **said})
    raise typer.Exit(code)


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Runs a command, passing signals on; its exit code, as a shell gives it."""
    if shutil.which(command[0], path=environment.get("PATH")) is None:
        raise SealiftError(f"there is no command {command[0]!r}", hint="Check its spelling.")
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise SealiftError(f"cannot run {command[0]}: {error.strerror}") from error

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        process.send_signal(number)

    # The terminal sends Ctrl-C to the command itself; this process waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    code = process.wait()
    return 128 - code if code < 0 else code


def _installed(context: Context, reference: Reference) -> tuple[Digest, str, Lease]:
    """The installed release that a reference means, leased, and its full name."""
    home = require_device(context)
    artifact = context.artifact(reference)
    releases = ReleaseFolders(home.store_folder)
    entry = ActivePointer.load(home.pointer_file).get(artifact)
    if reference.moves:
        followed = home.state().following.get(str(artifact))
        if reference.channel and (followed is None or followed.channel != reference.channel):
            raise SealiftError(
                f"this device does not follow {artifact}:{reference.channel}",
                hint=f"Follow it: sealift follow {artifact}:{reference.channel}",
            )
        if entry is None:
            raise SealiftError(
                f"nothing of {artifact} is active on this device", hint="Get it: sealift update"
            )
        return _leased(releases, artifact, entry.active.digest)
    for installed in releases.installed():
        manifest = installed.manifest
        if manifest.artifact == artifact and (
            reference.version == manifest.version or reference.digest == installed.digest
        ):
            return _leased(releases, artifact, installed.digest)
    raise SealiftError(
        f"{artifact}@{reference.version or reference.digest} is not installed",
        hint=f"Install it: sealift pin {reference}",
    )


def _leased(
    releases: ReleaseFolders, artifact: ArtifactId, digest: Digest
) -> tuple[Digest, str, Lease]:
    lease = releases.lease(digest)
    version = releases.read(digest).manifest.version
    return digest, f"{artifact}@{version}", lease


@app.command(rich_help_panel=PANEL)
def why(
    reference: Ref,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Ask for another time (UTC).")
    ] = None,
) -> None:
    """Say what this device would run now, and why; when a 'no' becomes a 'yes'."""
    from sealift.client.cli.publishing import parse_time

    context = current()
    home = require_device(context)
    artifact = context.artifact(Reference.parse(reference))
    judgement = judge_artifact(home, artifact, at=parse_time(at) if at else None)
    entry = ActivePointer.load(home.pointer_file).get(artifact)
    document = {
        "artifact": str(artifact),
        "active": _release_document(entry),
        **judgement_document(judgement),
    }
    context.out.show(document, lambda out: show_judgement(out, judgement, entry))


# --- the agent ------------------------------------------------------------------------------


@agent_app.command("run")
def agent_run(
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="How often to poll, ± 10 %.")
    ] = f"{POLL_S:.0f}s",
) -> None:
    """Poll, and update by itself, until SIGTERM."""
    context = current()
    poll_s = float(parse_duration(every))
    if poll_s < 1:
        raise UsageError("--every must be at least 1s")

    def cycle(progress: Callable[[str, int], object]) -> Cycle:
        return make_cycle(context, progress=progress)

    Agent(context.device, cycle, poll_s).run()


# --- what these commands share ----------------------------------------------------------------


def connected(context: Context) -> Callable[[Namespace], AbstractContextManager[Connection]]:
    """Opens connections to the servers of joined namespaces."""

    @contextmanager
    def connect(namespace: Namespace) -> Iterator[Connection]:
        joined = context.device.state().joined(namespace)
        with context.connect_device(namespace, joined) as connection:
            yield connection

    return connect


def make_cycle(
    context: Context,
    *,
    check_only: bool = False,
    retry: bool = False,
    progress: Any = None,
) -> Cycle:
    """The update cycle of this home."""

    def shown(label: str, total: int) -> AbstractContextManager[Advance]:
        return context.out.progress(label, total)

    return Cycle(
        context.device,
        context.connect_device,
        progress or shown,
        check_only=check_only,
        retry=retry,
    )
