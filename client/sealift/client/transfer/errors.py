"""The errors of a transfer. Each has a `reason`.

    TransferError
    ├── ContentMismatch          every source sent other bytes than were signed
    ├── ContentMissing           no source has a blob
    ├── NotTransferable          the manifest is signed, but cannot be carried out on any device
    └── SourceFailed             one source could not serve; another may
        ├── SourceUnreachable    no connection, or it broke; may be retried
        ├── SourceTooSlow        slower than is permitted; may be retried
        ├── WrongAnswer          an answer that is not what was asked for
        └── BlobNotThere         it does not have that blob

The server's own refusals (`sealift.host.rpc.ServerRefused`), `DiskFull` and `Unwritable` pass
through as they are.
"""

from __future__ import annotations

from typing import ClassVar

from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason


class TransferError(SealiftError):
    """A release's content could not be brought."""

    reason: ClassVar[Reason] = Reason.INTERNAL


class ContentMismatch(TransferError):
    """Other bytes than were signed; nothing of them was kept.

    Args:
        file: Path of the file in the release.
        expected: The signed SHA-256 of the file or of its piece.
        got: The SHA-256 of what came.
        where: Which bytes of the file, in words; empty for all of it.
        hint: What to do.
    """

    reason = Reason.CONTENT_MISMATCH

    def __init__(
        self, file: str, expected: Digest, got: Digest, *, where: str = "", hint: str = ""
    ) -> None:
        super().__init__(
            f"{file}: {where or 'it'} should have SHA-256 {expected}, but {got} came",
            hint=hint
            or "What is installed runs on. Tell the server's operator: it, or something on the "
            "way, changes the content.",
        )
        self.file = file
        self.expected = expected
        self.got = got


class ContentMissing(TransferError):
    """No source has a blob that the release needs."""

    reason = Reason.CONTENT_MISSING

    def __init__(self, file: str, digest: Digest) -> None:
        super().__init__(
            f"{file}: no source has its bytes ({digest.reference})",
            hint="The publisher restores them by pushing the release again.",
        )
        self.file = file
        self.digest = digest


class NotTransferable(TransferError):
    """The manifest is signed, but no device can carry it out."""

    reason = Reason.MALFORMED


class SourceFailed(TransferError):
    """One source could not serve.

    Args:
        source: Which, in words.
        message: What happened.
    """

    reason = Reason.UNREACHABLE
    may_retry: ClassVar[bool] = False

    def __init__(self, source: str, message: str) -> None:
        super().__init__(
            f"{source}: {message}",
            hint="Run the same command again; it goes on where it was.",
        )
        self.source = source


class SourceUnreachable(SourceFailed):
    """There was no connection, or it broke."""

    may_retry = True


class SourceTooSlow(SourceFailed):
    """It sent fewer bytes in a time than are permitted."""

    reason = Reason.TOO_SLOW
    may_retry = True


class WrongAnswer(SourceFailed):
    """It answered something else than what it was asked for."""

    reason = Reason.MALFORMED


class BlobNotThere(SourceFailed):
    """It does not have, or does not offer, that blob."""

    reason = Reason.CONTENT_MISSING
