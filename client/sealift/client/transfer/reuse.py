"""Pieces that the device has already, in files of installed releases.

A piece is found by its SHA-256 in the lists of pieces of installed releases, which the store keeps.
What is copied is hashed like what is fetched: a damaged installed file spoils nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import ExitStack

from sealift.client.store.store import Store
from sealift.client.transfer.pieces import Had
from sealift.client.transfer.streams import Land
from sealift.host.files import read_or_none
from sealift.protocol.chunks import Piece, decode_chunks
from sealift.protocol.documents import FileEntry
from sealift.protocol.errors import InvalidDocument
from sealift.protocol.names import Digest


def find_pieces(store: Store, wanted: Iterable[Piece]) -> dict[bytes, Had]:
    """Where some of the wanted pieces may be, by their SHA-256."""
    looked_for = {piece.sha256 for piece in wanted}
    found: dict[bytes, Had] = {}
    seen: set[Digest] = set()
    for release in store.installed():
        for entry in release.manifest.files:
            if entry.sha256 in seen:
                continue
            seen.add(entry.sha256)
            for piece in _pieces(store, entry):
                if piece.sha256 in looked_for:
                    found.setdefault(piece.sha256, Had(release.folder / entry.path, piece.offset))
    return found


def _pieces(store: Store, entry: FileEntry) -> list[Piece]:
    if entry.chunks is None:
        return [Piece(0, entry.length, entry.sha256.raw)]
    data = read_or_none(store.blob_path(entry.chunks.sha256))
    try:
        return decode_chunks(data, entry.length) if data is not None else []
    except InvalidDocument:
        return []  # damaged on this disk: nothing of it is reused


class Copier:
    """Copies pieces out of installed files; use one a thread, and close it."""

    def __init__(self, had: dict[bytes, Had]) -> None:
        self._had = had
        self._open: dict[os.PathLike[str], int] = {}
        self._stack = ExitStack()

    def copy(self, piece: Piece, buffer: memoryview, land: Land) -> bool:
        """Lands a piece from this disk; False if it is not there as it should be."""
        had = self._had.get(piece.sha256)
        view = buffer[: piece.length]
        if had is None or not self._read(had, view):
            return False
        if hashlib.sha256(view).digest() != piece.sha256:
            return False
        land(piece, view)
        return True

    def _read(self, had: Had, view: memoryview) -> bool:
        try:
            descriptor = self._open.get(had.path)
            if descriptor is None:
                descriptor = os.open(had.path, os.O_RDONLY | os.O_CLOEXEC)
                self._stack.callback(os.close, descriptor)
                self._open[had.path] = descriptor
            return os.preadv(descriptor, [view], had.offset) == len(view)
        except OSError:
            return False  # removed meanwhile, or a bad sector: it is fetched instead

    def close(self) -> None:
        """Closes the files."""
        self._stack.close()
