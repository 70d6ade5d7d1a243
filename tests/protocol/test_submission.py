"""What a server takes from a publisher: a set, checked as one next state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole

from sealift.protocol import layout
from sealift.protocol.documents import Kind, Manifest, Severity, Stop, StoppedRelease
from sealift.protocol.errors import RuleViolation
from sealift.protocol.layout import DAY_S, RoleClass
from sealift.protocol.names import ArtifactId, Version
from sealift.protocol.parsing import encode_document
from sealift.protocol.reasons import Reason
from sealift.protocol.submission import (
    AcceptedSubmission,
    RepositoryState,
    Submission,
    check_submission,
)
from support.repository import (
    MODEL,
    SignedNamespace,
    encode,
    manifest_of,
    new_signer,
    pointer_of,
    spki,
)

RELEASES = layout.role_name(MODEL, RoleClass.RELEASES)
CHANNELS = layout.role_name(MODEL, RoleClass.CHANNELS)


def state_of(acme: SignedNamespace) -> RepositoryState:
    """What the server has."""
    online = {layout.SNAPSHOT, layout.TIMESTAMP}
    roles = {role: file for role, file in acme.current.items() if role not in online}
    return RepositoryState(roles, dict(acme.documents), {MODEL: Kind.MODEL})


class Publisher:
    """Changes a namespace's roles, then submits those that changed."""

    def __init__(self) -> None:
        self.acme = SignedNamespace()
        self.first = self.acme.release("1.0.0")
        self.channel = self.acme.channel(self.first)
        self.state = state_of(self.acme)

    def submit(self, *roles: str, now: int | None = None) -> AcceptedSubmission:
        """Signs these roles and checks them as the server does."""
        acme = self.acme
        if layout.ROOT in roles:
            acme.publish_root()
        acme.publish(*(role for role in roles if role != layout.ROOT))
        files = {role: acme.current[role].data for role in roles}
        known = self.state.documents
        new = {path: data for path, data in acme.documents.items() if known.get(path) != data}
        return check_submission(
            acme.name,
            self.state,
            Submission.parse(files, new),
            now=acme.clock.now if now is None else now,
            online_key=spki(acme.online),
        )

    def refused(self, *roles: str, now: int | None = None) -> RuleViolation:
        """How it is refused."""
        with pytest.raises(RuleViolation) as refused:
            self.submit(*roles, now=now)
        return refused.value


@pytest.fixture
def publisher() -> Publisher:
    """A publisher of a namespace with one release on stable."""
    return Publisher()


def put_release(publisher: Publisher, version: str, content: bytes = b"new") -> None:
    """A release to be submitted."""
    path = layout.release_path(MODEL, Version.parse(version))
    publisher.acme.put(path, manifest_of("acme/model", version, content))


def put_stop(publisher: Publisher, *severities: Severity) -> None:
    """The revocation of the first release."""
    first = publisher.first
    entries = tuple(
        StoppedRelease(sha256=first.sha256, version=first.version, severity=one)
        for one in severities
    )
    stop = Stop(artifact=ArtifactId.parse("acme/model"), releases=entries)
    publisher.acme.put(layout.stop_path(MODEL), encode_document(stop))


def test_a_release_is_accepted_with_its_blobs(publisher: Publisher) -> None:
    put_release(publisher, "1.1.0")

    accepted = publisher.submit(RELEASES)

    manifest = accepted.manifests["model/releases/1.1.0.json"]
    assert isinstance(manifest, Manifest)
    assert accepted.blobs() == {manifest.files[0].sha256: 3}
    assert accepted.new_artifacts == ()


def test_a_first_state_is_accepted() -> None:
    acme = SignedNamespace(artifacts=())
    files = {role: acme.current[role].data for role in (layout.ROOT, layout.TARGETS, layout.STOP)}

    accepted = check_submission(
        acme.name,
        RepositoryState(),
        Submission.parse(files, {}),
        now=acme.clock.now,
        online_key=spki(acme.online),
    )

    assert set(accepted.state.roles) == set(files)


@pytest.mark.parametrize("missing", [layout.ROOT, layout.TARGETS, layout.STOP])
def test_t21_a_first_state_is_whole(missing: str) -> None:
    acme = SignedNamespace(artifacts=())
    roles = {layout.ROOT, layout.TARGETS, layout.STOP} - {missing}

    with pytest.raises(RuleViolation) as refused:
        check_submission(
            acme.name,
            RepositoryState(),
            Submission.parse({role: acme.current[role].data for role in roles}, {}),
            now=acme.clock.now,
            online_key=spki(acme.online),
        )

    assert refused.value.reason is Reason.MISSING


def test_t21_too_few_signatures(publisher: Publisher) -> None:
    publisher.acme.delegate(RELEASES, [publisher.acme.daily, new_signer()], threshold=2)
    publisher.acme.signers[RELEASES] = [publisher.acme.daily]

    assert publisher.refused(layout.TARGETS, RELEASES).reason is Reason.BAD_SIGNATURE


def test_t21_other_signers_than_targets_names(publisher: Publisher) -> None:
    publisher.acme.signers[RELEASES] = [new_signer()]

    assert publisher.refused(RELEASES).reason is Reason.BAD_SIGNATURE


def test_t21_a_key_that_was_removed_must_not_have_signed_what_stays(publisher: Publisher) -> None:
    publisher.acme.delegate(CHANNELS, [new_signer()])

    assert publisher.refused(layout.TARGETS).role == CHANNELS


@pytest.mark.parametrize(
    ("role", "ahead", "accepted"),
    [
        (RELEASES, 0, False),
        (RELEASES, 1, True),
        (RELEASES, 1_000, True),
        (RELEASES, 1_001, False),
        (layout.ROOT, 0, False),
        (layout.ROOT, 1, True),
        (layout.ROOT, 2, False),
    ],
)
def test_t21_versions_go_on_by_at_most_a_thousand_and_root_by_one(
    publisher: Publisher, role: str, ahead: int, accepted: bool
) -> None:
    content = publisher.acme.root if role == layout.ROOT else publisher.acme.roles[role]
    content.version += ahead - 1
    if accepted:
        publisher.submit(role)
    else:
        assert publisher.refused(role).rule == "T21"


@pytest.mark.parametrize(
    ("lifetimes", "accepted"), [(-1, False), (1, True), (2, True), (2.1, False)]
)
def test_t21_expiry_is_within_twice_the_lifetime(
    publisher: Publisher, lifetimes: float, accepted: bool
) -> None:
    lasts = layout.lifetime_s(CHANNELS)
    now = int(publisher.acme.clock.now + lasts - lifetimes * lasts)
    if accepted:
        publisher.submit(CHANNELS, now=now)
    else:
        assert publisher.refused(CHANNELS, now=now).rule == "T17"


def test_t21_a_fallback_that_is_revoked(publisher: Publisher) -> None:
    put_release(publisher, "1.1.0")
    publisher.state = publisher.submit(RELEASES).state
    put_stop(publisher, Severity.NO_NEW)
    publisher.state = publisher.submit(layout.STOP).state
    second = pointer_of(publisher.acme.documents["model/releases/1.1.0.json"])
    publisher.acme.channel(second, 2, fallback=publisher.first, publish=False)

    assert publisher.refused(CHANNELS).reason is Reason.REVOKED


@pytest.mark.parametrize("pointer", ["release", "fallback"])
def test_t11_a_channel_points_to_what_was_released(publisher: Publisher, pointer: str) -> None:
    unknown = publisher.first.model_copy(update={"length": publisher.first.length + 1})
    first = publisher.first
    if pointer == "release":
        publisher.acme.channel(unknown, 2, publish=False)
    else:
        publisher.acme.channel(first, 2, fallback=unknown, publish=False)

    assert publisher.refused(CHANNELS).reason is Reason.WRONG_PLACE


def _change(publisher: Publisher) -> None:
    put_release(publisher, "1.0.0", b"other")


def _drop(publisher: Publisher) -> None:
    del publisher.acme.roles[RELEASES].targets["model/releases/1.0.0.json"]


@pytest.mark.parametrize("change", [_change, _drop])
def test_t12_a_released_version_is_never_changed_or_dropped(
    publisher: Publisher, change: Callable[[Publisher], None]
) -> None:
    change(publisher)

    assert publisher.refused(RELEASES).reason is Reason.RELEASE_CHANGED


def test_t12_an_artifact_is_not_dropped(publisher: Publisher) -> None:
    for role in layout.artifact_roles(MODEL):
        del publisher.acme.delegated[str(role)]

    refused = publisher.refused(layout.TARGETS)

    assert refused.rule in {"T8", "T12"}


def test_t11_a_channel_is_not_dropped(publisher: Publisher) -> None:
    publisher.acme.roles[CHANNELS].targets.clear()

    assert publisher.refused(CHANNELS).reason is Reason.CHANNEL_DROPPED


def test_t11_a_sequence_is_used_once(publisher: Publisher) -> None:
    publisher.acme.channel(publisher.first, 1, urgent=True, publish=False)

    assert publisher.refused(CHANNELS).reason is Reason.SEQUENCE_REUSED


def test_t14_a_rollout_id_is_one_plan(publisher: Publisher) -> None:
    rollout = publisher.channel.rollout.id
    put_release(publisher, "1.1.0")
    publisher.state = publisher.submit(RELEASES).state
    second = pointer_of(publisher.acme.documents["model/releases/1.1.0.json"])
    publisher.acme.channel(second, 2, rollout=rollout, publish=False)

    assert publisher.refused(CHANNELS).reason is Reason.ROLLOUT_CHANGED


def test_t11_an_artifacts_kind_is_fixed(publisher: Publisher) -> None:
    data = manifest_of("acme/model", "1.1.0").replace(b'"kind":"model"', b'"kind":"prompt"')
    publisher.acme.put("model/releases/1.1.0.json", data)

    assert publisher.refused(RELEASES).rule == "T11"


def test_t21_a_document_that_is_missing_or_too_many(publisher: Publisher) -> None:
    put_release(publisher, "1.1.0")
    data = publisher.acme.documents.pop("model/releases/1.1.0.json")
    assert publisher.refused(RELEASES).reason is Reason.MISSING
    publisher.acme.documents["model/releases/1.1.0.json"] = data
    publisher.acme.documents["model/releases/1.2.0.json"] = data
    assert publisher.refused(RELEASES).reason is Reason.INVALID_ARGUMENT


def test_t11_a_length_that_is_not_the_documents(publisher: Publisher) -> None:
    """Every device would refuse it; the server does first."""
    target = publisher.acme.roles[CHANNELS].targets["model/channels/stable.json"]
    target.length += 1

    assert publisher.refused(CHANNELS).reason is Reason.MISSING


def test_t10_another_namespaces_set(publisher: Publisher) -> None:
    publisher.acme.roles[RELEASES].unrecognized_fields = {layout.NAMESPACE_FIELD: "other"}

    assert publisher.refused(RELEASES).rule == "T10"


def test_t08_roles_that_targets_does_not_delegate(publisher: Publisher) -> None:
    acme = publisher.acme
    acme.roles["a.ghost.releases"] = acme.roles[RELEASES]

    assert publisher.refused("a.ghost.releases").rule == "T8"


def test_t08_targets_that_delegates_more(publisher: Publisher) -> None:
    keyids = [publisher.acme.daily.public_key.keyid]
    publisher.acme.delegated["x"] = DelegatedRole("x", keyids, 1, True, ["*"])

    assert publisher.refused(layout.TARGETS).rule == "T8"


@pytest.mark.parametrize("role", [layout.SNAPSHOT, layout.TIMESTAMP, layout.HOLD])
def test_t22_nobody_submits_what_the_server_signs(publisher: Publisher, role: str) -> None:
    with pytest.raises(RuleViolation) as refused:
        Submission.parse({role: publisher.acme.current[role].data}, {})

    assert refused.value.rule == "T22"


def _root_names_another(acme: SignedNamespace, thief: CryptoSigner) -> tuple[str, ...]:
    acme.set_root_keys(layout.SNAPSHOT, [thief])
    acme.set_root_keys(layout.TIMESTAMP, [thief])
    return (layout.ROOT,)


def _targets_names_another(acme: SignedNamespace, thief: CryptoSigner) -> tuple[str, ...]:
    acme.delegate(layout.HOLD, [thief])
    return (layout.TARGETS,)


def _both_name_another(acme: SignedNamespace, thief: CryptoSigner) -> tuple[str, ...]:
    return _root_names_another(acme, thief) + _targets_names_another(acme, thief)


def _one_more(acme: SignedNamespace, thief: CryptoSigner) -> tuple[str, ...]:
    acme.add_key_of(layout.HOLD, thief.public_key)
    return (layout.TARGETS,)


@pytest.mark.parametrize(
    "change", [_root_names_another, _targets_names_another, _both_name_another, _one_more]
)
def test_t22_the_online_roles_have_the_servers_own_key(
    publisher: Publisher, change: Callable[[SignedNamespace, CryptoSigner], tuple[str, ...]]
) -> None:
    roles = change(publisher.acme, new_signer())

    assert publisher.refused(*roles).rule == "T22"


def test_t21_a_root_is_signed_by_the_one_before_it(publisher: Publisher) -> None:
    thief = new_signer()
    acme = publisher.acme
    acme.set_root_keys(layout.ROOT, [thief])
    acme.root.version += 1
    acme.root.expires = acme.current[layout.ROOT].root.expires
    file = encode(acme.root, [thief])

    with pytest.raises(RuleViolation) as refused:
        check_submission(
            acme.name,
            publisher.state,
            Submission.parse({layout.ROOT: file}, {}),
            now=acme.clock.now,
            online_key=spki(acme.online),
        )

    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("later", [(), (Severity.WARN,), (Severity.NO_NEW,)])
def test_t23_a_revocation_is_neither_dropped_nor_softened(
    publisher: Publisher, later: tuple[Severity, ...]
) -> None:
    put_stop(publisher, Severity.STOP)
    publisher.state = publisher.submit(layout.STOP).state
    put_stop(publisher, *later)
    assert publisher.refused(layout.STOP).reason is Reason.REVOCATION_DROPPED

    accepted = publisher.submit(layout.STOP, layout.TARGETS)

    assert Stop.parse(accepted.state.documents["_stop/model.json"]).releases == (
        Stop.parse(publisher.acme.documents["_stop/model.json"]).releases
    )


def test_t23_a_revocation_may_be_hardened(publisher: Publisher) -> None:
    put_stop(publisher, Severity.WARN)
    publisher.state = publisher.submit(layout.STOP).state
    put_stop(publisher, Severity.STOP)

    publisher.submit(layout.STOP)


def test_t23_one_release_is_revoked_once(publisher: Publisher) -> None:
    """Two entries of one release would be read by one as stop, by another as a warning."""
    with pytest.raises(ValueError, match="revoked twice"):
        put_stop(publisher, Severity.STOP, Severity.WARN)


def test_nothing_is_not_a_submission(publisher: Publisher) -> None:
    assert publisher.refused().rule == "T21"


def test_a_set_that_lapsed_is_refused(publisher: Publisher) -> None:
    now = publisher.acme.clock.now + 181 * DAY_S

    assert publisher.refused(CHANNELS, now=now).reason is Reason.EXPIRED
