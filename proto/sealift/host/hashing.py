"""SHA-256 of files, whole and by pieces, without ever holding more than one piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sealift.protocol.names import Digest

BLOCK_BYTES = 1024 * 1024

Advance = Callable[[int], None]
"""Called with the number of bytes that were done since the last call."""


@dataclass(frozen=True, slots=True)
class FileHashes:
    """What one pass over a file gives."""

    sha256: Digest
    length: int
    pieces: tuple[tuple[int, bytes], ...]
    """Length in bytes and SHA-256 of each piece, in order."""


def _nothing(count: int) -> None:
    """Reports progress to nobody."""


def hash_file(path: Path, piece_bytes: int, advance: Advance = _nothing) -> FileHashes:
    """Hashes a file as a whole and by pieces of `piece_bytes`, in one pass.

    Raises:
        OSError: If it cannot be read.
    """
    whole = hashlib.sha256()
    pieces: list[tuple[int, bytes]] = []
    block = memoryview(bytearray(BLOCK_BYTES))
    length = 0
    with path.open("rb", buffering=0) as file:
        piece, piece_length = hashlib.sha256(), 0
        while count := file.readinto(block[: min(BLOCK_BYTES, piece_bytes - piece_length)]):
            whole.update(block[:count])
            piece.update(block[:count])
            piece_length += count
            length += count
            if piece_length == piece_bytes:
                pieces.append((piece_length, piece.digest()))
                piece, piece_length = hashlib.sha256(), 0
            advance(count)
        if piece_length:
            pieces.append((piece_length, piece.digest()))
    return FileHashes(Digest(whole.hexdigest()), length, tuple(pieces))


def sha256_file(path: Path) -> Digest:
    """SHA-256 of a whole file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def sha256_bytes(data: bytes) -> Digest:
    """SHA-256 of bytes."""
    return Digest(hashlib.sha256(data).hexdigest())
