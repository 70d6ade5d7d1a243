"""`sealift-server` as its real process: starting, refusing to, being killed, and stopping."""

from __future__ import annotations

import json
import selectors
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealift.host.rpc import FRAME_BYTES, call_metadata
from sealift.host.tokens import is_token, make_token, token_sha256
from sealift.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    publish_pb2,
    publish_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
)
from support.blobs import Blob
from support.kills import KILLED, run_sealift
from support.ports import free_port
from support.processes import environment
from support.walks import PASSPHRASE

WAIT_S = 60.0
MAIN = "from sealift.server.cli import main; main()"
STEPS = """
import os
from sealift.server import app

def killing(name):
    if name == os.environ["KILL_AT"]:
        os._exit(137)

app.run_server.__kwdefaults__["step"] = killing
from sealift.server.cli import main
main()
"""


@dataclass
class Started:
    """A server that said that it is ready."""

    process: subprocess.Popen[str]
    home: Path
    ready: str

    @property
    def address(self) -> dict[str, str]:
        """Where it listens."""
        said: dict[str, str] = json.loads((self.home / "address.json").read_text())
        return said

    @property
    def token(self) -> str:
        """The admin's token."""
        return (self.home / "admin.token").read_text()

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it wrote, once it has ended."""
        out, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out


def _command(home: Path, *options: str, code: str = MAIN) -> list[str]:
    return [
        sys.executable,
        "-W",
        "error",
        "-c",
        code,
        "run",
        "--dev",
        "--home",
        str(home),
        *options,
    ]


def _options(grpc_port: int = 0, http_port: int = 0) -> tuple[str, ...]:
    return ("--listen", f"127.0.0.1:{grpc_port}", "--http", f"127.0.0.1:{http_port}")


@contextmanager
def _started(home: Path, *options: str, code: str = MAIN, **variables: str) -> Iterator[Started]:
    """A server that is ready, for a block; then it is killed if it still runs."""
    process = subprocess.Popen(
        _command(home, *(options or _options()), code=code),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = _line(process)
        assert line.startswith("ready: "), line + process.stdout.read()
        yield Started(process, home, line)
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(WAIT_S), "nothing was said in time"
    return process.stdout.readline()


def _refused(*words: str, code: str = MAIN, **variables: str) -> str:
    """A server that refuses to start; what it says, which is short."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, done.stderr  # the error and what to do
    return done.stderr


def _run(home: Path, *options: str, **variables: str) -> str:
    words = ("run", "--dev", "--home", str(home), *(options or _options()))
    return _refused(*words, **variables)


# --- starting ---------------------------------------------------------------------------------


def test_the_token_is_there_when_it_is_ready_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "server"
    with _started(home) as server:
        address = server.address
        assert server.ready == (
            f"ready: gRPC on {address['grpc']}, HTTP on {address['http']}; "
            f"admin token in {home / 'admin.token'}\n"
        )
        assert is_token(server.token)
        for name in ("admin.token", "address.json"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
        with grpc.insecure_channel(address["grpc"]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        code, out = server.ended()
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["draining", "stopped"]


def test_a_killed_server_starts_at_once_on_the_same_ports(tmp_path: Path) -> None:
    home = tmp_path / "server"
    options = _options(free_port(), free_port())
    with _started(home, *options) as server:
        token = server.token
        with grpc.insecure_channel(server.address["grpc"]) as channel:
            _create(channel, token)
            server.process.kill()
            assert server.process.wait(WAIT_S) == -signal.SIGKILL
            # The channel's connection is still open on this side.
            with _started(home, *options) as again:
                assert again.token == token
                _create(channel, token)


def _create(channel: grpc.Channel, token: str, namespace: str = "acme", ours: str = "") -> None:
    """Idempotent, so it may be said to the server before and after."""
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    request = admin_pb2.CreateNamespaceRequest(
        namespace=namespace,
        request_id="one",
        token_sha256=token_sha256(ours) if ours else bytes(32),
        public=True,
    )
    answer = stub.CreateNamespace(
        request, timeout=WAIT_S, metadata=call_metadata(token), wait_for_ready=True
    )
    assert answer.online_key_id


def test_a_second_server_is_refused_in_a_line(tmp_path: Path) -> None:
    home = tmp_path / "server"
    with _started(home) as server:
        said = _run(home)
        assert f"process {server.process.pid} (sealift-server run)" in said
        for number, name in enumerate(("grpc", "http")):
            option = ("--listen", "--http")[number]
            ports = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", option]
            said = _run(tmp_path / name, *ports, server.address[name])
            assert f"{server.address[name]} is in use" in said
            assert option in said
        assert server.process.poll() is None


def test_an_address_off_loopback_is_refused(tmp_path: Path) -> None:
    said = _run(tmp_path / "server", "--listen", "0.0.0.0:1")
    assert "--listen 0.0.0.0:1 is off loopback, and this version has no TLS yet" in said


def test_damaged_settings_are_named_by_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('workers = "many"')
    said = _refused("run", "--home", str(tmp_path))
    assert "workers" in said
    assert str(tmp_path / "settings.toml") in said


def test_a_home_that_cannot_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in _run(file)


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sealift.db").write_bytes(b"x" * 10_000)
    assert "sealift.db" in _run(tmp_path)


@pytest.mark.parametrize("module", ["sqlalchemy", "grpc_health"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; {MAIN}"
    for words in (("run", "--home", str(tmp_path)), ("token", "list")):
        assert "pip install 'sealift[server]'" in _refused(*words, code=code)


# --- tokens -----------------------------------------------------------------------------------


def _token(home: Path, *words: str, exit_code: int = 0) -> str:
    command = [sys.executable, "-c", MAIN, "token", *words, "--home", str(home)]
    done = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if exit_code == 0 else done.stderr


def test_tokens_are_added_listed_and_revoked_beside_a_server(tmp_path: Path) -> None:
    home = tmp_path / "server"
    with _started(home) as server, grpc.insecure_channel(server.address["grpc"]) as channel:
        token = _token(home, "add", "second", "--role", "admin").strip()
        _create(channel, token)
        kept = tmp_path / "kept"
        push = ("--role", "publisher", "--namespace", "acme", "--right", "push")
        assert _token(home, "add", "ci", *push, "--file", str(kept)) == ""
        assert is_token(kept.read_text().strip())
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        _token(home, "add", "late", *push, "--file", str(kept), exit_code=2)
        listed = _token(home, "list")
        assert "ci" in listed
        assert "push" in listed
        assert "late" not in listed
        assert token not in listed
        assert _token(home, "revoke", "second") == "revoked 1\n"
        with pytest.raises(grpc.RpcError) as refused:
            _create(channel, token)
        assert isinstance(refused.value, grpc.Call)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "second" in (refused.value.details() or "")


def test_tokens_of_no_server_are_not_looked_for(tmp_path: Path) -> None:
    assert "no server's home yet" in _token(tmp_path, "list", exit_code=2)
    assert not (tmp_path / "sealift.db").exists()


# --- stopping ---------------------------------------------------------------------------------


def _upload(channel: grpc.Channel, token: str, blob: Blob) -> None:
    stub = publish_pb2_grpc.PublishServiceStub(channel)

    def requests() -> Iterator[publish_pb2.UploadBlobRequest]:
        description = publish_pb2.BlobDescription(sha256=blob.digest.raw, length=len(blob.data))
        yield publish_pb2.UploadBlobRequest(namespace="acme", blob=description)
        for start in range(0, len(blob.data), FRAME_BYTES):
            yield publish_pb2.UploadBlobRequest(data=blob.data[start : start + FRAME_BYTES])

    stub.UploadBlob(requests(), timeout=WAIT_S, metadata=call_metadata(token))


def test_a_download_under_way_is_finished_and_no_new_one_begun(tmp_path: Path) -> None:
    blob = Blob.make(32 * 1024 * 1024)
    with _started(tmp_path / "server") as server:
        address = server.address
        with grpc.insecure_channel(address["grpc"]) as channel:
            ours = make_token("publisher")
            _create(channel, server.token, ours=ours)
            _upload(channel, ours, blob)
            repository = repository_pb2_grpc.RepositoryServiceStub(channel)
            request = repository_pb2.ReadBlobRequest(namespace="acme", sha256=blob.digest.raw)
            frames = repository.ReadBlob(request, timeout=WAIT_S)
            received = bytearray(next(frames).data)
            pool = urllib3.PoolManager(retries=False)
            url = f"http://{address['http']}/acme/blobs/sha256/{blob.digest}"
            answer = pool.request("GET", url, preload_content=False)
            read = bytearray(answer.read(1_000))
            server.process.send_signal(signal.SIGTERM)
            assert "draining" in _line(server.process)
            for frame in frames:
                received += frame.data
            read += answer.read()
            pool.clear()
        code, out = server.ended()
    assert (bytes(received), bytes(read)) == (blob.data, blob.data)
    assert (code, [json.loads(line)["event"] for line in out.splitlines()]) == (0, ["stopped"])
    with socket.socket() as probe:
        host, port = address["grpc"].split(":")
        assert probe.connect_ex((host, int(port))) != 0


def test_who_never_reads_is_cut_off_after_the_drain(tmp_path: Path) -> None:
    blob = Blob.make(32 * 1024 * 1024)
    with (
        _started(tmp_path / "server", SEALIFT_SERVER_DRAIN_S="0.5") as server,
        grpc.insecure_channel(server.address["grpc"]) as channel,
        urllib3.PoolManager(retries=False) as pool,
    ):
        ours = make_token("publisher")
        _create(channel, server.token, ours=ours)
        _upload(channel, ours, blob)
        repository = repository_pb2_grpc.RepositoryServiceStub(channel)
        request = repository_pb2.ReadBlobRequest(namespace="acme", sha256=blob.digest.raw)
        assert next(repository.ReadBlob(request, timeout=WAIT_S)).data
        url = f"http://{server.address['http']}/acme/blobs/sha256/{blob.digest}"
        pool.request("GET", url, preload_content=False)
        server.process.send_signal(signal.SIGTERM)
        code, out = server.ended()
    assert code == 0, out
    assert "Traceback" not in out, out
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"


# --- killed in the middle of a commit ---------------------------------------------------------


def test_a_push_goes_on_after_its_server_was_killed_at_each_step_of_a_commit(
    tmp_path: Path,
) -> None:
    home, publisher, release = (tmp_path / one for one in ("server", "publisher", "release"))
    release.mkdir()
    (release / "model.gguf").write_bytes(b"weights" * 1_000)
    options = _options(free_port(), free_port())
    variables = {**PASSPHRASE, "SEALIFT_HOME": str(publisher)}
    with _started(home, *options) as server:
        given = ["--server", server.address["grpc"], "--token-file", str(home / "admin.token")]
        begun = run_sealift(["init", "acme", *given], variables)
        assert begun.returncode == 0, begun.stderr
    push = ["push", str(release), "llm@1.0.0", "--kind", "model", "--to", "stable"]
    # The same push each time: it comes one step further.
    for name in ("begin", "checked", "signed", "done"):
        with _started(home, *options, code=STEPS, KILL_AT=f"commit:{name}") as server:
            cut = run_sealift(push, variables)
            assert server.ended()[0] == KILLED, name
        assert (cut.returncode, "Traceback" in cut.stderr) == (1, False), cut.stderr
    with _started(home, *options):
        again = run_sealift(push, variables)
        assert again.returncode == 0, again.stderr
        shown = run_sealift(["show", "llm", "--output", "json"], variables)
    said = json.loads(shown.stdout)
    assert [one["version"] for one in said["releases"]] == ["1.0.0"]
    assert said["channels"][0]["release"]["version"] == "1.0.0"
