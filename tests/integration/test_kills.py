"""Each command is killed at each of its steps, then run again: it goes on and nothing is lost."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kills import KILLED
from support.walks import Walk, walking


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with walking(tmp_path_factory.mktemp("kills")) as walk:
        yield walk


@pytest.fixture(scope="module")
def release(walk: Walk) -> Path:
    folder = walk.folder / "release"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(bytes(range(256)) * 40_000)
    (folder / "prompt.txt").write_text("be brief")
    return folder


@pytest.fixture(scope="module")
def publisher(walk: Walk, release: Path) -> Path:
    home = walk.folder / "publisher"
    assert walk.init(home, "acme").returncode == 0
    pushed = walk.run(home, "push", str(release), "llm@1.0.0", "--kind", "model", "--to", "stable")
    assert pushed.returncode == 0, pushed.stderr
    return home


def _steps(trace: Path) -> list[tuple[str, int]]:
    """Each step with which time it comes: the first, and of the store's own also the last.

    Of the replacement of one file, only the middle: the others are tested with `write_atomically`.
    """
    counts = Counter(
        name
        for name in trace.read_text().splitlines()
        if not name.endswith((".json:write", ".json:sync", "current:write", "current:sync"))
    )
    often = ("download", "release", "upload")
    return [
        (name, at)
        for name, count in counts.items()
        for at in sorted({1, count if name.startswith(often) else 1})
    ]


def test_init_goes_on_after_a_kill_at_each_step(walk: Walk) -> None:
    trace = walk.folder / "init.trace"
    home = walk.folder / "init"
    token = str(walk.server / "admin.token")
    traced = walk.run(
        home, "init", "traced", "--server", walk.address, "--token-file", token, trace=trace
    )
    assert traced.returncode == 0, traced.stderr
    steps = _steps(trace)
    assert {"init:created", "init:keys", "init:signed", "init:submitted"} <= {n for n, _ in steps}
    for number, (name, at) in enumerate(steps):
        home = walk.folder / f"init-{number}"
        namespace = f"kill-{number}"
        assert walk.init(home, namespace, kill=name, at=at).returncode == KILLED, name
        again = walk.init(home, namespace).returncode
        status = walk.json(home, "status")
        assert again in {0, 1}, name  # 1: it had just been finished
        assert status["publisher"][0]["root_sha256"], name


def test_push_goes_on_after_a_kill_at_each_step(walk: Walk, publisher: Path, release: Path) -> None:
    trace = walk.folder / "push.trace"
    command = ("push", str(release), "--kind", "model", "--to", "stable")
    traced = walk.run(publisher, *command, "traced@1.0.0", trace=trace)
    assert traced.returncode == 0, traced.stderr
    steps = _steps(trace)
    assert {"push:uploaded", "push:signed", "push:submitted"} <= {name for name, _ in steps}
    for number, (name, at) in enumerate(steps):
        (release / "prompt.txt").write_text(f"be brief, {number}")
        artifact = f"killed-{number}"
        killed = walk.run(publisher, *command, f"{artifact}@1.0.0", kill=name, at=at)
        assert killed.returncode == KILLED, (name, killed.stderr)
        again = walk.run(publisher, *command, f"{artifact}@1.0.0")
        assert again.returncode == 0, (name, again.stderr)
        shown = walk.json(publisher, "show", artifact)
        assert [one["version"] for one in shown["releases"]] == ["1.0.0"]
        assert shown["channels"][0]["release"]["version"] == "1.0.0"


def test_a_device_goes_on_after_a_kill_at_each_step(walk: Walk, publisher: Path) -> None:
    invited = walk.json(publisher, "invite", "--follow", "llm", "--uses", "500")
    join = str(invited["join"])
    trace = walk.folder / "device.trace"
    model = walk.folder / "device"
    for command in (("join", join), ("update",)):
        traced = walk.run(model, *command, trace=trace)
        assert traced.returncode == 0, traced.stderr
    expected = walk.json(model, "path", "acme/llm")["digest"]
    steps = _steps(trace)
    assert {"admission:marks", "trust:sync", "join:root", "activate:pointer"} <= {
        name for name, _ in steps
    }
    for number, (name, at) in enumerate(steps):
        home = walk.folder / f"device-{number}"
        killed = walk.run(home, "join", join, kill=name, at=at)
        if killed.returncode != KILLED:
            killed = walk.run(home, "update", kill=name, at=1)
        assert killed.returncode == KILLED, (name, killed.stderr)
        for command in (("join", join), ("update",)):
            again = walk.run(home, *command)
            assert again.returncode == 0, (name, again.stderr)
        verified = walk.json(home, "verify", "acme/llm")
        assert (verified["ok"], verified["digest"]) == (True, expected), name
        assert not list((home / "device" / "store" / "partial").iterdir()), name
        shutil.rmtree(home)


def test_a_killed_join_spends_one_use(walk: Walk, publisher: Path) -> None:
    join = str(walk.json(publisher, "invite", "--follow", "llm", "--uses", "1")["join"])
    home = walk.folder / "one-use"
    assert walk.run(home, "join", join, kill="join:registered").returncode == KILLED
    assert walk.run(home, "join", join).returncode == 0
    spent = walk.run(walk.folder / "too-late", "join", join)
    assert spent.returncode == 1
    assert "used up" in spent.stderr


def test_an_update_killed_at_each_step_leaves_a_working_release(
    walk: Walk, publisher: Path, release: Path
) -> None:
    push = ("push", str(release), "--kind", "model", "--to", "stable")
    assert walk.run(publisher, *push, "moving@1.0.0").returncode == 0
    invited = str(walk.json(publisher, "invite", "--follow", "moving", "--uses", "9")["join"])
    first = walk.folder / "moving"
    assert walk.run(first, "join", invited).returncode == 0
    assert walk.run(first, "update").returncode == 0
    (release / "model.gguf").write_bytes(bytes(range(255, -1, -1)) * 40_000)
    assert walk.run(publisher, *push, "moving@1.1.0").returncode == 0
    traced = walk.folder / "moving-traced"
    shutil.copytree(first, traced, symlinks=True)
    trace = walk.folder / "update.trace"
    assert walk.run(traced, "update", trace=trace).returncode == 0
    for number, (name, at) in enumerate(_steps(trace)):
        home = walk.folder / f"moving-{number}"
        shutil.copytree(first, home, symlinks=True)
        killed = walk.run(home, "update", kill=name, at=at)
        assert killed.returncode == KILLED, (name, killed.stderr)
        used = walk.run(home, "use", "acme/moving", "--", "sh", "-c", "echo $SEALIFT_RELEASE")
        assert used.stdout.strip() in {"acme/moving@1.0.0", "acme/moving@1.1.0"}, name
        assert walk.json(home, "verify", "acme/moving")["ok"], name
        assert walk.run(home, "update").returncode == 0, name
        assert walk.json(home, "status")["device"]["artifacts"][0]["active"] == "1.1.0"
        shutil.rmtree(home)
