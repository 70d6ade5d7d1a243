"""Commands of publishers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from sealift.client.cli.context import Context, current
from sealift.client.cli.words import duration_text, time_text
from sealift.client.publish.channels import (
    ChannelMove,
    next_channel,
    pointer_to,
    rollback_move,
)
from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.content import find_files
from sealift.client.publish.holds import set_hold
from sealift.client.publish.home import PublisherHome
from sealift.client.publish.init import Initialiser
from sealift.client.publish.invites import make_invite
from sealift.client.publish.releases import Pushed, Pusher, PushProgress, PushRequest, submit
from sealift.client.publish.signing import NextState
from sealift.host.console import Out, UsageError, format_bytes
from sealift.host.hashing import Advance
from sealift.host.rpc import ServerAddress
from sealift.protocol import layout
from sealift.protocol.documents import Channel, HoldState, Kind
from sealift.protocol.names import ChannelName, Digest, Namespace, Reference, Version
from sealift.protocol.parsing import encode_document
from sealift.protocol.plan import FORMS, format_share, parse_duration, parse_plan

app = typer.Typer()
PANEL = "Publish"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, change nothing.")]
ReleaseRef = Annotated[str, typer.Argument(metavar="ART@VERSION", show_default=False)]
ChannelRef = Annotated[str, typer.Argument(metavar="ART:CHANNEL", show_default=False)]


@app.command(rich_help_panel=PANEL)
def init(
    namespace: Annotated[str, typer.Argument(metavar="NAMESPACE", show_default=False)],
    public: Annotated[bool, typer.Option(help="Let anyone read the namespace.")] = False,
    recovery_kit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the recovery kit goes.")
    ] = None,
) -> None:
    """Begin a namespace: keys, recovery kit, first root. Needs a token that may create."""
    context = current()
    name = Namespace(namespace)
    home = PublisherHome.at(context.home, name, clock=context.clock, step=context.step)
    if context.server is None:
        raise UsageError("the server's address is needed", hint="Give --server HOST:PORT.")
    if context.token_file is None:
        raise UsageError(
            "a token that may create namespaces is needed",
            hint="Give --token-file FILE; the server keeps one in its home, admin.token.",
        )
    address = ServerAddress.parse(context.server)
    with home.locked("init"), PublisherConnection.open(address, context.token()) as admin:
        made = Initialiser(
            home,
            admin,
            str(address),
            context.new_passphrase(),
            (recovery_kit or home.kit_file).absolute(),
            public,
        ).run()
    document = {
        "namespace": name,
        "root_sha256": made.root_sha256,
        "recovery_kit": str(made.kit),
        "public": made.public,
    }

    def people(out: Out) -> None:
        out.line(f"{name} is yours; its root is {made.root_sha256.reference}")
        out.line(f"The recovery kit is in {made.kit}")
        out.line("Print it, put it away, delete the file: it replaces every key of the namespace.")
        out.line("Next: sealift push FOLDER ARTIFACT@1.0.0 --kind model --to stable")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def push(
    source: Annotated[Path, typer.Argument(metavar="DIR|FILE", show_default=False)],
    release: ReleaseRef,
    kind: Annotated[
        Kind | None, typer.Option(help="What the artifact is; needed at its first push.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="CHANNEL", help="Open it on a channel, to all at once.")
    ] = None,
    notes: Annotated[str, typer.Option(help="What changed, for people.")] = "",
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Release the files that links point to.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Sign a release and push it. The same files again do nothing."""
    context = current()
    reference = _version_reference(release)
    home = context.publisher(reference.namespace)
    _warn_of_kit(context, home)
    request = PushRequest(
        reference.artifact,
        _version(reference),
        kind,
        notes,
        ChannelName(to) if to is not None else None,
    )
    left_out: list[str] = []
    files = find_files(source, follow_links=follow_links, left_out=left_out.append)
    for path in left_out:
        context.out.remark(f"left out {path}: its name begins with a dot")
    with ExitStack() as stack:
        stack.enter_context(home.locked("push"))
        connection = stack.enter_context(context.connect_publisher(home))
        labels = {"hash": "hashing", "upload": "uploading"}

        def start(what: str, total: int) -> Advance:
            return stack.enter_context(context.out.progress(labels[what], total))

        pusher = Pusher(home, context.keyring(home), connection, PushProgress(start), dry_run)
        pushed = pusher.push(files, request)
    for remark in pushed.remarks:
        context.out.remark(remark)
    _show_pushed(context, home, request, pushed, dry_run=dry_run)


def _show_pushed(
    context: Context,
    home: PublisherHome,
    request: PushRequest,
    pushed: Pushed,
    *,
    dry_run: bool,
) -> None:
    name = f"{home.namespace}/{request.artifact}@{request.version}"
    document: dict[str, Any] = {
        "release": name,
        "digest": pushed.pointer.sha256,
        "created": pushed.created,
        "files": len(pushed.manifest.files),
        "bytes": pushed.manifest.length,
        "uploaded_bytes": pushed.uploaded_bytes,
        "channel": channel_document(pushed.channel) if pushed.channel else None,
    }

    def people(out: Out) -> None:
        size = f"{len(pushed.manifest.files)} files, {format_bytes(pushed.manifest.length)}"
        if pushed.created and dry_run:
            out.line(
                f"would release {name} ({size}, {format_bytes(pushed.uploaded_bytes)} to send)"
            )
        elif pushed.created:
            out.line(f"released {name} ({size}, {format_bytes(pushed.uploaded_bytes)} sent)")
        else:
            out.line(f"{name} is there already ({size})")
        out.line(f"digest {pushed.pointer.sha256.reference}")
        if pushed.channel is not None:
            show_channel(out, pushed.channel)
        elif pushed.created and request.to is None and not dry_run:
            out.line(f"Next: sealift promote {request.artifact}@{request.version} --to stable …")

    context.out.show(document, people)


@app.command(rich_help_panel=PANEL)
def promote(
    release: ReleaseRef,
    to: Annotated[str, typer.Option(metavar="CHANNEL", help="The channel to move.")],
    plan: Annotated[
        str | None,
        typer.Option(metavar="auto|now|STAGES", help="When it opens to whom, as 1%/1d,100%."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the first stage opens (UTC).")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="VERSION|none", help="For devices that are not offered it."),
    ] = None,
    floor: Annotated[
        str | None, typer.Option(metavar="VERSION|none", help="The lowest version allowed.")
    ] = None,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="A security fix: it can be halted, not reverted.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Point a channel to a release, all at once or in stages."""
    context = current()
    reference = _version_reference(release)
    channel = ChannelName(to)
    home = context.publisher(reference.namespace)
    begins = parse_time(start) if start else context.clock.wall()
    if plan is None:
        if not channel.is_preview:
            raise UsageError(
                f"{channel} is a protected channel, so a plan is needed: --plan",
                hint=FORMS,
            )
        plan = "now"
    stages = parse_plan(plan, begins)
    if start and not stages:
        raise UsageError("--start needs a plan with stages", hint=FORMS)

    def move(connection: PublisherConnection) -> Channel:
        admitted = connection.admit(home.trust())
        pointer = pointer_to(admitted, reference.artifact, _version(reference))
        wanted = ChannelMove(reference.artifact, channel, pointer, stages, fallback, floor, urgent)
        return next_channel(home, admitted, wanted)

    _move_channel(context, home, move, dry_run=dry_run)


@app.command(rich_help_panel=PANEL)
def rollback(
    channel: ChannelRef,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Where to; else to the fallback.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Point a channel back, for all devices at once."""
    context = current()
    reference = _channel_reference(channel)
    home = context.publisher(reference.namespace)
    version = Version.parse(to) if to is not None else None

    def move(connection: PublisherConnection) -> Channel:
        admitted = connection.admit(home.trust())
        wanted = rollback_move(admitted, reference.artifact, _channel(reference), version)
        return next_channel(home, admitted, wanted)

    _move_channel(context, home, move, dry_run=dry_run)


def _move_channel(
    context: Context,
    home: PublisherHome,
    move: Callable[[PublisherConnection], Channel],
    *,
    dry_run: bool,
) -> None:
    _warn_of_kit(context, home)
    with home.locked("moving a channel"), context.connect_publisher(home) as connection:
        document = move(connection)
        if not dry_run:
            admitted = connection.admit(home.trust())
            state = NextState(home, admitted)
            artifact = document.artifact.artifact
            path = layout.channel_path(artifact, document.channel)
            state.put_document(path, encode_document(document))
            submit(connection, state, context.keyring(home), admitted)
    if dry_run:
        context.out.remark("nothing was changed (--dry-run)")
    context.out.show(channel_document(document), lambda out: show_channel(out, document))


def _hold(channel: str, state: HoldState, reason: str, dry_run: bool) -> None:
    context = current()
    reference = _channel_reference(channel)
    home = context.publisher(reference.namespace)
    with home.locked(state.value), context.connect_publisher(home) as connection:
        done = set_hold(
            home,
            connection,
            reference.artifact,
            _channel(reference),
            state,
            reason,
            dry_run=dry_run,
        )
    document = {
        "channel": f"{home.namespace}/{reference.artifact}:{reference.channel}",
        "rollout": done.channel.rollout.id,
        "before": done.before,
        "state": done.state,
        "reason": reason,
    }
    if dry_run:
        context.out.remark("nothing was changed (--dry-run)")
    context.out.show(
        document, lambda out: out.line(f"{document['channel']}: {done.before} → {done.state}")
    )


Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]


@app.command(rich_help_panel=PANEL)
def pause(channel: ChannelRef, reason: Why, dry_run: DryRun = False) -> None:
    """Stop a rollout for the moment; `resume` lets it go on."""
    _hold(channel, HoldState.PAUSED, reason, dry_run)


@app.command(rich_help_panel=PANEL)
def resume(channel: ChannelRef, reason: Why, dry_run: DryRun = False) -> None:
    """Let a paused rollout go on."""
    _hold(channel, HoldState.RUNNING, reason, dry_run)


@app.command(rich_help_panel=PANEL)
def halt(channel: ChannelRef, reason: Why, dry_run: DryRun = False) -> None:
    """Stop a rollout for good; going on needs a new `promote`."""
    _hold(channel, HoldState.HALTED, reason, dry_run)


@app.command(rich_help_panel=PANEL)
def revert(channel: ChannelRef, reason: Why, dry_run: DryRun = False) -> None:
    """Stop a rollout for good, and send devices back to its fallback."""
    _hold(channel, HoldState.REVERTED, reason, dry_run)


@app.command(rich_help_panel=PANEL)
def invite(
    follow: Annotated[
        list[str] | None,
        typer.Option(metavar="ART[:CHANNEL]", help="What the device will follow; repeatable."),
    ] = None,
    uses: Annotated[int, typer.Option(min=1, max=100_000, help="How many may join.")] = 1,
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="How long it is valid.")] = "24h",
    dry_run: DryRun = False,
) -> None:
    """Make a join string for devices. It is a secret: send it by a trusted way."""
    context = current()
    home = context.publisher()
    references = [Reference.parse(one) for one in follow or []]
    ttl_s = parse_duration(ttl)
    address = ServerAddress.parse(context.server or home.settings().server)
    with home.locked("invite"), context.connect_publisher(home) as connection:
        made = make_invite(
            home, connection, address, references, uses=uses, ttl_s=ttl_s, dry_run=dry_run
        )
    for remark in made.remarks:
        context.out.remark(remark)
    if dry_run:
        context.out.remark("nothing was changed (--dry-run); this string joins nothing")
    document = {
        "join": made.text,
        "namespace": made.content.namespace,
        "root_sha256": made.content.root.sha256,
        "follow": [f"{one.artifact}:{one.channel}" for one in made.content.follow],
        "uses": uses,
        "expires": made.content.expires,
    }

    def people(out: Out) -> None:
        out.line(made.text)
        out.remark(
            f"for {uses} device{'s' if uses > 1 else ''}, until "
            f"{time_text(made.content.expires)}; root {made.content.root.sha256.reference}"
        )

    context.out.show(document, people)


# --- what these commands share ---------------------------------------------------------------


def _version_reference(text: str) -> Reference:
    reference = Reference.parse(text)
    if reference.version is None:
        raise UsageError(f"{text!r} names no version", hint="Write ARTIFACT@1.4.0.")
    return reference


def _version(reference: Reference) -> Version:
    if reference.version is None:
        raise UsageError(f"{reference} names no version", hint="Write ARTIFACT@1.4.0.")
    return reference.version


def _channel_reference(text: str) -> Reference:
    reference = Reference.parse(text)
    _channel(reference)
    return reference


def _channel(reference: Reference) -> ChannelName:
    if reference.channel is None:
        raise UsageError(f"{reference} names no channel", hint="Write ARTIFACT:CHANNEL.")
    return reference.channel


def _warn_of_kit(context: Context, home: PublisherHome) -> None:
    """T26: every publisher command warns while the kit still lies in the home."""
    if home.kit_file.exists():
        context.out.remark(
            f"the recovery kit still lies in {home.kit_file}; print it, put it away, delete it"
        )


def parse_time(text: str) -> int:
    """Reads Unix seconds or an ISO 8601 time; without a zone it is UTC.

    Raises:
        UsageError: If it is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time", hint="Write 2027-01-31T09:00 (UTC) or Unix seconds."
        ) from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def channel_document(channel: Channel) -> dict[str, Any]:
    """A channel's document for `--output json`."""
    return {
        "channel": f"{channel.artifact}:{channel.channel}",
        "sequence": channel.sequence,
        "release": _pointer_document(channel.release) if channel.release else None,
        "rollout": channel.rollout.model_dump(mode="json", by_alias=True),
        "fallback": (
            {**_pointer_document(channel.fallback), "until": channel.fallback.until}
            if channel.fallback
            else None
        ),
        "floor": str(channel.floor) if channel.floor else None,
        "urgent": channel.urgent,
    }


def _pointer_document(pointer: Any) -> dict[str, str]:
    return {"version": str(pointer.version), "digest": Digest(pointer.sha256)}


def show_channel(out: Out, channel: Channel) -> None:
    """A channel for people: release, stages, fallback, floor (T27)."""
    release = f"@{channel.release.version}" if channel.release else "closed"
    out.line(f"{channel.artifact}:{channel.channel} → {release} (sequence {channel.sequence})")
    for stage in channel.rollout.stages:
        ramp = f", over {duration_text(stage.ramp_s)}" if stage.ramp_s else ""
        labels = f" for {', '.join(stage.labels)}" if stage.labels else ""
        share = format_share(stage.basis_points)
        out.line(f"  {share}{labels} from {time_text(stage.not_before)}{ramp}")
    if channel.release and not channel.rollout.stages:
        out.line("  100% at once")
    if channel.fallback:
        until = (
            f"devices can be sent back until {time_text(channel.fallback.until)}"
            if channel.fallback.until
            else "devices cannot be sent back"
        )
        out.line(f"  fallback {channel.fallback.version}; {until}")
    elif channel.release:
        out.line("  no fallback")
    out.line(f"  floor {channel.floor or 'none'}")
