"""Where bytes come from. No source is trusted: whoever reads from it checks every byte.

A source answers ranges of blobs. The device's server is one, the object store that it points to
is another; a mirror or a neighbour would be a third. Sources are used from several threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sealift.client.transfer.errors import SourceTooSlow
from sealift.protocol.names import Digest


@dataclass(frozen=True, slots=True)
class BlobRange:
    """Consecutive bytes of a blob; at least one."""

    digest: Digest
    blob_length: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + self.length


class ByteStream(Protocol):
    """The bytes of one range, as they come."""

    def read_into(self, view: memoryview) -> None:
        """Fills `view` with the next bytes.

        Raises:
            SourceFailed: If fewer come.
        """

    def close(self) -> None:
        """Ends the stream, at its end or before. Called by the thread that reads."""

    def abort(self) -> None:
        """Makes a read in another thread fail at once. May be called at any time, also twice."""


class ContentSource(Protocol):
    """Answers ranges of blobs."""

    @property
    def name(self) -> str:
        """For people."""

    def prepare(self, digests: Sequence[Digest]) -> None:
        """Says which blobs will be wanted, so that they are located in few calls.

        Raises:
            ServerRefused: If the server says no.
            SourceFailed: If it cannot be asked.
        """

    def open(self, wanted: BlobRange) -> ByteStream:
        """Begins to read a range.

        Raises:
            BlobNotThere: If it has no such blob.
            ServerRefused: If the server says no.
            SourceFailed: If it cannot serve otherwise.
        """


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a source is waited for.

    Attributes:
        connect_s: For a connection.
        idle_s: For the next byte.
        grace_s: Before the rate counts; also for the head of an answer.
        min_bytes_s: The least rate over a whole piece, so that a drip has an end.
        monotonic: The clock.
    """

    connect_s: float = 10.0
    idle_s: float = 30.0
    grace_s: float = 30.0
    min_bytes_s: float = 4096.0
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)

    def allowed_s(self, length: int) -> float:
        """The time that `length` bytes may take."""
        return self.grace_s + length / self.min_bytes_s

    def deadline(self, length: int) -> float:
        """When `length` bytes that are asked for now must have come, by the clock."""
        return self.monotonic() + self.allowed_s(length)

    def check(self, source: str, deadline: float) -> None:
        """Raises `SourceTooSlow` after a deadline."""
        if self.monotonic() > deadline:
            raise SourceTooSlow(
                source, f"it sends less than {self.min_bytes_s:,.0f} bytes a second"
            )
