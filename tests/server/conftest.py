"""A server's parts on a database of its own, its clock in the test's hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Parts, parts


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Parts]:
    """On SQLite and on PostgreSQL."""
    with parts(tmp_path / "server", database_url) as made:
        yield made


@pytest.fixture
def one_server(tmp_path: Path) -> Iterator[Parts]:
    """On SQLite alone: for what does not touch the database."""
    with parts(tmp_path / "server") as made:
        yield made
