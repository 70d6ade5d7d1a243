"""A file under way: pieces land in any order, survive a crash, and make one whole file.

    HEX.part         the file, sparse until its last piece is there
    HEX.journal      which pieces are on the disk for certain
    HEX.unsure       the file in place of HEX.part, after a sync of it failed

Only verified pieces land. Durability: a piece's data is synced before its line in the journal, in
batches of 64 MiB. A process that is killed loses nothing that it wrote, as the kernel still has it:
pieces that are there but not in the journal are hashed anew, and count if they are right. After a
power cut they are read from the disk, so that is as good. After a *sync that failed* it is not: the
kernel may show bytes that never reach the disk. Then only the journal counts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sealift.client.store.placing import FILE_MODE
from sealift.client.transfer.journal import Journal
from sealift.client.transfer.pieces import Wanted
from sealift.host.files import Step, writing
from sealift.host.writeback import start_writeback, sync_data
from sealift.protocol.chunks import Piece

BATCH_BYTES = 64 * 1024 * 1024
"""How much may be on its way to the disk without a line in the journal."""


class PartialFile:
    """A file under way.

    Args:
        folder: The transfer's folder, which is locked.
        wanted: What it will be; it has a list of pieces.
        pieces: Its pieces in order.
        step: The crash hook: `download:piece` before a piece is written, `download:sync` before
            a batch is synced, `download:journal` before its lines are written.
        batch_bytes: Bytes of a batch.

    Raises:
        DiskFull, Unwritable: If it cannot be written; also from every method that writes.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Wanted,
        pieces: Sequence[Piece],
        step: Step,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        if wanted.list_digest is None:
            raise ValueError("a file of one piece needs no journal")
        self.journal_path = folder / f"{wanted.digest}.journal"
        self._unsure = folder / f"{wanted.digest}.unsure"
        unsure = self._unsure.exists()
        self.path = self._unsure if unsure else folder / f"{wanted.digest}.part"
        self.pieces = pieces
        self._index = {piece.offset: index for index, piece in enumerate(pieces)}
        self._step = step
        self._batch_bytes = batch_bytes
        self._landed = threading.Condition()
        self._syncing = threading.Lock()
        self._batch: list[int] = []
        self._batch_length = 0
        self._failed = False
        with writing(self.path):
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self.descriptor, wanted.length)
            self._journal = Journal(self.journal_path, wanted.list_digest, pieces)
        self._done = set(self._journal.done)
        if not unsure:
            self._recover()

    def _recover(self) -> None:
        """Takes over pieces that an earlier process wrote and did not live to vouch for."""
        buffer = memoryview(bytearray(max(piece.length for piece in self.pieces)))
        for index, piece in enumerate(self.pieces):
            if index in self._done or not self._has_data(piece):
                continue
            view = buffer[: piece.length]
            if self.read_into(piece.offset, view) and _is(piece, view):
                self._done.add(index)
                self._batch.append(index)

    def _has_data(self, piece: Piece) -> bool:
        try:
            return os.lseek(self.descriptor, piece.offset, os.SEEK_DATA) < (
                piece.offset + piece.length
            )
        except OSError as error:
            return error.errno != errno.ENXIO  # no data from here on

    @property
    def done_bytes(self) -> int:
        """Bytes of the pieces that are there."""
        return sum(self.pieces[index].length for index in self._done)

    def missing(self) -> list[Piece]:
        """The pieces that are not there, in order."""
        return [piece for index, piece in enumerate(self.pieces) if index not in self._done]

    def read_into(self, offset: int, view: memoryview) -> bool:
        """Fills `view` from an offset; False if the file is shorter."""
        filled = 0
        while filled < len(view):
            count = os.preadv(self.descriptor, [view[filled:]], offset + filled)
            if count == 0:
                return False
            filled += count
        return True

    def land(self, piece: Piece, view: memoryview) -> None:
        """Writes a piece that was verified. Called from several threads."""
        self._step("download:piece")
        with writing(self.path):
            written = 0
            while written < len(view):
                written += os.pwrite(self.descriptor, view[written:], piece.offset + written)
            start_writeback(self.descriptor, piece.offset, piece.length)
        index = self._index[piece.offset]
        with self._landed:
            self._done.add(index)
            self._batch.append(index)
            self._batch_length += piece.length
            full = self._batch_length >= self._batch_bytes
            self._landed.notify_all()
        if full and self._syncing.acquire(blocking=False):
            try:
                self._checkpoint()
            finally:
                self._syncing.release()

    def checkpoint(self) -> None:
        """Makes all that landed durable, with its lines in the journal."""
        with self._syncing:
            self._checkpoint()

    def _checkpoint(self) -> None:
        with self._landed:
            batch, self._batch, self._batch_length = self._batch, [], 0
        if not batch or self._failed:
            return
        with writing(self.path):
            self._step("download:sync")
            self._sync(sync_data)
            self._step("download:journal")
            self._journal.add(batch)

    def _sync(self, sync: Callable[[int], None]) -> None:
        """Syncs the file; if that fails, nothing is believed any more but the journal.

        Raises:
            OSError: If it failed; it is never tried again on the same data.
        """
        try:
            sync(self.descriptor)
        except OSError:
            self._failed = True
            self.path.replace(self._unsure)
            raise

    def wait_for(self, piece: Piece, stopped: threading.Event) -> bool:
        """Waits until a piece is there; False if the transfer was stopped."""
        index = self._index[piece.offset]
        with self._landed:
            self._landed.wait_for(lambda: index in self._done or stopped.is_set())
            return index in self._done

    def wake(self) -> None:
        """Wakes those who wait, after a stop."""
        with self._landed:
            self._landed.notify_all()

    def damaged(self) -> list[Piece]:
        """Reads every piece back: those that are not what landed, as after a disk's own fault."""
        buffer = memoryview(bytearray(max(piece.length for piece in self.pieces)))
        return [
            piece
            for piece in self.pieces
            if not self.read_into(piece.offset, buffer[: piece.length])
            or not _is(piece, buffer[: piece.length])
        ]

    def discard(self, pieces: Iterable[Piece]) -> None:
        """Forgets pieces, so that they are fetched again."""
        gone = {self._index[piece.offset] for piece in pieces}
        with self._syncing, self._landed, writing(self.path):
            self._done -= gone
            self._batch = [index for index in self._batch if index not in gone]
            self._journal.done -= gone
            self._journal.rewrite()

    def become(self, blob: Path) -> None:
        """Makes the whole file durable and gives it its name. Steps: `download:sync`,
        `download:blob`."""
        with self._syncing, writing(blob):
            self._step("download:sync")
            os.fchmod(self.descriptor, FILE_MODE)
            self._sync(os.fsync)
            self._step("download:blob")
            self.path.replace(blob)
            self.journal_path.unlink()

    def close(self) -> None:
        """Closes the files; what is not durable yet stays for the kernel to write."""
        self._journal.close()
        os.close(self.descriptor)


def _is(piece: Piece, view: memoryview) -> bool:
    return hashlib.sha256(view).digest() == piece.sha256
