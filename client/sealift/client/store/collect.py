"""What may go from a device's store, and the going of it.

Nothing that an installed release names goes, whoever else wants it gone; releases themselves go
only by `Store.remove`, which asks for their lease.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sealift.client.store.store import BUILDING, LEAVING, Store
from sealift.host.files import FileLock, HomeLocked, read_or_none, sync_folder, writing
from sealift.host.installed import MANIFEST, lock_folder
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Digest

LOCK = "lock"
"""Name of the lock in the folder of a transfer."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What went.

    Attributes:
        blobs: Blobs that nothing needed.
        transfers: Releases whose unfinished transfers were given up.
    """

    blobs: tuple[Digest, ...]
    transfers: tuple[Digest, ...]


def collect(store: Store, wanted: Collection[Digest] = ()) -> Collected:
    """Removes what nothing needs: blobs that neither an installed release nor a transfer names,
    transfers of releases that are not `wanted`, and what a crash left behind.

    A transfer that is under way in another process is wanted.

    Raises:
        Unwritable: If something cannot be removed.
    """
    store.prepare()
    with writing(store.folder):
        _drop_leftovers(store)
        transfers = _drop_transfers(store, wanted)
        needed = _needed(store)
        blobs = []
        for name in sorted({path.name for path in store.blobs.iterdir()} - needed):
            (store.blobs / name).unlink(missing_ok=True)
            blobs.append(Digest(name))
        sync_folder(store.blobs)
    return Collected(tuple(blobs), tuple(transfers))


def _needed(store: Store) -> set[str]:
    manifests = [release.manifest for release in store.installed()]
    for folder in store.partial.iterdir():
        data = read_or_none(folder / MANIFEST)
        try:
            manifests += [Manifest.parse(data)] if data is not None else []
        except SealiftError:
            continue  # a damaged transfer begins anew
    return {digest for manifest in manifests for digest in blobs_of(manifest)}


def blobs_of(manifest: Manifest) -> set[Digest]:
    """Every blob that a release needs: its files and their lists of pieces."""
    return {entry.sha256 for entry in manifest.files} | {
        entry.chunks.sha256 for entry in manifest.files if entry.chunks is not None
    }


def _drop_leftovers(store: Store) -> None:
    for folder in list(store.releases.iterdir()):
        if folder.name.startswith((BUILDING, LEAVING)):
            descriptor = lock_folder(folder, fcntl.LOCK_EX)
            if descriptor is not None:
                shutil.rmtree(folder)
                os.close(descriptor)


def _drop_transfers(store: Store, wanted: Collection[Digest]) -> list[Digest]:
    dropped = []
    for folder in sorted(store.partial.iterdir()):
        if folder.name in wanted:
            continue
        try:
            with FileLock(folder / LOCK).held(wait_s=0):
                drop_transfer(folder)
        except HomeLocked:
            continue
        dropped.append(Digest(folder.name))
    return dropped


def drop_transfer(folder: Path) -> None:
    """Removes a transfer's folder; the caller holds its lock, which goes last."""
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
    (folder / LOCK).unlink()
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # else another process waits there for the lock
            raise
    sync_folder(folder.parent)
