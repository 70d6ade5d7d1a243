"""Namespaces over plain HTTP: for any TUF client, with ranges, and caches that hide nothing."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import structlog
import urllib3
from sqlalchemy import text
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater, UpdaterConfig

from sealift.host.hashing import sha256_bytes
from sealift.host.tokens import make_token
from sealift.protocol.documents import Manifest
from sealift.protocol.names import Digest, Namespace
from sealift.protocol.parsing import encode_document
from sealift.server.content.folder import FolderStore
from support.publishers import Publisher
from support.servers import ACME, NOW, Running, parts, running

OPEN = Namespace("open")
FOREVER = "public, max-age=31536000, immutable"
WEIGHTS = b"weights"
BLOB = f"/blobs/sha256/{sha256_bytes(WEIGHTS)}"


@pytest.fixture(scope="module")
def publisher(served: Running) -> Publisher:
    served.parts.released(ACME)
    return served.parts.released(OPEN, public=True)


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(timeout=20.0, retries=False) as made:
        yield made


@pytest.fixture
def get(served: Running, publisher: Publisher, pool: urllib3.PoolManager) -> Get:
    return Get(served, pool)


class Get:
    """Requests to a server."""

    def __init__(self, served: Running, pool: urllib3.PoolManager) -> None:
        self._served = served
        self._pool = pool

    def __call__(
        self, path: str, *, method: str = "GET", token: str = "", **headers: str
    ) -> urllib3.BaseHTTPResponse:
        """A request; underscores in the names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        return self._pool.request(method, f"http://{self._served.edges.http}{path}", headers=sent)


# --- stock clients ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix_targets_with_hash", [True, False])
def test_a_stock_client_reads_a_release(tmp_path: Path, prefix_targets_with_hash: bool) -> None:
    """python-tuf's own Updater with its own fetcher, then the blob that the manifest names."""
    with parts(tmp_path / "server") as made:
        made.clock.now = int(time.time())
        publisher = made.released(OPEN, public=True)
        with running(made) as opened, urllib3.PoolManager(retries=False) as pool:
            url = f"http://{opened.edges.http}/{OPEN}"
            digest = sha256_bytes(encode_document(publisher.manifest()))
            updater = Updater(
                metadata_dir=str(tmp_path),
                metadata_base_url=f"{url}/metadata/",
                target_dir=str(tmp_path),
                target_base_url=f"{url}/targets/",
                config=UpdaterConfig(prefix_targets_with_hash=prefix_targets_with_hash),
                bootstrap=publisher.current["root"],
            )
            updater.refresh()
            target = updater.get_targetinfo("model/releases/1.0.0.json")
            assert target is not None
            if prefix_targets_with_hash:
                manifest = Path(updater.download_target(target))
            else:
                target.path = f"{digest}.{target.path}"  # as tough asks
                manifest = Path(updater.download_target(target))
            (file,) = Manifest.parse(manifest.read_bytes()).files
            answer = pool.request(
                "GET", f"{url}/blobs/sha256/{file.sha256}", headers={"range": "bytes=1-3"}
            )
    assert (answer.status, answer.data) == (206, b"eig")


def test_a_stock_client_without_a_token_gets_nothing_of_a_private_namespace(
    served: Running, publisher: Publisher, tmp_path: Path
) -> None:
    updater = Updater(
        metadata_dir=str(tmp_path),
        metadata_base_url=f"http://{served.edges.http}/{ACME}/metadata/",
        bootstrap=publisher.current["root"],
    )
    with pytest.raises(DownloadHTTPError) as failed:
        updater.refresh()
    assert failed.value.status_code == 401


# --- ranges (RFC 9110 section 14) -------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "data", "said"),
    [
        ("bytes=0-", b"weights", "bytes 0-6/7"),
        ("bytes=0-0", b"w", "bytes 0-0/7"),
        ("bytes=2-3", b"ig", "bytes 2-3/7"),
        ("bytes=5-99", b"ts", "bytes 5-6/7"),
        ("bytes=6-", b"s", "bytes 6-6/7"),
        ("bytes=-2", b"ts", "bytes 5-6/7"),
        ("bytes=-99", b"weights", "bytes 0-6/7"),
    ],
)
def test_a_range_is_answered_with_exactly_that(
    get: Get, asked: str, data: bytes, said: str
) -> None:
    answer = get(f"/{OPEN}{BLOB}", range=asked)
    assert (answer.status, answer.data) == (206, data)
    assert answer.headers["content-range"] == said
    assert answer.headers["content-length"] == str(len(data))
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("asked", ["bytes=7-", "bytes=99-100", "bytes=-0"])
def test_a_range_beyond_the_blob_is_not_satisfiable(get: Get, asked: str) -> None:
    answer = get(f"/{OPEN}{BLOB}", range=asked)
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */7")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "asked", ["", "bytes=", "bytes=-", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "0-1"]
)
def test_what_is_no_single_range_brings_the_whole(get: Get, asked: str) -> None:
    answer = get(f"/{OPEN}{BLOB}", range=asked)
    assert (answer.status, answer.data) == (200, WEIGHTS)
    assert answer.headers["accept-ranges"] == "bytes"


def test_a_range_of_what_was_there_before_brings_the_whole(get: Get) -> None:
    etag = f'"{sha256_bytes(WEIGHTS)}"'
    assert get(f"/{OPEN}{BLOB}", range="bytes=0-1", if_range=etag).status == 206
    assert get(f"/{OPEN}{BLOB}", range="bytes=0-1", if_range='"other"').data == WEIGHTS


def test_head_says_what_get_would_bring(get: Get) -> None:
    for path in (BLOB, "/metadata/timestamp.json"):
        brought = get(f"/{OPEN}{path}")
        said = get(f"/{OPEN}{path}", method="HEAD")
        assert (said.status, said.data) == (200, b"")
        for name in ("content-length", "content-type", "cache-control"):
            assert said.headers[name] == brought.headers[name]
    assert get(f"/{OPEN}{BLOB}", method="HEAD", range="bytes=0-1").status == 200


def test_an_empty_blob_is_whole(served: Running, get: Get) -> None:
    digest = served.parts.upload(OPEN, b"")
    answer = get(f"/{OPEN}/blobs/sha256/{digest}")
    assert (answer.status, answer.data) == (200, b"")


def test_a_large_blob_comes_whole(served: Running, get: Get) -> None:
    content = bytes(range(256)) * 20_000
    digest = served.parts.upload(OPEN, content)
    assert get(f"/{OPEN}/blobs/sha256/{digest}").data == content


def test_a_blob_that_the_store_lost_is_not_found(served: Running, get: Get) -> None:
    digest = served.parts.upload(OPEN, b"to be lost")
    served.parts.server.uploads.store.delete(digest)
    assert get(f"/{OPEN}/blobs/sha256/{digest}").status == 404


# --- caches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metadata/1.root.json", "/metadata/2.targets.json", BLOB])
def test_what_never_changes_may_be_kept_for_ever(get: Get, path: str) -> None:
    answer = get(f"/{OPEN}{path}")
    assert (answer.status, answer.headers["cache-control"]) == (200, FOREVER)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metadata/timestamp.json", 200),
        ("/metadata/2.root.json", 404),
        ("/metadata/nonsense", 404),
        ("/metadata/%00", 404),
        ("/targets/model/releases/1.0.0.json", 404),
        ("/blobs/sha256/nonsense", 404),
        (f"/blobs/sha256/{'0' * 64}", 404),
        ("", 404),
        ("/metadata/../../x", 404),
    ],
)
def test_what_changes_or_is_not_there_is_never_kept(get: Get, path: str, status: int) -> None:
    """A cached 404 of the next root would hide a key rotation."""
    answer = get(f"/{OPEN}{path}")
    assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")


@pytest.mark.parametrize("path", ["/metadata/1.root.json", BLOB])
def test_what_is_read_with_a_token_stays_with_its_reader(
    served: Running, get: Get, path: str
) -> None:
    """Else a shared cache would give a private namespace to anyone."""
    token = served.parts.token("device", ACME)
    answer = get(f"/{ACME}{path}", token=token)
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, no-store")


# --- callers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metadata/1.root.json", "/metadata/timestamp.json", BLOB])
def test_a_private_namespace_is_for_its_own(served: Running, get: Get, path: str) -> None:
    nobody = get(f"/{ACME}{path}")
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert get(f"/{ACME}{path}", token=make_token("device")).status == 401
    assert get(f"/{ACME}{path}", token=served.parts.token("device", OPEN)).status == 403
    assert get(f"/{ACME}{path}", token=served.parts.token("device", ACME)).status == 200


def test_a_private_namespace_looks_like_one_that_is_not_there(served: Running, get: Get) -> None:
    token = served.parts.token("device", OPEN)
    for path in ("/metadata/1.root.json", BLOB):
        for known in ("", token):
            there, missing = (get(f"/{one}{path}", token=known) for one in (ACME, "nowhere"))
            assert there.status == missing.status
            assert there.data.replace(b"acme", b"nowhere") == missing.data


def test_an_invite_reads_no_content(served: Running, get: Get) -> None:
    token = served.parts.token("invite", ACME)
    assert get(f"/{ACME}/metadata/1.root.json", token=token).status == 200
    assert get(f"/{ACME}{BLOB}", token=token).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_is_written_over_http(get: Get, method: str) -> None:
    assert get(f"/{OPEN}{BLOB}", method=method).status == 405


def test_the_server_says_that_it_lives(get: Get) -> None:
    assert get("/healthz").status == 200


# --- failures ---------------------------------------------------------------------------------


def test_a_failure_is_no_404_and_says_nothing(tmp_path: Path) -> None:
    """A client takes a 404 of the next root as: there is none."""
    with parts(tmp_path / "server") as made:
        made.released(OPEN, public=True)
        with running(made) as opened, urllib3.PoolManager(retries=False) as pool:
            with made.server.database.transaction() as session:
                session.execute(text("DROP TABLE metadata_files"))
            with structlog.testing.capture_logs() as logs:
                answer = Get(opened, pool)(f"/{OPEN}/metadata/{NOW}.snapshot.json")
    assert (answer.status, answer.headers["cache-control"]) == (503, "no-store")
    assert b"metadata_files" not in answer.data
    assert "metadata_files" not in str(logs)
    assert [one["event"] for one in logs] == ["failed"]


class Broken(FolderStore):
    """A store that fails in a way that nobody expected."""

    def read(
        self, digest: Digest, offset: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """Fails."""
        raise ZeroDivisionError("the secret in an exception")


def test_what_nobody_expected_is_told_by_an_id_alone(tmp_path: Path) -> None:
    with parts(tmp_path / "server") as made:
        made.released(OPEN, public=True)
        made.server.uploads.store = Broken(tmp_path)
        with (
            running(made) as opened,
            urllib3.PoolManager(retries=False) as pool,
            structlog.testing.capture_logs() as logs,
        ):
            answer = Get(opened, pool)(f"/{OPEN}{BLOB}")
    assert (answer.status, answer.headers["cache-control"]) == (500, "no-store")
    (line,) = logs
    assert line["incident"] in answer.data.decode()
    assert b"secret" not in answer.data
    assert "secret" in str(line["exc_info"])
