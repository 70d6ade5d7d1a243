"""Publishing to a bucket: parts are sent while the file still grows, and appear after the verdict.

Whatever is sent ahead is invisible until `commit`. If the server dies before, the store keeps the
parts of an upload that nobody completes; let the bucket's lifecycle abort such uploads after a day.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from minio.datatypes import Part

from sealift.host.files import Step
from sealift.protocol.names import Digest
from sealift.server.content.errors import BlobTruncated, ContentError
from sealift.server.content.s3_bucket import Bucket, ObjectMissing, UploadGone
from sealift.server.content.store import Publication

MIB = 1024 * 1024
PART_BYTES = 8 * MIB
PART_WORKERS = 3
MAX_PARTS = 10_000


def part_bytes(length: int) -> int:
    """How long the parts of an object of `length` bytes are: S3 permits 10,000 of them."""
    least = -(-length // MAX_PARTS)
    return max(PART_BYTES, -(-least // MIB) * MIB)


class PartSender:
    """The threads that send parts, for all uploads of a process, so that memory stays bounded."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._pool = ThreadPoolExecutor(PART_WORKERS, thread_name_prefix="s3-part")
        self._long_part = threading.Lock()

    def submit(self, size: int, send: Callable[[], Part]) -> Future[Part]:
        """Has `send` read a part of `size` bytes and send it, as soon as a thread is free."""

        def run() -> Part:
            with self._long_part if size > PART_BYTES else nullcontext():
                return send()

        return self._pool.submit(run)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)


def read_exactly(file: int, size: int, offset: int, digest: Digest) -> bytes:
    """Reads `size` bytes of an open file.

    Raises:
        BlobTruncated: If the file ends before.
    """
    data = os.pread(file, size, offset)
    while len(data) < size:
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise BlobTruncated(digest, offset + size, offset + len(data))
        data += more
    return data


class S3Publication(Publication):
    """A local file on its way into a bucket.

    Args:
        sender: The bucket and its threads.
        digest: The blob.
        key: The object's name.
        path: The local file.
        length: How many bytes it will have.
        step: Called before each step: `blob:put`, or `blob:begin`, `blob:parts` and
            `blob:complete` for a blob of several parts.
    """

    def __init__(
        self, sender: PartSender, digest: Digest, key: str, path: Path, *, length: int, step: Step
    ) -> None:
        self._sender = sender
        self._bucket = sender.bucket
        self._digest = digest
        self._key = key
        self._length = length
        self._part_bytes = part_bytes(length)
        self._step = step
        self._file: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._upload_id: str | None = None
        self._parts: list[Future[Part]] = []

    def advance(self, available: int) -> None:
        """Sends the parts that are whole. Raises what went wrong with those sent before."""
        if self._file is None or self._length <= PART_BYTES:
            return
        while (size := self._next_size()) and self._sent + size <= available:
            send = partial(self._send, self._file, self._begin(), len(self._parts) + 1, size)
            self._parts.append(self._sender.submit(size, send))
        for part in self._parts:
            if part.done():
                part.result()

    def _send(self, file: int, upload_id: str, number: int, size: int) -> Part:
        data = read_exactly(file, size, (number - 1) * self._part_bytes, self._digest)
        return self._bucket.put_part(self._key, upload_id, number, data)

    @property
    def _sent(self) -> int:
        return min(len(self._parts) * self._part_bytes, self._length)

    def _next_size(self) -> int:
        return min(self._part_bytes, self._length - self._sent)

    def _begin(self) -> str:
        if self._upload_id is None:
            self._step("blob:begin")
            self._upload_id = self._bucket.begin_upload(self._key)
        return self._upload_id

    def commit(self) -> None:
        """See `Publication.commit`."""
        assert self._file is not None, "a publication is committed once"
        if self._length <= PART_BYTES:
            self._step("blob:put")
            data = read_exactly(self._file, self._length, 0, self._digest)
            self._bucket.put(self._key, data, self._digest.raw)
        else:
            self._step("blob:parts")
            self.advance(self._length)
            parts = [part.result() for part in self._parts]
            self._step("blob:complete")
            # If the answer to a first try was lost, the object is there: see below.
            with suppress(UploadGone):
                self._bucket.complete_upload(self._key, self._begin(), parts)
        self._check()
        self._close()

    def _check(self) -> None:
        """Sees that what is there now has the right length."""
        try:
            size = self._bucket.stat(self._key)
        except ObjectMissing:
            size = 0
        if size != self._length:
            raise BlobTruncated(self._digest, self._length, size)

    def abort(self) -> None:
        """Removes the parts that were sent, if the store can be reached."""
        if self._file is None:
            return
        running = [part for part in self._parts if not part.cancel()]
        for part in running:
            part.exception()
        if self._upload_id is not None:
            # What goes wrong here hides what went wrong before; the lifecycle cleans up.
            with suppress(ContentError):
                self._bucket.abort_upload(self._key, self._upload_id)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
