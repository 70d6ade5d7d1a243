"""A release's files on the publisher's disk: which they are, their hashes, how they are cut."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sealift.host.files import make_folder, read_or_none, write_atomically
from sealift.host.hashing import Advance, FileHashes, hash_file, sha256_bytes
from sealift.protocol.chunks import CUT_BYTES, encode_chunks
from sealift.protocol.documents import MAX_FILES, ChunksReference, FileEntry, check_path
from sealift.protocol.errors import InvalidName, SealiftError
from sealift.protocol.names import Digest

SETTLED_NS = 2_000_000_000
"""Hashes are remembered only of files that have not changed for this long."""

MEDIA_TYPES = {
    ".safetensors": "application/vnd.safetensors",
    ".gguf": "application/vnd.gguf",
    ".onnx": "application/vnd.onnx",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".prompt": "text/plain",
    ".jinja": "text/x-jinja",
    ".csv": "text/csv",
}
"""Our own table, so that every machine gives a file the same type."""


class UnusableContent(SealiftError):
    """A file or folder that cannot be released as it is."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to release: its path in the release and where it lies."""

    path: str
    source: Path
    length: int


@dataclass(frozen=True, slots=True)
class HashedContent:
    """What a release is made of.

    Attributes:
        entries: The manifest's files, by path.
        blobs: What has to be on the server: a file on disk or bytes, by digest, with its length.
    """

    entries: tuple[FileEntry, ...]
    blobs: dict[Digest, tuple[int, Path | bytes]]


def find_files(
    root: Path, *, follow_links: bool, left_out: Callable[[str], None]
) -> list[SourceFile]:
    """The files below a folder, or the one file, in the order of their paths.

    Args:
        root: A folder, or a regular file.
        follow_links: Read the regular files that links point to; else links are refused.
        left_out: Called with each path that is left out because its name begins with a dot.

    Raises:
        UnusableContent: If there is nothing, a link, or something that is not a regular file.
    """
    if not root.exists() and not root.is_symlink():
        raise UnusableContent(f"{root} is not there", hint="Check the path.")
    if root.is_symlink() and not follow_links:
        raise _refused_link(root)
    if root.is_dir():
        found = sorted(_walk(root, root, follow_links, left_out), key=lambda one: one.path)
    else:
        found = [_source(root.name, root)]
    if not found:
        raise UnusableContent(f"{root} has no files in it", hint="Name the folder of the release.")
    if len(found) > MAX_FILES:
        raise UnusableContent(f"{root} has {len(found):,} files, over {MAX_FILES:,}")
    for one in found:
        try:
            check_path(one.path)
        except InvalidName as error:
            raise UnusableContent(error.message, hint="Rename the file.") from error
    return found


def _walk(
    root: Path, folder: Path, follow_links: bool, left_out: Callable[[str], None]
) -> Iterator[SourceFile]:
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        raise UnusableContent(f"cannot read {folder}: {error.strerror}") from error
    for child in children:
        path = child.relative_to(root).as_posix()
        if child.name.startswith("."):
            left_out(path)
        elif child.is_symlink() and not follow_links:
            raise _refused_link(child)
        elif child.is_dir():
            if child.is_symlink():
                raise UnusableContent(
                    f"{child} is a link to a folder", hint="Links to files are followed only."
                )
            yield from _walk(root, child, follow_links, left_out)
        else:
            yield _source(path, child)


def _refused_link(path: Path) -> UnusableContent:
    return UnusableContent(
        f"{path} is a link", hint="Give --follow-links to release the file that it points to."
    )


def _source(path: str, source: Path) -> SourceFile:
    try:
        status = source.stat()
    except OSError as error:
        raise UnusableContent(f"cannot read {source}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnusableContent(f"{source} is not a regular file")
    if not os.access(source, os.R_OK):
        raise UnusableContent(f"cannot read {source}: permission denied")
    return SourceFile(path, source.resolve(), status.st_size)


def media_type(path: str) -> str:
    """The media type of a file, by its ending."""
    return MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")


class HashCache:
    """Hashes of files that have not changed, by path, size, mtime_ns, ctime_ns and inode."""

    def __init__(self, file: Path, now_ns: Callable[[], int]) -> None:
        self._file = file
        self._now_ns = now_ns
        self._entries = self._load()

    def _load(self) -> dict[str, FileHashes]:
        try:
            said = json.loads(read_or_none(self._file) or b"{}")
            return {
                key: FileHashes(
                    Digest(one["sha256"]),
                    one["length"],
                    tuple((length, bytes.fromhex(sha)) for length, sha in one["pieces"]),
                )
                for key, one in said.items()
            }
        except (ValueError, KeyError, TypeError):
            return {}  # a damaged cache only costs time

    def _key(self, path: Path) -> tuple[str, bool]:
        status = path.stat()
        newest = max(status.st_mtime_ns, status.st_ctime_ns)
        parts = (path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        return ":".join(map(str, parts)), self._now_ns() - newest > SETTLED_NS

    def hashes(self, path: Path, advance: Advance) -> FileHashes:
        """A file's hashes, remembered or made.

        Raises:
            UnusableContent: If it cannot be read, or changes meanwhile.
        """
        try:
            key, settled = self._key(path)
            if settled and key in self._entries:
                advance(self._entries[key].length)
                return self._entries[key]
            hashes = hash_file(path, CUT_BYTES, advance)
            after, _ = self._key(path)
        except OSError as error:
            raise UnusableContent(f"cannot read {path}: {error.strerror}") from error
        if after != key:
            raise UnusableContent(f"{path} changed while it was read", hint="Push it again.")
        if settled:
            self._entries[key] = hashes
        return hashes

    def save(self) -> None:
        """Writes the cache."""
        make_folder(self._file.parent)
        said = {
            key: {
                "sha256": one.sha256,
                "length": one.length,
                "pieces": [(length, sha.hex()) for length, sha in one.pieces],
            }
            for key, one in list(self._entries.items())[-MAX_FILES:]
        }
        write_atomically(self._file, json.dumps(said).encode())


def hash_content(
    files: Iterable[SourceFile], cache: HashCache, advance: Advance, threads: int
) -> HashedContent:
    """Hashes every file once, in parallel.

    Raises:
        UnusableContent: If a file cannot be read, or changes meanwhile.
    """
    chosen = list(files)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        hashed = list(pool.map(lambda one: cache.hashes(one.source, advance), chosen))
    entries: list[FileEntry] = []
    blobs: dict[Digest, tuple[int, Path | bytes]] = {}
    for one, hashes in zip(chosen, hashed, strict=True):
        chunks = None
        if hashes.length > CUT_BYTES:
            listed = encode_chunks(list(hashes.pieces))
            chunks = ChunksReference(sha256=sha256_bytes(listed), length=len(listed))
            blobs[chunks.sha256] = (len(listed), listed)
        blobs[hashes.sha256] = (hashes.length, one.source)
        entries.append(
            FileEntry(
                path=one.path,
                sha256=hashes.sha256,
                length=hashes.length,
                media_type=media_type(one.path),
                chunks=chunks,
            )
        )
    return HashedContent(tuple(entries), blobs)
