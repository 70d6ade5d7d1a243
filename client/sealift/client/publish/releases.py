"""Pushing releases."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from sealift.client.publish.channels import ChannelMove, next_channel
from sealift.client.publish.connection import PublisherConnection, is_conflict
from sealift.client.publish.content import HashCache, HashedContent, SourceFile, hash_content
from sealift.client.publish.home import PublisherHome
from sealift.client.publish.keyring import Keyring
from sealift.client.publish.signing import NextState
from sealift.client.trust.admission import Admitted
from sealift.client.trust.fetcher import RepositorySource
from sealift.host.console import UsageError
from sealift.host.hashing import Advance, sha256_bytes
from sealift.host.rpc import ServerRefused
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Channel, FileEntry, Kind, Manifest, ReleasePointer
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, ArtifactName, ChannelName, Digest, Version
from sealift.protocol.parsing import encode_document
from sealift.protocol.reasons import Reason

UPLOAD_STREAMS = 3
TRIES = 6


class ReleaseRefused(SealiftError):
    """A release that cannot be made as it was asked for."""


class KindNeeded(UsageError):
    """An artifact's first push must say its kind."""


@dataclass(frozen=True, slots=True)
class PushRequest:
    """What to push.

    Attributes:
        artifact: The artifact.
        version: The version.
        kind: Needed at the artifact's first release; else it must fit.
        notes: For people.
        to: A channel that is opened to all at once.
    """

    artifact: ArtifactName
    version: Version
    kind: Kind | None = None
    notes: str = ""
    to: ChannelName | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did.

    Attributes:
        pointer: The release.
        manifest: What it is made of.
        created: False if the same release was there already.
        uploaded_bytes: What was sent.
        channel: The channel's new document, if it was moved.
        remarks: What people should know, such as notes that differ.
    """

    pointer: ReleasePointer
    manifest: Manifest
    created: bool
    uploaded_bytes: int
    channel: Channel | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PushProgress:
    """Who hears of progress: hashing, then uploading. Each is told of a total, then of bytes."""

    start: Callable[[str, int], Advance]


def read_manifest(
    source: RepositorySource, admitted: Admitted, artifact: ArtifactName, version: Version
) -> tuple[Manifest, bytes, Digest]:
    """Reads a released manifest and checks it against the signed list.

    Raises:
        SealiftError: If there is no such release.
        RuleViolation: If the bytes are not the ones that were signed.
    """
    path = layout.release_path(artifact, version)
    role = layout.role_name(artifact, layout.RoleClass.RELEASES)
    file = admitted.roles.get(role)
    target = file.targets.targets.get(path) if file else None
    if target is None:
        raise SealiftError(
            f"{admitted.namespace}/{artifact}@{version} was not released",
            hint=f"See what was: sealift show {admitted.namespace}/{artifact}",
        )
    digest = metadata.check_target(role, path, target)
    data = source.read(
        admitted.namespace, f"targets/{layout.hashed_document_path(path, digest)}", target.length
    )
    metadata.check_document_bytes(role, path, target, data)
    manifest = metadata.parse_placed_document(Manifest, admitted.namespace, path, data)
    return manifest, data, digest


@dataclass(frozen=True, slots=True)
class Pusher:
    """Pushes releases from one home over one connection."""

    home: PublisherHome
    keyring: Keyring
    connection: PublisherConnection
    progress: PushProgress
    dry_run: bool = False

    def push(self, files: list[SourceFile], request: PushRequest) -> Pushed:
        """Hashes, uploads what is missing, signs and submits.

        Raises:
            KindNeeded: If it is the artifact's first release and has no kind.
            ReleaseRefused: If other bytes were released under this version.
            UnusableContent: If a file cannot be read.
            ServerRefused, RuleViolation, KeyUnavailable: As they say.
        """
        admitted = self.connection.admit(self.home.trust())
        kind = self._kind(admitted, request)
        cache = HashCache(self.home.folder / "push" / "hashes.json", time.time_ns)
        hashing = self.progress.start("hash", sum(one.length for one in files))
        content = hash_content(files, cache, hashing, os.cpu_count() or 1)
        cache.save()
        known = self._known(admitted, request, kind, content)
        if known is not None and self._rests(admitted, request, known):
            return known
        if self.dry_run:
            return self._planned(admitted, request, kind, content, known)
        sent = 0 if known else self._upload(content)
        self.home.step("push:uploaded")
        return self._submit_with_rebase(request, kind, content, sent)

    def _rests(self, admitted: Admitted, request: PushRequest, known: Pushed) -> bool:
        """True if nothing is left to do for a release that is there."""
        if request.to is None:
            return True
        channel = admitted.channel(request.artifact, request.to)
        return channel is not None and channel.release == known.pointer

    def _kind(self, admitted: Admitted, request: PushRequest) -> Kind:
        released = admitted.releases(request.artifact)
        if not released:
            if request.kind is None:
                raise KindNeeded(
                    f"{request.artifact} is new, so its kind must be said",
                    hint=f"Add --kind, one of {', '.join(Kind)}.",
                )
            return request.kind
        newest = max(released)
        manifest, _, _ = read_manifest(self.connection.source, admitted, request.artifact, newest)
        if request.kind not in {None, manifest.kind}:
            raise ReleaseRefused(
                f"{request.artifact} is a {manifest.kind}, not a {request.kind}",
                hint="An artifact's kind is fixed by its first release; choose another name.",
            )
        return manifest.kind

    def _known(
        self, admitted: Admitted, request: PushRequest, kind: Kind, content: HashedContent
    ) -> Pushed | None:
        """The release, if the same files were released under this version before."""
        listed = admitted.releases(request.artifact).get(request.version)
        if listed is None:
            return None
        manifest, _, digest = read_manifest(
            self.connection.source, admitted, request.artifact, request.version
        )
        before = {entry.path: entry.sha256 for entry in manifest.files}
        after = {entry.path: entry.sha256 for entry in content.entries}
        if before != after or manifest.kind is not kind:
            changed = sorted(
                path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
            )
            raise ReleaseRefused(
                f"{request.artifact}@{request.version} was released with other bytes "
                f"({', '.join(changed[:3])}{', …' if len(changed) > 3 else ''})",
                hint="A released version never changes; push under a new version.",
            )
        remarks = []
        if request.notes and request.notes != manifest.notes:
            remarks.append("the notes differ from those that were released, and were not changed")
        pointer = ReleasePointer(version=request.version, sha256=digest, length=listed[1])
        return Pushed(pointer, manifest, False, 0, remarks=tuple(remarks))

    def _planned(
        self,
        admitted: Admitted,
        request: PushRequest,
        kind: Kind,
        content: HashedContent,
        known: Pushed | None,
    ) -> Pushed:
        """What a dry run tells: nothing is uploaded, signed or submitted."""
        if known is not None:
            return known
        missing = self.connection.missing_blobs(
            self.home.namespace, {digest: length for digest, (length, _) in content.blobs.items()}
        )
        count = sum(content.blobs[digest][0] - offset for digest, offset in missing.items())
        manifest = self._manifest(request, kind, content.entries)
        data = encode_document(manifest)
        pointer = ReleasePointer(
            version=request.version, sha256=sha256_bytes(data), length=len(data)
        )
        del admitted
        return Pushed(pointer, manifest, True, count, remarks=("nothing was changed (--dry-run)",))

    # --- uploading ------------------------------------------------------------------------

    def _upload(self, content: HashedContent) -> int:
        lengths = {digest: length for digest, (length, _) in content.blobs.items()}
        missing = self.connection.missing_blobs(self.home.namespace, lengths)
        total = sum(lengths[digest] for digest in missing)
        advance = self.progress.start("upload", total)
        for offset in missing.values():
            advance(offset)
        with ThreadPoolExecutor(max_workers=UPLOAD_STREAMS) as pool:
            jobs = [
                pool.submit(self._upload_one, digest, content, offset, advance)
                for digest, offset in missing.items()
            ]
            try:
                return sum(job.result() for job in jobs)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.connection.channel.close()
                raise

    def _upload_one(
        self, digest: Digest, content: HashedContent, offset: int, advance: Advance
    ) -> int:
        """Uploads one blob, going on where a broken connection left it."""
        length, source = content.blobs[digest]
        self.home.step("push:upload")
        start = offset
        for attempt in Retrying(
            retry=retry_if_exception(_worth_another_upload),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    again = self.connection.missing_blobs(self.home.namespace, {digest: length})
                    if digest not in again:
                        return length - start
                    offset = again[digest]
                self.connection.upload(
                    self.home.namespace, (digest, length), source, offset=offset, advance=advance
                )
        return length - start

    # --- submitting -----------------------------------------------------------------------

    def _submit_with_rebase(
        self, request: PushRequest, kind: Kind, content: HashedContent, sent: int
    ) -> Pushed:
        for attempt in Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        ):
            with attempt:
                return self._submit(request, kind, content, sent)
        raise AssertionError("unreachable")

    def _submit(
        self, request: PushRequest, kind: Kind, content: HashedContent, sent: int
    ) -> Pushed:
        admitted = self.connection.admit(self.home.trust())
        known = self._known(admitted, request, kind, content)
        if known is not None and self._rests(admitted, request, known):
            return known
        state = NextState(self.home, admitted, {request.artifact: kind})
        if request.artifact not in admitted.artifacts:
            (key,) = {
                signer.public_key.keyid: signer.public_key
                for signer in self.keyring.signers(layout.TARGETS)
            }.values()
            state.create_artifact(request.artifact, key)
        if known is None:
            manifest = self._manifest(request, kind, content.entries)
            data = encode_document(manifest)
            state.put_document(layout.release_path(request.artifact, request.version), data)
            pointer = ReleasePointer(
                version=request.version, sha256=sha256_bytes(data), length=len(data)
            )
        else:
            manifest, pointer = known.manifest, known.pointer
        channel = None
        if request.to is not None:
            move = ChannelMove(request.artifact, request.to, pointer, stages=())
            channel = next_channel(self.home, admitted, move)
            path = layout.channel_path(request.artifact, request.to)
            state.put_document(path, encode_document(channel))
        submit(self.connection, state, self.keyring, admitted)
        return Pushed(pointer, manifest, known is None, sent, channel)

    def _manifest(
        self, request: PushRequest, kind: Kind, entries: tuple[FileEntry, ...]
    ) -> Manifest:
        try:
            return Manifest(
                artifact=ArtifactId(self.home.namespace, request.artifact),
                kind=kind,
                version=request.version,
                created=self.home.clock.wall(),
                files=entries,
                notes=request.notes,
            )
        except ValidationError as error:
            raise ReleaseRefused(f"this cannot be released: {error.errors()[0]['msg']}") from error


def submit(
    connection: PublisherConnection, state: NextState, keyring: Keyring, admitted: Admitted
) -> None:
    """Signs a next state, submits it and admits the outcome.

    Raises:
        ServerRefused: With the reason `conflict` if another publisher was faster.
    """
    online = metadata.online_key(admitted.roles[layout.ROOT].root)
    signed, _ = state.sign(keyring, online)
    state.home.step("push:signed")
    for attempt in Retrying(
        retry=retry_if_exception(_worth_another_submit),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        reraise=True,
    ):
        with attempt:
            connection.submit(state.namespace, signed)
    state.remember(signed)
    state.home.step("push:submitted")
    connection.admit(state.home.trust())


def _worth_another_upload(error: BaseException) -> bool:
    return isinstance(error, ServerRefused) and error.reason in {
        Reason.UNREACHABLE,
        Reason.UNAVAILABLE,
        Reason.DEADLINE,
        Reason.OFFSET_MISMATCH,
    }


def _worth_another_submit(error: BaseException) -> bool:
    return isinstance(error, ServerRefused) and error.reason in {
        Reason.UNREACHABLE,
        Reason.UNAVAILABLE,
        Reason.DEADLINE,
    }
