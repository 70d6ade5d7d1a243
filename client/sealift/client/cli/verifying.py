"""Comparing bytes on disk with what was signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealift.client.cli.context import Context, require_device
from sealift.client.store.store import Store
from sealift.client.store.verify import VerifyReport, verify_files
from sealift.host.active import ActivePointer
from sealift.host.installed import InstalledRelease
from sealift.protocol.documents import Manifest
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, Digest, Reference


@dataclass(frozen=True, slots=True)
class Verified:
    """What a comparison found."""

    release: str
    digest: Digest
    problems: tuple[str, ...]
    hint: str = ""

    @property
    def ok(self) -> bool:
        """True if every byte is what was signed, and nothing else is there."""
        return not self.problems


def verify_reference(context: Context, reference: Reference) -> Verified:
    """Hashes every file of an installed release.

    Raises:
        SealiftError: If it is not installed.
    """
    home = require_device(context)
    artifact = context.artifact(reference)
    store = Store(home.store_folder)
    installed = _find(context, store, artifact, reference)
    report = store.verify(installed.digest)
    if report.damaged:
        # What is damaged is not taken for whole again; the next update mends it in place.
        store.discard_blobs(one.expected for one in report.damaged)
    hint = f"Restore it: sealift update {artifact}"
    return _verified(installed.manifest, report, hint)


def _find(
    context: Context, store: Store, artifact: ArtifactId, reference: Reference
) -> InstalledRelease:
    if reference.moves:
        entry = ActivePointer.load(context.device.pointer_file).get(artifact)
        if entry is None:
            raise SealiftError(f"nothing of {artifact} is active", hint="Get it: sealift update")
        return store.read(entry.active.digest)
    for installed in store.installed():
        manifest = installed.manifest
        if manifest.artifact == artifact and (
            installed.digest == reference.digest or manifest.version == reference.version
        ):
            return installed
    raise SealiftError(f"{reference} is not installed", hint=f"Get it: sealift pin {reference}")


def verify_folder(context: Context, folder: Path) -> Verified:
    """Hashes a folder against whichever installed release of this device it is a copy of.

    Raises:
        SealiftError: If no installed release has these files.
    """
    home = require_device(context)
    store = Store(home.store_folder)
    best: Verified | None = None
    for installed in store.installed():
        copy = InstalledRelease(installed.digest, installed.manifest, folder)
        found = _verified(copy.manifest, verify_files(copy, hashes=True), "")
        if found.ok:
            return found
        if best is None or len(found.problems) < len(best.problems):
            best = found
    if best is None:
        raise SealiftError("nothing is installed to compare with", hint="Get it: sealift update")
    return best


def _verified(manifest: Manifest, report: VerifyReport, hint: str) -> Verified:
    problems = [
        f"{one.path}: {one.what}; expected sha256:{one.expected}"
        + (f", got sha256:{one.got}" if one.got else "")
        for one in report.damaged
    ]
    problems += [f"{path}: not part of the release" for path in report.extra]
    name = f"{manifest.artifact}@{manifest.version}"
    return Verified(name, report.digest, tuple(problems), hint)
