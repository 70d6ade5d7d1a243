"""One bucket of an S3-compatible store, through minio-py, with timeouts, retries and our errors.

The only place that knows minio-py. It uses that library's own multipart requests, which are not
part of its public face, because the public one neither retries a part nor waits for a verdict
before it completes an object.
"""

from __future__ import annotations

import base64
import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.datatypes import Part
from minio.error import InvalidResponseError, S3Error, ServerError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from urllib3.exceptions import HTTPError, SSLError
from urllib3.response import BaseHTTPResponse

from sealift.server.content.errors import (
    ContentError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
)

ATTEMPTS = 5
"""How often a request is made before it is given up; together they wait at most 4 s."""
MIN_PUT_BYTES = 5 * 1024 * 1024
_TRY_LATER = frozenset(
    {
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "XMinioServerNotInitialized",
        # Damaged on the way.
        "BadDigest",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_FULL = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
)

T = TypeVar("T")


class ObjectMissing(ContentError):
    """There is no such object."""


class RangeMissing(ContentError):
    """The object has no byte of the range."""


class UploadGone(ContentError):
    """There is no such multipart upload: it was aborted, or completed already."""


class S3Settings(BaseModel):
    """Where the bucket is and how to reach it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    """`https://HOST[:PORT]`, or `http://…` within a network that is trusted."""
    bucket: str = Field(min_length=3, max_length=63)
    """The bucket, which must be there."""
    access_key: str
    secret_key: SecretStr
    region: str = "us-east-1"
    prefix: str = ""
    """Before every object's name, such as `sealift/`."""
    ca_file: Path | None = None
    """The certificates to trust, in PEM, in place of the machine's own."""
    public_endpoint: str | None = None
    """Where devices reach the store, if that is another address than `endpoint`."""
    connect_timeout_s: float = Field(default=3.0, gt=0)
    read_timeout_s: float = Field(default=30.0, gt=0)
    """How long the store may be silent within a request."""

    @field_validator("endpoint", "public_endpoint")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            url = urlsplit(value)
            if url.scheme not in {"http", "https"} or not url.hostname or url.path.strip("/"):
                raise ValueError("write https://HOST or https://HOST:PORT")
        return value


class Bucket:
    """One bucket. Every method may raise `StoreUnavailable`, `StoreFull` and `StoreRefused`.

    Args:
        settings: Where it is.
        pause: Waits between two tries; gets seconds.
    """

    def __init__(
        self, settings: S3Settings, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoint = settings.endpoint
        self.name = settings.bucket
        self._settings = settings
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(
                connect=settings.connect_timeout_s, read=settings.read_timeout_s
            ),
            retries=False,
            maxsize=16,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(settings.ca_file) if settings.ca_file else None,
        )
        self._client = self._connect(settings.endpoint)
        self._presigner = self._connect(settings.public_endpoint or settings.endpoint)
        self._retrying = Retrying(
            sleep=pause,
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1),
            retry=retry_if_exception_type(StoreUnavailable),
            reraise=True,
        )

    def _connect(self, endpoint: str) -> Minio:
        url = urlsplit(endpoint)
        return Minio(
            endpoint=url.netloc,
            access_key=self._settings.access_key,
            secret_key=self._settings.secret_key.get_secret_value(),
            secure=url.scheme == "https",
            # Told, so that no request is needed to find it out.
            region=self._settings.region,
            http_client=self._http,
        )

    def _call(self, what: str, request: Callable[[], T]) -> T:
        def once() -> T:
            with self.errors(what):
                return request()

        return self._retrying(once)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turns errors of the library and the network into ours."""
        try:
            yield
        except S3Error as error:
            raise _error_of(error, f"{what} at {self.endpoint}") from error
        except (ServerError, InvalidResponseError) as error:
            raise StoreUnavailable(f"{what} at {self.endpoint}: {error}") from error
        except SSLError as error:
            raise StoreRefused(
                f"{what} at {self.endpoint}: {error}",
                hint="Set the store's ca_file to the certificate that signed the store's own.",
            ) from error
        except HTTPError as error:
            raise StoreUnavailable(
                f"{what} at {self.endpoint}: {error}",
                hint="Check that the object store runs and that its address is right.",
            ) from error

    def exists(self) -> bool:
        """Whether the bucket is there."""
        return self._call(
            f"looking at bucket {self.name}",
            lambda: self._client.bucket_exists(bucket_name=self.name),
        )

    def stat(self, key: str) -> int:
        """The object's length in bytes.

        Raises:
            ObjectMissing: If it is not there.
        """

        def request() -> int:
            found = self._client.stat_object(bucket_name=self.name, object_name=key)
            if found.size is None or "Content-Length" not in (found.metadata or {}):
                raise StoreUnavailable(
                    f"looking at {key} at {self.endpoint}: the answer was cut off"
                )
            return found.size

        return self._call(f"looking at {key}", request)

    def open(self, key: str, offset: int, length: int) -> BaseHTTPResponse:
        """Asks for a range of an object; read and close what comes.

        Raises:
            ObjectMissing: If it is not there.
            RangeMissing: If it has no byte there.
        """
        return self._call(
            f"reading {key}",
            lambda: self._client.get_object(
                bucket_name=self.name, object_name=key, offset=offset, length=length
            ),
        )

    def put(self, key: str, data: bytes, sha256: bytes) -> None:
        """Writes a whole object, whose hash the store checks."""
        checksum = base64.b64encode(sha256).decode()
        self._call(
            f"writing {key}",
            lambda: self._client.put_object(
                bucket_name=self.name,
                object_name=key,
                data=BytesIO(data),
                length=len(data),
                part_size=max(len(data), MIN_PUT_BYTES),
                metadata={"x-amz-checksum-sha256": checksum},
            ),
        )

    def begin_upload(self, key: str) -> str:
        """Begins a multipart upload; its id. Nothing is readable until it is completed."""
        return self._call(
            f"beginning {key}",
            lambda: self._client._create_multipart_upload(self.name, key, {}),
        )

    def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> Part:
        """Writes one part, whose hash the store checks (signed; over TLS its MD5)."""
        etag = self._call(
            f"writing part {number} of {key}",
            lambda: self._client._upload_part(self.name, key, data, None, upload_id, number),
        )
        return Part(number, etag)

    def complete_upload(self, key: str, upload_id: str, parts: list[Part]) -> None:
        """Makes the object readable.

        Raises:
            UploadGone: If there is no such upload, perhaps because an answer was lost.
        """
        self._call(
            f"completing {key}",
            lambda: self._client._complete_multipart_upload(self.name, key, upload_id, parts),
        )

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Removes the parts of an upload.

        Raises:
            UploadGone: If there is no such upload.
        """
        self._call(
            f"aborting {key}",
            lambda: self._client._abort_multipart_upload(self.name, key, upload_id),
        )

    def remove(self, key: str) -> None:
        """Removes an object.

        Raises:
            ObjectMissing: Some stores, if it is not there.
        """
        self._call(
            f"removing {key}",
            lambda: self._client.remove_object(bucket_name=self.name, object_name=key),
        )

    def presign(self, key: str, ttl_s: int) -> str:
        """An address for GETs of the object, valid for `ttl_s` seconds, 1 to 604,800."""
        return self._presigner.presigned_get_object(
            bucket_name=self.name, object_name=key, expires=dt.timedelta(seconds=ttl_s)
        )

    def close(self) -> None:
        """Lets the connections go."""
        self._http.clear()


def _error_of(error: S3Error, what: str) -> ContentError:
    """What an answer means."""
    code, status = error.code, error.response.status
    text = f"{what}: {code}: {error.message}"
    if code == "NoSuchKey":
        return ObjectMissing(text)
    if code == "InvalidRange" or status == 416:
        return RangeMissing(text)
    if code == "NoSuchUpload":
        return UploadGone(text)
    if code in _FULL or status == 507:
        return StoreFull(text, hint="Free some space in the object store, then try again.")
    if code in _TRY_LATER or (status >= 500 and status != 501):
        return StoreUnavailable(text)
    return StoreRefused(
        text, hint="Check the object store's bucket, keys and region in the server's settings."
    )
