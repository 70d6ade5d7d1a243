"""A server with open ports, one for a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Running, parts, running


@pytest.fixture(scope="module")
def served(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose ports are open."""
    home = tmp_path_factory.mktemp("served")
    (home / "sealift.db").write_bytes(migrated_file.read_bytes())
    with parts(home) as made, running(made) as opened:
        yield opened
