"""A crash at every step of an admission: what a new process finds, and that it goes on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sealift.client.trust.memory import Memory
from sealift.client.trust.scratch import Generations
from sealift.host.files import DiskFull
from sealift.protocol import layout
from sealift.protocol.documents import HoldState
from sealift.protocol.errors import RuleViolation
from sealift.protocol.reasons import Reason
from support.repository import MODEL, STABLE, Device, SignedNamespace

STEPS = {
    "admission:root",
    "root.json:write",
    "root.json:rename",
    "root.json:sync",
    "admission:marks",
    "state.json:write",
    "state.json:rename",
    "state.json:sync",
    "admission:remembered",
    "trust:sync",
    "current:write",
    "current:rename",
    "current:sync",
}


def test_a_crash_at_any_step_leaves_the_old_or_the_new_and_never_less_than_the_marks(
    acme: SignedNamespace, device: Device, tmp_path: Path
) -> None:
    """The home is copied at each step: what lies there is what a crash would leave."""
    channel = acme.channel(acme.release("1.0.0"))
    old = device.admit(acme)
    old_files = acme.published()
    acme.clock.pass_s(60)
    acme.publish_root()
    acme.channel(acme.release("1.1.0"), 2)
    acme.hold("2".zfill(16), HoldState.HALTED)
    crashed: list[tuple[str, Device]] = []

    def copy(name: str) -> None:
        crashed.append((name, device.copied(tmp_path / f"{len(crashed)}-{name}")))

    new = device.admit(acme, step=copy)
    assert {name for name, _ in crashed} == STEPS
    raised = False
    for name, after in crashed:
        believed = after.believed()
        assert believed is None or believed.channel(MODEL, STABLE) in (
            channel,
            new.channel(MODEL, STABLE),
        ), name
        raised = raised or after.memory.channels["model:stable"].sequence == 2
        if believed is None:
            assert raised, name
        if raised:
            assert after.memory.final == {"2".zfill(16): HoldState.HALTED}, name
            with pytest.raises(RuleViolation, match="older"):
                after.copied(after.folder.with_name(f"{name}-replay")).admit(acme, old_files)

        admitted = after.admit(acme)

        assert not admitted.problems, name
        assert admitted.channel(MODEL, STABLE) == new.channel(MODEL, STABLE), name
        assert after.memory == device.memory.model_copy(update={"bound": after.memory.bound})
        assert after.root_file.read_bytes() == acme.current[layout.ROOT].data
        generations = list((after.home.folder / "trust" / "acme").glob("gen-*"))
        assert len(generations) == 1, name
    assert raised
    assert old.channel(MODEL, STABLE) == channel


@pytest.mark.parametrize("step", sorted(STEPS))
def test_an_error_at_any_step_leaves_no_pointer_to_nothing(
    acme: SignedNamespace, device: Device, step: str
) -> None:
    """As a disk that fails for a moment: the process goes on, and cleans up after itself."""
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    acme.clock.pass_s(60)
    acme.publish_root()
    acme.channel(acme.release("1.1.0"), 2)

    def fail(name: str) -> None:
        if name == step:
            raise OSError(errno.EIO, "the disk is wrong")

    with pytest.raises(Exception, match="disk is wrong"):
        device.admit(acme, step=fail)

    folder = device.home.folder / "trust" / "acme"
    pointed = folder / (folder / "current").read_text()
    assert (pointed / "metadata" / "timestamp.json").exists()
    assert not device.admit(acme).problems
    assert list(folder.glob("gen-*")) == [folder / (folder / "current").read_text()]


def test_a_full_disk_leaves_no_half_a_generation(
    acme: SignedNamespace, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    device.admit(acme)
    folder = device.home.folder / "trust" / "acme"
    before = sorted(folder.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("sealift.client.trust.scratch.shutil.copytree", full)
    with pytest.raises(DiskFull):
        device.admit(acme)

    assert sorted(folder.iterdir()) == before


def test_what_was_deleted_or_damaged_in_the_cache_comes_back(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))
    first = device.admit(acme)
    folder = device.home.folder / "trust" / "acme"
    generations = Generations(folder)
    for damaged in (b"", b"{}", b"gen-1/../../..", b"\xff"):
        current = generations.current()
        assert current is not None
        (current.metadata / "a.model.channels.json").write_bytes(damaged)
        (folder / "current").write_bytes(damaged or (folder / "current").read_bytes())

        again = device.admit(acme)

        assert not again.problems
        assert again.channel(MODEL, STABLE) == first.channel(MODEL, STABLE)


def test_nothing_new_writes_nothing(acme: SignedNamespace, device: Device) -> None:
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)

    def never(name: str) -> None:
        raise AssertionError(name)

    believed = device.admit(acme, files={}, step=never)

    assert believed.channel(MODEL, STABLE) is not None


def test_without_its_root_a_home_admits_nothing(acme: SignedNamespace, device: Device) -> None:
    device.admit(acme)
    held = acme.fetcher(1)
    device.root_file.unlink()
    home = device.home

    with pytest.raises(Exception, match="root of acme is gone") as refused:
        home.trust(acme.name, home.state()).admit(held)

    assert getattr(refused.value, "reason", None) is Reason.MISSING
    assert isinstance(device.memory, Memory)
