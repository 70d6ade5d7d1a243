"""What every place that keeps blobs promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealift.server.content.errors import BlobNotFound, BlobTruncated
from sealift.server.content.store import FRAME_BYTES
from support.blobs import Blob, StoreUnderTest

MIB = 1024 * 1024


def test_a_published_blob_is_read_back_in_frames(
    under_test: StoreUnderTest, tmp_path: Path
) -> None:
    blob = Blob.make(3 * MIB + 17)
    under_test.put(blob, tmp_path)
    assert under_test.store.stat(blob.digest) == len(blob.data)
    frames = list(under_test.store.read(blob.digest))
    assert b"".join(frames) == blob.data
    assert max(map(len, frames)) <= FRAME_BYTES


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (1, 10), (FRAME_BYTES - 1, 2), (100, None), (2 * MIB, 0), (2 * MIB, None), (0, 0)],
)
def test_exactly_the_range_is_read(
    under_test: StoreUnderTest, tmp_path: Path, offset: int, length: int | None
) -> None:
    blob = Blob.make(2 * MIB)
    under_test.put(blob, tmp_path)
    end = None if length is None else offset + length
    assert under_test.read(blob.digest, offset, length) == blob.data[offset:end]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1001), (999, 2), (1000, 1), (1001, None), (5000, 1)]
)
def test_a_range_past_the_end_says_how_much_there_is(
    under_test: StoreUnderTest, tmp_path: Path, offset: int, length: int | None
) -> None:
    blob = Blob.make(1000)
    under_test.put(blob, tmp_path)
    with pytest.raises(BlobTruncated) as caught:
        under_test.read(blob.digest, offset, length)
    assert (caught.value.digest, caught.value.got) == (blob.digest, 1000)


def test_a_blob_that_lost_its_end_is_noticed(under_test: StoreUnderTest, tmp_path: Path) -> None:
    blob = Blob.make(2 * MIB)
    under_test.put(blob, tmp_path)
    under_test.overwrite(blob.digest, blob.data[:MIB])
    with pytest.raises(BlobTruncated):
        under_test.read(blob.digest, 0, len(blob.data))


def test_an_empty_blob_is_a_blob(under_test: StoreUnderTest, tmp_path: Path) -> None:
    blob = Blob.make(0)
    under_test.put(blob, tmp_path)
    assert under_test.store.stat(blob.digest) == 0
    assert under_test.read(blob.digest) == b""


@pytest.mark.parametrize("length", [None, 0, 5])
def test_a_missing_blob_is_named(under_test: StoreUnderTest, length: int | None) -> None:
    digest = Blob.make(10).digest
    assert under_test.store.stat(digest) is None
    with pytest.raises(BlobNotFound) as caught:
        under_test.read(digest, 0, length)
    assert caught.value.digest == digest


def test_a_deleted_blob_is_gone_and_may_be_deleted_again(
    under_test: StoreUnderTest, tmp_path: Path
) -> None:
    blob = Blob.make(10)
    under_test.put(blob, tmp_path)
    under_test.store.delete(blob.digest)
    under_test.store.delete(blob.digest)
    assert under_test.store.stat(blob.digest) is None


def test_publishing_again_restores_a_damaged_blob(
    under_test: StoreUnderTest, tmp_path: Path
) -> None:
    blob = Blob.make(1000)
    under_test.put(blob, tmp_path)
    under_test.overwrite(blob.digest, bytes(1000))
    under_test.put(blob, tmp_path)
    assert under_test.read(blob.digest) == blob.data


def test_a_large_blob_appears_at_once_when_it_is_committed(
    under_test: StoreUnderTest, tmp_path: Path
) -> None:
    blob = Blob.make(36 * MIB + 5)
    path = blob.file(tmp_path)
    with under_test.store.publish(blob.digest, path, len(blob.data)) as publication:
        for available in range(0, len(blob.data), 5 * MIB):
            publication.advance(available)
        publication.advance(len(blob.data))
        assert under_test.store.stat(blob.digest) is None
        publication.commit()
    assert under_test.store.stat(blob.digest) == len(blob.data)
    assert under_test.read(blob.digest, 15 * MIB, 20 * MIB) == blob.data[15 * MIB : 35 * MIB]


def test_an_aborted_publication_leaves_the_file_and_nothing_else(
    under_test: StoreUnderTest, tmp_path: Path
) -> None:
    blob = Blob.make(20 * MIB)
    path = blob.file(tmp_path)
    with under_test.store.publish(blob.digest, path, len(blob.data)) as publication:
        publication.advance(len(blob.data))
    assert under_test.store.stat(blob.digest) is None
    assert path.read_bytes() == blob.data


@pytest.mark.parametrize("length", [1000, 17 * MIB])
def test_a_file_that_is_too_short_is_not_published(
    under_test: StoreUnderTest, tmp_path: Path, length: int
) -> None:
    blob = Blob.make(length)
    path = blob.file(tmp_path)
    path.write_bytes(blob.data[:-1])
    with pytest.raises(BlobTruncated):
        under_test.store.put_file(blob.digest, path, length)
    assert under_test.store.stat(blob.digest) is None


def test_many_may_publish_one_blob_at_once(under_test: StoreUnderTest, tmp_path: Path) -> None:
    blob = Blob.make(MIB)
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda folder: under_test.put(blob, folder), folders))
    assert under_test.read(blob.digest) == blob.data


def test_a_read_may_be_left_halfway(under_test: StoreUnderTest, tmp_path: Path) -> None:
    blob = Blob.make(3 * MIB)
    under_test.put(blob, tmp_path)
    frames = under_test.store.read(blob.digest)
    first = next(frames)
    frames.close()
    assert blob.data.startswith(first)
    assert under_test.read(blob.digest) == blob.data


def test_a_usable_store_passes_its_check(under_test: StoreUnderTest) -> None:
    under_test.store.check()
