"""What blobs in a folder promise beyond the contract."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sealift.host.files import DiskFull, Unwritable
from sealift.server.content.errors import StoreRefused
from sealift.server.content.folder import FolderStore
from support.blobs import Blob


def test_a_file_of_the_same_disk_is_moved_not_copied(tmp_path: Path) -> None:
    blob = Blob.make(10)
    path = blob.file(tmp_path)
    inode = path.stat().st_ino
    FolderStore(tmp_path / "blobs").put_file(blob.digest, path, 10)
    there = tmp_path / "blobs" / "sha256" / blob.digest[:2] / blob.digest
    assert there.stat().st_ino == inode
    assert not path.exists()


def test_a_file_of_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = Blob.make(10)
    path = blob.file(tmp_path)
    replace = Path.replace

    def refuse_from_other_disk(self: Path, target: Path) -> Path:
        if self == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse_from_other_disk)
    store = FolderStore(tmp_path / "blobs")
    store.put_file(blob.digest, path, 10)
    assert b"".join(store.read(blob.digest)) == blob.data
    assert not path.exists()
    assert [file.name for file in (tmp_path / "blobs").rglob("*") if file.is_file()] == [
        str(blob.digest)
    ]


def test_bytes_are_synced_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("sync folder" if target.is_dir() else "sync file")
        fsync(descriptor)

    blob = Blob.make(10)
    path = blob.file(tmp_path)
    store = FolderStore(tmp_path / "blobs", step=done.append)
    store.put_file(Blob.make(10, seed=1).digest, Blob.make(10, seed=1).file(tmp_path), 10)
    (tmp_path / "blobs" / "sha256" / blob.digest[:2]).mkdir(exist_ok=True)
    done.clear()
    monkeypatch.setattr(os, "fsync", noted)
    store.put_file(blob.digest, path, 10)
    assert done == ["blob:sync", "sync file", "blob:rename", "blob:folder", "sync folder"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, Unwritable)],
)
def test_what_the_disk_refuses_is_said_and_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    blob = Blob.make(10)
    path = blob.file(tmp_path)
    store = FolderStore(tmp_path / "blobs")
    store.check()

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected):
        store.put_file(blob.digest, path, 10)
    monkeypatch.undo()
    assert store.stat(blob.digest) is None
    assert path.read_bytes() == blob.data


def test_a_folder_that_cannot_be_written_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreRefused, match="cannot be written"):
        FolderStore(tmp_path).check()


def test_a_folder_has_no_addresses(tmp_path: Path) -> None:
    assert FolderStore(tmp_path).presign(Blob.make(1).digest, 60) is None
