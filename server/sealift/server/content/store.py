"""What Sealift asks of a place that keeps blobs.

A blob is a whole file, immutable, named by the SHA-256 of its bytes. A store never sees bytes that
were not hashed before, so writing a blob again changes nothing, and restores one that was damaged.
Nothing that a store answers is trusted: devices verify every byte.

Everything here is synchronous, may block on disk or network and is called from threads; a store
may be used from many at once. Unless said otherwise every method may raise `StoreUnavailable`,
which may be retried, `StoreFull`, `DiskFull` and `StoreRefused`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from pathlib import Path
from typing import Self

from sealift.host.rpc import FRAME_BYTES
from sealift.protocol.names import Digest

__all__ = ["FRAME_BYTES", "BlobStore", "Publication"]


class Publication(ABC):
    """A local file on its way into a store, possibly before its last byte is there.

    As a context manager it aborts itself unless it was committed. Used by one thread at a time.
    """

    @abstractmethod
    def advance(self, available: int) -> None:
        """Says that the file's first `available` bytes are there and will not change.

        A store may use it to send ahead. Nothing becomes readable by it.
        """

    @abstractmethod
    def commit(self) -> None:
        """Publishes the file, which is whole, hashed and verified by the caller.

        When it returns the blob is durable and readable; it appears at once or not at all. The
        local file may then be gone. If it fails the local file is still there, for another try.
        """

    @abstractmethod
    def abort(self) -> None:
        """Gives up what was sent ahead. The local file stays as it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()


class BlobStore(ABC):
    """A place that keeps blobs."""

    @abstractmethod
    def stat(self, digest: Digest) -> int | None:
        """The blob's length in bytes, or None if it is not there."""

    @abstractmethod
    def read(
        self, digest: Digest, offset: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """Reads a range of a blob, in frames of at most `FRAME_BYTES`.

        Close the generator if it is not read to its end. Its errors come while it is read.

        Args:
            digest: The blob.
            offset: First byte wanted.
            length: Number of bytes wanted; None means up to the end.

        Raises:
            BlobNotFound: If it is not there.
            BlobTruncated: If it has fewer bytes than that.
        """

    @abstractmethod
    def publish(self, digest: Digest, path: Path, length: int) -> Publication:
        """Begins to publish the file at `path`, which will have `length` bytes."""

    def put_file(self, digest: Digest, path: Path, length: int) -> None:
        """Publishes a file that is whole, hashed and verified. See `Publication.commit`."""
        with self.publish(digest, path, length) as publication:
            publication.advance(length)
            publication.commit()

    @abstractmethod
    def delete(self, digest: Digest) -> None:
        """Removes a blob; nothing happens if it is not there."""

    @abstractmethod
    def presign(self, digest: Digest, ttl_s: int) -> str | None:
        """An address from which anyone may read ranges of the blob for `ttl_s` seconds.

        It is not checked whether the blob is there. None if the store has no such addresses.
        """

    @abstractmethod
    def check(self) -> None:
        """Returns if the store is ready to be used; raises what is wrong if it is not."""

    @abstractmethod
    def close(self) -> None:
        """Lets connections and threads go. The store cannot be used afterwards."""
