"""The demo's intruder against real processes: each attack is refused, and all of it heals."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deploy.demo import intruder

from support.processes import (
    HomeCommands,
    QuickCommands,
    ServerProcess,
    begin,
    joined,
    server_process,
)

MODEL, PROMPTS = f"acme/{intruder.MODEL}", f"acme/{intruder.PROMPTS}"


@dataclass
class Scene:
    """A device that runs what its publisher signed, and a server that is stopped.

    Attributes:
        server: The server.
        copy: An honest copy of its disk.
        publisher: The publisher.
        device: The device; new prompts wait for it.
    """

    server: ServerProcess
    copy: Path
    publisher: HomeCommands
    device: HomeCommands

    def attack(self, name: str) -> None:
        """Carries an attack out on the honest disk, and starts the server with it."""
        self.restore()
        assert intruder.attack(name, self.server.home)
        self.server.start()

    def restore(self) -> None:
        """Puts the honest copy in the server's place."""
        self.server.stop()
        shutil.rmtree(self.server.home)
        shutil.copytree(self.copy, self.server.home)

    def heal(self) -> None:
        """Brings the real server back; a hold has it sign above what the intruder signed."""
        self.restore()
        self.server.start()
        for state in ("pause", "resume"):
            self.publisher.run(state, f"{intruder.PROMPTS}:stable", "--reason", "a break-in")

    def refusals(self) -> dict[str, str]:
        """What an update refuses, by artifact."""
        said = self.device.json("update", code=1)
        return {
            one["artifact"]: one["error"]["reason"] for one in said["artifacts"] if "error" in one
        }

    def active(self) -> dict[str, Any]:
        """What runs."""
        status = self.device.json("status")["device"]
        return {one["artifact"]: one["active"] for one in status["artifacts"]}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    prompts, model = tmp_path / "prompts", tmp_path / "model"
    prompts.mkdir()
    model.mkdir()
    with server_process(tmp_path / "server") as server:
        publisher = begin(server, tmp_path / "publisher", "acme", QuickCommands)

        def push(folder: Path, content: bytes, release: str, *options: str) -> None:
            (folder / "en.json").write_bytes(content)
            publisher.run("push", str(folder), release, *options)

        good = b'{"task": "answer, ' + intruder.GOOD + b'"}'
        push(model, b"{}", f"{intruder.MODEL}@3.2.0", "--kind", "model", "--to", "stable")
        push(prompts, good, f"{intruder.PROMPTS}@1.0.0", "--kind", "prompt", "--to", "stable")
        device = joined(publisher, tmp_path / "device", intruder.MODEL, intruder.PROMPTS)
        device.run("update")
        push(model, b"{ }", f"{intruder.MODEL}@3.3.0")
        channel = f"{intruder.MODEL}:stable"
        publisher.run(
            "promote", f"{intruder.MODEL}@3.3.0", "--to", "stable", "--plan", "0.01%/1d,100%"
        )
        device.run("update")
        publisher.run("halt", channel, "--reason", "a test")
        publisher.run("rollback", channel)
        device.run("update")
        push(prompts, good + b" ", f"{intruder.PROMPTS}@1.1.0", "--to", "stable")
        server.stop()
        _let_the_clock_pass(server.home)
        shutil.copytree(server.home, tmp_path / "copy")
        yield Scene(server, tmp_path / "copy", publisher, device)


def _let_the_clock_pass(home: Path) -> None:
    """Online versions are Unix seconds, or one more than the last: quick commands run ahead."""
    with closing(sqlite3.connect(home / "sealift.db")) as database:
        (newest,) = database.execute("SELECT max(version) FROM metadata_files").fetchone()
    while time.time() <= newest:
        time.sleep(0.05)


def test_each_attack_is_refused_for_its_reason_and_the_real_server_heals_it(scene: Scene) -> None:
    before = scene.active()
    assert before == {MODEL: "3.2.0", PROMPTS: "1.0.0"}
    for name, refused in {
        "swap-bytes": {PROMPTS: "content_mismatch"},
        "edit-manifest": {PROMPTS: "bad_signature"},
        "replay": {MODEL: "rolled_back", PROMPTS: "rolled_back"},
        "open-now": {MODEL: "bad_signature"},
    }.items():
        scene.attack(name)
        assert scene.refusals() == refused, name
        assert scene.active() == before, name
    scene.heal()
    scene.device.run("update")
    assert scene.active() == {MODEL: "3.2.0", PROMPTS: "1.1.0"}


def test_t03_a_snapshot_that_listed_what_never_was_freezes_nobody(scene: Scene) -> None:
    """A mark rises only from a file that verified: the listed, unsigned versions count for nothing.

    Without it the stock client keeps the forged snapshot, and takes every honest one for a replay.
    """
    scene.attack("open-now")
    assert scene.refusals() == {MODEL: "bad_signature"}
    scene.heal()
    assert not [one for one in scene.device.json("update")["artifacts"] if "error" in one]
