"""A release in an app's hands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealift.app.errors import NoSuchFile
from sealift.host.installed import InstalledRelease

NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Release:
    """An installed release that is claimed: it stays on the disk until the claim ends.

    Attributes:
        artifact: Its artifact: `acme/llama-edge`.
        version: Its version: `1.4.0`.
        digest: What it is, for ever: `sha256:HEX`.
        folder: Where its files are, and nothing else. They are read-only and shared.
        files: The paths of its files, relative to the folder.
    """

    artifact: str
    version: str
    digest: str
    folder: Path
    files: tuple[str, ...]

    @classmethod
    def of(cls, installed: InstalledRelease) -> Release:
        """An installed release as apps see it."""
        manifest = installed.manifest
        return cls(
            str(manifest.artifact),
            str(manifest.version),
            installed.digest.reference,
            installed.folder,
            tuple(entry.path for entry in manifest.files),
        )

    def path(self, file: str) -> Path:
        """Where one of the release's files is.

        Args:
            file: Its path in the release, exactly as it was pushed: `model.gguf`, `tok/vocab.json`.

        Raises:
            NoSuchFile: If the release has no such file, which holds for every path that would
                lead out of its folder.
        """
        if file not in self.files:
            names = ", ".join(self.files[:NAMES_SHOWN])
            more = len(self.files) - NAMES_SHOWN
            raise NoSuchFile(
                f"{self.artifact}@{self.version} has no file {file!r}",
                hint=f"It has {names}" + (f" and {more} more." if more > 0 else "."),
            )
        return self.folder / file
