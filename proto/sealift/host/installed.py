"""The releases on a device's disk, as everyone may read them: agent, commands and apps.

    store/releases/HEX/manifest.json     the signed manifest's exact bytes; HEX is their SHA-256
    store/releases/HEX/files/…           the release's files under their own names, read-only

A release's folder appears at once, complete and verified, and goes at once. Who uses its files
holds a *lease*: a shared lock on the folder, which dies with its holder and needs no agent and no
right to write. Removal takes the lock exclusively and never waits.

    StoreError                   each is a `SealiftError`
    ├── NotInstalled             the release is not on the disk
    ├── DamagedRelease           its manifest is not what was written
    └── ReleaseInUse             an app holds a lease on it
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sealift.host.files import read_or_none
from sealift.host.hashing import sha256_bytes
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import InvalidDocument, InvalidName, SealiftError
from sealift.protocol.names import Digest

MANIFEST = "manifest.json"
FILES = "files"


class StoreError(SealiftError):
    """Something is wrong with an installed release."""


class NotInstalled(StoreError):
    """The release is not on the disk."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(
            f"the release {digest.reference} is not installed on this device",
            hint="`sealift update` installs what is offered, `sealift pin` what you name.",
        )
        self.digest = digest


class DamagedRelease(StoreError):
    """The manifest of an installed release is not what was written."""

    def __init__(self, digest: Digest, what: str) -> None:
        super().__init__(
            f"the installed release {digest.reference} is damaged: {what}",
            hint="`sealift update` restores it.",
        )
        self.digest = digest


class ReleaseInUse(StoreError):
    """An app holds a lease on the release."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(
            f"the release {digest.reference} is in use by an app",
            hint="It can be removed when the app has let it go.",
        )
        self.digest = digest


@dataclass(frozen=True, slots=True)
class InstalledRelease:
    """A release on the disk.

    Attributes:
        digest: Which.
        manifest: What it is made of.
        folder: Where its files are, and nothing else.
    """

    digest: Digest
    manifest: Manifest
    folder: Path


class Lease:
    """A claim on an installed release while it is in use; it ends with the process at the latest.

    A child made by `fork` shares it: the release stays until both have let go.
    """

    def __init__(self, digest: Digest, descriptor: int) -> None:
        self.digest = digest
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Lets the release go; more than once does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def lock_folder(folder: Path, operation: int) -> int | None:
    """Locks a folder without waiting: its descriptor, or None if it is gone or locked otherwise.

    Args:
        folder: Which.
        operation: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        # It may have been moved away, and another put in its place, between the two calls.
        if os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


class ReleaseFolders:
    """The read side of a device's store; it works for anyone who may read the folder.

    Args:
        folder: The store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def releases(self) -> Path:
        """Where the releases are."""
        return self.folder / "releases"

    def release_folder(self, digest: Digest) -> Path:
        """Where a release lies, with its manifest."""
        return self.releases / digest

    def files_folder(self, digest: Digest) -> Path:
        """Where a release's files lie, and nothing else."""
        return self.releases / digest / FILES

    def has(self, digest: Digest) -> bool:
        """True if the release is installed; it is complete then, as it appeared at once."""
        return self.release_folder(digest).is_dir()

    def digests(self) -> list[Digest]:
        """Every installed release, in no order that means anything."""
        try:
            names = sorted(path.name for path in self.releases.iterdir())
        except FileNotFoundError:
            return []
        digests = []
        for name in names:
            try:
                digests.append(Digest(name))
            except InvalidName:
                continue  # a release that is being built or removed
        return digests

    def read(self, digest: Digest) -> InstalledRelease:
        """An installed release with its manifest, whose bytes are checked against the digest.

        Raises:
            NotInstalled: If it is not there.
            DamagedRelease: If its manifest is not what was written.
        """
        if not self.has(digest):
            raise NotInstalled(digest)
        data = read_or_none(self.release_folder(digest) / MANIFEST)
        if data is None:
            raise DamagedRelease(digest, "its manifest is missing")
        if sha256_bytes(data) != digest:
            raise DamagedRelease(digest, "its manifest was changed")
        try:
            manifest = Manifest.parse(data)
        except InvalidDocument as error:
            raise DamagedRelease(digest, error.message) from error
        return InstalledRelease(digest, manifest, self.files_folder(digest))

    def installed(self) -> list[InstalledRelease]:
        """Every installed release whose manifest is whole."""
        found = []
        for digest in self.digests():
            try:
                found.append(self.read(digest))
            except StoreError:
                continue  # gone meanwhile, or damaged: `verify` names it
        return found

    def lease(self, digest: Digest) -> Lease:
        """Claims a release until the lease is closed.

        Raises:
            NotInstalled: If it is not there, or is being removed at this moment.
        """
        descriptor = lock_folder(self.release_folder(digest), fcntl.LOCK_SH)
        if descriptor is None:
            raise NotInstalled(digest)
        return Lease(digest, descriptor)
