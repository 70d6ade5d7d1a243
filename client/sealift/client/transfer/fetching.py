"""A release's content into the device's store: `fetch_release`.

In this order, so that a crash at any point loses little and installs nothing unverified:

1. The transfer's folder `partial/HEX` is locked; another process that wants the same waits.
2. Room on the disk is checked for all that is missing.
3. The lists of pieces are fetched and checked against the manifest.
4. Files of one piece, then the others (`sealift.client.transfer.large_file`): each piece is hashed
   before it is written.
5. The release's folder appears at once, with everything synced before.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from sealift.client.store.placing import FILE_MODE
from sealift.client.store.store import TRANSFER_LOCK, MissingBlob, Store
from sealift.client.store.verify import verify_files
from sealift.client.transfer.errors import ContentMismatch, NotTransferable
from sealift.client.transfer.large_file import LargeFile
from sealift.client.transfer.partial import BATCH_BYTES, PartialFile
from sealift.client.transfer.pieces import (
    Span,
    Wanted,
    threads_for,
    wanted_files,
    wanted_lists,
    whole,
)
from sealift.client.transfer.source import ContentSource
from sealift.client.transfer.streams import Retries, Streams
from sealift.client.transfer.workers import Workers
from sealift.host.files import (
    LOCK_WAIT_S,
    FileLock,
    Step,
    check_room,
    no_step,
    sync_folder,
    write_atomically,
    writing,
)
from sealift.host.hashing import Advance, sha256_bytes
from sealift.host.installed import MANIFEST, InstalledRelease
from sealift.protocol.chunks import Piece, decode_chunks
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import InvalidDocument
from sealift.protocol.names import Digest

INSTALL_TRIES = 3


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a transfer is done.

    Attributes:
        streams: Ranges that are fetched at the same time.
        batch_bytes: Bytes that may be on their way to the disk without a line in the journal.
        lock_wait_s: How long to wait for another process that fetches the same release.
        retries: How often to try again.
    """

    streams: int = 3
    batch_bytes: int = BATCH_BYTES
    lock_wait_s: float = LOCK_WAIT_S
    retries: Retries = field(default_factory=Retries)


def _nothing(count: int) -> None:
    """Reports progress to nobody."""


def fetch_release(
    manifest: Manifest,
    digest: Digest,
    manifest_bytes: bytes,
    store: Store,
    sources: Sequence[ContentSource],
    advance: Advance = _nothing,
    step: Step = no_step,
    *,
    tuning: Tuning | None = None,
) -> None:
    """Leaves a release installed and whole in the store; fetches only what the device lacks.

    A release that is installed but damaged is mended in place. Interrupted at any point, by a kill
    too, it goes on where it was the next time.

    Args:
        manifest: The verified manifest.
        digest: The release's digest.
        manifest_bytes: The manifest's exact bytes.
        store: The device's.
        sources: Where content is, in the order of preference.
        advance: Told of bytes of files that are done, those that the device had included; all add
            up to `manifest.length`. Called from several threads, one at a time; what it raises
            ends the transfer.
        step: The crash hook: `download:start`, `download:piece`, `download:sync`,
            `download:journal`, `download:blob`, and the store's.
        tuning: How it is done.

    Raises:
        ContentMismatch: If other bytes than the signed ones came, from every source.
        ContentMissing: If no source has a blob.
        SourceFailed: If no source could serve.
        NotTransferable: If the signed manifest cannot be carried out.
        ServerRefused: If the server says no.
        DiskFull: If there is no room; nothing is lost.
        HomeLocked: If another process goes on fetching the same release.
        Unwritable: If the store cannot be written.
    """
    if sha256_bytes(manifest_bytes) != digest:
        raise InvalidDocument(f"these bytes are not the manifest {digest.reference}")
    tuning = tuning or Tuning()
    store.prepare()
    lock = FileLock(store.transfer_folder(digest) / TRANSFER_LOCK)
    with lock.held(wait_s=tuning.lock_wait_s, purpose="download"):
        if store.is_whole(digest):
            advance(manifest.length)
        else:
            _Transfer(manifest, digest, store, sources, advance, step, tuning).run(manifest_bytes)
        store.drop_transfer(digest)


class _Transfer:
    """One run of `fetch_release`, under its lock."""

    def __init__(
        self,
        manifest: Manifest,
        digest: Digest,
        store: Store,
        sources: Sequence[ContentSource],
        advance: Advance,
        step: Step,
        tuning: Tuning,
    ) -> None:
        self._manifest = manifest
        self._digest = digest
        self._store = store
        self._folder = store.transfer_folder(digest)
        self._advance_one = advance
        self._step = step
        self._tuning = tuning
        self._workers = Workers()
        self._streams = Streams(sources, self._workers, tuning.retries)
        self._telling = threading.Lock()
        self._copies = Counter(entry.sha256 for entry in manifest.files)
        self._told: Counter[Digest] = Counter()

    def run(self, manifest_bytes: bytes) -> None:
        self._step("download:start")
        # What is under way is known to `collect`, which leaves its blobs alone.
        write_atomically(self._folder / MANIFEST, manifest_bytes)
        for attempt in range(INSTALL_TRIES):
            try:
                self._fetch_and_install(manifest_bytes)
                return
            except MissingBlob:  # a collection that began before we did
                if attempt == INSTALL_TRIES - 1:
                    raise

    def _fetch_and_install(self, manifest_bytes: bytes) -> None:
        report = None
        if self._store.has(self._digest):
            folder = self._store.files_folder(self._digest)
            installed = InstalledRelease(self._digest, self._manifest, folder)
            report = verify_files(installed, hashes=True)
            damaged = {one.path: one.expected for one in report.damaged}
            self._store.discard_blobs(damaged.values())
            for entry in self._manifest.files:
                if entry.path not in damaged and entry.sha256 not in damaged.values():
                    self._store.keep_blob(entry.sha256, folder / entry.path)
        self._fetch_missing()
        with writing(self._store.blobs):
            sync_folder(self._store.blobs)
        if report is not None:
            self._store.mend(self._manifest, self._digest, manifest_bytes, report)
        else:
            self._store.add_release(self._manifest, self._digest, manifest_bytes)

    def _fetch_missing(self) -> None:
        files = wanted_files(self._manifest)
        missing = [one for one in files if not self._store.has_blob(one.digest, one.length)]
        for one in files:
            if one not in missing:
                self._tell(one, one.length)
        lists = [
            one
            for one in wanted_lists(self._manifest, {one.digest for one in missing})
            if not self._store.has_blob(one.digest, one.length)
        ]
        if not missing:
            return
        self._check_room([*missing, *lists])
        self._streams.prepare([one.digest for one in (*lists, *missing) if one.length])
        self._fetch_single(lists)
        self._fetch_single([one for one in missing if one.list_digest is None])
        for one in missing:
            if one.list_digest is not None:
                self._fetch_large(one, one.list_digest)

    def _check_room(self, missing: Sequence[Wanted]) -> None:
        needed = sum(one.length for one in missing)
        with writing(self._folder):
            had = sum(path.stat().st_blocks * 512 for path in self._folder.iterdir())
        check_room(self._store.folder, max(needed - had, 0))

    def _tell(self, wanted: Wanted, count: int) -> None:
        """Reports bytes of a file, once however often they were fetched."""
        with self._telling:
            count = min(count, wanted.length - self._told[wanted.digest])
            self._told[wanted.digest] += count
            if count and wanted.digest in self._copies:
                self._advance_one(count * self._copies[wanted.digest])

    # Files of one piece

    def _fetch_single(self, wanted: Sequence[Wanted]) -> None:
        queue = deque(wanted)
        longest = max((one.length for one in wanted), default=0)

        def work() -> None:
            buffer = memoryview(bytearray(longest))
            while queue:
                self._workers.check()
                try:
                    one = queue.popleft()
                except IndexError:
                    return
                self._fetch_one(one, buffer)

        if wanted:
            self._workers.run(min(len(wanted), threads_for(self._tuning.streams, longest)), work)

    def _fetch_one(self, wanted: Wanted, buffer: memoryview) -> None:
        def land(piece: Piece, view: memoryview) -> None:
            self._write_blob(wanted, view)
            self._tell(wanted, piece.length)

        piece = whole(wanted)
        if wanted.length:
            self._streams.fetch(wanted, Span((piece,)), buffer, land)
            return
        empty = hashlib.sha256(b"").digest()
        if empty != piece.sha256:
            raise ContentMismatch(wanted.path, wanted.digest, Digest.from_bytes(empty))
        land(piece, buffer[:0])

    def _write_blob(self, wanted: Wanted, view: memoryview) -> None:
        path = self._folder / f"{wanted.digest}.part"
        self._step("download:piece")
        with writing(path):
            with path.open("wb", buffering=0) as file:
                while view:
                    view = view[file.write(view) :]
                os.fchmod(file.fileno(), FILE_MODE)
                os.fsync(file.fileno())
            self._step("download:blob")
            path.replace(self._store.blob_path(wanted.digest))

    # Files of several pieces

    def _fetch_large(self, wanted: Wanted, listed: Digest) -> None:
        data = self._store.blob_path(listed).read_bytes()
        try:
            pieces = decode_chunks(data, wanted.length)
        except InvalidDocument as error:
            raise NotTransferable(
                f"{wanted.path}: its signed list of pieces is no such list: {error.message}",
                hint="Tell the publisher; what is installed runs on.",
            ) from error
        partial = PartialFile(self._folder, wanted, pieces, self._step, self._tuning.batch_bytes)
        try:
            LargeFile(
                wanted,
                partial,
                self._store,
                self._streams,
                self._workers,
                lambda count: self._tell(wanted, count),
                self._tuning.streams,
            ).fetch()
            partial.become(self._store.blob_path(wanted.digest))
        finally:
            partial.close()
