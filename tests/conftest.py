"""Real servers for every test that asks for one: each started once a session, when first needed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from support.daemons import LOGS, tail
from support.minio import minio as run_minio
from support.postgres import PostgresServer
from support.postgres import postgres as run_postgres
from support.s3 import S3Server
from support.seaweedfs import seaweedfs as run_seaweedfs
from support.versitygw import versitygw as run_versitygw

S3_SERVERS = [
    "seaweedfs",
    pytest.param("minio", marks=pytest.mark.system),
    pytest.param("versitygw", marks=pytest.mark.system),
]


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real SeaweedFS."""
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real MinIO; only for tests marked `system`."""
    with run_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real versitygw; only for tests marked `system`."""
    with run_versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(params=S3_SERVERS)
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each S3 server in turn."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    with run_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of its own, on SQLite and on PostgreSQL, as a URL for SQLAlchemy."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'sealift.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the log of the server that a failed test ran against."""
    report = yield
    if report.failed:
        report.sections += [
            (f"log of {name}", tail(log)) for name, log in LOGS.items() if name in item.nodeid
        ]
    return report
