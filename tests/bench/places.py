"""Places that content comes from: a server with its store, a publisher and devices, all real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.measuring import Servers
from sealift.client.store.store import Store
from sealift.host.active import ActivePointer
from sealift.host.homes import active_file, store_folder
from sealift.host.installed import ReleaseFolders
from sealift.protocol.names import ArtifactId, Digest
from sealift.server.content.s3 import S3Settings
from support.daemons import running
from support.minio import minio
from support.ports import free_port
from support.s3 import S3Server
from support.seaweedfs import seaweedfs

BIN = Path(sys.executable).parent
NAMESPACE = "bench"
ARTIFACT = f"{NAMESPACE}/model"
S3_SERVERS = {"seaweedfs": seaweedfs, "minio": minio}
ENVIRONMENT = {"SEALIFT_PASSPHRASE": "for the benchmark"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a place keeps its objects."""

    server: S3Server
    settings: S3Settings

    def key(self, digest: Digest) -> str:
        """The object of a blob."""
        return f"{self.settings.prefix}sha256/{digest[:2]}/{digest}"

    def presigned(self, digest: Digest) -> str:
        """An address of a blob's object, as the server would give it."""
        return self.server.client().presigned_get_object(
            bucket_name=self.settings.bucket,
            object_name=self.key(digest),
            expires=timedelta(hours=2),
        )

    def get(self, key: str, path: Path) -> None:
        """Reads an object into a file."""
        self.server.client().fget_object(
            bucket_name=self.settings.bucket, object_name=key, file_path=str(path)
        )

    def put(self, key: str, path: Path) -> None:
        """Writes a file over an object."""
        self.server.client().fput_object(
            bucket_name=self.settings.bucket, object_name=key, file_path=str(path)
        )

    def remove(self, key: str) -> None:
        """Removes an object."""
        self.server.client().remove_object(bucket_name=self.settings.bucket, object_name=key)


@dataclass(frozen=True, slots=True)
class Place:
    """A running server with its store, and its publisher."""

    name: str
    folder: Path
    address: str
    http: str
    bucket: Bucket | None
    servers: Servers

    @property
    def publisher(self) -> Path:
        """The publisher's home."""
        return self.folder / "publisher"

    def sealift(self, home: Path, *words: str | Path) -> list[str | Path]:
        """A `sealift` command in a home."""
        return [BIN / "sealift", "--home", home, *words]

    def run(self, home: Path, *words: str | Path) -> str:
        """Runs a `sealift` command outside the clock; gives its output.

        Raises:
            subprocess.CalledProcessError: If it fails.
        """
        done = subprocess.run(
            [str(word) for word in self.sealift(home, *words)],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return done.stdout

    def new_device(self, name: str) -> Path:
        """A home that has joined, follows the model, and has nothing of it yet."""
        home = self.folder / name
        invitation = self.run(self.publisher, "--output", "json", "invite", "--follow", ARTIFACT)
        self.run(home, "join", json.loads(invitation)["join"])
        return home

    def blob_url(self, digest: Digest) -> str:
        """Where any client can read a blob's bytes: what the baseline fetches."""
        if self.bucket is not None:
            return self.bucket.presigned(digest)
        return f"{self.http}/{NAMESPACE}/blobs/sha256/{digest}"

    @contextmanager
    def flipped(self, digest: Digest, scratch: Path) -> Iterator[None]:
        """Changes one bit in the middle of a blob, for a block, behind the server's back."""
        if self.bucket is None:
            with _flipped(self.folder / "server" / "blobs" / "sha256" / digest[:2] / digest):
                yield
            return
        key = self.bucket.key(digest)
        self.bucket.get(key, scratch)
        with _flipped(scratch):
            self.bucket.put(key, scratch)
            yield
        self.bucket.put(key, scratch)
        scratch.unlink()


@contextmanager
def _flipped(path: Path) -> Iterator[None]:
    _flip(path)
    try:
        yield
    finally:
        _flip(path)


def _flip(path: Path) -> None:
    mode = path.stat().st_mode
    path.chmod(mode | 0o200)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    path.chmod(mode)


def installed_digest(home: Path) -> Digest | None:
    """SHA-256 of the model that is active in a device's home, read back from its file."""
    entry = ActivePointer.load(active_file(home)).get(ArtifactId.parse(ARTIFACT))
    if entry is None:
        return None
    store = ReleaseFolders(store_folder(home))
    report = Store(store.folder).verify(entry.active.digest)
    if not report.ok:
        raise SystemExit(f"{home}: what was installed is not what was signed: {report.damaged}")
    return store.read(entry.active.digest).manifest.files[0].sha256


@contextmanager
def place(name: str, folder: Path) -> Iterator[Place]:
    """Runs a place: `folder`, or the name of an S3 server.

    Args:
        name: Which.
        folder: An empty folder for all that it writes.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        bucket = None
        pids: dict[str, int] = {}
        if name != "folder":
            data = folder / name
            data.mkdir()
            server = stack.enter_context(S3_SERVERS[name](data))
            bucket = Bucket(server, server.make_bucket())
            environment = s3_environment(bucket.settings)
            pids[name] = _child_listening_on(server.endpoint)
        ports = free_port(), free_port()
        home = folder / "server"
        token = home / "admin.token"
        process = stack.enter_context(
            running(
                f"sealift-server ({name})",
                [
                    *(BIN / "sealift-server", "run", "--home", home),
                    *("--listen", f"127.0.0.1:{ports[0]}", "--http", f"127.0.0.1:{ports[1]}"),
                ],
                folder / "server.log",
                token.exists,
                environment=environment,
            )
        )
        pids["sealift-server"] = process.pid
        made = Place(
            name,
            folder,
            f"127.0.0.1:{ports[0]}",
            f"http://127.0.0.1:{ports[1]}",
            bucket,
            Servers(pids),
        )
        made.run(
            made.publisher,
            *("--server", made.address, "--token-file", token, "init", NAMESPACE, "--public"),
        )
        yield made


def s3_environment(settings: S3Settings) -> dict[str, str]:
    """The variables of a server that keeps its blobs in a bucket."""
    return {
        "SEALIFT_SERVER_BLOBS": "s3",
        "SEALIFT_SERVER_S3__ENDPOINT": settings.endpoint,
        "SEALIFT_SERVER_S3__BUCKET": settings.bucket,
        "SEALIFT_SERVER_S3__PREFIX": settings.prefix,
        "SEALIFT_SERVER_S3__ACCESS_KEY": settings.access_key,
        "SEALIFT_SERVER_S3__SECRET_KEY": settings.secret_key.get_secret_value(),
    }


def _child_listening_on(endpoint: str) -> int:
    """The process that was started for an S3 server: the child of ours with that port."""
    port = endpoint.rpartition(":")[2]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if port.encode() in command and int(parent) == os.getpid():
            return int(path.parent.name)
    raise SystemExit(f"no process of ours listens on {endpoint}")
