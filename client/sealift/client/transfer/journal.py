r"""Which pieces of a file under way are on the disk for certain.

    sealift.journal/1 SHA256-OF-THE-LIST-OF-PIECES\n
    INDEX FIRST-8-DIGITS-OF-THE-PIECE'S-SHA256\n      once for each piece

A line is written after its piece's data is synced, and is itself synced. Whatever a crash, a full
disk or a bad sector leaves of the file can be read: a line that is torn or changed does not count,
and a first line that is not the expected one means that nothing counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sealift.host.files import read_or_none
from sealift.host.writeback import sync_data
from sealift.protocol.chunks import Piece
from sealift.protocol.names import Digest

_MAGIC = b"sealift.journal/1"


def _line(index: int, piece: Piece) -> bytes:
    return b"%d %s" % (index, piece.sha256[:4].hex().encode())


def head(listed: Digest) -> bytes:
    """The first line, which says of which list of pieces the indexes are."""
    return b"%s %s\n" % (_MAGIC, listed.encode())


def read_journal(data: bytes, listed: Digest, pieces: Sequence[Piece]) -> set[int]:
    """The indexes of the pieces that the journal's bytes vouch for."""
    first, newline, rest = data.partition(b"\n")
    if first + newline != head(listed):
        return set()
    found = set()
    for line in rest.split(b"\n")[:-1]:
        digits = line.split(b" ", 1)[0]
        if digits.isdigit() and len(digits) <= 9:
            index = int(digits)
            if index < len(pieces) and line == _line(index, pieces[index]):
                found.add(index)
    return found


class Journal:
    """One file's journal, open for writing.

    Args:
        path: Where it is.
        listed: The SHA-256 of the list of pieces.
        pieces: The pieces.

    Raises:
        OSError: If it cannot be written.
    """

    def __init__(self, path: Path, listed: Digest, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._listed = listed
        self.done = read_journal(read_or_none(path) or b"", listed, pieces)
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self.rewrite()

    def rewrite(self) -> None:
        """Writes what is `done`, and nothing else: no torn line stays before the next."""
        lines = [_line(index, self._pieces[index]) + b"\n" for index in sorted(self.done)]
        self._file.seek(0)
        self._write(head(self._listed) + b"".join(lines))
        self._file.truncate()
        os.fsync(self._file.fileno())

    def add(self, indexes: Iterable[int]) -> None:
        """Vouches for pieces whose data is synced.

        Raises:
            OSError: If it cannot be written; then none of them counts.
        """
        new = sorted(set(indexes) - self.done)
        self._write(b"".join(_line(index, self._pieces[index]) + b"\n" for index in new))
        sync_data(self._file.fileno())
        self.done.update(new)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
