"""The newest root and the marks: what no deleted cache and no replayed file takes away."""

from __future__ import annotations

import pytest
from tuf.api.metadata import MetaFile

from sealift.client.trust.memory import Bound, Memory
from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout, metadata
from sealift.protocol.documents import HoldState
from sealift.protocol.errors import RuleViolation
from sealift.protocol.join import ChannelMark, RoleMark
from sealift.protocol.layout import HOUR_S, RoleClass
from sealift.protocol.reasons import Reason
from support.repository import MODEL, STABLE, Device, SignedNamespace, encode, new_signer

RELEASES = layout.role_name(MODEL, RoleClass.RELEASES)
CHANNELS = layout.role_name(MODEL, RoleClass.CHANNELS)


def remove_recovery_key(acme: SignedNamespace) -> None:
    """Root 2 has no longer the recovery key, which was stolen."""
    acme.set_root_keys(layout.ROOT, [acme.daily])
    acme.publish_root([acme.daily, acme.recovery])
    acme.refresh()


def test_t01_a_stolen_removed_root_key_walks_nobody_to_its_own_root(
    acme: SignedNamespace, device: Device
) -> None:
    remove_recovery_key(acme)
    device.admit(acme)
    thief = SignedNamespace(daily=new_signer(), recovery=acme.recovery, clock=acme.clock)
    thief.set_root_keys(layout.ROOT, [acme.recovery])
    thief.publish_root([acme.recovery])
    thief.publish_root([acme.recovery])
    thief.refresh()
    device.lose_cache()
    from_root_1 = {**thief.files, "metadata/1.root.json": acme.files["metadata/1.root.json"]}

    with pytest.raises(RuleViolation):
        device.admit(thief, from_root_1)

    assert device.root_file.read_bytes() == acme.current[layout.ROOT].data


def test_t01_the_newest_root_is_the_bootstrap_when_the_cache_is_gone(
    acme: SignedNamespace, device: Device
) -> None:
    remove_recovery_key(acme)
    device.admit(acme)
    device.lose_cache()
    without_old_roots = acme.published()
    del without_old_roots["metadata/1.root.json"]

    admitted = device.admit(acme, without_old_roots)

    assert admitted.roles[layout.ROOT].version == 2


def test_t02_a_root_chain_that_verifies_is_kept_whatever_fails_after_it(
    acme: SignedNamespace, device: Device
) -> None:
    device.admit(acme)
    remove_recovery_key(acme)
    files = acme.published()
    del files[f"metadata/{acme.current[layout.SNAPSHOT].version}.snapshot.json"]

    with pytest.raises(RuleViolation):
        device.admit(acme, files)

    assert device.root_file.read_bytes() == acme.current[layout.ROOT].data


def test_t02_a_root_is_kept_also_if_targets_cannot_even_be_read(
    acme: SignedNamespace, device: Device
) -> None:
    device.admit(acme)
    remove_recovery_key(acme)
    data = acme.current[layout.TARGETS].data
    doubled = data.replace(b'"_type":"targets"', b'"_type":"targets","_type":"targets"')
    assert doubled != data
    acme.put_file(layout.TARGETS, doubled)

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)

    assert refused.value.reason is Reason.MALFORMED
    assert device.root_file.read_bytes() == acme.current[layout.ROOT].data


@pytest.mark.parametrize("keep_cache", [True, False])
def test_t03_old_files_are_refused_also_when_the_cache_is_gone(
    acme: SignedNamespace, device: Device, keep_cache: bool
) -> None:
    acme.channel(acme.release("1.0.0"))
    old = acme.published()
    device.admit(acme)
    acme.clock.pass_s(HOUR_S)
    acme.channel(acme.release("1.1.0"), 2)
    device.admit(acme)
    if not keep_cache:
        device.lose_cache()

    with pytest.raises(RuleViolation) as refused:
        device.admit(acme, old)

    assert refused.value.reason is Reason.ROLLED_BACK
    assert device.memory.channels["model:stable"].sequence == 2


def test_t03_a_role_goes_not_back_under_a_new_snapshot(
    acme: SignedNamespace, device: Device
) -> None:
    """Whoever has the online key signs an old releases role back into the snapshot."""
    acme.channel(acme.release("1.0.0"))
    old = acme.current[RELEASES]
    acme.channel(acme.release("1.1.0"), 2)
    device.admit(acme)
    device.lose_cache()
    acme.clock.pass_s(60)
    entry = MetaFile.from_data(old.version, old.data, ["sha256"])
    acme.refresh(meta={f"{RELEASES}.json": entry})

    admitted = device.admit(acme)

    assert admitted.problems[RELEASES].reason is Reason.ROLLED_BACK
    assert admitted.problems[RELEASES].rule == "T3"
    assert device.memory.roles[RELEASES].version > old.version


def test_t03_a_channel_goes_not_back_under_a_new_role_file(
    acme: SignedNamespace, device: Device
) -> None:
    first = acme.release("1.0.0")
    acme.channel(first, 5)
    device.admit(acme)
    device.lose_cache()
    acme.channel(first, 4)

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].rule == "T3"
    assert admitted.channel(MODEL, STABLE) is None
    assert device.memory.channels["model:stable"].sequence == 5


def test_t03_no_mark_rises_from_what_a_snapshot_only_says(
    acme: SignedNamespace, device: Device
) -> None:
    """An online thief lists a version that was never signed; afterwards the true one passes."""
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    listed = MetaFile(1_000, hashes={"sha256": "0" * 64})
    acme.refresh(meta={f"{RELEASES}.json": listed})
    assert device.admit(acme).problems[RELEASES].reason is Reason.MISSING
    assert device.memory.roles[RELEASES].version == 2

    acme.clock.pass_s(60)
    acme.refresh()

    assert not device.admit(acme).problems


def test_t03_a_role_that_only_a_snapshot_lists_may_go_again(
    acme: SignedNamespace, device: Device
) -> None:
    device.admit(acme)
    acme.refresh(meta={"a.ghost.releases.json": MetaFile(7)})
    device.admit(acme)
    acme.clock.pass_s(60)
    acme.refresh()

    assert not device.admit(acme).problems


def test_t03_a_mark_falls_with_the_keys_that_signed_it(
    acme: SignedNamespace, device: Device
) -> None:
    stolen = new_signer()
    acme.delegate(RELEASES, [stolen])
    acme.roles[RELEASES].version = 900
    acme.publish(layout.TARGETS, RELEASES)
    device.admit(acme)
    assert device.memory.roles[RELEASES].version == 901
    acme.delegate(RELEASES, [acme.daily])
    acme.roles[RELEASES].version = 3
    acme.publish(layout.TARGETS, RELEASES)

    admitted = device.admit(acme)

    assert not admitted.problems
    assert device.memory.roles[RELEASES].version == 4


def test_t03_a_rotation_of_other_keys_lets_no_old_channel_in(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))
    old = acme.current[CHANNELS]
    acme.channel(acme.release("1.1.0"), 2)
    device.admit(acme)
    device.lose_cache()
    acme.online = new_signer()
    acme.set_root_keys(layout.SNAPSHOT, [acme.online])
    acme.set_root_keys(layout.TIMESTAMP, [acme.online])
    acme.delegations.keys.clear()
    for role in acme.delegated:
        acme.delegate(role, [acme.online if role == layout.HOLD else acme.daily])
    acme.publish_root()
    acme.publish(layout.TARGETS, layout.HOLD)
    acme.refresh(meta={f"{CHANNELS}.json": MetaFile(old.version)})

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].rule == "T3"


def test_t03_a_threshold_keeps_a_mark_while_enough_of_its_keys_stand() -> None:
    keys = [b"a", b"b", b"c"]
    signers = tuple(metadata.fingerprint(key) for key in keys[:2])
    memory = Memory(roles={"_stop": RoleMark(version=9, signers=signers)})

    assert memory.version_seen("_stop", frozenset(keys[1:]), 1) == 9
    assert memory.version_seen("_stop", frozenset(keys[1:]), 2) == 0
    assert memory.version_seen("_stop", frozenset(keys), 2) == 9
    assert memory.version_seen("_stop", frozenset([b"d"]), 1) == 0


def test_t03_two_processes_that_admit_at_once_lower_no_mark(
    acme: SignedNamespace, device: Device
) -> None:
    """A slow admission of older files ends after a quick one of newer files."""
    acme.channel(acme.release("1.0.0"))
    old = acme.published()
    acme.clock.pass_s(60)
    acme.channel(acme.release("1.1.0"), 2)
    newer = acme.published()

    def meanwhile(name: str) -> None:
        if name == "admission:marks":
            device.admit(acme, newer)

    device.admit(acme, old, step=meanwhile)

    assert device.memory.channels["model:stable"].sequence == 2
    assert device.memory.roles[RELEASES].version == 3
    device.lose_cache()
    with pytest.raises(RuleViolation):
        device.admit(acme, old)


def test_t05_joining_again_only_raises_marks() -> None:
    first, second = "1" * 16, "2" * 16
    held = Memory(
        roles={"targets": RoleMark(version=5), "_stop": RoleMark(version=1)},
        channels={"model:stable": ChannelMark(sequence=7, sha256=sha256_bytes(b"7"))},
        final={first: HoldState.REVERTED},
        bound=Bound(issued=5, signer="s", boot_id="b", boot_s=1),
    )
    invited = Memory(
        roles={"targets": RoleMark(version=4), "_stop": RoleMark(version=2)},
        channels={"model:stable": ChannelMark(sequence=6, sha256=sha256_bytes(b"6"))},
        final={first: HoldState.HALTED, second: HoldState.HALTED},
    )

    for memory in (held.raised_by(invited), invited.raised_by(held)):
        assert {role: mark.version for role, mark in memory.roles.items()} == {
            "targets": 5,
            "_stop": 2,
        }
        assert memory.channels["model:stable"].sequence == 7
        assert memory.final == {first: HoldState.REVERTED, second: HoldState.HALTED}
    assert held.raised_by(invited).bound == held.bound


def test_a_root_that_skips_a_version_is_not_taken(acme: SignedNamespace, device: Device) -> None:
    device.admit(acme)
    acme.root.version = 3
    acme.files["metadata/2.root.json"] = encode(acme.root, [acme.daily, acme.recovery])
    acme.refresh()

    with pytest.raises(RuleViolation):
        device.admit(acme)

    assert device.root_file.read_bytes() == acme.files["metadata/1.root.json"]
