"""What uploads promise, whatever store the blobs go to."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sealift.host.files import DiskFull
from sealift.protocol.names import Digest, Namespace
from sealift.server.content.errors import (
    BlobMismatch,
    OffsetMismatch,
    StoreUnavailable,
    UploadIncomplete,
    UploadInProgress,
)
from sealift.server.content.folder import FolderStore
from sealift.server.content.store import BlobStore, Publication
from sealift.server.content.uploads import Uploads
from support.blobs import Blob, StoreUnderTest

ACME = Namespace("acme")
OTHER = Namespace("other")


def send(
    uploads: Uploads,
    blob: Blob,
    *,
    start: int = 0,
    stop: int | None = None,
    namespace: Namespace = ACME,
    frame: int = 300,
) -> None:
    """Uploads a part of a blob in frames, and commits it if that was its last part."""
    stop = len(blob.data) if stop is None else stop
    with uploads.begin(namespace, blob.digest, len(blob.data), start) as upload:
        for offset in range(start, stop, frame):
            upload.append(blob.data[offset : min(offset + frame, stop)])
        if upload.complete:
            upload.commit()


def left(folder: Path) -> list[Path]:
    return list(folder.glob("*")) if folder.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


@pytest.fixture
def uploads(folder: Path, tmp_path: Path) -> Uploads:
    return Uploads(folder, FolderStore(tmp_path / "blobs"))


def stored(uploads: Uploads, blob: Blob) -> bytes:
    return b"".join(uploads.store.read(blob.digest))


def test_an_uploaded_blob_is_stored_and_nothing_is_left(
    under_test: StoreUnderTest, folder: Path
) -> None:
    blob = Blob.make(1000)
    send(Uploads(folder, under_test.store), blob)
    assert under_test.read(blob.digest) == blob.data
    assert left(folder) == []


def test_a_blob_of_many_parts_is_stored(under_test: StoreUnderTest, folder: Path) -> None:
    blob = Blob.make(36 * 1024 * 1024 + 1)
    send(Uploads(folder, under_test.store), blob, frame=1024 * 1024)
    assert hashlib.sha256(under_test.read(blob.digest)).hexdigest() == blob.digest
    assert left(folder) == []


def test_an_upload_goes_on_in_a_new_process(under_test: StoreUnderTest, folder: Path) -> None:
    blob = Blob.make(20 * 1024 * 1024)
    cut = 17 * 1024 * 1024
    send(Uploads(folder, under_test.store), blob, stop=cut, frame=1024 * 1024)
    uploads = Uploads(folder, under_test.store)
    assert uploads.staged(ACME, blob.digest) == cut
    send(uploads, blob, start=cut, frame=1024 * 1024)
    assert under_test.read(blob.digest) == blob.data
    assert left(folder) == []


def test_an_empty_blob_is_uploaded(uploads: Uploads) -> None:
    send(uploads, Blob.make(0))
    assert stored(uploads, Blob.make(0)) == b""


def test_an_upload_that_goes_on_here_does_not_read_its_bytes_again(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Blob.make(1000)
    send(uploads, blob, stop=400)

    def fail(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(os, "pread", fail)
    send(uploads, blob, start=400)
    monkeypatch.undo()
    assert stored(uploads, blob) == blob.data


def test_bytes_that_were_staged_behind_our_back_are_hashed_again(uploads: Uploads) -> None:
    blob = Blob.make(1000)
    send(uploads, blob, stop=400)
    with uploads.path(ACME, blob.digest).open("ab") as file:
        file.write(blob.data[400:500])
    send(uploads, blob, start=500)
    assert stored(uploads, blob) == blob.data


@pytest.mark.parametrize("offset", [0, 399, 401, 1000])
def test_another_offset_is_refused_and_told_the_right_one(uploads: Uploads, offset: int) -> None:
    blob = Blob.make(1000)
    send(uploads, blob, stop=400)
    with pytest.raises(OffsetMismatch) as caught:
        uploads.begin(ACME, blob.digest, 1000, offset)
    assert (caught.value.offset, caught.value.current) == (offset, 400)
    send(uploads, blob, start=400)


def test_wrong_bytes_are_refused_and_not_kept(under_test: StoreUnderTest, folder: Path) -> None:
    blob = Blob.make(1000)
    wrong = Blob(bytes(1000), blob.digest)
    got = hashlib.sha256(wrong.data).hexdigest()
    with pytest.raises(BlobMismatch, match=f"expected blob sha256:{blob.digest}, got sha256:{got}"):
        send(Uploads(folder, under_test.store), wrong)
    assert under_test.store.stat(blob.digest) is None
    assert left(folder) == []


def test_more_bytes_than_announced_are_refused_and_not_kept(uploads: Uploads, folder: Path) -> None:
    blob = Blob.make(1000)
    with (
        uploads.begin(ACME, blob.digest, 999, 0) as upload,
        pytest.raises(BlobMismatch, match="more than the announced 999 bytes"),
    ):
        upload.append(blob.data)
    assert left(folder) == []


def test_what_was_staged_under_a_greater_length_is_dropped(uploads: Uploads, folder: Path) -> None:
    blob = Blob.make(100)
    with uploads.begin(ACME, blob.digest, 1000, 0) as upload:
        upload.append(bytes(500))
    with pytest.raises(OffsetMismatch) as caught:
        uploads.begin(ACME, blob.digest, 100, 500)
    assert caught.value.current == 0
    send(uploads, blob)
    assert stored(uploads, blob) == blob.data


def test_an_incomplete_upload_is_not_committed_and_kept(uploads: Uploads) -> None:
    blob = Blob.make(1000)
    with uploads.begin(ACME, blob.digest, 1000, 0) as upload:
        upload.append(blob.data[:400])
        with pytest.raises(UploadIncomplete) as caught:
            upload.commit()
    assert caught.value.current == 400
    send(uploads, blob, start=400)


def test_one_blob_is_uploaded_once_at_a_time(uploads: Uploads) -> None:
    blob = Blob.make(1000)
    with uploads.begin(ACME, blob.digest, 1000, 0) as upload:
        upload.append(blob.data[:400])
        with pytest.raises(UploadInProgress):
            uploads.begin(ACME, blob.digest, 1000, 400)
        send(uploads, blob, namespace=OTHER)
        send(uploads, Blob.make(1000, seed=1))
    send(uploads, blob, start=400)
    assert stored(uploads, blob) == blob.data


def test_many_uploads_at_once_leave_nothing(uploads: Uploads, folder: Path) -> None:
    blobs = [Blob.make(5000, seed) for seed in range(16)]
    threads = [threading.Thread(target=send, args=(uploads, blob)) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(stored(uploads, blob) == blob.data for blob in blobs)
    assert left(folder) == []


def test_a_full_disk_is_said_and_the_upload_goes_on_afterwards(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Blob.make(1000)
    write = os.write

    def half_then_full(descriptor: int, data: memoryview) -> int:
        if len(data) < 300:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:100])

    with uploads.begin(ACME, blob.digest, 1000, 0) as upload:
        upload.append(blob.data[:300])
        monkeypatch.setattr(os, "write", half_then_full)
        with pytest.raises(DiskFull):
            upload.append(blob.data[300:600])
        monkeypatch.undo()
        assert upload.offset == uploads.staged(ACME, blob.digest) == 300
    send(uploads, blob, start=300)
    assert stored(uploads, blob) == blob.data


class Unavailable(FolderStore):
    """A store that does not take anything."""

    def publish(self, digest: Digest, path: Path, length: int) -> Publication:
        publication = super().publish(digest, path, length)
        publication.commit = self.refuse  # type: ignore[method-assign]
        return publication

    def refuse(self) -> None:
        raise StoreUnavailable("down")


def test_an_upload_that_the_store_did_not_take_is_only_committed_again(
    folder: Path, tmp_path: Path
) -> None:
    blob = Blob.make(1000)
    with pytest.raises(StoreUnavailable):
        send(Uploads(folder, Unavailable(tmp_path / "blobs")), blob)
    uploads = Uploads(folder, FolderStore(tmp_path / "blobs"))
    assert uploads.staged(ACME, blob.digest) == 1000
    send(uploads, blob, start=1000)
    assert stored(uploads, blob) == blob.data
    assert left(folder) == []


def test_only_what_was_abandoned_is_swept(uploads: Uploads, folder: Path) -> None:
    old, new, running = (Blob.make(1000, seed) for seed in range(3))
    for blob in (old, new):
        send(uploads, blob, stop=400)
    os.utime(uploads.path(ACME, old.digest), (1000, 1000))
    (folder / "acme" / "notes.txt").write_text("not ours")
    with uploads.begin(ACME, running.digest, 1000, 0) as upload:
        upload.append(running.data[:300])
        os.utime(uploads.path(ACME, running.digest), (1000, 1000))
        assert uploads.sweep(untouched_since=2000) == 1
        assert uploads.staged(ACME, old.digest) == 0
        assert uploads.staged(ACME, new.digest) == 400
        upload.append(running.data[300:])
        upload.commit()


def test_only_the_last_few_cut_uploads_are_remembered(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealift.server.content.uploads.REMEMBERED", 2)
    blobs = [Blob.make(1000, seed) for seed in range(4)]
    for blob in blobs:
        send(uploads, blob, stop=400)
    assert len(uploads._hashed) == 2
    for blob in blobs:
        send(uploads, blob, start=400)
    assert all(stored(uploads, blob) == blob.data for blob in blobs)


KILLED = """
import os, sys
from pathlib import Path
from sealift.protocol.names import Digest, Namespace
from sealift.server.content.folder import FolderStore
from sealift.server.content.uploads import Uploads

home, source, digest, fatal = Path(sys.argv[1]), Path(sys.argv[2]), Digest(sys.argv[3]), sys.argv[4]
def step(name):
    if name == fatal:
        os._exit(9)
uploads = Uploads(home / "uploads", FolderStore(home / "blobs", step=step), step=step)
data = source.read_bytes()
with uploads.begin(Namespace("acme"), digest, len(data), 0) as upload:
    upload.append(data)
    upload.commit()
"""


@pytest.mark.parametrize(
    "step", ["upload:publish", "blob:sync", "blob:rename", "blob:folder", "upload:remove"]
)
def test_after_a_kill_at_any_step_the_same_upload_succeeds(tmp_path: Path, step: str) -> None:
    blob = Blob.make(1000)
    source = blob.file(tmp_path)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(source), blob.digest, step]
    assert subprocess.run(command, check=False).returncode == 9
    store: BlobStore = FolderStore(tmp_path / "blobs")
    assert store.stat(blob.digest) in {None, 1000}
    uploads = Uploads(tmp_path / "uploads", store)
    send(uploads, blob, start=uploads.staged(ACME, blob.digest))
    assert stored(uploads, blob) == blob.data
    assert left(tmp_path / "uploads") == []
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [path.name for path in files] == [str(blob.digest)]
