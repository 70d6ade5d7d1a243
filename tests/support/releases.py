"""Releases made up for tests: files, their manifest, and the blobs that it names."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from sealift.host.hashing import sha256_bytes
from sealift.protocol.chunks import encode_chunks
from sealift.protocol.documents import ChunksReference, FileEntry, Kind, Manifest
from sealift.protocol.names import ArtifactId, Digest, Version
from sealift.protocol.parsing import encode_document

PIECE_BYTES = 64 * 1024
"""Pieces of test files are this long, so that a small file has many."""


def noise(length: int, seed: int = 1) -> bytes:
    """Bytes that differ from each other and are the same each time."""
    return random.Random(seed).randbytes(length)


@dataclass(frozen=True)
class MadeRelease:
    """A release with all that a source must have."""

    manifest: Manifest
    data: bytes
    digest: Digest
    files: Mapping[str, bytes]
    blobs: Mapping[Digest, bytes]

    @property
    def lists(self) -> list[Digest]:
        """The blobs that are lists of pieces."""
        return [one.chunks.sha256 for one in self.manifest.files if one.chunks is not None]


def make_release(
    files: Mapping[str, bytes],
    version: str = "1.0.0",
    artifact: str = "acme/model",
    *,
    piece_bytes: int = PIECE_BYTES,
    lists: Mapping[str, bytes] | None = None,
) -> MadeRelease:
    """A release of these files; those longer than a piece get a list of pieces.

    Args:
        files: Content by path.
        version: Its version.
        artifact: Of what.
        piece_bytes: Length of each piece.
        lists: Lists of pieces to use in place of the right ones, by path.
    """
    blobs: dict[Digest, bytes] = {}
    entries = []
    for path, content in files.items():
        blobs[sha256_bytes(content)] = content
        listed = (lists or {}).get(path)
        if listed is None and len(content) > piece_bytes:
            starts = range(0, len(content), piece_bytes)
            cut = [content[start : start + piece_bytes] for start in starts]
            listed = encode_chunks([(len(one), sha256_bytes(one).raw) for one in cut])
        reference = None
        if listed is not None:
            blobs[sha256_bytes(listed)] = listed
            reference = ChunksReference(sha256=sha256_bytes(listed), length=len(listed))
        entries.append(
            FileEntry(
                path=path,
                sha256=sha256_bytes(content),
                length=len(content),
                media_type="application/octet-stream",
                chunks=reference,
            )
        )
    manifest = Manifest(
        artifact=ArtifactId.parse(artifact),
        kind=Kind.MODEL,
        version=Version.parse(version),
        created=1_790_000_000,
        files=tuple(entries),
    )
    data = encode_document(manifest)
    return MadeRelease(manifest, data, sha256_bytes(data), files, blobs)
