"""Does an installed release still have the bytes that were signed?"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sealift.host.hashing import sha256_file
from sealift.host.installed import InstalledRelease
from sealift.protocol.documents import FileEntry
from sealift.protocol.names import Digest


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that is not what was signed.

    Attributes:
        path: The file, relative to the release's folder.
        expected: The signed SHA-256.
        got: The SHA-256 found; None if there is no such file, or it was not read because its
            length or kind is wrong already.
        what: What is wrong, in words.
    """

    path: str
    expected: Digest
    got: Digest | None
    what: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found in a release's folder.

    Attributes:
        digest: The release.
        checked: How many files were compared.
        damaged: Files that are missing, or not what was signed.
        extra: Paths of what the release does not have; relative to its folder.
    """

    digest: Digest
    checked: int
    damaged: tuple[DamagedFile, ...]
    extra: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True if the folder is exactly the release."""
        return not self.damaged and not self.extra


def verify_files(release: InstalledRelease, *, hashes: bool) -> VerifyReport:
    """Compares a release's folder with its manifest.

    Args:
        release: Which.
        hashes: True reads every byte; False sees only that the files are there in their lengths.
    """
    damaged = []
    for entry in release.manifest.files:
        found = _check(release.folder, entry, hashes=hashes)
        if found is not None:
            damaged.append(found)
    extra = sorted(_paths(release.folder) - {entry.path for entry in release.manifest.files})
    return VerifyReport(release.digest, len(release.manifest.files), tuple(damaged), tuple(extra))


def _check(folder: Path, entry: FileEntry, *, hashes: bool) -> DamagedFile | None:
    path = folder / entry.path
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return DamagedFile(entry.path, entry.sha256, None, "it is missing")
    if not stat.S_ISREG(status.st_mode):
        return DamagedFile(entry.path, entry.sha256, None, "it is not a regular file")
    if status.st_size != entry.length:
        what = f"it has {status.st_size:,} bytes, signed are {entry.length:,}"
        return DamagedFile(entry.path, entry.sha256, None, what)
    if not hashes:
        return None
    got = sha256_file(path)
    if got == entry.sha256:
        return None
    return DamagedFile(entry.path, entry.sha256, got, "its bytes were changed")


def _paths(folder: Path) -> set[str]:
    """Every path below a folder that is not a folder itself."""
    found: set[str] = set()
    for parent, folders, files in os.walk(folder):
        base = Path(parent)
        links = [name for name in folders if (base / name).is_symlink()]
        found.update((base / name).relative_to(folder).as_posix() for name in files + links)
    return found
