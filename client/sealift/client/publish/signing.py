"""Building and signing the next state of a namespace, as one set.

The set is checked with the server's own rules before anything is signed, and every signature is
in the journal before it leaves (rule T25).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from securesystemslib.signer import Key
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Role,
    Root,
    TargetFile,
    Targets,
)
from tuf.api.serialization.json import JSONSerializer

from sealift.client.publish.home import JournalEntry, PublisherHome
from sealift.client.publish.keyring import Keyring, key_name
from sealift.client.trust.admission import Admitted
from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Kind
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, Namespace
from sealift.protocol.submission import (
    AcceptedSubmission,
    RepositoryState,
    Submission,
    check_submission,
)


@dataclass(frozen=True, slots=True)
class SignedSet:
    """What is submitted.

    Attributes:
        request_id: Makes the submission idempotent.
        base: SHA-256 of the file that each role's next version was built on.
        files: The signed role files.
        documents: The new documents, by target path.
    """

    request_id: str
    base: Mapping[str, bytes]
    files: Mapping[str, bytes]
    documents: Mapping[str, bytes]


@dataclass(slots=True)
class NextState:
    """Collects changes to a namespace's roles, then signs them.

    Attributes:
        home: The publisher's home.
        admitted: The verified state that the changes are built on; None for a new namespace.
        kinds: What each artifact is, as far as it is known.
    """

    home: PublisherHome
    admitted: Admitted | None
    kinds: Mapping[ArtifactName, Kind] = field(default_factory=dict)
    _root: Root | None = None
    _changed: dict[str, Targets] = field(default_factory=dict)
    _documents: dict[str, bytes] = field(default_factory=dict)

    @property
    def namespace(self) -> Namespace:
        """Whose state it is."""
        return self.home.namespace

    def _current(self, role: str) -> RoleFile | None:
        return self.admitted.roles.get(role) if self.admitted else None

    def _targets_of(self, role: str) -> Targets:
        """The role's next content, to be changed in place."""
        if role not in self._changed:
            current = self._current(role)
            base = Metadata[Targets].from_bytes(current.data).signed if current else self._empty()
            self._changed[role] = base
        return self._changed[role]

    def _empty(self) -> Targets:
        return Targets(unrecognized_fields={layout.NAMESPACE_FIELD: str(self.namespace)})

    # --- changes --------------------------------------------------------------------------

    def create_namespace(self, root_keys: list[Key], daily: Key, online: Key) -> None:
        """A namespace's first roles: root, targets, `_stop`."""
        roles = {
            layout.ROOT: Role([key.keyid for key in root_keys], 1),
            layout.TARGETS: Role([daily.keyid], 1),
            layout.SNAPSHOT: Role([online.keyid], 1),
            layout.TIMESTAMP: Role([online.keyid], 1),
        }
        keys = {key.keyid: key for key in (*root_keys, daily, online)}
        self._root = Root(
            keys=keys,
            roles=roles,
            consistent_snapshot=True,
            unrecognized_fields={layout.NAMESPACE_FIELD: str(self.namespace)},
        )
        targets = self._targets_of(layout.TARGETS)
        targets.delegations = Delegations(keys={}, roles={})
        self._delegate(layout.STOP, daily)
        self._delegate(layout.HOLD, online)
        self._targets_of(layout.STOP)

    def create_artifact(self, artifact: ArtifactName, key: Key) -> None:
        """An artifact's three roles, empty."""
        for role in layout.artifact_roles(artifact):
            self._delegate(str(role), key)
            self._targets_of(str(role))

    def _delegate(self, role: str, key: Key) -> None:
        delegations = self._targets_of(layout.TARGETS).delegations
        if delegations is None or delegations.roles is None:
            raise TypeError("targets delegates nothing")
        delegations.keys[key.keyid] = key
        delegations.roles[role] = DelegatedRole(
            role, [key.keyid], 1, True, layout.delegated_path_patterns(role)
        )

    def put_document(self, path: str, data: bytes) -> None:
        """Lists a document in its role."""
        role = layout.parse_document_path(path).role
        self._targets_of(role).targets[path] = TargetFile.from_data(path, data, ["sha256"])
        self._documents[path] = data

    # --- signing --------------------------------------------------------------------------

    def sign(self, keyring: Keyring, online_key: bytes) -> tuple[SignedSet, AcceptedSubmission]:
        """Signs every changed role and checks the set as the server will.

        Args:
            keyring: The home's keys.
            online_key: The server's key of this namespace as SubjectPublicKeyInfo.

        Raises:
            KeyUnavailable: If a key cannot be opened.
            RuleViolation: If the set breaks a rule; then nothing leaves.
        """
        now = self.home.clock.wall()
        files: dict[str, bytes] = {}
        entries: list[JournalEntry] = []
        changed: dict[str, Root | Targets] = dict(self._changed)
        if self._root is not None:
            changed[layout.ROOT] = self._root
        for role, content in changed.items():
            files[role] = self._sign_role(role, content, keyring, now, entries)
        self.home.write_journal(entries)
        accepted = check_submission(
            self.namespace,
            self._repository_state(),
            Submission.parse(files, self._documents),
            now=now,
            online_key=online_key,
        )
        base = {
            role: metadata.sha256_digest(current.data)
            for role in files
            if (current := self._current(role)) is not None
        }
        return SignedSet(secrets.token_hex(16), base, files, dict(self._documents)), accepted

    def remember(self, signed: SignedSet) -> None:
        """T4: what the server took is a mark: nothing is signed over what was there before it."""
        files = {role: RoleFile.parse(role, data) for role, data in signed.files.items()}
        found = {**(self.admitted.roles if self.admitted else {}), **files}
        root, targets = found[layout.ROOT].root, found[layout.TARGETS].targets
        state = self.home.state()
        memory = state.memory
        for role, file in files.items():
            parent = root if role in layout.TOP_LEVEL else targets
            memory = memory.with_role(file, metadata.signer_keys(parent, role, file))
        self.home.save(state.model_copy(update={"memory": memory}))

    def _sign_role(
        self,
        role: str,
        content: Root | Targets,
        keyring: Keyring,
        now: int,
        entries: list[JournalEntry],
    ) -> bytes:
        current = self._current(role)
        signed_before = max(current.version if current else 0, self.home.journal_version(role))
        content.version = signed_before + 1 if role != layout.ROOT else content.version
        content.expires = datetime.fromtimestamp(now + layout.lifetime_s(role), UTC)
        signed = _unsigned(content)
        signers = keyring.signers(role)
        for signer in signers:
            signed.sign(signer, append=True)
        data: bytes = signed.to_bytes(JSONSerializer(compact=True))
        digest = sha256_bytes(data)
        entries.extend(
            JournalEntry(
                role=role, version=content.version, sha256=digest, key=key_name(signer), at=now
            )
            for signer in signers
        )
        return data

    def _repository_state(self) -> RepositoryState:
        if self.admitted is None:
            return RepositoryState()
        roles = {
            role: file
            for role, file in self.admitted.roles.items()
            if role not in {layout.SNAPSHOT, layout.TIMESTAMP}
        }
        return RepositoryState(roles, self.admitted.documents, self.kinds)


def _unsigned(content: Root | Targets) -> Metadata[Root] | Metadata[Targets]:
    if isinstance(content, Root):
        return Metadata(content)
    return Metadata(content)
