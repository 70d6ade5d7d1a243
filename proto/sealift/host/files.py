"""Writing so that a crash leaves either the old or the new, and locks that die with their holder.

Every function that writes takes a `Step`: it is called with the name of each step, before the
step is done. Tests pass one that kills the process there; programs pass nothing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sealift.protocol.errors import SealiftError

Step = Callable[[str], None]
"""Called with a step's name before the step is done."""

LOCK_WAIT_S = 10.0
LOCK_POLL_S = 0.05


def no_step(name: str) -> None:
    """The step hook of a program that is not under test."""


class DiskFull(SealiftError):
    """There is no room left where something had to be written."""

    def __init__(self, path: Path, needed_bytes: int | None = None) -> None:
        free = _free_bytes(path)
        need = f", {needed_bytes:,} bytes are needed" if needed_bytes is not None else ""
        super().__init__(
            f"no room left at {path}: {free:,} bytes are free{need}",
            hint="Free some space, then run the same command again; it goes on where it was.",
        )
        self.path = path


class Unwritable(SealiftError):
    """Something could not be written, for another reason than a full disk."""


class HomeLocked(SealiftError):
    """Another process holds a lock for longer than one waits."""


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_room(folder: Path, needed_bytes: int, reserve_bytes: int = 64 * 1024 * 1024) -> None:
    """Checks before the first byte that a download will fit, with a reserve left over.

    Raises:
        DiskFull: If it will not.
    """
    if needed_bytes and _free_bytes(folder) < needed_bytes + reserve_bytes:
        raise DiskFull(folder, needed_bytes + reserve_bytes)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's errors on writing to `path` into ones for people.

    Raises:
        DiskFull: If there is no room or no quota left.
        Unwritable: On any other error.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(path) from error
        raise Unwritable(
            f"cannot write {path}: {error.strerror}",
            hint="Check the folder's owner and permissions.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Makes a folder and its parents, durably."""
    missing = []
    current = folder
    while not current.exists():
        missing.append(current)
        current = current.parent
    with writing(folder):
        for path in reversed(missing):
            path.mkdir(mode=mode, exist_ok=True)
            sync_folder(path.parent)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o600, step: Step = no_step) -> None:
    """Replaces a file's content at once, durably: after a crash it is the old or the new.

    Steps: `NAME:write`, `NAME:rename`, `NAME:sync`.

    Raises:
        DiskFull: If there is no room; the old content stays.
        Unwritable: If it cannot be written otherwise; the old content stays.
    """
    with writing(path):
        step(f"{path.name}:write")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            step(f"{path.name}:rename")
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        step(f"{path.name}:sync")
        sync_folder(path.parent)


def read_or_none(path: Path) -> bytes | None:
    """The file's bytes, or None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


class FileLock:
    """An exclusive lock on a file, held by the process and gone with it.

    The file says who holds it, for the error that others see.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait_s: float = LOCK_WAIT_S, purpose: str = "") -> None:
        """Takes the lock.

        Args:
            wait_s: How long to wait for another holder.
            purpose: What it is held for, shown to those who wait.

        Raises:
            HomeLocked: If another process holds it for longer than that; it is named.
        """
        descriptor = self._open()
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = self._holder()
                    os.close(descriptor)
                    raise HomeLocked(
                        f"{self.path.parent} is in use by {holder}",
                        hint="Wait until it is done, or stop it.",
                    ) from None
                time.sleep(LOCK_POLL_S)
                continue
            if self._is_in_place(descriptor):
                break
            # Its last holder removed the file: the lock that others see is another.
            os.close(descriptor)
            descriptor = self._open()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "purpose": purpose}).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets the lock go."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        make_folder(self.path.parent)
        with writing(self.path):
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _holder(self) -> str:
        try:
            said = json.loads(self.path.read_text())
            return f"process {said['pid']}" + (f" ({said['purpose']})" if said["purpose"] else "")
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    @contextmanager
    def held(self, *, wait_s: float = LOCK_WAIT_S, purpose: str = "") -> Iterator[None]:
        """Holds the lock for a block."""
        self.acquire(wait_s=wait_s, purpose=purpose)
        try:
            yield
        finally:
            self.release()
