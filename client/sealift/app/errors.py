"""The errors of the app side; the tree is drawn in `sealift.app`."""

from __future__ import annotations

from sealift.protocol.errors import SealiftError


class AppError(SealiftError):
    """The root of the app side's own errors."""


class NoMatchingRelease(AppError):
    """Nothing that is installed is what the app asked for."""


class NoSuchFile(AppError):
    """The release has no file of that name."""
