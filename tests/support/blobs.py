"""Blobs, and stores under test."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sealift.protocol.names import Digest
from sealift.server.content.store import BlobStore


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes with their name."""

    data: bytes
    digest: Digest

    @classmethod
    def make(cls, length: int, seed: int = 0) -> Blob:
        """Bytes that look random and are the same each time."""
        data = random.Random(f"{length} {seed}").randbytes(length)
        return cls(data, Digest(hashlib.sha256(data).hexdigest()))

    def file(self, folder: Path) -> Path:
        """A new file with these bytes."""
        path = folder / f"staged-{self.digest.short}"
        path.write_bytes(self.data)
        return path


@dataclass(frozen=True, slots=True)
class StoreUnderTest:
    """A store, and a way into it from behind."""

    store: BlobStore
    overwrite: Callable[[Digest, bytes], None]
    """Puts other bytes in the place of a blob, as only its owner or an intruder can."""

    def read(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        """A range in one piece."""
        return b"".join(self.store.read(digest, offset, length))

    def put(self, blob: Blob, folder: Path) -> None:
        """Publishes a blob."""
        self.store.put_file(blob.digest, blob.file(folder), len(blob.data))
