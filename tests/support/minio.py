"""A real MinIO, which `make test-system` builds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemons import answers, running
from support.ports import free_port
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server, system_binary


@contextmanager
def minio(folder: Path) -> Iterator[S3Server]:
    """Runs one, with its data in an empty folder."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [
        *(system_binary("minio"), "server", "--quiet"),
        *("--address", f"127.0.0.1:{port}", folder / "data"),
    ]
    environment = {
        "CI": "true",
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_UPDATE": "off",
        "MINIO_BROWSER": "off",
    }
    ready = f"{endpoint}/minio/health/ready"
    with running(
        "minio", command, folder / "minio.log", lambda: answers(ready), environment=environment
    ):
        yield S3Server("minio", endpoint)
