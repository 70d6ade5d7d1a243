"""The device's store: how releases come into it and go.

    blobs/HEX            verified bytes by their SHA-256: files and lists of pieces, read-only
    releases/HEX/        installed releases, see `sealift.host.installed`; files are hard links
    partial/HEX/         a transfer under way, see `sealift.client.transfer`

Durability: a blob's bytes are synced before its name appears; a release is built under a name that
begins with a dot, synced file by file and folder by folder, and then gets its own name by one
rename. A crash leaves the release or nothing of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sealift.client.store.placing import FILE_MODE, FOLDER_MODE, place
from sealift.client.store.verify import VerifyReport, verify_files
from sealift.host.files import (
    FileLock,
    HomeLocked,
    Step,
    make_folder,
    no_step,
    read_or_none,
    sync_folder,
    write_atomically,
    writing,
)
from sealift.host.hashing import sha256_bytes
from sealift.host.installed import (
    FILES,
    MANIFEST,
    DamagedRelease,
    NotInstalled,
    ReleaseFolders,
    ReleaseInUse,
    StoreError,
    lock_folder,
)
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import InvalidDocument, SealiftError
from sealift.protocol.names import Digest

BUILDING = ".new-"
LEAVING = ".old-"
"""What the names of folders begin with that are no releases yet, or no longer."""


TRANSFER_LOCK = "lock"
"""Name of the lock in a transfer's folder."""


class MissingBlob(StoreError):
    """A blob that a release needs is not in the store."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"the blob {digest.reference} is not in the store")
        self.digest = digest


class Store(ReleaseFolders):
    """A device's store, for its owner.

    Args:
        folder: Where it is.
        step: The crash hook: `release:build`, `release:rename`, `release:sync`, `release:remove`,
            `release:mend`.
    """

    def __init__(self, folder: Path, step: Step = no_step) -> None:
        super().__init__(folder)
        self._step = step

    @property
    def blobs(self) -> Path:
        """Where the blobs are."""
        return self.folder / "blobs"

    @property
    def partial(self) -> Path:
        """Where transfers under way are."""
        return self.folder / "partial"

    def prepare(self) -> None:
        """Makes the folders; apps may read the releases.

        Raises:
            DiskFull, Unwritable: If that cannot be done.
        """
        for folder in (self.folder, self.releases):
            make_folder(folder, FOLDER_MODE)
        for folder in (self.blobs, self.partial):
            make_folder(folder)

    # Blobs

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob is, if it is there."""
        return self.blobs / digest

    def has_blob(self, digest: Digest, length: int) -> bool:
        """True if the blob is there in its length."""
        try:
            return self.blob_path(digest).stat().st_size == length
        except FileNotFoundError:
            return False

    def keep_blob(self, digest: Digest, file: Path) -> None:
        """Makes a verified file of an installed release a blob again.

        Raises:
            DiskFull, Unwritable: If it cannot be written.
        """
        with writing(self.blobs):
            if not self.blob_path(digest).exists():
                place(file, self.blob_path(digest))

    def discard_blobs(self, digests: Iterable[Digest]) -> None:
        """Forgets blobs, so that they are fetched anew. Files of releases stay as they are.

        This is what to do about files that `verify` found damaged: `is_whole` is false then, and
        fetching the release again mends it.
        """
        with writing(self.blobs):
            for digest in digests:
                self.blob_path(digest).unlink(missing_ok=True)
            sync_folder(self.blobs)

    # Releases

    def add_release(self, manifest: Manifest, digest: Digest, manifest_bytes: bytes) -> None:
        """Installs a release whose blobs are all there; nothing happens if it is installed.

        Raises:
            InvalidDocument: If the bytes are not the manifest of that digest.
            MissingBlob: If a blob is not there (any more).
            DiskFull, Unwritable: If it cannot be written.
        """
        if sha256_bytes(manifest_bytes) != digest:
            raise InvalidDocument(f"these bytes are not the manifest {digest.reference}")
        if self.has(digest):
            return
        target = self.release_folder(digest)
        with self._building(digest) as folder, writing(target):
            self._step("release:build")
            self._build(folder, manifest, manifest_bytes)
            self._step("release:rename")
            folder.rename(target)
            self._step("release:sync")
            sync_folder(self.releases)

    @contextmanager
    def _building(self, digest: Digest) -> Iterator[Path]:
        """A new folder that is locked, so that `collect` sees that it is in use."""
        folder = self.releases / f"{BUILDING}{os.getpid()}-{digest}"
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=FOLDER_MODE)
        descriptor = lock_folder(folder, fcntl.LOCK_SH)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if descriptor is not None:
                os.close(descriptor)

    def _build(self, folder: Path, manifest: Manifest, manifest_bytes: bytes) -> None:
        folder.chmod(FOLDER_MODE)
        write_atomically(folder / MANIFEST, manifest_bytes, mode=FILE_MODE)
        files = folder / FILES
        made = {folder, files}
        _make_folder(files)
        for entry in manifest.files:
            path = files / entry.path
            for parent in reversed(path.relative_to(files).parents):
                if files / parent not in made:
                    _make_folder(files / parent)
                    made.add(files / parent)
            self._place(entry.sha256, path)
        for parent in sorted(made, key=lambda path: len(path.parts), reverse=True):
            sync_folder(parent)

    def is_whole(self, digest: Digest) -> bool:
        """True if a release is installed and nothing is known to be wrong with it.

        Sees that the files are there in their lengths; reads only the manifest.
        """
        try:
            release = self.read(digest)
        except StoreError:
            return False
        return verify_files(release, hashes=False).ok and all(
            self.has_blob(entry.sha256, entry.length) for entry in release.manifest.files
        )

    def require_whole(self, digest: Digest) -> None:
        """Refuses a release that must not become active as it is.

        Raises:
            NotInstalled: If it is not there.
            DamagedRelease: If something is known to be wrong with it.
        """
        self.read(digest)
        if not self.is_whole(digest):
            raise DamagedRelease(digest, "a file is missing or was changed")

    def remove(self, digest: Digest) -> None:
        """Removes a release, and never waits for it. Its blobs go with `collect`.

        Raises:
            NotInstalled: If it is not there.
            ReleaseInUse: If an app holds a lease on it.
        """
        folder = self.release_folder(digest)
        descriptor = lock_folder(folder, fcntl.LOCK_EX)
        if descriptor is None:
            raise ReleaseInUse(digest) if self.has(digest) else NotInstalled(digest)
        leaving = self.releases / f"{LEAVING}{os.getpid()}-{digest}"
        try:
            with writing(folder):
                self._step("release:remove")
                folder.rename(leaving)
                sync_folder(self.releases)
                shutil.rmtree(leaving)
        finally:
            os.close(descriptor)

    def verify(self, digest: Digest, *, hashes: bool = True) -> VerifyReport:
        """Compares an installed release with its manifest, byte for byte unless told otherwise.

        Raises:
            NotInstalled: If it is not there.
            DamagedRelease: If its manifest is not what was written.
        """
        return verify_files(self.read(digest), hashes=hashes)

    def mend(
        self, manifest: Manifest, digest: Digest, manifest_bytes: bytes, report: VerifyReport
    ) -> None:
        """Puts blobs in place of an installed release's damaged files, each at once.

        The release stays where it is, and so do the leases on it.

        Raises:
            MissingBlob: If a blob is not there.
            DiskFull, Unwritable: If it cannot be written.
        """
        folder = self.release_folder(digest)
        files = folder / FILES
        with writing(folder):
            self._step("release:mend")
            write_atomically(folder / MANIFEST, manifest_bytes, mode=FILE_MODE)
            for extra in report.extra:
                (files / extra).unlink(missing_ok=True)
            damaged = {file.path for file in report.damaged}
            for entry in manifest.files:
                if entry.path in damaged:
                    self._replace(entry.sha256, files / entry.path)

    def _replace(self, digest: Digest, target: Path) -> None:
        make_folder(target.parent, FOLDER_MODE)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        fresh = target.with_name(f".{target.name}.mend")
        fresh.unlink(missing_ok=True)
        self._place(digest, fresh)
        fresh.replace(target)
        sync_folder(target.parent)

    # Transfers under way

    def transfer_folder(self, digest: Digest) -> Path:
        """Where the transfer of a release keeps what it has; locked by `TRANSFER_LOCK` in it."""
        return self.partial / digest

    def drop_transfer(self, digest: Digest) -> None:
        """Removes a transfer's folder. The caller holds its lock, which goes last."""
        folder = self.transfer_folder(digest)
        with writing(folder):
            for path in list(folder.iterdir()):
                if path.name != TRANSFER_LOCK:
                    path.unlink()
            (folder / TRANSFER_LOCK).unlink()
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:  # else another process waits for the lock there
                    raise
            sync_folder(self.partial)

    # What may go

    def collect(self, wanted: Collection[Digest]) -> list[Digest]:
        """Removes what nothing needs: releases that are not wanted and not in use, their transfers
        unless they are under way, blobs that no release or transfer names, a crash's leftovers.

        Returns:
            The releases that went.

        Raises:
            Unwritable: If something cannot be removed.
        """
        self.prepare()
        gone = []
        for digest in self.digests():
            if digest not in wanted:
                with suppress(ReleaseInUse, NotInstalled):
                    self.remove(digest)
                    gone.append(digest)
        self._drop_transfers(wanted)
        with writing(self.folder):
            self._drop_leftovers()
            for name in {path.name for path in self.blobs.iterdir()} - self._needed():
                (self.blobs / name).unlink(missing_ok=True)
            sync_folder(self.blobs)
        return gone

    def _drop_transfers(self, wanted: Collection[Digest]) -> None:
        for folder in sorted(self.partial.iterdir()):
            if folder.name not in wanted or self.has(Digest(folder.name)):
                with (
                    suppress(HomeLocked),
                    FileLock(folder / TRANSFER_LOCK).held(wait_s=0, purpose="collection"),
                ):
                    self.drop_transfer(Digest(folder.name))

    def _drop_leftovers(self) -> None:
        for folder in list(self.releases.iterdir()):
            if folder.name.startswith((BUILDING, LEAVING)):
                descriptor = lock_folder(folder, fcntl.LOCK_EX)
                if descriptor is not None:
                    shutil.rmtree(folder)
                    os.close(descriptor)

    def _needed(self) -> set[str]:
        manifests = [release.manifest for release in self.installed()]
        for folder in self.partial.iterdir():
            data = read_or_none(folder / MANIFEST)
            with suppress(SealiftError):  # a damaged transfer begins anew
                manifests += [Manifest.parse(data)] if data is not None else []
        entries = [entry for manifest in manifests for entry in manifest.files]
        return {entry.sha256 for entry in entries} | {
            entry.chunks.sha256 for entry in entries if entry.chunks is not None
        }

    def _place(self, digest: Digest, target: Path) -> None:
        blob = self.blob_path(digest)
        try:
            place(blob, target)
        except FileNotFoundError:
            if blob.exists():
                raise
            raise MissingBlob(digest) from None


def _make_folder(folder: Path) -> None:
    """Makes a folder that apps may read, whatever the umask."""
    folder.mkdir()
    folder.chmod(FOLDER_MODE)
