"""`use`: a lease on the right release, for the length of a block."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from sealift.app.choice import Request, choose_inactive, left_releases, resolve_artifact
from sealift.app.errors import NoMatchingRelease
from sealift.app.release import Release
from sealift.host.active import ActivePointer
from sealift.host.homes import active_file, default_home, state_file, store_folder
from sealift.host.installed import Lease, NotInstalled, ReleaseFolders

TRIES = 5
"""How often to look again when a release went between the choice and the lease."""


def use(ref: str, range: str | None = None, home: str | os.PathLike[str] | None = None) -> Use:
    """Claims a release of an artifact for a `with` or `async with` block.

    The active release if it matches; else the newest installed one that matches and that the
    device neither left nor saw revoked.

    Args:
        ref: `acme/llama-edge`; `acme/llama-edge@1.4.0` or `…@sha256:HEX` for exactly that one.
        range: The versions that the app was made for, such as `>=1.4,<2`; None takes any.
            Pre-releases match only if the range names one of the same version.
        home: The device's home; None is `SEALIFT_HOME`, else the user's own.

    Raises:
        InvalidName: If `ref` or `range` cannot be one.

    Entering the block raises:
        NoMatchingRelease: If nothing that is installed matches.
        PointerError: If the device's pointer cannot be read.
    """
    folder = Path(home).absolute() if home is not None else default_home()
    return Use(Request.parse(ref, range), folder)


class Use:
    """What `use` gives. It may be entered more than once, but not by two at the same time."""

    def __init__(self, request: Request, home: Path) -> None:
        self._request = request
        self._home = home
        self._folders = ReleaseFolders(store_folder(home))
        self._lease: Lease | None = None

    def __enter__(self) -> Release:
        if self._lease is not None:
            raise RuntimeError("this use() is entered already; call use() once for each block")
        for _ in range(TRIES):
            try:
                release, self._lease = self._claim()
                return release
            except NotInstalled:
                continue  # it was replaced and removed between the choice and the lease
        raise NoMatchingRelease(
            f"the release of {self._request} is not complete on this device",
            hint="`sealift update` restores it.",
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()

    async def __aenter__(self) -> Release:
        import asyncio

        lock, abandoned = threading.Lock(), threading.Event()

        def enter() -> Release:
            release = self.__enter__()
            with lock:
                if abandoned.is_set():
                    self.__exit__(None, None, None)
            return release

        try:
            return await asyncio.to_thread(enter)
        except asyncio.CancelledError:
            # The thread cannot be cancelled: what it has claimed, or will, is let go.
            with lock:
                abandoned.set()
                self.__exit__(None, None, None)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _claim(self) -> tuple[Release, Lease]:
        request = self._request
        pointer = ActivePointer.load(active_file(self._home))
        known = self._folders.installed() if request.reference.namespace is None else []
        artifact = resolve_artifact(request.reference, pointer, known)
        entry = pointer.get(artifact)
        if entry is not None and request.accepts(entry.active.version, entry.active.digest):
            digest = entry.active.digest
        else:
            left = left_releases(state_file(self._home))
            digest = choose_inactive(request, artifact, self._folders.installed(), left).digest
        lease = self._folders.lease(digest)
        try:
            return Release.of(self._folders.read(digest)), lease
        except BaseException:
            lease.close()
            raise
