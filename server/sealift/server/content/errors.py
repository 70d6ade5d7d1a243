"""The errors of stored content. On a full local disk `sealift.host.files.DiskFull` is raised.

ContentError                 each has a `reason`
├── BlobNotFound             the store has no such blob
├── BlobTruncated            the store has fewer bytes of a blob than were asked for
├── BlobMismatch             the uploaded bytes are not the blob that was announced
├── OffsetMismatch           an upload that begins elsewhere than where the last one ended
├── UploadInProgress         another upload of the same blob has not ended; may be retried
├── UploadIncomplete         an upload that ended before its last byte
├── StoreUnavailable         the store does not answer, or asks to try later; may be retried
├── StoreFull                the store has no room left
└── StoreRefused             the store's settings or permissions are wrong
"""

from __future__ import annotations

from typing import ClassVar

from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason


class ContentError(SealiftError):
    """The root of the errors of stored content."""

    reason: ClassVar[Reason] = Reason.INTERNAL


class BlobNotFound(ContentError):
    """The store has no such blob. Trying again does not help."""

    reason = Reason.CONTENT_MISSING

    def __init__(self, digest: Digest) -> None:
        super().__init__(
            f"the store has no blob {digest.reference}",
            hint="Push the release again to restore it.",
        )
        self.digest = digest


class BlobTruncated(ContentError):
    """The store has fewer bytes of a blob than were asked for. Trying again does not help.

    Args:
        digest: The blob.
        wanted: Up to which byte it was asked for.
        got: How many bytes the store has.
    """

    reason = Reason.CONTENT_MISMATCH

    def __init__(self, digest: Digest, wanted: int, got: int) -> None:
        super().__init__(
            f"the store has {got:,} bytes of blob {digest.reference}, {wanted:,} were asked for",
            hint="If the release has more bytes than that, push it again to restore them.",
        )
        self.digest = digest
        self.wanted = wanted
        self.got = got


class BlobMismatch(ContentError):
    """The uploaded bytes are not the blob that was announced; nothing of them was kept.

    Args:
        digest: The SHA-256 that was announced.
        got: What the server got, in words: its SHA-256 or its length.
    """

    reason = Reason.CONTENT_MISMATCH

    def __init__(self, digest: Digest, got: str) -> None:
        super().__init__(
            f"expected blob {digest.reference}, got {got}",
            hint="The file changed while it was sent, or the network damaged it: push again.",
        )
        self.digest = digest
        self.got = got


class OffsetMismatch(ContentError):
    """An upload has to begin where the one before it ended. Begin again at `current`.

    Args:
        digest: The blob.
        offset: Where the upload wanted to begin.
        current: How many bytes the server has.
    """

    reason = Reason.OFFSET_MISMATCH

    def __init__(self, digest: Digest, offset: int, current: int) -> None:
        super().__init__(
            f"the upload of blob {digest.reference} goes on at byte {current:,}, not {offset:,}"
        )
        self.digest = digest
        self.offset = offset
        self.current = current


class UploadInProgress(ContentError):
    """Another upload of the same blob has not ended. May be retried a little later."""

    reason = Reason.UNAVAILABLE

    def __init__(self, digest: Digest) -> None:
        super().__init__(
            f"blob {digest.reference} is being uploaded by someone else at this moment",
            hint="Wait until that upload has ended, then push again.",
        )
        self.digest = digest


class UploadIncomplete(ContentError):
    """An upload ended before its last byte. What came is kept; go on at `current`."""

    reason = Reason.OFFSET_MISMATCH

    def __init__(self, digest: Digest, current: int, length: int) -> None:
        super().__init__(
            f"{current:,} of {length:,} bytes of blob {digest.reference} were uploaded",
            hint="Push again; it goes on there.",
        )
        self.digest = digest
        self.current = current
        self.length = length


class StoreUnavailable(ContentError):
    """The store does not answer, or asks to try later. May be retried."""

    reason = Reason.UNAVAILABLE


class StoreFull(ContentError):
    """The store has no room left."""

    reason = Reason.DISK_FULL


class StoreRefused(ContentError):
    """The store's settings or permissions are wrong. Trying again does not help."""

    reason = Reason.FAILED_PRECONDITION
