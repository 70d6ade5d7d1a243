"""The stores that the same tests run against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from sealift.protocol.names import Digest
from sealift.server.content.folder import FolderStore
from sealift.server.content.s3 import S3Settings, S3Store
from support.blobs import StoreUnderTest
from support.s3 import S3Server

STORES = [
    "folder",
    "seaweedfs",
    pytest.param("minio", marks=pytest.mark.system),
    pytest.param("versitygw", marks=pytest.mark.system),
]


@pytest.fixture
def settings(s3_server: S3Server) -> S3Settings:
    """A new bucket on each S3 server in turn."""
    return s3_server.make_bucket()


@pytest.fixture(params=STORES)
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """Each store in turn, empty."""
    if request.param == "folder":
        yield _folder(tmp_path / "blobs")
        return
    server: S3Server = request.getfixturevalue(request.param)
    settings = server.make_bucket()
    client = server.client()
    with closing(S3Store(settings, pause=lambda _: None)) as store:

        def overwrite(digest: Digest, data: bytes) -> None:
            client.put_object(
                bucket_name=settings.bucket,
                object_name=store.key(digest),
                data=BytesIO(data),
                length=len(data),
            )

        yield StoreUnderTest(store, overwrite)


def _folder(folder: Path) -> StoreUnderTest:
    def overwrite(digest: Digest, data: bytes) -> None:
        (folder / "sha256" / digest[:2] / digest).write_bytes(data)

    return StoreUnderTest(FolderStore(folder), overwrite)
