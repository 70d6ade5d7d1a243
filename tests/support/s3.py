"""What the S3 servers under test have in common."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException
from pydantic import SecretStr
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from sealift.server.content.s3 import S3Settings

ACCESS_KEY = "sealift-test"
SECRET_KEY = "sealift-test-secret"
SYSTEM_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "system"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A server that runs, with the keys above."""

    name: str
    endpoint: str
    """`http://127.0.0.1:PORT`."""

    def client(self) -> Minio:
        """A plain client of it, for what tests do behind our back."""
        return Minio(
            endpoint=self.endpoint.removeprefix("http://"),
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
            http_client=urllib3.PoolManager(timeout=10.0, retries=False),
        )

    def make_bucket(self) -> S3Settings:
        """The settings of a new bucket of its own."""
        name = f"test-{uuid.uuid4().hex}"
        self._make(name)
        return S3Settings(
            endpoint=self.endpoint,
            bucket=name,
            access_key=ACCESS_KEY,
            secret_key=SecretStr(SECRET_KEY),
            prefix="sealift/",
        )

    # A server that answers its health check may still refuse its first bucket.
    @retry(
        retry=retry_if_exception_type((MinioException, urllib3.exceptions.HTTPError)),
        stop=stop_after_delay(20),
        wait=wait_fixed(0.2),
        reraise=True,
    )
    def _make(self, name: str) -> None:
        client = self.client()
        if not client.bucket_exists(bucket_name=name):
            client.make_bucket(bucket_name=name)


def system_binary(name: str) -> Path:
    """The path of a server that `make test-system` installs.

    Raises:
        FileNotFoundError: If it is not installed; the text says what to do.
    """
    path = SYSTEM_CACHE / name
    if not path.exists():
        raise FileNotFoundError(
            f"{name} is not installed: run `make test-system`, or deploy/dev/install-system.sh"
        )
    return path
