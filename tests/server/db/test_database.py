"""Migrations and transactions, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from sealift.server.db.database import Database, DatabaseUnusable
from sealift.server.db.tables import Base, NamespaceRow
from support.servers import NOW


def _row(name: str) -> NamespaceRow:
    return NamespaceRow(name=name, public=False, request_id="x", created_at=NOW)


def test_the_migrations_make_the_tables_that_the_code_has(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.migrate()
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection)
            assert compare_metadata(context, Base.metadata) == []


def test_servers_that_start_at_once_migrate_once(database_url: str) -> None:
    def start(number: int) -> None:
        with closing(Database(database_url)) as database:
            database.migrate()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))


def test_a_transaction_that_fails_leaves_nothing(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.migrate()

        def fail() -> None:
            with database.transaction() as session:
                session.add(_row("acme"))
                session.flush()
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        with database.reading() as session:
            assert session.query(NamespaceRow).count() == 0


def test_a_reader_waits_for_no_writer(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.migrate()
        with database.transaction() as writing:
            writing.add(_row("acme"))
            writing.flush()
            with database.reading() as session:
                assert session.query(NamespaceRow).count() == 0


def test_more_threads_than_the_pool_has_connections_all_get_one(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.migrate()

        def read(depth: int) -> int:
            if not depth:
                return 0
            with database.reading() as session:
                session.execute(text("SELECT 1"))
                return 1 + read(depth - 1)

        assert read(20) == 20


def test_a_database_of_a_newer_server_is_left_alone(database_url: str) -> None:
    with closing(Database(database_url)) as database:
        database.migrate()
        with database.transaction() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(DatabaseUnusable, match="newer server"):
            database.migrate()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sealift.db"
    file.write_bytes(b"not a database" * 1_000)
    with (
        closing(Database(f"sqlite:///{file}")) as database,
        pytest.raises(DatabaseUnusable, match=r"sealift\.db"),
    ):
        database.migrate()


def test_a_server_that_is_not_there_is_named() -> None:
    url = "postgresql+psycopg://someone:hidden@/nothing?host=/nonexistent"
    with closing(Database(url)) as database:
        with pytest.raises(DatabaseUnusable) as refused:
            database.migrate()
        assert "hidden" not in refused.value.message
        with pytest.raises(DatabaseUnusable), database.reading() as session:
            session.execute(text("SELECT 1"))


def test_an_address_that_cannot_be_is_refused() -> None:
    with pytest.raises(DatabaseUnusable, match="not usable"):
        Database("nonsense")
