"""A server's parts on a database of its own, its clock in the test's hands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from sealift.server.db.database import Database
from sealift.server.db.tables import Base
from support.postgres import PostgresServer
from support.servers import Parts, parts


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with its tables, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "sealift.db"
    with closing(Database(f"sqlite:///{file}")) as database:
        database.migrate()
    return file


@pytest.fixture(scope="session")
def migrated_postgresql(postgres: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database with its tables, to be emptied."""
    with postgres.database() as url:
        with closing(Database(url)) as database:
            database.migrate()
        yield url


@pytest.fixture
def one_server(migrated_file: Path, tmp_path: Path) -> Iterator[Parts]:
    """On SQLite alone: for what is the same on every database."""
    home = tmp_path / "server"
    home.mkdir()
    shutil.copy(migrated_file, home / "sealift.db")
    with parts(home) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Parts]:
    """On SQLite and on PostgreSQL, with empty tables."""
    if request.param == "sqlite":
        yield request.getfixturevalue("one_server")
        return
    url: str = request.getfixturevalue("migrated_postgresql")
    names = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with parts(tmp_path / "server", url) as made:
        with made.server.database.transaction() as session:
            session.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
        yield made
