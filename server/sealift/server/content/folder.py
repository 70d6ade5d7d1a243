"""Blobs in a folder of one machine: `sha256/ab/HEX`.

Durability: a blob's bytes are synced before its name appears, and the name before `commit` returns.
A crash in between leaves no blob, or a whole one.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Generator
from pathlib import Path

from sealift.host.files import Step, make_folder, no_step, sync_folder, writing
from sealift.host.writeback import start_writeback
from sealift.protocol.names import Digest
from sealift.server.content.errors import BlobNotFound, BlobTruncated, StoreRefused
from sealift.server.content.store import FRAME_BYTES, BlobStore, Publication

WRITEBACK_BYTES = 8 * 1024 * 1024


class FolderStore(BlobStore):
    """Blobs in a folder.

    Files that are published should lie on the same file system: then they are moved, else copied.

    Args:
        folder: Where the blobs are; made by `check` or the first blob.
        step: Called before each step of a publication: `blob:sync`, `blob:rename`, `blob:folder`.
    """

    def __init__(self, folder: Path, *, step: Step = no_step) -> None:
        self._folder = folder
        self._step = step
        self._copying = threading.Lock()

    def _path(self, digest: Digest) -> Path:
        return self._folder / "sha256" / digest[:2] / digest

    def stat(self, digest: Digest) -> int | None:
        """The blob's length in bytes, or None if it is not there."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(
        self, digest: Digest, offset: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """See `BlobStore.read`."""
        try:
            file = self._path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobNotFound(digest) from None
        with file:
            size = os.fstat(file.fileno()).st_size
            end = size if length is None else offset + length
            if max(offset, end) > size:
                raise BlobTruncated(digest, max(offset, end), size)
            file.seek(offset)
            while offset < end:
                frame = file.read(min(FRAME_BYTES, end - offset))
                if not frame:
                    raise BlobTruncated(digest, end, offset)
                yield frame
                offset += len(frame)

    def publish(self, digest: Digest, path: Path, length: int) -> Publication:
        """See `BlobStore.publish`."""
        return _FolderPublication(self, digest, path, length)

    def _commit(self, digest: Digest, path: Path, length: int) -> None:
        target = self._path(digest)
        with writing(target):
            make_folder(target.parent)
            self._step("blob:sync")
            _sync(path, digest, length)
            self._step("blob:rename")
            try:
                path.replace(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(path, target, digest, length)
            self._step("blob:folder")
            sync_folder(target.parent)

    def _copy(self, path: Path, target: Path, digest: Digest, length: int) -> None:
        """Moves a file here from another file system."""
        with self._copying:
            copy = target.with_name(f".{target.name}.copy")
            try:
                shutil.copyfile(path, copy)
                _sync(copy, digest, length)
                copy.replace(target)
            finally:
                copy.unlink(missing_ok=True)
        path.unlink()

    def delete(self, digest: Digest) -> None:
        """Removes a blob; nothing happens if it is not there."""
        with writing(self._path(digest)):
            self._path(digest).unlink(missing_ok=True)

    def presign(self, digest: Digest, ttl_s: int) -> str | None:  # noqa: ARG002
        """None: a folder has no addresses."""
        return None

    def check(self) -> None:
        """Makes the folder if it is not there, and sees whether it can be written."""
        make_folder(self._folder)
        if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
            raise StoreRefused(
                f"the blob folder {self._folder} cannot be written",
                hint="Check its owner and permissions, and whether its disk is mounted read-only.",
            )

    def close(self) -> None:
        """Nothing has to be let go."""


class _FolderPublication(Publication):
    def __init__(self, store: FolderStore, digest: Digest, path: Path, length: int) -> None:
        self._store = store
        self._digest = digest
        self._path = path
        self._length = length
        self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._written = 0

    def advance(self, available: int) -> None:
        """Has the bytes written to the disk meanwhile, so that the last sync need not wait."""
        if self._file is not None and available - self._written >= WRITEBACK_BYTES:
            start_writeback(self._file, self._written, available - self._written)
            self._written = available

    def commit(self) -> None:
        """See `Publication.commit`."""
        self._store._commit(self._digest, self._path, self._length)
        self.abort()

    def abort(self) -> None:
        """Nothing was sent ahead."""
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _sync(path: Path, digest: Digest, length: int) -> None:
    """Makes a file's bytes durable, having seen that all of them are there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size != length:
            raise BlobTruncated(digest, length, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
