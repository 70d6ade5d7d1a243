"""What blobs in a bucket promise beyond the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from pydantic import SecretStr, ValidationError

from sealift.server.content.errors import (
    BlobTruncated,
    ContentError,
    StoreRefused,
    StoreUnavailable,
)
from sealift.server.content.s3 import REOPENINGS, S3Settings, S3Store
from sealift.server.content.s3_bucket import ATTEMPTS
from sealift.server.content.s3_upload import MAX_PARTS, PART_BYTES, part_bytes
from support.blobs import Blob
from support.ports import free_port
from support.proxy import FaultyProxy, faulty_proxy
from support.s3 import S3Server

MIB = 1024 * 1024


@contextmanager
def opened(settings: S3Settings, **changes: object) -> Iterator[S3Store]:
    with closing(S3Store(settings.model_copy(update=changes), pause=lambda _: None)) as store:
        yield store


@contextmanager
def behind_proxy(settings: S3Settings) -> Iterator[tuple[S3Store, FaultyProxy]]:
    url = urlsplit(settings.endpoint)
    with (
        faulty_proxy(url.hostname or "", url.port or 0) as proxy,
        opened(settings, endpoint=f"http://127.0.0.1:{proxy.port}") as store,
    ):
        yield store, proxy


def put(store: S3Store, blob: Blob, folder: Path) -> None:
    store.put_file(blob.digest, blob.file(folder), len(blob.data))


def get(url: str, byte_range: str | None = None) -> urllib3.BaseHTTPResponse:
    headers = {"Range": f"bytes={byte_range}"} if byte_range else {}
    with urllib3.PoolManager(timeout=10.0, retries=False) as pool:
        return pool.request("GET", url, headers=headers)


def test_a_presigned_address_serves_ranges_without_credentials(
    settings: S3Settings, tmp_path: Path
) -> None:
    blob = Blob.make(1000)
    with opened(settings) as store:
        put(store, blob, tmp_path)
        url = store.presign(blob.digest, 60)
    assert url is not None
    answer = get(url, "10-19")
    assert (answer.status, answer.data) == (206, blob.data[10:20])
    assert answer.headers["Content-Range"] == "bytes 10-19/1000"


def test_a_presigned_address_is_for_one_blob_only(settings: S3Settings, tmp_path: Path) -> None:
    blob, other = Blob.make(1000), Blob.make(1000, seed=1)
    with opened(settings) as store:
        put(store, blob, tmp_path)
        put(store, other, tmp_path)
        url = store.presign(blob.digest, 60)
    assert url is not None
    assert get(url.replace(blob.digest, other.digest)).status == 403
    assert get(url.partition("?")[0]).status == 403


def test_presigned_addresses_lead_to_the_public_endpoint(settings: S3Settings) -> None:
    with opened(settings, public_endpoint="https://cdn.example.com") as store:
        url = store.presign(Blob.make(1).digest, 60)
    assert url is not None
    assert url.startswith("https://cdn.example.com/")


def test_a_file_that_changed_after_it_was_hashed_is_refused_by_the_store(
    settings: S3Settings, tmp_path: Path
) -> None:
    blob = Blob.make(1000)
    path = blob.file(tmp_path)
    path.write_bytes(bytes(1000))
    with opened(settings) as store:
        with pytest.raises(ContentError):
            store.put_file(blob.digest, path, 1000)
        assert store.stat(blob.digest) is None


def test_an_aborted_publication_leaves_no_parts_in_the_store(
    s3_server: S3Server, settings: S3Settings, tmp_path: Path
) -> None:
    blob = Blob.make(20 * MIB)
    with opened(settings) as store:
        with store.publish(blob.digest, blob.file(tmp_path), len(blob.data)) as publication:
            publication.advance(len(blob.data))
        left = s3_server.client()._list_multipart_uploads(
            settings.bucket, prefix=store.key(blob.digest)
        )
    assert not left.uploads


@pytest.mark.parametrize("answer_was_lost", [True, False])
def test_an_upload_that_is_gone_counts_only_if_its_object_is_there(
    s3_server: S3Server, settings: S3Settings, tmp_path: Path, answer_was_lost: bool
) -> None:
    blob = Blob.make(20 * MIB)
    client = s3_server.client()

    def behind_our_back(name: str) -> None:
        if name == "blob:complete":
            key = store.key(blob.digest)
            (upload,) = client._list_multipart_uploads(settings.bucket, prefix=key).uploads
            client._abort_multipart_upload(settings.bucket, key, upload.upload_id or "")
            if answer_was_lost:
                client.fput_object(
                    bucket_name=settings.bucket, object_name=key, file_path=str(other)
                )

    other = blob.file(tmp_path)
    (tmp_path / "staged").mkdir()
    path = blob.file(tmp_path / "staged")
    with closing(S3Store(settings, step=behind_our_back, pause=lambda _: None)) as store:
        if answer_was_lost:
            store.put_file(blob.digest, path, len(blob.data))
            assert b"".join(store.read(blob.digest)) == blob.data
        else:
            with pytest.raises(BlobTruncated):
                store.put_file(blob.digest, path, len(blob.data))


def test_a_store_that_asks_to_try_later_is_tried_again(
    settings: S3Settings, tmp_path: Path
) -> None:
    blob = Blob.make(1000)
    with behind_proxy(settings) as (store, proxy):
        proxy.slow_downs = ATTEMPTS - 1
        put(store, blob, tmp_path)
        assert store.stat(blob.digest) == 1000


def test_a_store_that_always_asks_to_try_later_is_given_up(settings: S3Settings) -> None:
    with behind_proxy(settings) as (store, proxy):
        proxy.slow_downs = 2 * ATTEMPTS
        with pytest.raises(StoreUnavailable):
            store.check()
        assert proxy.connections == ATTEMPTS


def test_a_part_that_broke_is_sent_again(settings: S3Settings, tmp_path: Path) -> None:
    blob = Blob.make(20 * MIB)
    with behind_proxy(settings) as (store, proxy):
        with store.publish(blob.digest, blob.file(tmp_path), len(blob.data)) as publication:
            publication.advance(PART_BYTES - 1)
            proxy.cut_after = [0, 0]
            publication.advance(len(blob.data))
            publication.commit()
        assert b"".join(store.read(blob.digest)) == blob.data


def test_a_read_goes_on_where_its_connection_broke(settings: S3Settings, tmp_path: Path) -> None:
    blob = Blob.make(4 * MIB)
    with opened(settings) as direct:
        put(direct, blob, tmp_path)
    with behind_proxy(settings) as (store, proxy):
        proxy.cut_body_after = [3 * MIB, 0, 1000]
        assert b"".join(store.read(blob.digest, 0, len(blob.data))) == blob.data
        # Within the first lines of the answer.
        proxy.cut_after = [20, 60, 100]
        assert store.stat(blob.digest) == len(blob.data)
        proxy.cut_after = [20, 60, 100]
        assert b"".join(store.read(blob.digest, 0, len(blob.data))) == blob.data


def test_a_read_that_never_brings_a_byte_is_given_up(settings: S3Settings, tmp_path: Path) -> None:
    blob = Blob.make(4 * MIB)
    with opened(settings) as direct:
        put(direct, blob, tmp_path)
    with behind_proxy(settings) as (store, proxy):
        proxy.cut_body_after = [0] * 20
        with pytest.raises(StoreUnavailable):
            b"".join(store.read(blob.digest, 0, len(blob.data)))
        assert proxy.connections == 1 + REOPENINGS


def test_a_missing_bucket_is_named(settings: S3Settings) -> None:
    with (
        opened(settings, bucket="not-there") as store,
        pytest.raises(StoreRefused, match="not-there"),
    ):
        store.check()


def test_a_wrong_key_is_told_apart_from_a_missing_bucket(settings: S3Settings) -> None:
    with (
        opened(settings, secret_key=SecretStr("wrong-secret")) as store,
        pytest.raises(StoreRefused, match="bucket, keys and region"),
    ):
        store.check()


def unreachable() -> S3Settings:
    return S3Settings(
        endpoint=f"http://127.0.0.1:{free_port()}",
        bucket="blobs",
        access_key="a",
        secret_key=SecretStr("s"),
    )


def test_a_store_that_is_down_is_tried_again_and_named() -> None:
    settings = unreachable()
    pauses: list[float] = []
    with (
        closing(S3Store(settings, pause=pauses.append)) as store,
        pytest.raises(StoreUnavailable, match=settings.endpoint),
    ):
        store.check()
    assert len(pauses) == ATTEMPTS - 1
    assert sum(pauses) <= 4


def test_a_plain_server_behind_https_is_refused_with_a_hint(settings: S3Settings) -> None:
    endpoint = settings.endpoint.replace("http://", "https://")
    with opened(settings, endpoint=endpoint) as store, pytest.raises(StoreRefused, match="ca_file"):
        store.check()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "s3://host", "https://", "https://h/path"])
def test_an_endpoint_is_an_address(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="https://HOST"):
        S3Settings(endpoint=endpoint, bucket="abc", access_key="a", secret_key=SecretStr("s"))


@pytest.mark.parametrize("length", [PART_BYTES + 1, 160 * 10**9, 5 * 1024**4])
def test_no_blob_needs_more_parts_than_s3_permits(length: int) -> None:
    assert part_bytes(length) % MIB == 0
    assert -(-length // part_bytes(length)) <= MAX_PARTS


def test_the_secret_is_in_no_text_of_the_settings() -> None:
    settings = unreachable().model_copy(update={"secret_key": SecretStr("hunter2")})
    assert "hunter2" not in f"{settings} {settings!r} {settings.model_dump_json()}"
