"""Commands that look: `show`, `status`, `log`, `verify`. They answer for each part of the home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sealift.client.agent.cycle import judge_artifact
from sealift.client.cli.context import Context, current
from sealift.client.cli.judgements import judgement_document
from sealift.client.cli.publishing import channel_document, show_channel
from sealift.client.cli.verifying import verify_folder, verify_reference
from sealift.client.cli.words import duration_text, time_text
from sealift.client.publish.home import PublisherHome, publisher_namespaces
from sealift.client.publish.releases import read_manifest
from sealift.client.trust.admission import Admitted
from sealift.client.trust.fetcher import RepositorySource
from sealift.host.active import ActivePointer
from sealift.host.console import EXIT_FAILED, Out, format_bytes
from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import ServerRefused
from sealift.protocol import layout
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, ArtifactName, Namespace, Reference, Version

app = typer.Typer()
PANEL = "Look"


# --- show -------------------------------------------------------------------------------------


@app.command(rich_help_panel=PANEL)
def show(reference: Annotated[str, typer.Argument(metavar="REF", show_default=False)]) -> None:
    """Show an artifact's releases and channels, or one release's files."""
    context = current()
    wanted = Reference.parse(reference)
    if context.device.exists and not publisher_namespaces(context.home):
        artifact = context.artifact(wanted)
        state = context.device.state()
        joined = state.joined(artifact.namespace)
        if artifact not in state.artifacts():
            state = state.with_following(artifact, context.followed_channel(artifact, wanted))
        with context.connect_device(artifact.namespace, joined) as connection:
            admitted = connection.admit(context.device.trust(artifact.namespace, state))
            _show_reference(context, connection.source, admitted, wanted)
        return
    home = context.publisher(wanted.namespace)
    with context.connect_publisher(home) as connection:
        _show_reference(context, connection.source, connection.admit(home.trust()), wanted)


def _show_reference(
    context: Context, source: RepositorySource, admitted: Admitted, wanted: Reference
) -> None:
    if wanted.artifact not in admitted.artifacts:
        raise SealiftError(
            f"{admitted.namespace} has no artifact {wanted.artifact}",
            hint=f"It has: {', '.join(admitted.artifacts) or 'none yet'}.",
        )
    if wanted.channel is not None:
        channel = admitted.channel(wanted.artifact, wanted.channel)
        if channel is None:
            raise SealiftError(
                f"{wanted.artifact} has no channel {wanted.channel}",
                hint=f"It has: {', '.join(admitted.channels(wanted.artifact)) or 'none yet'}.",
            )
        context.out.show(channel_document(channel), lambda out: show_channel(out, channel))
        return
    if wanted.moves:
        _show_artifact(context, admitted, wanted.artifact)
        return
    listed = admitted.releases(wanted.artifact)
    version = wanted.version or next(
        (one for one, (digest, _) in listed.items() if digest == wanted.digest), None
    )
    if version is None:
        raise SealiftError(f"{wanted} was not released")
    manifest, _, digest = read_manifest(source, admitted, wanted.artifact, version)
    document = {"digest": digest, **manifest.model_dump(mode="json", exclude_none=True)}
    context.out.show(document, lambda out: _show_release(out, manifest, digest))


def _show_release(out: Out, manifest: Manifest, digest: str) -> None:
    out.heading(f"{manifest.artifact}@{manifest.version} ({manifest.kind})")
    out.line(f"digest   sha256:{digest}")
    out.line(f"created  {time_text(manifest.created)}")
    if manifest.notes:
        out.line(f"notes    {manifest.notes}")
    rows = [
        (entry.path, format_bytes(entry.length), entry.media_type, entry.sha256.short)
        for entry in manifest.files
    ]
    out.table(["file", "size", "type", "sha256"], rows)


def _show_artifact(context: Context, admitted: Admitted, artifact: ArtifactName) -> None:
    releases = sorted(admitted.releases(artifact).items(), reverse=True)
    channels = admitted.channels(artifact)
    document = {
        "artifact": f"{admitted.namespace}/{artifact}",
        "releases": [{"version": str(v), "digest": digest} for v, (digest, _) in releases],
        "channels": [channel_document(channel) for channel in channels.values()],
    }

    def people(out: Out) -> None:
        out.heading(f"{admitted.namespace}/{artifact}")
        points: dict[Version, list[str]] = {}
        for name, channel in channels.items():
            if channel.release is not None:
                points.setdefault(channel.release.version, []).append(name)
        rows = [
            (str(version), digest.short, ", ".join(points.get(version, [])))
            for version, (digest, _) in releases
        ]
        out.table(["release", "digest", "channel"], rows)
        for channel in channels.values():
            show_channel(out, channel)

    context.out.show(document, people)


# --- status -----------------------------------------------------------------------------------


@app.command(rich_help_panel=PANEL)
def status() -> None:
    """Show what this home publishes and runs, and what needs attention."""
    context = current()
    document: dict[str, Any] = {}
    publishers = publisher_namespaces(context.home)
    if publishers:
        document["publisher"] = [_publisher_status(context, name) for name in publishers]
    if context.device.exists:
        document["device"] = _device_status(context)
    if not document:
        raise SealiftError(
            f"{context.home} is empty",
            hint="Publish: sealift init NAMESPACE. On a device: sealift join STRING.",
        )
    context.out.show(document, lambda out: _show_status(out, document))


def _publisher_status(context: Context, namespace: Namespace) -> dict[str, Any]:
    home = context.publisher(namespace)
    said: dict[str, Any] = {
        "namespace": namespace,
        "home": str(home.folder),
        "server": context.server or home.settings().server,
        "recovery_kit_in_home": home.kit_file.exists(),
    }
    try:
        with context.connect_publisher(home) as connection:
            admitted = connection.admit(home.trust())
            devices = connection.devices(namespace)
        said["devices"] = len(devices)
    except ServerRefused as error:
        said["problem"] = error.message
        believed = home.trust().believed()
        if believed is None:
            return said
        admitted = believed
    said["root_sha256"] = sha256_bytes(admitted.roles[layout.ROOT].data)
    said["roles"] = _expiries(context, admitted)
    said["artifacts"] = [_artifact_status(home, admitted, one) for one in admitted.artifacts]
    return said


def _expiries(context: Context, admitted: Admitted) -> list[dict[str, Any]]:
    now = context.clock.wall()
    return [
        {
            "role": role,
            "version": file.version,
            "expires": file.expires,
            "left_s": file.expires - now,
            "due": file.expires - now < layout.lifetime_s(role) // 4,
        }
        for role, file in sorted(admitted.roles.items())
        if role not in layout.ONLINE
    ]


def _artifact_status(
    home: PublisherHome, admitted: Admitted, artifact: ArtifactName
) -> dict[str, Any]:
    memory, now = home.state().memory, home.clock.wall()
    releases = admitted.releases(artifact)
    channels = []
    for channel in admitted.channels(artifact).values():
        hold = admitted.hold_status(artifact, channel, memory, now)
        channels.append({**channel_document(channel), "hold": hold.state})
    return {
        "artifact": artifact,
        "releases": len(releases),
        "newest": str(max(releases)) if releases else None,
        "channels": channels,
    }


def _device_status(context: Context) -> dict[str, Any]:
    home = context.device
    state = home.state()
    pointer = ActivePointer.load(home.pointer_file)
    artifacts: list[dict[str, Any]] = []
    for artifact in sorted({*state.artifacts(), *pointer.artifacts}, key=str):
        artifacts.append(_device_artifact(context, artifact, pointer))
    namespaces = [
        {
            "namespace": name,
            "server": joined.server,
            "device": joined.device,
            "admitted_at": joined.admitted_at or None,
            "problems": [
                {"role": one.role, "reason": one.reason, "message": one.message}
                for one in joined.problems.values()
            ],
        }
        for name, joined in sorted(state.namespaces.items())
    ]
    return {
        "home": str(home.folder),
        "labels": list(state.labels),
        "namespaces": namespaces,
        "artifacts": artifacts,
        "denylist": list(state.denylist),
    }


def _device_artifact(
    context: Context, artifact: ArtifactId, pointer: ActivePointer
) -> dict[str, Any]:
    entry = pointer.get(artifact)
    state = context.device.state()
    said: dict[str, Any] = {
        "artifact": str(artifact),
        "active": str(entry.active.version) if entry else None,
        "digest": entry.active.digest if entry else None,
        "since": entry.since if entry else None,
        "last_good": str(entry.last_good.version) if entry and entry.last_good else None,
        "pinned": str(artifact) in state.pins,
        "decision": None,
    }
    if artifact.namespace in state.namespaces and artifact in state.artifacts():
        said["decision"] = judgement_document(judge_artifact(context.device, artifact))
    return said


def _show_status(out: Out, document: dict[str, Any]) -> None:
    for said in document.get("publisher", []):
        out.heading(f"Publisher {said['namespace']}")
        _show_publisher(out, said)
        out.line()
    if "device" in document:
        out.heading("Device")
        _show_device(out, document["device"])


def _show_publisher(out: Out, said: dict[str, Any]) -> None:
    out.line(f"  server   {said['server']}")
    if "problem" in said:
        out.line(f"  problem  {said['problem']}; what follows was seen before")
    if "root_sha256" in said:
        out.line(f"  root     sha256:{said['root_sha256']}")
    if "devices" in said:
        out.line(f"  devices  {said['devices']}")
    if said["recovery_kit_in_home"]:
        out.line("  kit      the recovery kit still lies in the home: print it, delete the file")
    for role in said.get("roles", []):
        if role["due"]:
            left = duration_text(max(0, role["left_s"]))
            out.line(f"  due      {role['role']} expires in {left}")
    rows = []
    for artifact in said.get("artifacts", []):
        for channel in artifact["channels"] or [None]:
            name = channel["channel"].partition(":")[2] if channel else "-"
            release = channel["release"]["version"] if channel and channel["release"] else "-"
            hold = channel["hold"] if channel else ""
            rows.append((artifact["artifact"], artifact["newest"] or "-", name, release, hold))
    if rows:
        out.table(["artifact", "newest", "channel", "points to", "rollout"], rows)


def _show_device(out: Out, said: dict[str, Any]) -> None:
    for namespace in said["namespaces"]:
        seen = time_text(namespace["admitted_at"]) if namespace["admitted_at"] else "never"
        out.line(f"  {namespace['namespace']} at {namespace['server']}, verified {seen}")
        for problem in namespace["problems"]:
            out.line(f"    refused: {problem['message']}")
    rows = []
    for one in said["artifacts"]:
        decision = one["decision"]
        rows.append(
            (
                one["artifact"],
                one["active"] or "-",
                one["last_good"] or "-",
                "pinned" if one["pinned"] else (decision["channel"] if decision else None) or "-",
                decision["reasons"][0] if decision else "not followed",
            )
        )
    if rows:
        out.table(["artifact", "active", "last good", "channel", "because"], rows)


# --- log ----------------------------------------------------------------------------------------


@app.command(rich_help_panel=PANEL)
def log(
    reference: Annotated[str | None, typer.Argument(metavar="[REF]", show_default=False)] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000)] = 50,
) -> None:
    """Show what happened: the server's audit log, and this device's history."""
    context = current()
    wanted = Reference.parse(reference) if reference else None
    document: dict[str, Any] = {}
    publishers = publisher_namespaces(context.home)
    if publishers:
        names = [wanted.namespace] if wanted and wanted.namespace in publishers else publishers
        events: list[dict[str, Any]] = []
        for name in names:
            events += _audit(context, name, wanted.artifact if wanted else "", count)
        document["publisher"] = events
    if context.device.exists:
        document["device"] = _history(context, wanted, count)
    if not document:
        raise SealiftError(f"{context.home} is empty", hint="See: sealift --help")

    def people(out: Out) -> None:
        if "publisher" in document:
            out.heading("Publisher")
            rows = [
                (time_text(one["at"]), one["actor"], one["action"], one["detail"])
                for one in document["publisher"]
            ]
            out.table(["time", "who", "what", "detail"], rows)
        if "device" in document:
            out.heading("Device")
            out.table(["time", "what", "detail"], [_history_row(one) for one in document["device"]])

    context.out.show(document, people)


def _audit(
    context: Context, namespace: Namespace | None, artifact: str, count: int
) -> list[dict[str, Any]]:
    home = context.publisher(namespace)
    with context.connect_publisher(home) as connection:
        events = connection.audit_events(home.namespace, artifact, count)
    return [
        {
            "at": event.at,
            "namespace": home.namespace,
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "detail": event.detail,
        }
        for event in events
    ]


def _history(context: Context, wanted: Reference | None, count: int) -> list[dict[str, Any]]:
    events = context.device.history()
    if wanted is not None:
        name = str(context.artifact(wanted))
        events = [event for event in events if event.get("artifact") == name]
    return list(reversed(events[-count:]))


def _history_row(event: dict[str, Any]) -> tuple[str, str, str]:
    rest = {key: value for key, value in event.items() if key not in {"at", "event", "digest"}}
    detail = " ".join(f"{key}={value}" for key, value in rest.items())
    return time_text(int(event.get("at", 0))), str(event.get("event", "")), detail


# --- verify -------------------------------------------------------------------------------------


@app.command(rich_help_panel=PANEL)
def verify(
    what: Annotated[str, typer.Argument(metavar="REF|DIR", show_default=False)],
) -> None:
    """Hash an installed release, or any folder against a release, and compare."""
    context = current()
    if Path(what).is_dir():
        found = verify_folder(context, Path(what))
    else:
        found = verify_reference(context, Reference.parse(what))
    document = {
        "release": found.release,
        "digest": found.digest,
        "ok": found.ok,
        "problems": list(found.problems),
    }

    def people(out: Out) -> None:
        if found.ok:
            out.line(f"{found.release}: every byte is what its publisher signed")
            out.line(f"digest sha256:{found.digest}")
        for problem in found.problems:
            out.line(problem)

    context.out.show(document, people)
    if not found.ok:
        if not context.out.as_json:
            context.out.error(
                SealiftError(f"{found.release} is not what was signed", hint=found.hint)
            )
        raise typer.Exit(EXIT_FAILED)
