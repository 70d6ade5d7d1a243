"""`active.json`: what is active, and what to go back to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.host.active import (
    ActivePointer,
    DamagedPointer,
    NewerPointer,
    NoLastGood,
    ReleaseId,
)
from sealift.protocol.names import ArtifactId, Digest, Version

MODEL = ArtifactId.parse("acme/model")
PROMPT = ArtifactId.parse("acme/prompt")
ONE, TWO, THREE = (
    ReleaseId(version=Version(number, 0, 0), digest=Digest(f"{number:064x}"))
    for number in (1, 2, 3)
)


def active(*releases: ReleaseId) -> ActivePointer:
    pointer = ActivePointer()
    for now, release in enumerate(releases):
        pointer = pointer.with_active(MODEL, release, keep_last_good=True, now=now)
    return pointer


def last_good(pointer: ActivePointer) -> ReleaseId | None:
    return pointer.artifacts[MODEL].last_good


def test_the_release_that_is_left_for_a_better_one_is_last_good() -> None:
    assert last_good(active(ONE)) is None
    assert last_good(active(ONE, TWO)) == ONE
    assert last_good(active(ONE, TWO, THREE)) == TWO


def test_a_release_that_is_left_because_it_is_bad_is_never_last_good() -> None:
    back = active(ONE, TWO).with_active(MODEL, THREE, keep_last_good=False, now=9)
    assert back.artifacts[MODEL].active == THREE
    assert last_good(back) == ONE


def test_going_back_to_last_good_leaves_nothing_to_go_back_to() -> None:
    undone = active(ONE, TWO).with_undone(MODEL, now=9)
    assert undone.artifacts[MODEL].active == ONE
    assert last_good(undone) is None
    with pytest.raises(NoLastGood):
        undone.with_undone(MODEL, now=10)


def test_undo_without_an_earlier_release_is_refused() -> None:
    with pytest.raises(NoLastGood, match="acme/model"):
        ActivePointer().with_undone(MODEL, now=1)
    with pytest.raises(NoLastGood):
        active(ONE).with_undone(MODEL, now=1)


def test_activating_the_active_release_changes_nothing() -> None:
    pointer = active(ONE, TWO)
    assert pointer.with_active(MODEL, TWO, keep_last_good=True, now=99) is pointer
    assert pointer.with_active(MODEL, TWO, keep_last_good=False, now=99) is pointer


def test_forgetting_last_good_keeps_what_is_active() -> None:
    pointer = active(ONE, TWO).without_last_good(MODEL)
    assert pointer.artifacts[MODEL].active == TWO
    assert last_good(pointer) is None


def test_artifacts_do_not_touch_each_other() -> None:
    pointer = active(ONE, TWO).with_active(PROMPT, THREE, keep_last_good=True, now=5)
    assert pointer.digests() == {ONE.digest, TWO.digest, THREE.digest}
    left = pointer.without(MODEL)
    assert left.get(MODEL) is None
    assert left.artifacts[PROMPT].active == THREE


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=20))
def test_last_good_is_never_the_active_release(moves: list[tuple[int, bool]]) -> None:
    pointer = ActivePointer()
    bad: set[Digest] = set()
    for now, (number, good) in enumerate(moves):
        release = ReleaseId(version=Version(number, 0, 0), digest=Digest(f"{number:064x}"))
        before = pointer.get(MODEL)
        pointer = pointer.with_active(MODEL, release, keep_last_good=good, now=now)
        if before is not None and before.active != release:
            (bad.discard if good else bad.add)(before.active.digest)
        entry = pointer.artifacts[MODEL]
        assert entry.active == release
        assert entry.last_good != release
        if before is not None and before.active != release and not good and entry.last_good:
            assert entry.last_good == before.last_good


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    pointer = active(ONE, TWO)
    pointer.save(path)
    assert ActivePointer.load(path) == pointer
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "artifacts": {
            "acme/model": {
                "active": {"version": "2.0.0", "digest": TWO.digest},
                "last_good": {"version": "1.0.0", "digest": ONE.digest},
                "since": 1,
            }
        },
    }


def test_without_a_file_nothing_is_active(tmp_path: Path) -> None:
    assert ActivePointer.load(tmp_path / "active.json") == ActivePointer()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"artifacts":{}}',
        b'{"schema":0,"artifacts":{}}',
        b'{"schema":1,"artifacts":{"model":{}}}',
        b'{"schema":1,"artifacts":{"acme/model":{"active":{"version":"1","digest":"x"}}}}',
        b"\x00" * 200,
    ],
)
def test_a_damaged_file_is_never_taken_for_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "active.json"
    path.write_bytes(content)
    with pytest.raises(DamagedPointer, match=r"active\.json is damaged"):
        ActivePointer.load(path)


def test_a_newer_schema_says_so(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    path.write_bytes(b'{"schema":2,"artifacts":["other"]}')
    with pytest.raises(NewerPointer, match="newer Sealift"):
        ActivePointer.load(path)


@pytest.mark.parametrize("at", ["write", "rename", "sync"])
def test_a_crash_while_saving_leaves_the_old_or_the_new(tmp_path: Path, at: str) -> None:
    path = tmp_path / "active.json"
    active(ONE).save(path)

    def crash(name: str) -> None:
        if name == f"active.json:{at}":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        active(ONE, TWO).save(path, step=crash)
    found = ActivePointer.load(path)
    assert found == (active(ONE, TWO) if at == "sync" else active(ONE))
    assert [one.name for one in tmp_path.iterdir()] == ["active.json"]
