"""A transfer that is killed at any step goes on in a new process, and fetches little twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sealift.client.store.store import Store
from support.content_servers import TOKEN, GrpcContent, grpc_content
from support.releases import PIECE_BYTES, make_release, noise

MODEL = noise(40 * PIECE_BYTES + 5)
RELEASE = make_release({"model.bin": MODEL, "small": noise(100), "empty": b""})
DIGEST = RELEASE.manifest.files[0].sha256
STREAMS = 3

PROGRAM = f"""
import os, sys
from pathlib import Path
from sealift.client.store.store import Store
from sealift.client.transfer.fetching import Tuning, fetch_release
from sealift.client.transfer.server import server_sources
from sealift.client.transfer.streams import Retries
from sealift.host import rpc
from sealift.host.hashing import sha256_bytes
from sealift.protocol.documents import Manifest
from sealift.protocol.names import Namespace

folder, address, at, times = sys.argv[1:]
data = sys.stdin.buffer.read()
left = [int(times)]

def step(name):
    if name == at:
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)

told = []
server = rpc.ServerAddress.parse(address)
channel = rpc.open_channel(server)
with server_sources(channel, server, Namespace("acme"), {TOKEN!r}) as sources:
    fetch_release(
        Manifest.parse(data), sha256_bytes(data), data, Store(Path(folder), step), sources,
        told.append, step, tuning=Tuning(streams={STREAMS}, batch_bytes={PIECE_BYTES}),
    )
channel.close()
print(sum(told))
"""


def run(store: Store, server: GrpcContent, at: str = "", times: int = 1) -> tuple[int, str]:
    """Fetches in a process of its own, which is killed the n-th time that it comes to a step."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, store.folder, str(server.address), at, str(times)],
        input=RELEASE.data,
        stdout=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stdout.decode()


KILLS = [
    ("download:start", 1),
    ("download:piece", 1),
    ("download:piece", 3),
    ("download:piece", 20),
    ("download:piece", 42),
    ("download:sync", 1),
    ("download:sync", 3),
    ("download:journal", 1),
    ("download:journal", 4),
    ("download:blob", 1),
    ("download:blob", 2),
    ("download:blob", 4),
    ("release:build", 1),
    ("release:rename", 1),
    ("release:sync", 1),
]


@pytest.mark.parametrize(("at", "times"), KILLS)
def test_a_kill_loses_no_more_than_what_was_on_the_way(tmp_path: Path, at: str, times: int) -> None:
    store = Store(tmp_path / "store")
    with grpc_content() as server:
        server.blobs.update(RELEASE.blobs)
        code, _ = run(store, server, at, times)
        assert code == 9, "the step was never reached"
        assert store.has(RELEASE.digest) == (at == "release:sync")
        code, told = run(store, server)
        assert code == 0
        assert int(told) == RELEASE.manifest.length
        assert store.verify(RELEASE.digest).ok
        assert store.is_whole(RELEASE.digest)
        assert list(store.partial.iterdir()) == []
        store.collect({RELEASE.digest})
        assert [one.name for one in store.releases.iterdir()] == [RELEASE.digest]
        # What each stream was reading, and what the server had sent ahead of it.
        fetched_twice = server.reads.bytes_of(DIGEST) - len(MODEL)
        assert fetched_twice <= STREAMS * 8 * PIECE_BYTES


def test_a_transfer_killed_again_and_again_ends(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with grpc_content() as server:
        server.blobs.update(RELEASE.blobs)
        for _ in range(20):
            code, _ = run(store, server, "download:piece", 12)
            if code == 0:
                break
            assert code == 9
        assert code == 0
        assert store.verify(RELEASE.digest).ok
