"""A malicious server cannot end the agent, nor fill a device's memory or disk."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.rpc import status_pb2

from sealift.client.agent.home import HISTORY_LIMIT_BYTES, DeviceHome
from sealift.client.agent.service import Agent
from sealift.client.transfer.errors import WrongAnswer
from sealift.client.transfer.grpc_source import Location
from sealift.client.transfer.presigned import PresignedContent
from sealift.client.transfer.source import BlobRange
from sealift.client.trust import fetcher
from sealift.client.trust.fetcher import Held, RepositorySource, fetcher_of
from sealift.host import rpc
from sealift.host.console import Out
from sealift.host.rpc import ServerAddress, ServerRefused
from sealift.protocol.documents import Hold, HoldState
from sealift.protocol.names import ArtifactId, ChannelName, Digest, Namespace
from sealift.protocol.parsing import encode_document
from sealift.protocol.reasons import Reason
from sealift.v1 import repository_pb2 as wire
from support.attack_scene import Scene
from support.takeover import Impostor, Loot, serving

ACME = Namespace("acme")
DIGEST = Digest("a" * 64)


def _poll(impostor: Impostor) -> Any:
    with serving(impostor) as address:
        channel = rpc.open_channel(ServerAddress.parse(address))
        try:
            return RepositorySource(channel, None).poll([Held(ACME)])
        finally:
            channel.close()


def _empty() -> Loot:
    return Loot(ACME, {}, Path(), Path())


def test_names_without_content_count_towards_the_end_of_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetcher, "MAX_POLL_BYTES", 1024 * 1024)
    ended = threading.Event()

    def endless(request: Any, context: grpc.ServicerContext) -> Iterator[wire.PollResponse]:
        del request
        context.add_callback(ended.set)
        number = 0
        while context.is_active():
            number += 1
            yield wire.PollResponse(namespace=ACME, path=f"{number:09}" + "x" * 9_000)

    with pytest.raises(ServerRefused) as refused:
        _poll(Impostor(_empty(), poll=endless))
    assert refused.value.reason is Reason.TOO_LARGE
    assert ended.wait(10)


@pytest.mark.parametrize(
    "attached",
    [b"\xff\xff\xff", status_pb2.Status(code=5, message="another").SerializeToString()],
    ids=["garbage", "another code"],
)
def test_a_refusal_with_unreadable_details_is_a_refusal(attached: bytes) -> None:
    def refuse(request: Any, context: grpc.ServicerContext) -> Iterator[wire.PollResponse]:
        del request
        context.set_trailing_metadata((("grpc-status-details-bin", attached),))
        context.set_code(grpc.StatusCode.INTERNAL)
        context.set_details("no")
        yield from ()

    with pytest.raises(ServerRefused) as refused:
        _poll(Impostor(_empty(), poll=refuse))
    assert refused.value.reason is Reason.INTERNAL


@pytest.mark.parametrize("name", ["x.root.json", "9" * 5_000 + ".root.json", "../7.root.json"])
def test_files_with_odd_names_are_passed_over(name: str) -> None:
    fetching = fetcher_of(None, ACME, {f"metadata/{name}": b"{}"}, {"root": 1})
    assert fetching.has_news


def test_what_a_server_says_is_bounded_and_has_no_control_characters() -> None:
    def refuse(request: Any, context: grpc.ServicerContext) -> Iterator[wire.PollResponse]:
        del request, context
        detail = "\x1b]52;c;aGVsbG8=\x07" + "x" * 3_000_000
        yield wire.PollResponse(namespace=ACME, refused="internal", detail=detail)

    said = _poll(Impostor(_empty(), poll=refuse))[ACME].refused
    assert len(said.message) < 3_000
    assert "\x1b" not in said.message
    assert "\x07" not in str(said)


def test_what_devices_say_of_themselves_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    out = Out()
    out.line("label \x1b[2Jx")
    out.table(["label"], [["\x1b]0;title\x07[bold]"]])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]" in shown


def test_the_history_of_a_device_has_an_end(tmp_path: Path) -> None:
    home = DeviceHome.at(tmp_path)
    home.folder.mkdir()
    for number in range(12):
        home.record("refused", number=number, message="x" * 100_000)
    assert (home.folder / "history.jsonl").stat().st_size < HISTORY_LIMIT_BYTES + 200_000
    assert home.history()[-1]["number"] == 11


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/\u00e9", "https://a b/x", "https://" + "a" * 300 + "/x"],
    ids=["path", "host with a space", "long label"],
)
def test_an_address_that_cannot_be_asked_is_a_wrong_answer(url: str) -> None:
    class Server:
        def locate(self, digests: Any) -> dict[Digest, Location]:
            return {one: Location(url.format(port=port), 0) for one in digests}

    with serving(Impostor(_empty())) as address:
        port = address.rpartition(":")[2]
        content = PresignedContent(Server())  # type: ignore[arg-type]
        with pytest.raises(WrongAnswer):
            content.open(BlobRange(DIGEST, 10, 0, 10))
        content.close()


def test_holds_without_end_are_refused_and_what_runs_stays(
    scene: Scene, tmp_path: Path, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The online key alone lists holds, so it could list as many as fill the memory."""
    rollout = scene.first.channel("model").rollout.id
    holds = {}
    for number in range(40):
        channel = ChannelName(f"c{number}")
        hold = Hold(
            artifact=ArtifactId.parse("acme/model"),
            channel=channel,
            rollout=rollout,
            state=HoldState.RUNNING,
            reason="x" * 2_000,
        )
        holds[f"_hold/model/{channel}.json"] = encode_document(hold)
    loot = scene.first.signed(now, holds=holds)
    device = scene.device(tmp_path, "first")
    home = DeviceHome.at(device.home)
    monkeypatch.setattr(fetcher, "MAX_READ_BYTES", 50_000)
    impostor = Impostor(loot, poll=_roles_only(loot))
    with serving(impostor) as address:
        channel_ = rpc.open_channel(ServerAddress.parse(address))
        try:
            source = RepositorySource(channel_, None)
            trust = home.trust(ACME, home.state())
            polled = source.poll([trust.held()])[ACME]
            fetching = fetcher_of(source, ACME, polled.files, trust.held().versions)
            admitted = trust.admit(fetching)
        finally:
            channel_.close()
    assert admitted.problems["_hold"].reason is Reason.TOO_LARGE
    assert len([path for path in impostor.asked if "_hold" in path]) < 40
    assert device.active == "1.0.0"


def _roles_only(loot: Loot) -> Any:
    def poll(request: Any, context: grpc.ServicerContext) -> Iterator[wire.PollResponse]:
        del request, context
        for path, data in loot.files.items():
            if path.startswith("metadata/"):
                yield wire.PollResponse(namespace=ACME, path=path, data=data)

    return poll


def test_a_document_is_read_no_further_than_was_signed(
    scene: Scene, tmp_path: Path, now: int
) -> None:
    loot = scene.first.with_hold(now, "model", HoldState.PAUSED)
    sent = 0

    def read(path: str, context: grpc.ServicerContext) -> bytes | None:
        nonlocal sent
        del context
        if "_hold/" in path:
            sent += 1
            return b"x" * 4_000_000
        return None

    device = scene.device(tmp_path, "first")
    said = device.update(Impostor(loot, poll=_roles_only(loot), read=read))
    assert sent == 1
    decision = said["artifacts"][0]["decision"]
    assert (decision["hold_known"], device.active) == (False, "1.0.0")
    assert (
        json.loads((device.home / "device" / "state.json").read_text())["namespaces"]["acme"][
            "problems"
        ]["_hold"]["reason"]
        == "too_large"
    )


def test_an_agent_outlives_what_nobody_expected(tmp_path: Path) -> None:
    """It waits and tries again: a server whose answers end it would stop every other server's."""
    home = DeviceHome.at(tmp_path)
    home.change("test", lambda state: state)
    lines: list[str] = []

    def broken(progress: object) -> NoReturn:
        del progress
        raise ZeroDivisionError("never\nseen")

    def say(line: str) -> None:
        lines.append(line)
        if "unexpected" in line and sum("unexpected" in one for one in lines) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    try:
        Agent(home, broken, poll_s=0.01, say=say).run()
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
    assert "stopped" in lines[-1]
    assert not any("\n" in line for line in lines)
