"""Generations of signed files on disk: written apart, synced, made current by one pointer.

    trust/NS/current         the name of the current generation
    trust/NS/gen-7/metadata  what the stock client keeps there
    trust/NS/gen-7/documents channel, hold and stop documents, by their target path

All of it is a cache: it may be deleted without lowering what the home has seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sealift.host.files import (
    Step,
    make_folder,
    no_step,
    read_or_none,
    sync_folder,
    write_atomically,
    writing,
)
from sealift.protocol import layout
from sealift.protocol.errors import InvalidName

_GENERATION = re.compile(r"gen-([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Generation:
    """One set of signed files."""

    folder: Path
    descriptor: int = -1
    """Held with a lock by the process that writes a scratch generation, so that nobody else takes
    it for an old one."""

    @property
    def metadata(self) -> Path:
        """The stock client's folder."""
        return self.folder / "metadata"

    @property
    def documents(self) -> Path:
        """The documents' folder."""
        return self.folder / "documents"

    def role_files(self) -> dict[str, bytes]:
        """The bytes of each role's file, by role; what cannot be a role's is left out."""
        found: dict[str, bytes] = {}
        for path in sorted(self.metadata.glob("*.json")):
            role = path.name.removesuffix(".json")
            if role not in layout.TOP_LEVEL | {layout.STOP, layout.HOLD}:
                try:
                    layout.parse_role_name(role)
                except InvalidName:
                    continue
            data = read_or_none(path)
            if data is not None:
                found[role] = data
        return found

    def root_history(self) -> list[tuple[int, bytes]]:
        """The roots that the stock client verified, by version, oldest first."""
        found = []
        for path in (self.metadata / "root_history").glob("*.root.json"):
            version = path.name.partition(".")[0]
            if version.isascii() and version.isdigit():
                found.append((int(version), path.read_bytes()))
        return sorted(found)

    def document_files(self) -> dict[str, bytes]:
        """The bytes of each document, by target path."""
        return {
            path.relative_to(self.documents).as_posix(): path.read_bytes()
            for path in sorted(self.documents.rglob("*.json"))
        }


class Generations:
    """The generations of one namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Generation | None:
        """The current generation; None if there is none, or its pointer is damaged."""
        data = read_or_none(self.folder / "current")
        name = data.decode("ascii", "replace").strip() if data else ""
        if not _GENERATION.fullmatch(name) or not (self.folder / name / "metadata").is_dir():
            return None
        return Generation(self.folder / name)

    def begin(self, base: Generation | None) -> Generation:
        """A scratch generation, a copy of `base`.

        Raises:
            DiskFull: If there is no room.
        """
        make_folder(self.folder)
        with writing(self.folder):
            folder = self._new_folder()
            scratch = Generation(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
            try:
                fcntl.flock(scratch.descriptor, fcntl.LOCK_EX)
                if base is not None:
                    shutil.copytree(base.metadata, scratch.metadata, symlinks=True)
                    if base.documents.is_dir():
                        shutil.copytree(base.documents, scratch.documents)
                scratch.metadata.mkdir(exist_ok=True)
                scratch.documents.mkdir(exist_ok=True)
            except BaseException:
                self.discard(scratch)
                raise
        return scratch

    def _new_folder(self) -> Path:
        number = 1 + max(self._numbers(), default=0)
        while True:
            path = self.folder / f"gen-{number}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                number += 1
            else:
                return path

    def _numbers(self) -> list[int]:
        names = (_GENERATION.fullmatch(path.name) for path in self.folder.glob("gen-*"))
        return [int(match[1]) for match in names if match]

    def publish(self, scratch: Generation, *, step: Step = no_step) -> None:
        """Syncs a scratch generation and makes it current; the others are deleted.

        The caller closes it with `discard`, whether this succeeds or not.

        Steps: `trust:sync`, then those of the pointer's file.
        """
        step("trust:sync")
        with writing(scratch.folder):
            for root, folders, names in os.walk(scratch.folder):
                for name in names:
                    _sync_file(Path(root) / name)
                for name in folders:
                    sync_folder(Path(root) / name)
            sync_folder(scratch.folder)
            sync_folder(self.folder)
        write_atomically(self.folder / "current", scratch.folder.name.encode(), step=step)
        for number in self._numbers():
            old = self.folder / f"gen-{number}"
            if old != scratch.folder:
                self._discard_unless_held(old)

    def discard(self, scratch: Generation) -> None:
        """Deletes a scratch generation, unless the pointer names it already."""
        current = self.current()
        if current is None or current.folder != scratch.folder:
            shutil.rmtree(scratch.folder, ignore_errors=True)
        os.close(scratch.descriptor)

    def _discard_unless_held(self, folder: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)


def _sync_file(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
