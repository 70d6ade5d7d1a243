"""The real programs as their real processes: what a person would start, with ports of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.daemons import READY_S, DaemonFailed, tail
from support.kills import run_sealift

PROGRAMS = Path(sys.executable).parent
PASSPHRASE = "a passphrase of tests"
COMMAND_S = 120.0


def environment(**more: str) -> dict[str, str]:
    """This process's variables without Sealift's own, the project's programs first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEALIFT_")}
    path = f"{PROGRAMS}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, **more}


@dataclass
class ServerProcess:
    """A `sealift-server` on one home; started again, it listens where it did.

    Attributes:
        home: Its home.
        grpc: `host:port` of gRPC, known after the first start.
        http: `host:port` of HTTP.
    """

    home: Path
    grpc: str = "127.0.0.1:0"
    http: str = "127.0.0.1:0"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.home.with_name(f"{self.home.name}.log")

    @property
    def token_file(self) -> Path:
        """The admin's token."""
        return self.home / "admin.token"

    def start(self) -> None:
        """Starts it, and waits until its files say that it is ready.

        Raises:
            DaemonFailed: If it ends, or is not ready in time.
        """
        ready = self.home / "address.json"
        ready.unlink(missing_ok=True)
        options = ["--home", str(self.home), "--listen", self.grpc, "--http", self.http]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [str(PROGRAMS / "sealift-server"), "run", "--dev", *options],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._process = process
        deadline = time.monotonic() + READY_S
        while not (ready.exists() and self.token_file.exists()):
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise DaemonFailed(f"sealift-server is not ready:\n{tail(self.log)}")
            time.sleep(0.02)
        said = json.loads(ready.read_text())
        self.grpc, self.http = said["grpc"], said["http"]

    def stop(self) -> int:
        """Asks it to stop, and waits; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(COMMAND_S / 2)
        finally:
            process.kill()

    def kill(self) -> None:
        """Ends it at once, as a power cut does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


@contextmanager
def server_process(home: Path) -> Iterator[ServerProcess]:
    """Runs a server for a block."""
    server = ServerProcess(home)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What it printed with `--output json`."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class HomeCommands:
    """Runs `sealift` on one home."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> Ran:
        """Runs a command that must end with this code."""
        done = subprocess.run(
            [str(PROGRAMS / "sealift"), *arguments],
            env=environment(
                SEALIFT_HOME=str(self.home), SEALIFT_PASSPHRASE=PASSPHRASE, **self.variables
            ),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return Ran(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What a command says as JSON."""
        return self.run(*arguments, "--output", "json", code=code).document


@dataclass(frozen=True)
class QuickCommands(HomeCommands):
    """The same for tests that run dozens: each is forked from a process with the imports done."""

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> Ran:
        """Runs a command that must end with this code; stdin cannot be given."""
        assert not stdin
        variables = {"SEALIFT_HOME": str(self.home), "SEALIFT_PASSPHRASE": PASSPHRASE}
        done = run_sealift(arguments, {**variables, **self.variables})
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return Ran(done.returncode, done.stdout, done.stderr)


def begin(
    server: ServerProcess, home: Path, namespace: str, kind: type[HomeCommands] = HomeCommands
) -> HomeCommands:
    """A publisher with a namespace of its own."""
    publisher = kind(home)
    given = ("--server", server.grpc, "--token-file", str(server.token_file))
    publisher.run("init", namespace, *given, "--recovery-kit", str(home.with_suffix(".kit")))
    return publisher


def joined(publisher: HomeCommands, home: Path, *follow: str) -> HomeCommands:
    """A device that has joined with an invite of its own."""
    device = type(publisher)(home)
    options = [word for one in follow for word in ("--follow", one)]
    device.run("join", publisher.json("invite", *options)["join"])
    return device
