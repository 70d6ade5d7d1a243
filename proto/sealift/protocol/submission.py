"""A publisher's submission, checked as one next state of its namespace (rule T21).

Pure. The server calls it before it commits; a publisher calls it before it sends, so that both
refuse the same things with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sealift.protocol import layout, metadata
from sealift.protocol.documents import Channel, Document, Kind, Manifest, Severity, Stop
from sealift.protocol.errors import RuleViolation
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, Digest, Namespace
from sealift.protocol.reasons import Reason


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """A namespace's current signed state, or what a submission would make of it.

    Attributes:
        roles: The newest file of every role but snapshot and timestamp, by role.
        documents: The bytes of channel, preview and stop documents, and of the manifests that a
            submission brings, by target path. Manifests released earlier may be left out.
        kinds: What each artifact is, as its first release fixed it.
    """

    roles: Mapping[str, RoleFile] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)
    kinds: Mapping[ArtifactName, Kind] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """What was submitted, parsed.

    Attributes:
        roles: The signed role files, by role.
        documents: The documents, by target path.
    """

    roles: Mapping[str, RoleFile]
    documents: Mapping[str, bytes]

    @classmethod
    def parse(cls, files: Mapping[str, bytes], documents: Mapping[str, bytes]) -> Submission:
        """Reads the role files.

        Raises:
            RuleViolation: If one is malformed, or is not a publisher's to sign.
        """
        for role in files:
            if role in layout.ONLINE:
                raise RuleViolation(
                    "T22", Reason.PERMISSION_DENIED, f"{role} is signed by the server", role=role
                )
        roles = {role: RoleFile.parse(role, data) for role, data in files.items()}
        return cls(roles, dict(documents))


@dataclass(frozen=True, slots=True)
class AcceptedSubmission:
    """A submission that may be committed.

    Attributes:
        state: The whole next state.
        manifests: The manifests that it releases, by target path.
        new_artifacts: Artifacts that were not there before.
    """

    state: RepositoryState
    manifests: Mapping[str, Manifest]
    new_artifacts: tuple[ArtifactName, ...]

    def blobs(self) -> dict[Digest, int]:
        """Every blob that the released manifests name, with its length in bytes."""
        found: dict[Digest, int] = {}
        for manifest in self.manifests.values():
            for entry in manifest.files:
                found[entry.sha256] = entry.length
                if entry.chunks is not None:
                    found[entry.chunks.sha256] = entry.chunks.length
        return found


def check_submission(
    namespace: Namespace,
    current: RepositoryState,
    submission: Submission,
    *,
    now: int,
    online_key: bytes,
) -> AcceptedSubmission:
    """Checks a submission against the state that it follows.

    Whether blobs are present and owned, and who may call, is asked by the caller.

    Args:
        namespace: Whose state it is.
        current: The state that the server has; empty for a namespace without a root.
        submission: What was submitted.
        now: Unix seconds.
        online_key: The server's key of this namespace as SubjectPublicKeyInfo.

    Raises:
        RuleViolation: At the first rule that is broken; it names rule, role and reason.
    """
    if not submission.roles:
        raise RuleViolation("T21", Reason.INVALID_ARGUMENT, "nothing was submitted")
    roles = {**current.roles, **submission.roles}
    for role in (layout.ROOT, layout.TARGETS, layout.STOP):
        if role not in roles:
            raise RuleViolation("T21", Reason.MISSING, f"the set has no {role}", role=role)
    root, targets = roles[layout.ROOT], roles[layout.TARGETS]
    metadata.check_root(root, namespace)
    metadata.check_targets(targets, namespace)
    _check_roots(current, submission)
    metadata.check_signed(root.root, targets)
    metadata.check_online_keys(root.root, targets.targets, online_key)
    _check_all_roles(namespace, targets, roles)
    for role, file in submission.roles.items():
        metadata.check_next_version(current.roles.get(role), file)
        metadata.check_not_expired(file, now)
        metadata.check_expiry_cap(file, now)
    _check_transitions(current, submission)
    documents = _check_documents(namespace, current, submission)
    manifests = {path: doc for path, doc in documents.items() if isinstance(doc, Manifest)}
    kinds = _check_kinds(current, manifests)
    state = RepositoryState(roles, {**current.documents, **submission.documents}, kinds)
    _check_pointers(state, documents)
    known = set(_artifacts(current))
    new = tuple(name for name in metadata.artifacts_of(targets.targets) if name not in known)
    return AcceptedSubmission(state, manifests, new)


def _artifacts(state: RepositoryState) -> tuple[ArtifactName, ...]:
    targets = state.roles.get(layout.TARGETS)
    return metadata.artifacts_of(targets.targets) if targets else ()


def _check_roots(current: RepositoryState, submission: Submission) -> None:
    """A root is signed by the one before it and by itself (TUF 5.3.4)."""
    following = submission.roles.get(layout.ROOT)
    if following is None:
        return
    before = current.roles.get(layout.ROOT)
    if before is not None:
        metadata.check_signed(before.root, following)
    metadata.check_signed(following.root, following)


def _check_all_roles(
    namespace: Namespace, targets: RoleFile, roles: Mapping[str, RoleFile]
) -> None:
    """Every delegated role is there and is signed by the keys that targets names now."""
    delegations = targets.targets.delegations
    names = delegations.roles if delegations and delegations.roles else {}
    for role in names:
        if role == layout.HOLD:
            continue
        if role not in roles:
            raise RuleViolation("T21", Reason.MISSING, f"the set has no {role}", role=role)
        metadata.check_delegated(roles[role], namespace)
        metadata.check_signed(targets.targets, roles[role])
    strangers = set(roles) - set(names) - layout.TOP_LEVEL
    if strangers:
        stranger = min(strangers)
        raise RuleViolation(
            "T8", Reason.BAD_DELEGATION, f"targets does not delegate {stranger}", role=stranger
        )


def _check_transitions(current: RepositoryState, submission: Submission) -> None:
    for role, following in submission.roles.items():
        before = current.roles.get(role)
        if before is None or role == layout.ROOT:
            continue
        if role == layout.TARGETS:
            metadata.check_artifacts_kept(before.targets, following.targets)
        elif role.endswith(f".{layout.RoleClass.RELEASES}"):
            metadata.check_append_only(before.targets, following.targets, role)
        else:
            metadata.check_channels_kept(before.targets, following.targets, role)


def _check_documents(
    namespace: Namespace, current: RepositoryState, submission: Submission
) -> dict[str, Document]:
    """Every new or changed target has its document in the set, and nothing else is in it."""
    documents: dict[str, Document] = {}
    for role, file in submission.roles.items():
        if role in layout.TOP_LEVEL:
            continue
        before = current.roles.get(role)
        for path, target in file.targets.targets.items():
            known = before.targets.targets.get(path) if before else None
            if known is not None and (known.hashes, known.length) == (
                target.hashes,
                target.length,
            ):
                continue
            if path not in submission.documents:
                raise RuleViolation(
                    "T21", Reason.MISSING, f"the set has no document for {path}", role=role
                )
            data = submission.documents[path]
            metadata.check_document_bytes(role, path, target, data)
            model = metadata.document_model(path)
            document = metadata.parse_placed_document(model, namespace, path, data)
            _check_document_follows(current, submission, path, document, data)
            documents[path] = document
    extra = set(submission.documents) - set(documents)
    if extra:
        raise RuleViolation(
            "T21", Reason.INVALID_ARGUMENT, f"no role of the set lists the new {min(extra)}"
        )
    return documents


def _check_document_follows(
    current: RepositoryState, submission: Submission, path: str, document: Document, data: bytes
) -> None:
    before = current.documents.get(path)
    if before is None:
        return
    if isinstance(document, Channel):
        metadata.check_channel_follows(Channel.parse(before), document, before, data)
    elif isinstance(document, Stop):
        metadata.check_stop_kept(
            Stop.parse(before), document, targets_signed=layout.TARGETS in submission.roles
        )


def _check_pointers(state: RepositoryState, documents: Mapping[str, Document]) -> None:
    for path, document in documents.items():
        if isinstance(document, Channel):
            _check_channel_pointers(
                layout.parse_document_path(path).artifact, state, path, document
            )


def _check_kinds(
    current: RepositoryState, manifests: Mapping[str, Manifest]
) -> dict[ArtifactName, Kind]:
    """An artifact's kind is fixed by its first release."""
    kinds = dict(current.kinds)
    for path, manifest in manifests.items():
        artifact = manifest.artifact.artifact
        if kinds.setdefault(artifact, manifest.kind) is not manifest.kind:
            raise RuleViolation(
                "T11",
                Reason.INVALID_ARGUMENT,
                f"{path} is a {manifest.kind}, but {artifact} is a {kinds[artifact]}",
            )
    return kinds


def _check_channel_pointers(
    artifact: ArtifactName, state: RepositoryState, path: str, channel: Channel
) -> None:
    role = layout.role_name(artifact, layout.RoleClass.RELEASES)
    listed = metadata.released_versions(state.roles[role].targets)
    stop = state.documents.get(layout.stop_path(artifact))
    revoked: dict[Digest, Severity] = {}
    if stop is not None:
        revoked = {entry.sha256: entry.severity for entry in Stop.parse(stop).releases}
    for what, pointer in (("release", channel.release), ("fallback", channel.fallback)):
        if pointer is None:
            continue
        if listed.get(pointer.version) != (pointer.sha256, pointer.length):
            raise RuleViolation(
                "T11",
                Reason.WRONG_PLACE,
                f"{path} names as its {what} a {pointer.version} that was not released",
                role=role,
            )
        severity = revoked.get(pointer.sha256)
        if severity is not None and severity.forbids_activation:
            raise RuleViolation(
                "T21", Reason.REVOKED, f"the {what} {pointer.version} of {path} is revoked"
            )
