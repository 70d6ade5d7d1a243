"""Which installed release an app gets: the active one if it matches, else the newest that does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sealift.app.errors import NoMatchingRelease
from sealift.host.active import ActivePointer, DamagedPointer
from sealift.host.files import read_or_none
from sealift.host.installed import InstalledRelease
from sealift.protocol.errors import InvalidDocument, InvalidName
from sealift.protocol.names import ArtifactId, Digest, Reference, Version
from sealift.protocol.parsing import parse_json
from sealift.protocol.ranges import VersionRange

VERSIONS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What an app asks for.

    Attributes:
        reference: The artifact, or one release of it for ever.
        range: The versions that the app was made for; None takes any.
    """

    reference: Reference
    range: VersionRange | None

    @classmethod
    def parse(cls, ref: str, range_text: str | None) -> Request:
        """Reads what an app wrote.

        Raises:
            InvalidName: If it is no reference, names a channel, or the range is none.
        """
        reference = Reference.parse(ref)
        if reference.channel is not None:
            raise InvalidName(
                f"{ref!r} names a channel, which the device chooses and not the app",
                hint=f"Write {ref.partition(':')[0]!r}, with a range of versions if it matters.",
            )
        return cls(reference, VersionRange.parse(range_text) if range_text is not None else None)

    def __str__(self) -> str:
        return f"{self.reference} {self.range}" if self.range else str(self.reference)

    def accepts(self, version: Version, digest: Digest) -> bool:
        """True if a release of the artifact is what the app asked for."""
        wanted = self.reference
        if wanted.version is not None and wanted.version != version:
            return False
        if wanted.digest is not None and wanted.digest != digest:
            return False
        return self.range is None or version in self.range


def left_releases(state_file: Path) -> frozenset[Digest]:
    """Releases that the device left or that were revoked: nothing is chosen among them.

    Raises:
        DamagedPointer: If the device's state is not what was written.
    """
    data = read_or_none(state_file)
    if data is None:
        return frozenset()
    try:
        state = parse_json(data)
        listed = [*state.get("denylist", ()), *state.get("revoked", ())]
        return frozenset(Digest(digest) for digest in listed)
    except (InvalidDocument, InvalidName, AttributeError, TypeError) as error:
        raise DamagedPointer(
            f"{state_file} is damaged, so it is not known which releases were left",
            hint="The active release can still be used without a range.",
        ) from error


def resolve_artifact(
    reference: Reference, pointer: ActivePointer, installed: Iterable[InstalledRelease]
) -> ArtifactId:
    """The artifact meant, also where the app left out the namespace.

    Raises:
        NoMatchingRelease: If no namespace has it on this device, or several do.
    """
    if reference.namespace is not None:
        return ArtifactId(reference.namespace, reference.artifact)
    known = {*pointer.artifacts, *(release.manifest.artifact for release in installed)}
    found = sorted((one for one in known if one.artifact == reference.artifact), key=str)
    if len(found) == 1:
        return found[0]
    if found:
        raise NoMatchingRelease(
            f"{reference} is not clear: this device has {', '.join(map(str, found))}",
            hint="Name the one that is meant.",
        )
    raise NoMatchingRelease(f"nothing of {reference} is installed", hint=_GET)


_GET = "`sealift status` shows what is there; `sealift follow` and `sealift update` get more."


def choose_inactive(
    request: Request,
    artifact: ArtifactId,
    installed: Iterable[InstalledRelease],
    left: frozenset[Digest],
) -> InstalledRelease:
    """The newest installed release that matches and was neither left nor revoked.

    Raises:
        NoMatchingRelease: If there is none; it says what is there.
    """
    releases = [one for one in installed if one.manifest.artifact == artifact]
    matching = [one for one in releases if request.accepts(one.manifest.version, one.digest)]
    good = [one for one in matching if one.digest not in left]
    if good:
        return max(good, key=lambda one: (one.manifest.version, one.digest))
    if matching:
        versions = _names(matching)
        raise NoMatchingRelease(
            f"this device left every release that matches {request}, or it was revoked: {versions}",
            hint="`sealift why` says more; a newer release is needed.",
        )
    there = f"this device has {_names(releases)}" if releases else f"nothing of {artifact} is there"
    raise NoMatchingRelease(f"nothing installed matches {request}: {there}", hint=_GET)


def _names(releases: list[InstalledRelease]) -> str:
    versions = sorted((one.manifest.version for one in releases), reverse=True)
    more = len(versions) - VERSIONS_SHOWN
    shown = ", ".join(map(str, versions[:VERSIONS_SHOWN]))
    return f"{shown} and {more} older" if more > 0 else shown
