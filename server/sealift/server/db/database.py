"""The engine and its transactions: SQLite for one machine, PostgreSQL for more.

On SQLite every transaction takes the write lock when it begins: its default, deferred ones lose
updates silently. Commits are synced (`synchronous=FULL`), as a version of signed metadata that was
served must never be used twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_random

from sealift.host.files import DiskFull
from sealift.protocol.errors import SealiftError

BUSY_S = 30
_MIGRATION = 0x5EA11F7
"""PostgreSQL's lock for migrations, any number of our own."""


class DatabaseUnusable(SealiftError):
    """The database cannot be reached or is not what it should be."""


class Database:
    """The server's database.

    Args:
        url: As SQLAlchemy writes it: `sqlite:///PATH` or `postgresql+psycopg://…`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        options: dict[str, Any] = {"sealift_reading": True}
        if not self.is_sqlite:
            # Each statement of its default level sees another state.
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        reading = self.engine.execution_options(**options)
        self._reading = sessionmaker(reading, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        """True on SQLite, where a transaction holds the only write lock."""
        return self.engine.dialect.name == "sqlite"

    def migrate(self) -> None:
        """Brings the tables up to date.

        Raises:
            DatabaseUnusable: If that cannot be done.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "alembic"))
        try:
            with self.engine.begin() as connection:
                if not self.is_sqlite:  # of two servers that start at once, one does it
                    connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION)))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseUnusable(
                f"the database {self.engine.url.render_as_string()} was made by a newer server: "
                f"{error}",
                hint="Install that version again, or restore the backup from before.",
            ) from error
        except (SQLAlchemyError, OSError) as error:
            raise DatabaseUnusable(
                f"the database {self.engine.url.render_as_string()} cannot be used: "
                f"{getattr(error, 'orig', None) or error}",
                hint="Check its address and that it runs.",
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the block's end, rolled back if it raises.

        Raises:
            DatabaseUnusable: If the database cannot be reached.
            DiskFull: If there is no room for it.
        """
        with self._begin(self._sessions) as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that only reads: it waits for no writer, and sees one state.

        Raises:
            DatabaseUnusable: If the database cannot be reached.
        """
        with self._begin(self._reading) as session:
            yield session

    @contextmanager
    def _begin(self, sessions: sessionmaker[Session]) -> Iterator[Session]:
        try:
            with sessions.begin() as session:
                yield session
        except OperationalError as error:
            if self.is_sqlite and "is full" in str(error.orig):
                raise DiskFull(Path(self.engine.url.database or ".")) from error
            raise DatabaseUnusable(
                "the database does not answer", hint="Try again; the server's log says more."
            ) from error

    def close(self) -> None:
        """Lets the connections go."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    try:
        if url.startswith("sqlite"):
            engine = create_engine(url, connect_args={"timeout": BUSY_S}, max_overflow=-1)
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediate)
            return engine
        # As many connections as the server has threads; they are what is limited.
        return create_engine(url, pool_pre_ping=True, max_overflow=-1)
    except (SQLAlchemyError, ImportError) as error:
        raise DatabaseUnusable(
            f"the database address is not usable: {error}",
            hint="Write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME.",
        ) from error


def _prepare_sqlite(connection: Any, record: Any) -> None:
    del record
    # The driver begins transactions of its own; we begin them ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    for setting in (
        "synchronous=FULL",
        f"busy_timeout={BUSY_S * 1000}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


# SQLite does not wait for others here, whatever its timeout: two that open a new file at once.
@retry(
    retry=retry_if_exception_message(match=".*locked"),
    wait=wait_random(0.01, 0.05),
    stop=stop_after_delay(BUSY_S),
    reraise=True,
)
def _switch_to_wal(cursor: sqlite3.Cursor) -> None:
    cursor.execute("PRAGMA journal_mode=WAL")


def _begin_immediate(connection: Any) -> None:
    reading = connection.get_execution_options().get("sealift_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
