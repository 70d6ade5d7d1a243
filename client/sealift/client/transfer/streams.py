"""Pieces from sources, each verified before anyone sees it.

Sources are tried in their order. One that cannot be reached is tried again, with full jitter; one
that goes on failing, or that answers something else than it was asked, is not asked again in this
transfer; one that sends a wrong piece is asked for that piece last. A piece that nobody sends
right ends the transfer.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tenacity

from sealift.client.transfer.errors import (
    BlobNotThere,
    ContentMismatch,
    ContentMissing,
    SourceFailed,
)
from sealift.client.transfer.pieces import Span, Wanted
from sealift.client.transfer.source import BlobRange, ContentSource
from sealift.client.transfer.workers import Workers
from sealift.protocol.chunks import Piece
from sealift.protocol.names import Digest

Land = Callable[[Piece, memoryview], None]
"""Takes a verified piece; the memory is used again afterwards."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often what may help is tried again.

    Attributes:
        attempts: Times in a row that a range is asked for without one new piece.
        strikes: Such times after which a source is given up, if there is another.
        bad_pieces: Times that one source may send a wrong piece in place of the right one.
        first_s: The first wait is at most this long; each may be twice the one before.
        longest_s: No wait is longer.
    """

    attempts: int = 6
    strikes: int = 3
    bad_pieces: int = 2
    first_s: float = 0.5
    longest_s: float = 20.0


class Streams:
    """Fetches spans of blobs; used by several threads.

    Args:
        sources: In the order of preference.
        workers: The threads, and how they are stopped.
        retries: How often to try again.
    """

    def __init__(
        self, sources: Sequence[ContentSource], workers: Workers, retries: Retries
    ) -> None:
        self._sources = sources
        self._workers = workers
        self._retries = retries
        self._lock = threading.Lock()
        self._given_up: dict[int, SourceFailed] = {}
        self._without: set[tuple[int, Digest]] = set()
        self._lies: Counter[tuple[int, Digest, int]] = Counter()

    def prepare(self, digests: Sequence[Digest]) -> None:
        """Has each source locate what will be wanted; one that cannot is given up.

        Raises:
            ServerRefused: If the server says no.
        """
        for number, source in enumerate(self._sources):
            try:
                self._retrying()(source.prepare, digests)
            except SourceFailed as error:
                self._workers.check()
                self._given_up[number] = error

    def fetch(self, wanted: Wanted, span: Span, buffer: memoryview, land: Land) -> None:
        """Fetches a span and lands each of its pieces.

        Args:
            wanted: The blob.
            span: The pieces.
            buffer: Memory for the longest of them.
            land: Takes each piece.

        Raises:
            ContentMismatch: If every source sends other bytes than were signed.
            ContentMissing: If no source has the blob.
            SourceFailed: If no source could serve.
            ServerRefused: If the server says no.
            Stopped: After a stop.
        """
        left = deque(span.pieces)
        while left:
            strikes: Counter[int] = Counter()
            self._retrying()(self._advance, wanted, left, strikes, buffer, land)

    def _retrying(self) -> tenacity.Retrying:
        retries, stopped = self._retries, self._workers.stopped
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, SourceFailed) and error.may_retry
            ),
            stop=tenacity.stop_after_attempt(retries.attempts)
            | tenacity.stop_when_event_set(stopped),
            wait=tenacity.wait_random_exponential(retries.first_s, retries.longest_s),
            sleep=tenacity.sleep_using_event(stopped),
            reraise=True,
        )

    def _advance(
        self,
        wanted: Wanted,
        left: deque[Piece],
        strikes: Counter[int],
        buffer: memoryview,
        land: Land,
    ) -> None:
        """Asks one source once. Raises only if that may be tried again and not a piece came."""
        before = len(left)
        number = self._choose(wanted, left[0])
        try:
            self._read(number, wanted, left, buffer, land)
        except SourceFailed as error:
            self._workers.check()
            if len(left) < before:
                return
            strikes[number] += 1
            self._note(number, wanted, error, strikes[number])
            if error.may_retry:
                raise

    def _note(self, number: int, wanted: Wanted, error: SourceFailed, strikes: int) -> None:
        """Gives a source up, for a blob or for all, after what it did."""
        with self._lock:
            if isinstance(error, BlobNotThere):
                self._without.add((number, wanted.digest))
                return
            others = any(other != number for other in self._candidates(wanted))
            if not error.may_retry or (strikes >= self._retries.strikes and others):
                self._given_up[number] = error

    def _read(
        self,
        number: int,
        wanted: Wanted,
        left: deque[Piece],
        buffer: memoryview,
        land: Land,
    ) -> None:
        """Reads from one source until the span is done or a piece is wrong."""
        start, end = left[0].offset, left[-1].offset + left[-1].length
        self._workers.check()
        stream = self._sources[number].open(
            BlobRange(wanted.digest, wanted.length, start, end - start)
        )
        try:
            with self._workers.waking(stream.abort):
                while left:
                    self._workers.check()
                    piece = left[0]
                    view = buffer[: piece.length]
                    stream.read_into(view)
                    got = hashlib.sha256(view).digest()
                    if got != piece.sha256:
                        self._blame(number, wanted, piece, got)
                        return
                    land(piece, view)
                    left.popleft()
        finally:
            stream.close()

    def _candidates(self, wanted: Wanted) -> list[int]:
        return [
            number
            for number in range(len(self._sources))
            if number not in self._given_up and (number, wanted.digest) not in self._without
        ]

    def _choose(self, wanted: Wanted, piece: Piece) -> int:
        with self._lock:
            candidates = self._candidates(wanted)
            if candidates:
                return min(
                    candidates,
                    key=lambda number: self._lies[number, wanted.digest, piece.offset],
                )
            if self._given_up:
                raise self._given_up[max(self._given_up)]
            raise ContentMissing(wanted.path, wanted.digest)

    def _blame(self, number: int, wanted: Wanted, piece: Piece, got: bytes) -> None:
        """Notes that a source sent a wrong piece.

        Raises:
            ContentMismatch: If all have done so too often.
        """
        with self._lock:
            self._lies[number, wanted.digest, piece.offset] += 1
            if any(
                self._lies[other, wanted.digest, piece.offset] < self._retries.bad_pieces
                for other in self._candidates(wanted)
            ):
                return
        part = piece.length < wanted.length
        raise ContentMismatch(
            wanted.path,
            Digest.from_bytes(piece.sha256),
            Digest.from_bytes(got),
            where=f"bytes {piece.offset:,} to {piece.offset + piece.length - 1:,}" if part else "",
        )
