r"""`sealift.chunks/1`: how a file is cut into pieces that can be fetched and checked alone.

The blob is the 16 bytes `sealift.chunks/1`, then 36 bytes a piece, in the file's order: the
piece's length in bytes (unsigned, 32 bits, big-endian), then its SHA-256 (32 bytes). Lengths are 1
to 64 MiB. The manifest names the blob by its own SHA-256, so a device knows each piece's hash
before it asks for a byte of it. How a publisher cuts is not part of the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sealift.protocol.errors import InvalidDocument

MAGIC = b"sealift.chunks/1"
MEDIA_TYPE = "application/vnd.sealift.chunks"
CUT_BYTES = 4 * 1024 * 1024
"""Where a publisher cuts today: every 4 MiB. A file of at most one cut needs no chunks."""
MAX_PIECE_BYTES = 64 * 1024 * 1024
MAX_PIECES = 4_000_000
_PIECE = struct.Struct(">I32s")


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a file."""

    offset: int
    length: int
    sha256: bytes


def encode_chunks(pieces: list[tuple[int, bytes]]) -> bytes:
    """Writes the blob from (length in bytes, SHA-256 as 32 bytes) pairs in the file's order."""
    return MAGIC + b"".join(_PIECE.pack(length, sha256) for length, sha256 in pieces)


def decode_chunks(data: bytes, file_length: int) -> list[Piece]:
    """Reads the blob of a file of `file_length` bytes.

    Raises:
        InvalidDocument: If it is not such a blob, or its pieces do not add up to the file.
    """
    body = len(data) - len(MAGIC)
    if not data.startswith(MAGIC) or body % _PIECE.size:
        raise InvalidDocument("not a sealift.chunks/1 list of pieces")
    if body // _PIECE.size > MAX_PIECES:
        raise InvalidDocument(f"more than {MAX_PIECES} pieces")
    pieces: list[Piece] = []
    offset = 0
    for length, sha256 in _PIECE.iter_unpack(memoryview(data)[len(MAGIC) :]):
        if not 0 < length <= MAX_PIECE_BYTES:
            raise InvalidDocument(f"a piece of {length} bytes is not between 1 and 64 MiB")
        pieces.append(Piece(offset, length, sha256))
        offset += length
    if offset != file_length:
        raise InvalidDocument(f"the pieces add up to {offset} bytes, the file has {file_length}")
    return pieces
