"""Blobs in a bucket of any S3-compatible store: `PREFIXsha256/ab/HEX`.

Asked of the store: PutObject that checks `x-amz-checksum-sha256`, multipart uploads, ranged and
presigned GET. Blobs are put without conditions: under one name there can only be the same verified
bytes, and writing them again restores an object that was damaged.

Parts are sent by a few threads that all uploads share: they need 50 MB at most, for any blob of up
to 160 GB; longer blobs need longer parts, which are sent one at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

from urllib3.response import BaseHTTPResponse

from sealift.host.files import Step, no_step
from sealift.protocol.names import Digest
from sealift.server.content.errors import (
    BlobNotFound,
    BlobTruncated,
    StoreRefused,
    StoreUnavailable,
)
from sealift.server.content.s3_bucket import Bucket, ObjectMissing, RangeMissing, S3Settings
from sealift.server.content.s3_upload import PartSender, S3Publication
from sealift.server.content.store import FRAME_BYTES, BlobStore, Publication

__all__ = ["S3Settings", "S3Store"]

REOPENINGS = 3
"""How often in a row a read goes on after its connection broke without having brought a byte."""


class S3Store(BlobStore):
    """Blobs in a bucket.

    Args:
        settings: Where the bucket is.
        step: Called before each step of a publication, see `S3Publication`.
        pause: Waits between two tries; gets seconds.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        step: Step = no_step,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = Bucket(settings, pause=pause)
        self._sender = PartSender(self._bucket)
        self._prefix = settings.prefix
        self._step = step

    def key(self, digest: Digest) -> str:
        """The name of a blob's object."""
        return f"{self._prefix}sha256/{digest[:2]}/{digest}"

    def stat(self, digest: Digest) -> int | None:
        """The blob's length in bytes, or None if it is not there."""
        try:
            return self._bucket.stat(self.key(digest))
        except ObjectMissing:
            return None

    def read(
        self, digest: Digest, offset: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """See `BlobStore.read`. Goes on by itself where a connection broke."""
        end = self._end(digest, offset, length)
        reopenings = 0
        while offset < end:
            try:
                with closing(self._open(digest, offset, end)) as response:
                    for frame in self._frames(digest, response):
                        yield frame
                        offset += len(frame)
                        reopenings = 0
            except StoreUnavailable:
                if reopenings == REOPENINGS:
                    raise
                reopenings += 1

    def _end(self, digest: Digest, offset: int, length: int | None) -> int:
        """Where a range ends. The store is asked only where the range itself does not say it."""
        if length:
            return offset + length
        size = self.stat(digest)
        if size is None:
            raise BlobNotFound(digest)
        if offset > size:
            raise BlobTruncated(digest, offset, size)
        return size if length is None else offset

    def _open(self, digest: Digest, offset: int, end: int) -> BaseHTTPResponse:
        """Asks for the bytes from `offset` to `end`, and sees that just those will come."""
        try:
            response = self._bucket.open(self.key(digest), offset, end - offset)
        except ObjectMissing:
            raise BlobNotFound(digest) from None
        except RangeMissing:
            raise BlobTruncated(digest, end, self.stat(digest) or 0) from None
        given = response.headers.get("Content-Range", "")
        if response.status == 206 and given.startswith(f"bytes {offset}-{end - 1}/"):
            return response
        response.close()
        if response.status == 206 and not given:
            raise StoreUnavailable(f"reading {self.key(digest)}: the answer's head was cut off")
        size = self.stat(digest) or 0
        if size < end:
            raise BlobTruncated(digest, end, size)
        raise StoreRefused(
            f"{self._bucket.endpoint} answers a range with status {response.status} and "
            f"Content-Range {given!r}",
            hint="Sealift needs a store that serves ranges as RFC 9110 says.",
        )

    def _frames(self, digest: Digest, response: BaseHTTPResponse) -> Generator[bytes, None, None]:
        with self._bucket.errors(f"reading {self.key(digest)}"):
            while frame := response.read(FRAME_BYTES, decode_content=False):
                yield frame

    def publish(self, digest: Digest, path: Path, length: int) -> Publication:
        """See `BlobStore.publish`. Parts are sent while the file is still growing."""
        return S3Publication(
            self._sender, digest, self.key(digest), path, length=length, step=self._step
        )

    def delete(self, digest: Digest) -> None:
        """Removes a blob; nothing happens if it is not there."""
        with suppress(ObjectMissing):
            self._bucket.remove(self.key(digest))

    def presign(self, digest: Digest, ttl_s: int) -> str | None:
        """An address for ranged GETs, valid for `ttl_s` seconds, 1 to 604,800 (a week)."""
        return self._bucket.presign(self.key(digest), ttl_s)

    def check(self) -> None:
        """Sees whether the bucket is there and answers these keys."""
        if not self._bucket.exists():
            raise StoreRefused(
                f"there is no bucket {self._bucket.name} at {self._bucket.endpoint}",
                hint="Make the bucket, or correct its name in the server's settings.",
            )

    def close(self) -> None:
        """Lets connections and threads go."""
        self._sender.close()
        self._bucket.close()
