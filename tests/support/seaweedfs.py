"""A real SeaweedFS, which pip installs: an S3 server that is distributed in production."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.daemons import answers, running
from support.ports import free_port
from support.s3 import ACCESS_KEY, SECRET_KEY, S3Server


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Runs one, with its data in an empty folder. It needs some 0.5 GB of memory and 3 s."""
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir()
    parts = ("master", "volume", "filer", "s3")
    ports = {f"{part}.port{kind}": free_port() for part in parts for kind in ("", ".grpc")}
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    command: list[str | Path] = [
        Path(sys.executable).parent / "weed",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=10000",
        "-filer",
        "-s3",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]
    log = folder / "seaweedfs.log"
    try:
        with running("seaweedfs", command, log, lambda: answers(f"{endpoint}/healthz")):
            yield S3Server("seaweedfs", endpoint)
    finally:
        for port in ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink()
