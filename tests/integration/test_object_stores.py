"""The whole way with content in a real object store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.server.content.s3_bucket import S3Settings
from support.s3 import S3Server
from support.walks import Walk, walking


@pytest.fixture
def bucket(s3_server: S3Server) -> S3Settings:
    return s3_server.make_bucket()


@pytest.fixture
def walk(bucket: S3Settings, tmp_path: Path) -> Iterator[Walk]:
    environment = {
        "SEALIFT_SERVER_BLOBS": "s3",
        "SEALIFT_SERVER_S3__ENDPOINT": bucket.endpoint,
        "SEALIFT_SERVER_S3__BUCKET": bucket.bucket,
        "SEALIFT_SERVER_S3__ACCESS_KEY": bucket.access_key,
        "SEALIFT_SERVER_S3__SECRET_KEY": bucket.secret_key.get_secret_value(),
        "SEALIFT_SERVER_S3__PREFIX": bucket.prefix,
    }
    with walking(tmp_path, environment) as walk:
        yield walk


def test_a_release_goes_through_an_object_store(
    walk: Walk, bucket: S3Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (release / "model.gguf").write_bytes(bytes(range(256)) * 50_000)
    (release / "config.json").write_text("{}")
    publisher, device = tmp_path / "publisher", tmp_path / "device"
    assert walk.init(publisher, "acme").returncode == 0
    walk.done(publisher, "push", str(release), "llm@1.0.0", "--kind", "model", "--to", "stable")
    join = walk.json(publisher, "invite", "--follow", "llm")["join"]
    walk.done(device, "join", join)
    walk.done(device, "update")
    assert walk.json(device, "verify", "acme/llm")["ok"]
    names = _names(s3_server, bucket)
    # Two files, and the list of the pieces of the long one; nothing of it on the server's disk.
    assert len(names) == 3
    assert not (walk.server / "blobs").exists()


def test_a_store_that_swaps_bytes_makes_no_device_run_them(
    walk: Walk, bucket: S3Settings, s3_server: S3Server, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (release / "prompt.txt").write_text("be honest")
    publisher, device = tmp_path / "publisher", tmp_path / "device"
    assert walk.init(publisher, "acme").returncode == 0
    push = ("push", str(release), "--kind", "prompt", "--to", "stable")
    walk.done(publisher, *push, "voice@1.0.0")
    walk.done(device, "join", walk.json(publisher, "invite", "--follow", "voice")["join"])
    walk.done(device, "update")
    (release / "prompt.txt").write_text("be modest")
    digest_before = _names(s3_server, bucket)
    walk.done(publisher, *push, "voice@1.1.0")
    (new,) = _names(s3_server, bucket) - digest_before
    _overwrite(s3_server, bucket, new, b"be wicked")
    refused = walk.run(device, "update")
    assert refused.returncode == 1
    assert "it should have SHA-256" in refused.stderr
    used = walk.done(device, "use", "acme/voice", "--", "sh", "-c", "cat $SEALIFT_PATH/*")
    assert used.stdout == "be honest"


def _names(server: S3Server, bucket: S3Settings) -> set[str]:
    objects = server.client().list_objects(bucket_name=bucket.bucket, recursive=True)
    return {str(item.object_name) for item in objects}


def _overwrite(server: S3Server, bucket: S3Settings, name: str, data: bytes) -> None:
    server.client().put_object(
        bucket_name=bucket.bucket, object_name=name, data=io.BytesIO(data), length=len(data)
    )
