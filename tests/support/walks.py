"""The way of a release with real processes: a server, homes, and the commands between them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.daemons import running
from support.kills import Done, run_sealift

PASSPHRASE = {"SEALIFT_PASSPHRASE": "a passphrase of tests"}
_SERVER = "from sealift.server.cli import main; main()"


@dataclass(frozen=True)
class Walk:
    """A server that runs, and a folder for homes.

    Attributes:
        server: The server's home.
        folder: Where homes go.
        address: `host:port` of gRPC.
        http: `host:port` of HTTP.
    """

    server: Path
    folder: Path
    address: str
    http: str

    def run(
        self, home: Path, *arguments: str, trace: Path | None = None, kill: str = "", at: int = 1
    ) -> Done:
        """Runs a command on a home."""
        environment = {**PASSPHRASE, "SEALIFT_HOME": str(home)}
        return run_sealift(arguments, environment, trace=trace, kill=kill, at=at)

    def done(self, home: Path, *arguments: str) -> Done:
        """Runs a command that must succeed."""
        done = self.run(home, *arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def json(self, home: Path, *arguments: str) -> Any:
        """What a command that must succeed says as JSON."""
        return json.loads(self.done(home, *arguments, "--output", "json").stdout)

    def init(self, home: Path, namespace: str, *options: str, kill: str = "", at: int = 1) -> Done:
        """Begins a namespace."""
        token = str(self.server / "admin.token")
        given = ("--server", self.address, "--token-file", token)
        return self.run(home, "init", namespace, *given, *options, kill=kill, at=at)


@contextmanager
def walking(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Walk]:
    """Runs a server for a block, its ports chosen by the system."""
    server = folder / "server"
    ready = server / "admin.token"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-c", _SERVER, "run", "--home", str(server)]
    ports = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    log = folder / "server.log"
    with running("server", [*command, *ports], log, ready.exists, environment=environment):
        address = json.loads((server / "address.json").read_text())
        yield Walk(server, folder, address["grpc"], address["http"])
