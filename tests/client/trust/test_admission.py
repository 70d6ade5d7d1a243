"""The rules of admission, each against who would break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, TargetFile, Targets

from sealift.client.trust.admission import Admitted
from sealift.client.trust.fetcher import RepositoryFetcher, fetcher_of
from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout
from sealift.protocol.documents import Channel, HoldState, Severity
from sealift.protocol.errors import RuleViolation
from sealift.protocol.layout import DAY_S, RoleClass
from sealift.protocol.names import ArtifactId, ArtifactName, Namespace, Version
from sealift.protocol.parsing import encode_document, encode_json
from sealift.protocol.reasons import Reason
from support.repository import (
    MODEL,
    STABLE,
    Device,
    SignedNamespace,
    encode,
    listing,
    manifest_of,
    new_signer,
    resigned,
)

RELEASES = layout.role_name(MODEL, RoleClass.RELEASES)
CHANNELS = layout.role_name(MODEL, RoleClass.CHANNELS)
PREVIEWS = layout.role_name(MODEL, RoleClass.PREVIEWS)
PATH = layout.channel_path(MODEL, STABLE)


def refusal(device: Device, acme: SignedNamespace) -> RuleViolation:
    """How the whole admission is refused."""
    with pytest.raises(RuleViolation) as refused:
        device.admit(acme)
    return refused.value


def renamed(key: SSlibKey, keyid: str, **changes: Any) -> SSlibKey:
    """The same key under another name."""
    said = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval, **changes}
    return SSlibKey(keyid, said["keytype"], said["scheme"], said["keyval"])


# --- T6 ---------------------------------------------------------------------------------------


def test_t06_a_refused_admission_leaves_the_cache_as_it_was(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    trust = device.home.folder / "trust"
    before = {name: (trust / name).read_bytes() for name in listing(trust)}
    acme.clock.pass_s(60)
    acme.roles[layout.TARGETS].delegations = Delegations({}, {})
    acme.publish(layout.TARGETS)

    refusal(device, acme)

    assert {name: (trust / name).read_bytes() for name in listing(trust)} == before


@pytest.mark.parametrize("role", [layout.ROOT, layout.TIMESTAMP, layout.SNAPSHOT, layout.TARGETS])
def test_t06_a_file_beyond_its_limit_is_not_read(
    acme: SignedNamespace, device: Device, role: str
) -> None:
    version = 2 if role == layout.ROOT else acme.current[role].version
    path = f"metadata/{layout.metadata_file_name(role, version)}"
    acme.files[path] = acme.current[role].data + b" " * layout.length_limit(role)

    refused = refusal(device, acme)

    assert (refused.role, refused.reason) == (role, Reason.TOO_LARGE)
    assert device.believed() is None


def test_t06_a_declared_length_waives_no_limit(acme: SignedNamespace, device: Device) -> None:
    """The stock client reads as much as the snapshot declares; we do not."""
    padded = acme.current[RELEASES].data + b" " * layout.length_limit(RELEASES)
    acme.files[f"metadata/1.{RELEASES}.json"] = padded
    acme.refresh(meta={f"{RELEASES}.json": MetaFile.from_data(1, padded, ["sha256"])})

    assert RELEASES in device.admit(acme).problems


def test_t06_names_that_no_file_has_are_answered_with_nothing(acme: SignedNamespace) -> None:
    odd = {"metadata/x.root.json": b"", "metadata/.root.json": b"", "x/9.root.json": b"", "": b""}
    fetcher = fetcher_of(None, acme.name, {**acme.files, **odd}, {layout.ROOT: 1})

    assert isinstance(fetcher, RepositoryFetcher)
    assert fetcher.read("metadata/1.root.json") == acme.current[layout.ROOT].data


# --- T7 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [layout.TIMESTAMP, layout.SNAPSHOT, layout.TARGETS])
def test_t07_the_top_level_passes_together_or_not_at_all(
    acme: SignedNamespace, device: Device, role: str
) -> None:
    acme.channel(acme.release("1.0.0"))
    before = device.admit(acme)
    acme.clock.pass_s(60)
    acme.publish(layout.TARGETS)
    acme.stop(acme.release("1.1.0"))
    path = f"metadata/{layout.metadata_file_name(role, acme.current[role].version)}"
    acme.files[path] = b"{}"

    assert refusal(device, acme).role == role

    believed = device.believed()
    assert believed is not None
    assert {role: file.data for role, file in believed.roles.items()} == {
        role: file.data for role, file in before.roles.items()
    }


def test_t07_a_lapsed_channel_hides_no_revocation(acme: SignedNamespace, device: Device) -> None:
    bad = acme.release("1.0.0")
    acme.channel(bad)
    device.admit(acme)
    acme.clock.pass_s(181 * DAY_S)
    acme.publish(layout.HOLD)
    acme.stop(bad)

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].reason is Reason.EXPIRED
    stop = admitted.stop(MODEL)
    assert stop is not None
    assert stop.releases[0].sha256 == bad.sha256
    assert admitted.channel(MODEL, STABLE) is not None
    assert admitted.problem(MODEL, STABLE) is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b'"_type":', b'"_type":"targets","_type":'),
        lambda data: data[:-1],
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"signed":', b'"other":'),
    ],
)
def test_t07_one_artifact_whose_file_cannot_be_read_hides_nothing_of_others(
    acme: SignedNamespace, device: Device, spoil: Callable[[bytes], bytes]
) -> None:
    bad = acme.release("1.0.0")
    acme.channel(bad)
    device.admit(acme)
    acme.stop(bad)
    following = encode(acme.roles[RELEASES], [acme.daily])
    acme.roles[RELEASES].version += 1
    spoiled = spoil(following)
    version = acme.roles[RELEASES].version
    acme.files[f"metadata/{version}.{RELEASES}.json"] = spoiled
    entry = MetaFile.from_data(version, spoiled, ["sha256"])
    acme.refresh(meta={f"{RELEASES}.json": entry})

    admitted = device.admit(acme)

    assert set(admitted.problems) == {RELEASES}
    assert admitted.stop(MODEL) is not None
    assert admitted.releases(MODEL)[Version.parse("1.0.0")][0] == bad.sha256


def test_t07_what_strict_reading_refuses_hides_nothing_of_others(
    acme: SignedNamespace, device: Device
) -> None:
    """A file that the stock client takes, as it is signed well, and our reading does not."""
    bad = acme.release("1.0.0")
    device.admit(acme)
    acme.stop(bad)
    data = acme.current[RELEASES].data
    acme.put_file(RELEASES, data.replace(b'"_type":', b'"_type":"targets","_type":'))

    admitted = device.admit(acme)

    assert set(admitted.problems) == {RELEASES}
    assert admitted.stop(MODEL) is not None


@pytest.mark.parametrize("value", [5, True, {}, [], ["1.0.0"]])
@pytest.mark.parametrize("name", ["artifact", "channel", "floor", "release"])
def test_t07_a_field_of_another_type_is_one_problem_and_no_crash(
    acme: SignedNamespace, device: Device, name: str, value: object
) -> None:
    channel = acme.channel(acme.release("1.0.0"), publish=False)
    said = channel.model_dump(mode="json", by_alias=True)
    said[name] = value
    acme.put(PATH, encode_json(said))
    acme.publish(CHANNELS)

    assert device.admit(acme).problems[CHANNELS].reason is Reason.MALFORMED


def test_t07_without_its_stop_role_nothing_new_activates(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))
    acme.roles[layout.STOP].unrecognized_fields = {}
    acme.publish(layout.STOP)

    problem = device.admit(acme).problem(MODEL, STABLE)

    assert problem is not None
    assert problem.role == layout.STOP


def test_t07_a_role_that_the_snapshot_leaves_out_is_missed(
    acme: SignedNamespace, device: Device
) -> None:
    acme.refresh(without=[layout.STOP])

    assert refusal(device, acme).rule == "T7"


def test_t07_a_kept_file_falls_with_its_keys(acme: SignedNamespace, device: Device) -> None:
    """What was admitted before is not kept if the key that signed it was taken away."""
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    acme.delegate(CHANNELS, [new_signer()])
    acme.signers[CHANNELS] = [acme.daily]
    acme.publish(layout.TARGETS)

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].reason is Reason.BAD_SIGNATURE
    assert admitted.channel(MODEL, STABLE) is None


# --- T8 ---------------------------------------------------------------------------------------


def _extra(acme: SignedNamespace) -> None:
    acme.delegated["extra"] = DelegatedRole("extra", [acme.daily.public_key.keyid], 1, True, ["*"])


def _odd_artifact(acme: SignedNamespace) -> None:
    name = "a.UP.releases"
    acme.delegated[name] = DelegatedRole(name, [acme.daily.public_key.keyid], 1, True, ["*"])


def _without_stop(acme: SignedNamespace) -> None:
    del acme.delegated[layout.STOP]


def _other_paths(acme: SignedNamespace) -> None:
    acme.delegated[RELEASES].paths = ["model/*/*.json"]


def _not_terminating(acme: SignedNamespace) -> None:
    acme.delegated[RELEASES].terminating = False


def _lists_a_file(acme: SignedNamespace) -> None:
    data = b"{}"
    path = "model/releases/9.9.9.json"
    acme.roles[layout.TARGETS].targets[path] = TargetFile.from_data(path, data, ["sha256"])


def _half_an_artifact(acme: SignedNamespace) -> None:
    del acme.delegated[PREVIEWS]


def _no_delegations(acme: SignedNamespace) -> None:
    acme.roles[layout.TARGETS].delegations = None


@pytest.mark.parametrize(
    "change",
    [
        _extra,
        _odd_artifact,
        _without_stop,
        _other_paths,
        _not_terminating,
        _lists_a_file,
        _half_an_artifact,
        _no_delegations,
    ],
)
def test_t08_targets_delegates_exactly_what_is_computed(
    acme: SignedNamespace, device: Device, change: Callable[[SignedNamespace], None]
) -> None:
    change(acme)
    acme.publish(layout.TARGETS)

    assert refusal(device, acme).rule == "T8"


@pytest.mark.parametrize("child", ["_hold", "a.other.releases", RELEASES])
def test_t08_a_delegated_role_delegates_nothing(
    acme: SignedNamespace, device: Device, child: str
) -> None:
    """`_stop` names a `_hold` of its own, signed by another, that lifts every hold."""
    channel = acme.channel(acme.release("1.0.0"))
    acme.hold(channel.rollout.id, HoldState.PAUSED)
    device.admit(acme)
    thief = new_signer()
    keyid = thief.public_key.keyid
    theirs = Targets(unrecognized_fields={layout.NAMESPACE_FIELD: "acme"})
    theirs.version = acme.current[child].version + 1 if child in acme.current else 1
    theirs.expires = acme.roles[layout.STOP].expires
    acme.put_file(child, encode(theirs, [thief]))
    roles = {child: DelegatedRole(child, [keyid], 1, True, ["_stop/*", "_hold/*/*.json"])}
    acme.roles[layout.STOP].delegations = Delegations({keyid: thief.public_key}, roles)
    acme.publish(layout.STOP)

    admitted = device.admit(acme)

    assert admitted.problems[layout.STOP].rule == "T8"
    assert admitted.stop(MODEL) is None
    hold = admitted.hold(MODEL, STABLE)
    assert hold is not None
    assert hold.state is HoldState.PAUSED


# --- T9 ---------------------------------------------------------------------------------------


def test_t09_one_key_under_two_ids_is_not_two_for_targets(
    acme: SignedNamespace, device: Device
) -> None:
    """Two keys must sign targets; one does it twice."""
    twin = CryptoSigner(acme.daily._private_key, renamed(acme.daily.public_key, "f" * 64))
    acme.set_root_keys(layout.TARGETS, [acme.daily, twin], threshold=2)
    acme.publish_root()
    acme.signers[layout.TARGETS] = [acme.daily, twin]
    acme.publish(layout.TARGETS)

    refused = refusal(device, acme)

    assert (refused.rule, refused.reason) == ("T9", Reason.DUPLICATE_KEY)
    assert device.root_file.read_bytes() == acme.files["metadata/1.root.json"]


def test_t09_one_key_under_two_ids_is_not_two_for_a_delegated_role(
    acme: SignedNamespace, device: Device
) -> None:
    twin = CryptoSigner(acme.daily._private_key, renamed(acme.daily.public_key, "f" * 64))
    acme.delegate(CHANNELS, [acme.daily, twin], threshold=2)
    acme.publish(layout.TARGETS, CHANNELS)

    refused = refusal(device, acme)

    assert (refused.rule, refused.reason) == ("T9", Reason.DUPLICATE_KEY)


def _upper_case(key: SSlibKey) -> dict[str, str]:
    return {"public": key.keyval["public"].upper()}


def _with_spaces(key: SSlibKey) -> dict[str, str]:
    text = key.keyval["public"]
    return {"public": f"{text[:32]} {text[32:]}"}


@pytest.mark.parametrize("spelled", [_upper_case, _with_spaces])
def test_t09_another_spelling_of_a_key_is_the_same_key(
    acme: SignedNamespace, device: Device, spelled: Callable[[SSlibKey], dict[str, str]]
) -> None:
    key = acme.daily.public_key
    acme.add_key_of(CHANNELS, renamed(key, "e" * 64, keyval=spelled(key)))
    acme.publish(layout.TARGETS)

    assert refusal(device, acme).reason is Reason.DUPLICATE_KEY


def p256_signer() -> CryptoSigner:
    """A signer with a P-256 key."""
    private = ec.generate_private_key(ec.SECP256R1())
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))


@pytest.mark.parametrize(
    "spelled",
    [
        lambda pem: f"a comment\n{pem}",
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: pem + "\n\n",
    ],
)
def test_t09_another_spelling_of_a_pem_is_the_same_key(
    acme: SignedNamespace, device: Device, spelled: Callable[[str], str]
) -> None:
    signer = p256_signer()
    acme.delegate(CHANNELS, [signer])
    acme.publish(layout.TARGETS, CHANNELS)
    assert not device.admit(acme).problems
    pem = spelled(signer.public_key.keyval["public"])
    acme.add_key_of(CHANNELS, renamed(signer.public_key, "e" * 64, keyval={"public": pem}))
    acme.publish(layout.TARGETS)

    assert refusal(device, acme).reason is Reason.DUPLICATE_KEY


def p384_pem() -> str:
    """A key on another curve, as PEM."""
    private = ec.generate_private_key(ec.SECP384R1())
    return str(SSlibKey.from_crypto(private.public_key()).keyval["public"])


UNKNOWN_CURVE = """-----BEGIN PUBLIC KEY-----
MDYwEAYHKoZIzj0CAQYFK4EEAAkDIgADAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAE=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("pem", [p384_pem(), "no PEM", UNKNOWN_CURVE, ""])
def test_t09_a_key_that_cannot_be_loaded_is_refused(
    acme: SignedNamespace, device: Device, pem: str
) -> None:
    key = SSlibKey("d" * 64, "ecdsa", "ecdsa-sha2-nistp256", {"public": pem})
    acme.add_key_of(CHANNELS, key)
    acme.publish(layout.TARGETS)

    refused = refusal(device, acme)

    assert (refused.rule, refused.reason) == ("T9", Reason.MALFORMED)


def test_t09_a_threshold_that_no_keys_can_reach_is_refused(
    acme: SignedNamespace, device: Device
) -> None:
    acme.delegated[CHANNELS].threshold = 2
    acme.publish(layout.TARGETS)

    assert refusal(device, acme).reason is Reason.BAD_DELEGATION


def test_t09_two_of_three_need_two(acme: SignedNamespace, device: Device) -> None:
    first, second, third = new_signer(), new_signer(), new_signer()
    acme.delegate(CHANNELS, [first, second, third], threshold=2)
    acme.signers[CHANNELS] = [second, third]
    acme.publish(layout.TARGETS, CHANNELS)
    assert not device.admit(acme).problems
    acme.signers[CHANNELS] = [second, second]
    acme.publish(CHANNELS)

    assert device.admit(acme).problems[CHANNELS].reason is Reason.BAD_SIGNATURE


# --- T10 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [layout.TARGETS, layout.STOP, layout.HOLD, RELEASES, CHANNELS])
@pytest.mark.parametrize("said", [None, "other", ["acme"]])
def test_t10_a_role_file_says_its_namespace(
    acme: SignedNamespace, device: Device, role: str, said: object
) -> None:
    fields = {} if said is None else {layout.NAMESPACE_FIELD: said}
    acme.roles[role].unrecognized_fields = fields
    acme.publish(role)

    if role == layout.TARGETS:
        assert refusal(device, acme).reason is Reason.WRONG_NAMESPACE
    else:
        assert device.admit(acme).problems[role].reason is Reason.WRONG_NAMESPACE


def test_t10_a_root_says_its_namespace(acme: SignedNamespace, device: Device) -> None:
    acme.root.unrecognized_fields = {layout.NAMESPACE_FIELD: "other"}
    acme.publish_root()
    acme.refresh()

    assert refusal(device, acme).reason is Reason.WRONG_NAMESPACE
    assert device.root_file.read_bytes() == acme.files["metadata/1.root.json"]


def test_t10_one_key_in_two_namespaces_carries_nothing_from_one_to_the_other(
    acme: SignedNamespace, device: Device
) -> None:
    other = SignedNamespace(
        Namespace("other"), clock=acme.clock, daily=acme.daily, online=acme.online
    )
    other.channel(other.release("6.6.6"))
    for role in (RELEASES, CHANNELS):
        acme.put_file(role, other.current[role].data)
    acme.files.update({path: data for path, data in other.files.items() if "targets/" in path})

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].reason is Reason.WRONG_NAMESPACE
    assert admitted.problems[RELEASES].reason is Reason.WRONG_NAMESPACE
    assert not admitted.releases(MODEL)


def _of_namespace(channel: Channel) -> Channel:
    return channel.model_copy(update={"artifact": ArtifactId.parse("other/model")})


def _of_artifact(channel: Channel) -> Channel:
    return channel.model_copy(update={"artifact": ArtifactId.parse("acme/other")})


def _of_channel(channel: Channel) -> Channel:
    return channel.model_copy(update={"channel": type(STABLE)("beta")})


@pytest.mark.parametrize("moved", [_of_namespace, _of_artifact, _of_channel])
def test_t10_a_document_stands_where_it_says(
    acme: SignedNamespace, device: Device, moved: Callable[[Channel], Channel]
) -> None:
    channel = acme.channel(acme.release("1.0.0"), publish=False)
    acme.put(PATH, encode_document(moved(channel)))
    acme.publish(CHANNELS)

    assert device.admit(acme).problems[CHANNELS].reason is Reason.WRONG_PLACE


def test_t10_a_document_is_of_the_type_of_its_place(acme: SignedNamespace, device: Device) -> None:
    acme.put(PATH, manifest_of("acme/model", "1.0.0"))
    acme.publish(CHANNELS)

    assert device.admit(acme).problems[CHANNELS].reason is Reason.MALFORMED


@pytest.mark.parametrize("swapped", [(RELEASES, CHANNELS), (CHANNELS, PREVIEWS)])
def test_t10_two_roles_of_one_key_are_not_each_other(
    acme: SignedNamespace, device: Device, swapped: tuple[str, str]
) -> None:
    acme.channel(acme.release("1.0.0"))
    one, other = swapped
    acme.put_file(other, acme.current[one].data)

    problem = device.admit(acme).problems[other]

    assert problem.reason is Reason.WRONG_PLACE


# --- T11 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "model/releases/1.0.0.json",
        "model/channels/preview.json",
        "model/channels/.json",
        "other/channels/stable.json",
        "model/channels/UP.json",
        "_hold/model/stable.json",
        "model/channels/x/stable.json",
    ],
)
def test_t11_a_role_lists_only_its_own_paths(
    acme: SignedNamespace, device: Device, path: str
) -> None:
    acme.roles[CHANNELS].targets[path] = TargetFile.from_data(path, b"{}", ["sha256"])
    acme.publish(CHANNELS)

    assert device.admit(acme).problems[CHANNELS].reason is Reason.WRONG_PLACE


@pytest.mark.parametrize(
    "hashes",
    [
        {"sha256": "0" * 64, "sha512": "0" * 128},
        {"sha512": "0" * 128},
        {"sha256": "A" * 64},
        {"sha256": "0" * 63},
    ],
)
def test_t11_a_target_has_one_hash_and_it_is_sha256(
    acme: SignedNamespace, device: Device, hashes: dict[str, str]
) -> None:
    path = "model/releases/1.0.0.json"
    acme.roles[RELEASES].targets[path] = TargetFile(2, hashes, path)
    acme.publish(RELEASES)

    assert device.admit(acme).problems[RELEASES].rule == "T11"


def test_t11_equal_sequence_means_equal_bytes(acme: SignedNamespace, device: Device) -> None:
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    device.lose_cache()
    acme.channel(acme.release("1.1.0"))

    problem = device.admit(acme).problems[CHANNELS]

    assert problem.reason is Reason.SEQUENCE_REUSED


def test_t11_a_channel_is_closed_never_dropped(acme: SignedNamespace, device: Device) -> None:
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    acme.roles[CHANNELS].targets.clear()
    acme.publish(CHANNELS)

    admitted = device.admit(acme)

    assert admitted.problems[CHANNELS].reason is Reason.CHANNEL_DROPPED
    assert admitted.channel(MODEL, STABLE) is not None
    acme.channel(None, 2)
    assert not device.admit(acme).problems


def test_t11_a_document_that_is_not_the_signed_one_is_refused(
    acme: SignedNamespace, device: Device
) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    digest = sha256_bytes(encode_document(channel))
    path = f"targets/{layout.hashed_document_path(PATH, digest)}"
    acme.files[path] = acme.files[path].replace(b"1.0.0", b"9.0.0")

    assert device.admit(acme).problems[CHANNELS].reason is Reason.HASH_MISMATCH


# --- T12 --------------------------------------------------------------------------------------


def _changed(acme: SignedNamespace) -> None:
    path = "model/releases/1.0.0.json"
    acme.put(path, manifest_of("acme/model", "1.0.0", b"9.9.9"))


def _dropped(acme: SignedNamespace) -> None:
    del acme.roles[RELEASES].targets["model/releases/1.0.0.json"]


def _of_another_length(acme: SignedNamespace) -> None:
    acme.roles[RELEASES].targets["model/releases/1.0.0.json"].length += 1


@pytest.mark.parametrize("change", [_changed, _dropped, _of_another_length])
def test_t12_a_released_version_is_never_changed_or_dropped(
    acme: SignedNamespace, device: Device, change: Callable[[SignedNamespace], None]
) -> None:
    first = acme.release("1.0.0")
    acme.channel(first)
    device.admit(acme)
    change(acme)
    acme.stop(first)
    acme.publish(RELEASES)

    for _ in range(2):
        admitted = device.admit(acme)

        assert admitted.problems[RELEASES].reason is Reason.RELEASE_CHANGED
        assert set(admitted.problems) == {RELEASES}
        assert admitted.releases(MODEL) == {first.version: (first.sha256, first.length)}
        assert admitted.stop(MODEL) is not None


def test_t12_releases_may_be_added(acme: SignedNamespace, device: Device) -> None:
    acme.release("1.0.0")
    device.admit(acme)
    acme.release("1.1.0")

    admitted = device.admit(acme)

    assert not admitted.problems
    assert len(admitted.releases(MODEL)) == 2


# --- T13, T14 ---------------------------------------------------------------------------------


def hold_of(device: Device, admitted: Admitted) -> tuple[HoldState, bool]:
    """State, and whether it is known, of the hold on stable."""
    channel = admitted.channel(MODEL, STABLE)
    assert channel is not None
    status = admitted.hold_status(MODEL, channel, device.memory, device.clock.now)
    return status.state, status.known


def test_t13_a_verified_hold_role_that_lacks_the_path_means_running(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))

    assert hold_of(device, device.admit(acme)) == (HoldState.RUNNING, True)


def _hold_expired(acme: SignedNamespace) -> None:
    acme.clock.pass_s(8 * DAY_S)
    acme.refresh()


def _hold_unsigned(acme: SignedNamespace) -> None:
    acme.signers[layout.HOLD] = [acme.daily]
    acme.publish(layout.HOLD)


def _hold_unparsable(acme: SignedNamespace) -> None:
    acme.put("_hold/model/stable.json", b"{}")
    acme.publish(layout.HOLD)


def _hold_critical(acme: SignedNamespace) -> None:
    acme.hold("1" * 16, HoldState.RUNNING, critical=("only_at_night",))


def _hold_gone(acme: SignedNamespace) -> None:
    acme.clock.pass_s(60)
    acme.publish(layout.HOLD)
    version = acme.current[layout.HOLD].version
    del acme.files[f"metadata/{version}._hold.json"]


@pytest.mark.parametrize(
    "spoil", [_hold_expired, _hold_unsigned, _hold_unparsable, _hold_critical, _hold_gone]
)
def test_t13_a_hold_that_cannot_be_known_counts_as_paused(
    acme: SignedNamespace, device: Device, spoil: Callable[[SignedNamespace], None]
) -> None:
    acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    spoil(acme)

    admitted = device.admit(acme)

    assert set(admitted.problems) == {layout.HOLD}
    assert hold_of(device, admitted)[1] is False


def test_t13_a_hold_that_expires_on_the_device_counts_as_paused(
    acme: SignedNamespace, device: Device
) -> None:
    acme.channel(acme.release("1.0.0"))
    admitted = device.admit(acme)
    acme.clock.pass_s(8 * DAY_S)

    assert hold_of(device, admitted) == (HoldState.RUNNING, False)
    believed = device.believed()
    assert believed is not None
    assert hold_of(device, believed) == (HoldState.RUNNING, False)


@pytest.mark.parametrize("state", [HoldState.HALTED, HoldState.REVERTED])
@pytest.mark.parametrize("keep_cache", [True, False])
def test_t14_what_was_halted_stays_halted_whatever_is_said_later(
    acme: SignedNamespace, device: Device, state: HoldState, keep_cache: bool
) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    acme.hold(channel.rollout.id, state)
    device.admit(acme)
    if not keep_cache:
        device.lose_cache()
    for later in (HoldState.RUNNING, HoldState.PAUSED):
        acme.hold(channel.rollout.id, later)
        assert hold_of(device, device.admit(acme)) == (state, True)
    acme.roles[layout.HOLD].targets.clear()
    acme.publish(layout.HOLD)
    assert hold_of(device, device.admit(acme)) == (state, True)
    _hold_unsigned(acme)
    assert hold_of(device, device.admit(acme)) == (state, True)


def test_t14_a_paused_rollout_may_run_again(acme: SignedNamespace, device: Device) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    acme.hold(channel.rollout.id, HoldState.PAUSED)
    assert hold_of(device, device.admit(acme)) == (HoldState.PAUSED, True)
    acme.hold(channel.rollout.id, HoldState.RUNNING)

    assert hold_of(device, device.admit(acme)) == (HoldState.RUNNING, True)


def test_t14_a_new_rollout_id_goes_on(acme: SignedNamespace, device: Device) -> None:
    release = acme.release("1.0.0")
    channel = acme.channel(release)
    acme.hold(channel.rollout.id, HoldState.HALTED)
    device.admit(acme)
    acme.channel(release, 2)

    assert hold_of(device, device.admit(acme)) == (HoldState.RUNNING, True)


def test_t14_an_id_is_final_only_if_it_is_the_admitted_channels(
    acme: SignedNamespace, device: Device
) -> None:
    """Else the online key could burn ids that no channel has, or will have."""
    acme.channel(acme.release("1.0.0"))
    acme.hold("f" * 16, HoldState.HALTED)

    device.admit(acme)

    assert device.memory.final == {}


def test_t14_a_halt_is_seen_also_when_the_channels_newest_file_is_refused(
    acme: SignedNamespace, device: Device
) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    acme.roles[CHANNELS].unrecognized_fields = {}
    acme.publish(CHANNELS)
    acme.hold(channel.rollout.id, HoldState.HALTED)

    device.admit(acme)

    assert device.memory.final == {channel.rollout.id: HoldState.HALTED}


def test_t14_one_rollout_id_is_one_plan(acme: SignedNamespace, device: Device) -> None:
    channel = acme.channel(acme.release("1.0.0"))
    device.admit(acme)
    acme.channel(acme.release("1.1.0"), 2, rollout=channel.rollout.id)

    problem = device.admit(acme).problems[CHANNELS]

    assert problem.reason is Reason.ROLLOUT_CHANGED


# --- what else an attacker may send -----------------------------------------------------------


@pytest.mark.parametrize("version", [2**53, 2**63, 10**30])
def test_a_version_beyond_exact_integers_is_refused(
    acme: SignedNamespace, device: Device, version: int
) -> None:
    data = resigned(
        acme.current[RELEASES].data, [acme.daily], lambda signed: signed.update(version=version)
    )
    acme.put_file(RELEASES, data)

    with pytest.raises(RuleViolation):  # the snapshot cannot say such a version either
        device.admit(acme)
    assert device.memory.roles == {}


def test_artifacts_that_are_not_followed_are_not_admitted(
    tmp_path: Path, acme: SignedNamespace
) -> None:
    other = ArtifactName("other")
    acme.add_artifact(other)
    acme.publish(layout.TARGETS, *map(str, layout.artifact_roles(other)))
    acme.channel(acme.release("1.0.0", other), artifact=other)
    device = Device.joined(tmp_path / "one", acme, MODEL)

    admitted = device.admit(acme)

    assert not admitted.channels(other)
    assert not admitted.problems
    assert set(device.memory.channels) == set()


def test_a_revocation_is_believed(acme: SignedNamespace, device: Device) -> None:
    bad = acme.release("1.0.0")
    acme.stop(bad, Severity.NO_NEW)

    stop = device.admit(acme).stop(MODEL)

    assert stop is not None
    assert stop.releases[0].severity is Severity.NO_NEW


def test_snapshot_and_timestamp_have_one_key(acme: SignedNamespace, device: Device) -> None:
    second = new_signer()
    acme.set_root_keys(layout.SNAPSHOT, [acme.online, second])
    acme.publish_root()
    acme.refresh()

    assert refusal(device, acme).rule == "T22"


def test_the_hold_role_is_signed_by_the_online_key_alone(
    acme: SignedNamespace, device: Device
) -> None:
    acme.delegate(layout.HOLD, [acme.daily])
    acme.publish(layout.TARGETS, layout.HOLD)

    assert refusal(device, acme).reason is Reason.ONLINE_KEY_MISMATCH
