"""Uploads that can go on after a break: bytes are staged in `uploads/NS/HEX` and hashed on the way.

An upload's file holds exactly the bytes that are known to be written, from the blob's first on, so
its length is where the next upload of that blob begins. When the last byte is there and the hash is
right, the file goes into the store and leaves nothing here. A file with a wrong hash is deleted.

Locks: one upload at a time of one blob for one namespace; `_lock` guards the table of those that
run and the folder's names, and is held for moments.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sealift.host.files import Step, make_folder, no_step, writing
from sealift.protocol.errors import InvalidName
from sealift.protocol.names import Digest, Namespace
from sealift.server.content.errors import (
    BlobMismatch,
    OffsetMismatch,
    UploadIncomplete,
    UploadInProgress,
)
from sealift.server.content.store import BlobStore

REHASH_BYTES = 1024 * 1024
REMEMBERED = 256
"""How many uploads that were cut off go on in this process without hashing their bytes again."""

_Key = tuple[Namespace, Digest]


@dataclass(frozen=True, slots=True)
class _Hashed:
    """The running hash of an upload that was cut off."""

    offset: int
    sha256: hashlib._Hash


class Uploads:
    """The uploads of a server.

    Args:
        folder: Where bytes are staged. Best on the same file system as a folder of blobs.
        store: Where whole blobs go.
        step: Called before each step: `upload:publish`, `upload:remove`.
    """

    def __init__(self, folder: Path, store: BlobStore, *, step: Step = no_step) -> None:
        self.store = store
        self.step = step
        self._folder = folder
        self._lock = threading.Lock()
        self._running: set[_Key] = set()
        self._hashed: dict[_Key, _Hashed] = {}

    def path(self, namespace: Namespace, digest: Digest) -> Path:
        """Where the bytes of a blob are staged."""
        return self._folder / namespace / digest

    def staged(self, namespace: Namespace, digest: Digest) -> int:
        """How many bytes of a blob are staged: where its upload goes on."""
        try:
            return self.path(namespace, digest).stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, namespace: Namespace, digest: Digest, length: int, offset: int) -> Upload:
        """Begins or goes on with an upload. Use it as a context manager.

        Goes through the bytes already staged once if this process did not hash them itself, at
        about 1.5 GB a second.

        Args:
            namespace: Which namespace the blob is for.
            digest: The blob.
            length: How many bytes it has.
            offset: Where the bytes that will be appended begin.

        Raises:
            OffsetMismatch: If that is not where the last upload ended; it says where that is.
            UploadInProgress: If another one of the same blob runs. May be retried.
            DiskFull: If there is no room left.
        """
        key = (namespace, digest)
        with self._lock:
            if key in self._running:
                raise UploadInProgress(digest)
            self._running.add(key)
        try:
            return self._begin(key, length, offset)
        except BaseException:
            self._end(key, None)
            raise

    def _begin(self, key: _Key, length: int, offset: int) -> Upload:
        path = self.path(*key)
        staged = self.staged(*key)
        if staged > length:
            # The blob was announced with another length before. Only one can be right.
            self._remove(path)
            staged = 0
        if offset != staged:
            raise OffsetMismatch(key[1], offset, staged)
        with self._lock, writing(path):
            make_folder(path.parent)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            hashed = self._hash_of(key, file, staged)
            return Upload(self, key, file, length=length, hashed=hashed)
        except BaseException:
            os.close(file)
            raise

    def _hash_of(self, key: _Key, file: int, staged: int) -> _Hashed:
        known = self._hashed.pop(key, None)
        if known is not None and known.offset == staged:
            return known
        sha256 = hashlib.sha256()
        for offset in range(0, staged, REHASH_BYTES):
            sha256.update(os.pread(file, min(REHASH_BYTES, staged - offset), offset))
        return _Hashed(staged, sha256)

    def _end(self, key: _Key, hashed: _Hashed | None) -> None:
        with self._lock:
            self._running.discard(key)
            if hashed is not None:
                self._hashed[key] = hashed
            while len(self._hashed) > REMEMBERED:
                del self._hashed[next(iter(self._hashed))]

    def _remove(self, path: Path) -> None:
        """Removes a staged file, and its folder if that is then empty."""
        with self._lock, writing(path):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()

    def sweep(self, untouched_since: int) -> int:
        """Removes what was staged and not touched since then (Unix seconds); how many there were.

        Uploads that run are left alone.
        """
        removed = 0
        for path in self._folder.glob("*/*"):
            try:
                key = (Namespace(path.parent.name), Digest(path.name))
            except InvalidName:
                continue  # Not ours.
            with self._lock:
                if key in self._running or path.stat().st_mtime >= untouched_since:
                    continue
                self._running.add(key)
            try:
                self._remove(path)
            finally:
                self._end(key, None)
            removed += 1
        return removed


class Upload:
    """One upload that runs, for one thread at a time. Leaves what it got for the next one."""

    def __init__(
        self, uploads: Uploads, key: _Key, file: int, *, length: int, hashed: _Hashed
    ) -> None:
        self._uploads = uploads
        self._key = key
        self._path = uploads.path(*key)
        self._file = file
        self._open = True
        self._sha256 = hashed.sha256
        self.offset = hashed.offset
        """How many bytes of the blob are staged."""
        self.length = length
        """How many bytes the blob has."""
        self._publication = uploads.store.publish(key[1], self._path, length)

    @property
    def complete(self) -> bool:
        """Whether the last byte is there."""
        return self.offset == self.length

    def append(self, data: bytes) -> None:
        """Adds the next bytes. After an error `offset` says how many are kept.

        Raises:
            BlobMismatch: If these are more than the blob has. Nothing is kept.
            DiskFull: If there is no room left. What came before these is kept.
            StoreUnavailable: If the store did not take what was sent ahead. All is kept: begin
                again where this ended.
        """
        if self.offset + len(data) > self.length:
            self._discard(f"more than the announced {self.length:,} bytes")
        with writing(self._path):
            try:
                _write(self._file, data)
            except OSError:
                os.ftruncate(self._file, self.offset)
                raise
        self._sha256.update(data)
        self.offset += len(data)
        self._publication.advance(self.offset)

    def commit(self) -> None:
        """Checks the blob's hash and puts it into the store, where it is durable on return.

        Raises:
            UploadIncomplete: If bytes are missing. What came is kept.
            BlobMismatch: If the bytes are not the blob. Nothing is kept.
            StoreUnavailable: If the store cannot be reached. All is kept: try again.
        """
        digest = self._key[1]
        if not self.complete:
            raise UploadIncomplete(digest, self.offset, self.length)
        got = Digest(self._sha256.hexdigest())
        if got != digest:
            self._discard(got.reference)
        self._uploads.step("upload:publish")
        self._publication.commit()
        self._uploads.step("upload:remove")
        self._uploads._remove(self._path)
        self._close(None)

    def _discard(self, got: str) -> None:
        self._publication.abort()
        self._uploads._remove(self._path)
        self._close(None)
        raise BlobMismatch(self._key[1], got)

    def close(self) -> None:
        """Ends the upload; what came is kept unless it was committed or wrong."""
        if self._open:
            self._publication.abort()
            self._close(_Hashed(self.offset, self._sha256))

    def _close(self, hashed: _Hashed | None) -> None:
        self._open = False
        os.close(self._file)
        self._uploads._end(self._key, hashed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
