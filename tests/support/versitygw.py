"""A real versitygw, which `make test-system` builds: stricter than most S3 servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemons import answers, running
from support.ports import free_port
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, system_binary


@contextmanager
def versitygw(folder: Path) -> Iterator[S3Server]:
    """Runs one, with its data in an empty folder."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    data = folder.absolute() / "data"
    data.mkdir()
    command: list[str | Path] = [
        *(system_binary("versitygw"), "--port", f"127.0.0.1:{port}", "--health", "/health"),
        *("posix", data),
    ]
    environment = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    ready = f"{endpoint}/health"
    with running(
        "versitygw",
        command,
        folder / "versitygw.log",
        lambda: answers(ready),
        environment=environment,
    ):
        yield S3Server("versitygw", endpoint)
