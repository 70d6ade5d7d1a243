"""A set is one next state: committed whole, or not at all (rules T21 to T23)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from sealift.host.signers import new_private_key, signer_of
from sealift.protocol import layout
from sealift.protocol.documents import FallbackPointer, Kind, Severity
from sealift.protocol.errors import RuleViolation, SealiftError
from sealift.protocol.layout import DAY_S
from sealift.protocol.names import ArtifactName, ChannelName, Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.tables import AuditRow, CurrentRow, DocumentRow, MetadataRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.submitting import Committed, SubmittedSet, submit
from support.publishers import FIRST, MODEL, SECOND, Change, Draft, Publisher, again
from support.servers import ACME, Parts

RELEASES = layout.role_name(MODEL, layout.RoleClass.RELEASES)
CHANNELS = layout.role_name(MODEL, layout.RoleClass.CHANNELS)


def _state(server: Parts) -> dict[str, int]:
    with server.server.database.reading() as session:
        counts = {table.__tablename__: session.query(table).count() for table in _TABLES}
        return counts | {row.role: row.version for row in session.query(CurrentRow)}


_TABLES = (AuditRow, DocumentRow, MetadataRow)


def _refused(
    server: Parts, publisher: Publisher, submitted: SubmittedSet, caller: Caller | None = None
) -> SealiftError:
    """The set is refused, and nothing of it is there afterwards."""
    caller = caller or server.pusher(publisher.namespace)
    before = _state(server)
    with pytest.raises((Refused, RuleViolation)) as refused:
        submit(
            server.server.database,
            server.server.keys,
            caller,
            publisher.namespace,
            submitted,
            now=server.clock.now,
        )
    assert _state(server) == before
    return refused.value


def _reason(error: SealiftError) -> Reason:
    assert isinstance(error, Refused | RuleViolation)
    return error.reason


def test_a_set_is_current_as_a_whole(server: Parts) -> None:
    publisher = server.begun()
    server.upload(ACME, b"weights")
    draft = publisher.draft()
    draft.create()
    draft.release()
    draft.put(publisher.channel_document())
    submitted = draft.signed()
    server.clock.pass_s(60)
    done = server.submit(publisher, submitted)
    with server.server.database.reading() as session:
        files = states.current_files(session, 1)
    assert {role: files[role].data for role in submitted.files} == dict(submitted.files)
    snapshot = Metadata[Snapshot].from_bytes(files[layout.SNAPSHOT].data).signed
    timestamp = Metadata[Timestamp].from_bytes(files[layout.TIMESTAMP].data).signed
    assert (done.snapshot_version, done.committed_at) == (snapshot.version, server.clock.now)
    assert timestamp.snapshot_meta.version == snapshot.version
    listed = {name: meta.version for name, meta in snapshot.meta.items()}
    assert listed == {
        f"{role}.json": file.version
        for role, file in files.items()
        if role not in {layout.ROOT, layout.SNAPSHOT, layout.TIMESTAMP}
    }


def test_a_set_that_conflicts_with_another_is_refused_until_it_is_rebased(server: Parts) -> None:
    publisher = server.begun()
    other = replace(publisher, current=dict(publisher.current))
    server.submit(publisher, publisher.artifact())
    error = _refused(server, other, other.artifact(ArtifactName("later")))
    assert _reason(error) is Reason.CONFLICT
    assert isinstance(error, Refused)
    assert error.details["role"] == layout.TARGETS
    other.current = dict(publisher.current)
    server.submit(other, other.artifact(ArtifactName("later")))


def test_a_role_that_says_it_is_new_conflicts_with_one_that_is_there(server: Parts) -> None:
    publisher = server.begun()
    assert (
        _reason(_refused(server, publisher, replace(again(publisher.first()), base={})))
        is Reason.CONFLICT
    )


def test_a_repeated_request_is_answered_as_the_first_time(server: Parts) -> None:
    publisher = server.begun()
    submitted = publisher.artifact()
    done = server.submit(publisher, submitted)
    server.clock.pass_s(4_000)
    after = _state(server)
    assert server.submit(publisher, submitted) == done
    assert _state(server) == after


def test_a_request_id_stands_for_one_set_only(server: Parts) -> None:
    publisher = server.begun()
    submitted = publisher.artifact()
    server.submit(publisher, submitted)
    other = replace(publisher.artifact(ArtifactName("b")), request_id=submitted.request_id)
    assert _reason(_refused(server, publisher, other)) is Reason.ALREADY_EXISTS


@pytest.mark.parametrize("request_id", ["", "x" * 101, "a\0b"])
def test_a_request_id_that_no_database_takes_is_refused(server: Parts, request_id: str) -> None:
    publisher = server.begun()
    submitted = replace(publisher.artifact(), request_id=request_id)
    assert _reason(_refused(server, publisher, submitted)) is Reason.INVALID_ARGUMENT


# --- blobs ------------------------------------------------------------------------------------


def test_t21_a_release_of_blobs_that_were_not_uploaded_is_refused(server: Parts) -> None:
    publisher = server.begun()
    server.submit(publisher, publisher.artifact())
    release = publisher.release()
    assert _reason(_refused(server, publisher, release)) is Reason.BLOB_MISSING
    server.upload(ACME, b"weights")
    server.submit(publisher, release)


def test_t21_another_namespaces_blob_counts_for_nothing(server: Parts) -> None:
    publisher = server.begun()
    server.submit(publisher, publisher.artifact())
    server.begun(Namespace("other"))
    server.upload(Namespace("other"), b"weights")
    assert _reason(_refused(server, publisher, publisher.release())) is Reason.BLOB_MISSING


def test_t21_a_blob_of_another_length_counts_for_nothing(server: Parts) -> None:
    publisher = server.begun()
    server.submit(publisher, publisher.artifact())
    server.upload(ACME, b"weights")
    draft = publisher.draft()
    manifest = publisher.manifest()
    wrong = manifest.files[0].model_copy(update={"length": 8})
    draft.put(manifest.model_copy(update={"files": (wrong,)}))
    assert _reason(_refused(server, publisher, draft.signed())) is Reason.BLOB_MISSING


# --- T21: each rule ---------------------------------------------------------------------------


def _version(role: str, version: int) -> Change:
    def change(name: str, content: Root | Targets) -> None:
        if name == role:
            content.version = version

    return change


def _expires(role: str, seconds: int) -> Change:
    def change(name: str, content: Root | Targets) -> None:
        if name == role:
            content.expires += timedelta(seconds=seconds)

    return change


def _said(value: str) -> Change:
    def change(name: str, content: Root | Targets) -> None:
        content.unrecognized_fields[layout.NAMESPACE_FIELD] = value

    return change


def _extra_delegation(draft: Draft) -> None:
    draft.targets(layout.TARGETS)
    draft.delegate("a.other.releases", draft.publisher.signer.public_key)


def _not_terminating(draft: Draft) -> None:
    draft.targets(layout.TARGETS)
    draft.delegations()[1][layout.STOP].terminating = False


def _other_paths(draft: Draft) -> None:
    draft.targets(layout.TARGETS)
    draft.delegations()[1][layout.STOP].paths = ["*"]


def _lists_itself(draft: Draft) -> None:
    path = "model/releases/1.0.0.json"
    draft.targets(layout.TARGETS).targets[path] = TargetFile.from_data(path, b"x", ["sha256"])


def _delegates_below(draft: Draft) -> None:
    targets = draft.targets(layout.TARGETS)
    draft.targets(layout.STOP).delegations = targets.delegations
    del draft.roles[layout.TARGETS]


def _drops_artifact(draft: Draft) -> None:
    draft.targets(layout.TARGETS)
    for role in layout.artifact_roles(MODEL):
        del draft.delegations()[1][str(role)]


def _drops_release(draft: Draft) -> None:
    draft.targets(RELEASES).targets.clear()


def _changes_release(draft: Draft) -> None:
    manifest = draft.publisher.manifest()
    draft.put(manifest.model_copy(update={"notes": "other"}))


def _drops_channel(draft: Draft) -> None:
    draft.targets(CHANNELS).targets.clear()


def _reuses_sequence(draft: Draft) -> None:
    draft.put(draft.publisher.channel_document(rollout=SECOND, seq=5))


def _goes_back(draft: Draft) -> None:
    draft.put(draft.publisher.channel_document(rollout=SECOND, seq=4))


def _changes_rollout(draft: Draft) -> None:
    draft.put(draft.publisher.channel_document(rollout=FIRST, seq=6))


def _points_nowhere(draft: Draft) -> None:
    draft.put(draft.publisher.channel_document("9.9.9", seq=6))


def _fallback_unreleased(draft: Draft) -> None:
    pointer = draft.publisher.pointer("9.9.9")
    fallback = FallbackPointer(**pointer.model_dump(), until=0)
    draft.put(draft.publisher.channel_document(seq=6, fallback=fallback))


def _fallback_revoked(draft: Draft) -> None:
    draft.put(draft.publisher.stop(("1.0.0", Severity.STOP)))
    pointer = draft.publisher.pointer("1.0.0")
    fallback = FallbackPointer(**pointer.model_dump(), until=0)
    draft.put(draft.publisher.channel_document(seq=6, fallback=fallback))


def _release_revoked(draft: Draft) -> None:
    draft.put(draft.publisher.stop(("1.0.0", Severity.NO_NEW)))
    draft.put(draft.publisher.channel_document(seq=6))


def _wrong_place(draft: Draft) -> None:
    draft.put(draft.publisher.channel_document(seq=6), "model/channels/beta.json")


def _other_kind(draft: Draft) -> None:
    draft.release("1.1.0", kind=Kind.PROMPT)


def _duplicate_key(draft: Draft) -> None:
    key = draft.publisher.signer.public_key
    draft.targets(layout.TARGETS)
    keys, roles = draft.delegations()
    twin = type(key).from_dict("0" * 64, key.to_dict())
    keys[twin.keyid] = twin
    roles[layout.STOP].keyids.append(twin.keyid)
    roles[layout.STOP].threshold = 2


@pytest.mark.parametrize(
    ("build", "rule", "reason"),
    [
        (_extra_delegation, "T8", Reason.BAD_DELEGATION),
        (_not_terminating, "T8", Reason.BAD_DELEGATION),
        (_other_paths, "T8", Reason.BAD_DELEGATION),
        (_lists_itself, "T8", Reason.BAD_DELEGATION),
        (_delegates_below, "T8", Reason.BAD_DELEGATION),
        (_duplicate_key, "T9", Reason.DUPLICATE_KEY),
        (_wrong_place, "T10", Reason.WRONG_PLACE),
        (_drops_channel, "T11", Reason.CHANNEL_DROPPED),
        (_reuses_sequence, "T11", Reason.SEQUENCE_REUSED),
        (_goes_back, "T11", Reason.ROLLED_BACK),
        (_points_nowhere, "T11", Reason.WRONG_PLACE),
        (_fallback_unreleased, "T11", Reason.WRONG_PLACE),
        (_other_kind, "T11", Reason.INVALID_ARGUMENT),
        (_drops_artifact, "T8", Reason.BAD_DELEGATION),
        (_drops_release, "T12", Reason.RELEASE_CHANGED),
        (_changes_release, "T12", Reason.RELEASE_CHANGED),
        (_changes_rollout, "T14", Reason.ROLLOUT_CHANGED),
        (_fallback_revoked, "T21", Reason.REVOKED),
        (_release_revoked, "T21", Reason.REVOKED),
    ],
)
def test_t21_a_set_that_breaks_a_rule_is_refused(
    one_server: Parts, build: Callable[[Draft], None], rule: str, reason: Reason
) -> None:
    publisher = one_server.released()
    draft = publisher.draft()
    build(draft)
    error = _refused(one_server, publisher, draft.signed())
    assert isinstance(error, RuleViolation)
    assert (error.rule, error.reason) == (rule, reason)


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        (_version(layout.STOP, 1), "T21", Reason.ROLLED_BACK),
        (_version(layout.STOP, 1_002), "T21", Reason.VERSION_TOO_FAR),
        (_expires(layout.STOP, -400 * DAY_S), "T17", Reason.EXPIRED),
        (_expires(layout.STOP, 366 * DAY_S), "T17", Reason.EXPIRY_TOO_FAR),
        (_said("other"), "T10", Reason.WRONG_NAMESPACE),
    ],
)
def test_t21_a_role_signed_otherwise_than_it_must_be_is_refused(
    one_server: Parts, change: Change, rule: str, reason: Reason
) -> None:
    publisher = one_server.released()
    draft = publisher.draft()
    draft.put(publisher.stop(("1.0.0", Severity.WARN)))
    error = _refused(one_server, publisher, draft.signed(change=change))
    assert isinstance(error, RuleViolation)
    assert (error.rule, error.reason) == (rule, reason)


def test_t21_a_version_may_step_by_a_thousand(one_server: Parts) -> None:
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.targets(layout.STOP)
    one_server.submit(publisher, draft.signed(change=_version(layout.STOP, 1_001)))
    assert _state(one_server)[layout.STOP] == 1_001


def test_t21_an_expiry_may_be_twice_the_lifetime_ahead(one_server: Parts) -> None:
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.targets(layout.STOP)
    one_server.submit(publisher, draft.signed(change=_expires(layout.STOP, 365 * DAY_S)))


@pytest.mark.parametrize("step", [0, 2])
def test_t21_root_goes_on_by_exactly_one(one_server: Parts, step: int) -> None:
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.root = publisher.root()
    draft.root.version += step
    assert isinstance(_refused(one_server, publisher, draft.signed()), RuleViolation)
    draft.root = publisher.root()
    draft.root.version += 1
    one_server.submit(publisher, draft.signed())
    assert _state(one_server)[layout.ROOT] == 2


def test_t21_a_root_that_only_its_successor_signs_is_refused(one_server: Parts) -> None:
    publisher = one_server.begun()
    thief = replace(publisher, signer=signer_of(new_private_key()))
    draft = thief.draft()
    draft.root = publisher.root()
    draft.root.version += 1
    key = thief.signer.public_key
    draft.root.keys[key.keyid] = key
    draft.root.roles[layout.ROOT].keyids = [key.keyid]
    assert _reason(_refused(one_server, thief, draft.signed())) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("role", [layout.TARGETS, RELEASES])
def test_t21_an_unsigned_role_is_refused(server: Parts, role: str) -> None:
    publisher = server.begun()
    draft = publisher.draft()
    draft.create()
    error = _refused(server, publisher, draft.signed(unsigned=role))
    assert _reason(error) is Reason.BAD_SIGNATURE


def test_t21_a_strangers_signature_counts_for_nothing(one_server: Parts) -> None:
    publisher = one_server.begun()
    stranger = replace(publisher, signer=signer_of(new_private_key()))
    draft = stranger.draft()
    draft.put(stranger.stop(("1.0.0", Severity.STOP)))
    assert _reason(_refused(one_server, stranger, draft.signed())) is Reason.BAD_SIGNATURE


def test_t21_a_key_in_two_roles_of_a_threshold_signs_once(one_server: Parts) -> None:
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.targets(layout.TARGETS)
    second = signer_of(new_private_key()).public_key
    keys, roles = draft.delegations()
    keys[second.keyid] = second
    roles[layout.STOP].keyids.append(second.keyid)
    roles[layout.STOP].threshold = 2
    draft.targets(layout.STOP)
    assert _reason(_refused(one_server, publisher, draft.signed())) is Reason.BAD_SIGNATURE


def test_t21_an_incomplete_set_is_refused(one_server: Parts) -> None:
    publisher = one_server.begun()
    submitted = publisher.artifact()
    files = {role: data for role, data in submitted.files.items() if role != RELEASES}
    error = _refused(one_server, publisher, replace(submitted, files=files))
    assert _reason(error) is Reason.MISSING


@pytest.mark.parametrize("documents", [{}, {"model/releases/1.0.0.json": b"{}"}])
def test_t21_a_listed_document_must_come_with_the_set(
    one_server: Parts, documents: dict[str, bytes]
) -> None:
    publisher = one_server.begun()
    one_server.upload(ACME, b"weights")
    draft = publisher.draft()
    draft.create()
    draft.release()
    error = _refused(one_server, publisher, draft.signed(documents=documents))
    assert _reason(error) is (Reason.HASH_MISMATCH if documents else Reason.MISSING)


def test_t21_an_unlisted_document_is_refused(one_server: Parts) -> None:
    publisher = one_server.begun()
    submitted = replace(publisher.artifact(), documents={"model/releases/1.0.0.json": b"{}"})
    assert _reason(_refused(one_server, publisher, submitted)) is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("role", sorted(layout.ONLINE))
def test_t22_what_the_server_signs_is_not_taken(one_server: Parts, role: str) -> None:
    publisher = one_server.begun()
    submitted = replace(publisher.artifact(), files={role: b"{}"})
    error = _refused(one_server, publisher, submitted)
    assert isinstance(error, RuleViolation)
    assert error.rule == "T22"


def test_t22_a_root_with_another_online_key_is_refused(server: Parts) -> None:
    publisher = server.create()
    publisher.online = signer_of(new_private_key()).public_key
    error = _refused(server, publisher, publisher.first())
    assert _reason(error) is Reason.ONLINE_KEY_MISMATCH


def test_t22_a_hold_given_to_another_key_is_refused(one_server: Parts) -> None:
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.targets(layout.TARGETS)
    draft.delegate(layout.HOLD, publisher.signer.public_key)
    error = _refused(one_server, publisher, draft.signed())
    assert _reason(error) is Reason.ONLINE_KEY_MISMATCH


@pytest.mark.parametrize("later", [(), (("1.0.0", Severity.WARN),)])
def test_t23_a_revocation_is_not_dropped_or_softened(
    server: Parts, later: tuple[tuple[str, Severity], ...]
) -> None:
    publisher = server.released()
    draft = publisher.draft()
    draft.put(publisher.stop(("1.0.0", Severity.NO_NEW)))
    server.submit(publisher, draft.signed())
    draft = publisher.draft()
    draft.put(publisher.stop(*later))
    assert _reason(_refused(server, publisher, draft.signed())) is Reason.REVOCATION_DROPPED
    draft.targets(layout.TARGETS)  # unless the same set signs targets anew
    server.submit(publisher, draft.signed())


# --- callers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["admin", "device", "viewer", "invite"])
def test_only_a_token_with_the_right_to_push_pushes(one_server: Parts, role: str) -> None:
    publisher = one_server.begun()
    caller = Caller(1, "x", role, None if role == "admin" else ACME)
    error = _refused(one_server, publisher, publisher.artifact(), caller)
    assert _reason(error) is Reason.PERMISSION_DENIED


def test_t28_a_token_that_can_hold_cannot_push(one_server: Parts) -> None:
    publisher = one_server.begun()
    caller = one_server.caller("publisher", ACME, Right.HOLD)
    error = _refused(one_server, publisher, publisher.artifact(), caller)
    assert _reason(error) is Reason.PERMISSION_DENIED


def test_another_namespaces_token_cannot_push(one_server: Parts) -> None:
    publisher = one_server.begun()
    one_server.begun(Namespace("other"))
    caller = one_server.pusher(Namespace("other"))
    error = _refused(one_server, publisher, publisher.artifact(), caller)
    assert _reason(error) is Reason.PERMISSION_DENIED


def test_a_channel_of_one_artifact_takes_no_release_of_another(one_server: Parts) -> None:
    publisher = one_server.released()
    draft = publisher.draft()
    draft.create(ArtifactName("other"))
    document = publisher.channel_document(channel=ChannelName("beta"))
    draft.put(document, "other/channels/beta.json")
    assert _reason(_refused(one_server, publisher, draft.signed())) is Reason.WRONG_PLACE


def test_what_was_committed_is_in_the_log(server: Parts) -> None:
    server.released()
    with server.server.database.reading() as session:
        details = [row.detail for row in session.query(AuditRow).order_by(AuditRow.id)]
    assert details == [
        "created acme, private",
        "root 1",
        "new artifact model",
        "released model@1.0.0 (model)",
        "model:stable → 1.0.0, all at once",
    ]


def test_a_committed_set_says_when(server: Parts) -> None:
    publisher = server.begun()
    done = server.submit(publisher, publisher.artifact())
    assert done == Committed(server.clock.now + 1, server.clock.now)
