"""What has to come from where: pure arithmetic over pieces.

A *blob* here is a file's bytes with the pieces in which they are fetched and checked. A *span* is
consecutive pieces that are fetched by one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealift.client.transfer.errors import NotTransferable
from sealift.protocol.chunks import MAX_PIECE_BYTES, Piece
from sealift.protocol.documents import FileEntry, Manifest
from sealift.protocol.names import Digest

SPAN_BYTES = 32 * 1024 * 1024
"""The most that one request asks for, unless one piece is longer."""
BUFFERS_BYTES = 64 * 1024 * 1024
"""The memory of all streams together."""
MAX_LIST_BYTES = 16 + 36 * 1_000_000
"""The longest list of pieces that is read: a million pieces."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob that a release needs.

    Attributes:
        path: The file, for people; of the first one if several have the same bytes.
        digest: Its SHA-256.
        length: In bytes.
        list_digest: The blob with its list of pieces; None if it is one piece.
    """

    path: str
    digest: Digest
    length: int
    list_digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive pieces of one blob."""

    pieces: tuple[Piece, ...]

    @property
    def offset(self) -> int:
        """Of the first byte."""
        return self.pieces[0].offset

    @property
    def length(self) -> int:
        """In bytes."""
        return self.pieces[-1].offset + self.pieces[-1].length - self.offset


@dataclass(frozen=True, slots=True)
class Had:
    """Where a piece's bytes may be found on this device."""

    path: Path
    offset: int


def wanted_files(manifest: Manifest) -> list[Wanted]:
    """The files of a release, each SHA-256 once.

    Raises:
        NotTransferable: If one cannot be fetched piece by piece.
    """
    found: dict[Digest, Wanted] = {}
    for entry in manifest.files:
        known = found.get(entry.sha256)
        if known is not None and known.length != entry.length:
            raise NotTransferable(
                f"{entry.path} and {known.path} have one SHA-256 and two lengths; "
                "no bytes can be both"
            )
        if known is None or (known.list_digest is None and entry.chunks is not None):
            found[entry.sha256] = _wanted(entry)
    return list(found.values())


def _wanted(entry: FileEntry) -> Wanted:
    if entry.chunks is None and entry.length > MAX_PIECE_BYTES:
        raise NotTransferable(
            f"{entry.path} has {entry.length:,} bytes and no list of pieces; "
            f"files above {MAX_PIECE_BYTES:,} bytes need one",
            hint="The publisher pushes it again with a current Sealift.",
        )
    listed = entry.chunks.sha256 if entry.chunks is not None else None
    return Wanted(entry.path, entry.sha256, entry.length, listed)


def wanted_lists(manifest: Manifest, digests: Iterable[Digest]) -> list[Wanted]:
    """The lists of pieces of some of a release's files.

    Raises:
        NotTransferable: If one is too long.
    """
    needed = set(digests)
    found: dict[Digest, Wanted] = {}
    for entry in manifest.files:
        if entry.chunks is None or entry.sha256 not in needed:
            continue
        if entry.chunks.length > MAX_LIST_BYTES:
            raise NotTransferable(f"the list of pieces of {entry.path} is too long")
        name = f"the list of pieces of {entry.path}"
        found[entry.chunks.sha256] = Wanted(name, entry.chunks.sha256, entry.chunks.length)
    return list(found.values())


def whole(wanted: Wanted) -> Piece:
    """The one piece of a blob that has no list."""
    return Piece(0, wanted.length, wanted.digest.raw)


def spans(pieces: Iterable[Piece], span_bytes: int = SPAN_BYTES) -> list[Span]:
    """Coalesces pieces, in the order of their offsets, into as few requests as are sensible.

    Only neighbours share a span: no byte is fetched that is not wanted.
    """
    found: list[Span] = []
    run: list[Piece] = []
    length = 0
    for piece in pieces:
        follows = bool(run) and piece.offset == run[-1].offset + run[-1].length
        if run and (not follows or length + piece.length > span_bytes):
            found.append(Span(tuple(run)))
            run, length = [], 0
        run.append(piece)
        length += piece.length
    if run:
        found.append(Span(tuple(run)))
    return found


def span_bytes(pieces: Sequence[Piece], streams: int) -> int:
    """How much one request should ask for, so that every stream has something to do."""
    total = sum(piece.length for piece in pieces)
    return max(min(SPAN_BYTES, total // (2 * streams)), 1)


def threads_for(streams: int, longest_piece: int) -> int:
    """How many streams are used, so that their buffers stay within `BUFFERS_BYTES`."""
    return max(1, min(streams, BUFFERS_BYTES // max(longest_piece, 1)))
