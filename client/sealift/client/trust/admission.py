"""The rules of admission: what a home believes of the files that it was given.

One class holds every rule and does no IO. The stock TUF client has verified the files before;
these are the rules beyond it, in this order:

1. Root, timestamp, snapshot and targets must pass together (rule T7): their signatures anew, the
   namespace that they were signed for (T10), distinct keys (T9), permitted delegations (T8), marks
   (T3), versions and expiry by trusted time (T15 to T17).
2. Then `_stop`, `_hold` and each artifact's roles, one by one (T7). What fails keeps its last
   admitted file, its reason is named, and nothing new activates through it.
3. Then the documents: in their place (T10, T11), channels going only forward (T11, T14).
4. What passed raises the marks (T3), the signed bound (T15) and the rollouts seen final (T14).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuf.api.metadata import Targets

from sealift.client.trust.memory import Bound, Memory
from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout, metadata
from sealift.protocol.documents import Channel, Document, Hold, Stop
from sealift.protocol.errors import RuleViolation
from sealift.protocol.join import ChannelMark
from sealift.protocol.layout import RoleClass
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, ChannelName, Digest, Namespace, Version
from sealift.protocol.reasons import Reason
from sealift.protocol.rollout import HoldStatus
from sealift.protocol.trusted_time import TrustedTime


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a role's newest file was not admitted."""

    role: str
    reason: Reason
    message: str
    rule: str = ""

    @classmethod
    def of(cls, error: RuleViolation, role: str = "") -> Problem:
        """From the rule that was broken."""
        return cls(error.role or role, error.reason, error.message, error.rule)


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """The bytes to judge: role files by role, documents by target path."""

    roles: Mapping[str, bytes] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Moment:
    """When an admission happens.

    Attributes:
        time: The trusted time, judged from the bound that the home had before.
        boot_id: Which boot of the machine this is.
        boot_s: Seconds since then.
    """

    time: TrustedTime
    boot_id: str
    boot_s: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a home believes of a namespace.

    Attributes:
        namespace: Whose state it is.
        roles: The believed file of each role.
        documents: The bytes of each believed document, by target path.
        parsed: The same documents, read.
        problems: Why the newest file of a role is not among them, by role.
    """

    namespace: Namespace
    roles: Mapping[str, RoleFile]
    documents: Mapping[str, bytes]
    parsed: Mapping[str, Document]
    problems: Mapping[str, Problem]

    @property
    def artifacts(self) -> tuple[ArtifactName, ...]:
        """The artifacts of the namespace."""
        return metadata.artifacts_of(self.roles[layout.TARGETS].targets)

    @property
    def timestamp(self) -> RoleFile:
        """The newest timestamp."""
        return self.roles[layout.TIMESTAMP]

    def releases(self, artifact: ArtifactName) -> dict[Version, tuple[Digest, int]]:
        """Digest and length of the manifest of each released version."""
        file = self.roles.get(layout.role_name(artifact, RoleClass.RELEASES))
        return metadata.released_versions(file.targets) if file else {}

    def channel(self, artifact: ArtifactName, channel: ChannelName) -> Channel | None:
        """The channel's document; None if there is none."""
        document = self.parsed.get(layout.channel_path(artifact, channel))
        return document if isinstance(document, Channel) else None

    def channels(self, artifact: ArtifactName) -> dict[ChannelName, Channel]:
        """All channels of an artifact."""
        found = {}
        for document in self.parsed.values():
            if isinstance(document, Channel) and document.artifact.artifact == artifact:
                found[document.channel] = document
        return found

    def hold(self, artifact: ArtifactName, channel: ChannelName) -> Hold | None:
        """The channel's hold; None if a verified `_hold` lacks it."""
        document = self.parsed.get(layout.hold_path(artifact, channel))
        return document if isinstance(document, Hold) else None

    def hold_status(
        self, artifact: ArtifactName, channel: Channel, memory: Memory, expiry_t: int
    ) -> HoldStatus:
        """T13: what the hold says; unknown unless a verified, unexpired `_hold` tells."""
        status = HoldStatus.of(
            self.hold(artifact, channel.channel), channel.rollout.id, memory.final
        )
        file = self.roles.get(layout.HOLD)
        known = file is not None and layout.HOLD not in self.problems and file.expires > expiry_t
        return HoldStatus(status.state, status.cap, known or status.state.is_final)

    def stop(self, artifact: ArtifactName) -> Stop | None:
        """The artifact's revocations; None if there are none."""
        document = self.parsed.get(layout.stop_path(artifact))
        return document if isinstance(document, Stop) else None

    def problem(self, artifact: ArtifactName, channel: ChannelName | None) -> Problem | None:
        """The first problem through which nothing new may activate (rule T7).

        Args:
            artifact: Of what.
            channel: Through this channel; None for a release that is pinned without one.
        """
        roles = [layout.STOP]
        if channel is not None:
            roles.append(layout.channel_role(artifact, channel))
        roles.append(layout.role_name(artifact, RoleClass.RELEASES))
        return next((self.problems[role] for role in roles if role in self.problems), None)


class Admission:
    """Judges a set of files once.

    Args:
        namespace: Whose files they must be.
        memory: What the home remembers.
        moment: The trusted time.
        previous: What the home believed before; None on the first admission.
        reading_back: True when a home reads again what it has admitted: files that have expired
            or were kept since are still believed, and their problem is named.
    """

    def __init__(
        self,
        namespace: Namespace,
        memory: Memory,
        moment: Moment,
        previous: Admitted | None = None,
        *,
        reading_back: bool = False,
    ) -> None:
        self._namespace = namespace
        self._reading_back = reading_back
        self._wanted: frozenset[ArtifactName] = frozenset()
        self._memory = memory
        self._moment = moment
        self._previous = previous
        self._roles: dict[str, RoleFile] = {}
        self._documents: dict[str, bytes] = {}
        self._parsed: dict[str, Document] = {}
        self._problems: dict[str, Problem] = {}

    @property
    def memory(self) -> Memory:
        """What the home must remember after it."""
        return self._memory

    def judge(
        self,
        files: SignedFiles,
        refused: Mapping[str, Problem],
        artifacts: tuple[ArtifactName, ...] | None,
    ) -> Admitted:
        """Applies every rule.

        Args:
            files: The files, as the stock client left them.
            refused: What the stock client refused, by role.
            artifacts: The artifacts whose roles are wanted, those that are unknown are passed
                over; None for all.

        Returns:
            What to believe.

        Raises:
            RuleViolation: If root, timestamp, snapshot or targets does not pass; then nothing is
                believed that was not believed before.
        """
        self._admit_top_level(files, refused)
        targets = self._roles[layout.TARGETS].targets
        self._wanted = frozenset(wanted_artifacts(targets, artifacts))
        roles = [layout.STOP, layout.HOLD] + [
            str(role)
            for artifact in sorted(self._wanted)
            for role in layout.artifact_roles(artifact)
        ]
        for role in roles:
            self._admit_delegated(role, files, refused)
        return Admitted(self._namespace, self._roles, self._documents, self._parsed, self._problems)

    # --- top level ------------------------------------------------------------------------

    def _admit_top_level(self, files: SignedFiles, refused: Mapping[str, Problem]) -> None:
        order = (layout.ROOT, layout.TIMESTAMP, layout.SNAPSHOT, layout.TARGETS)
        for role in order:
            if role in refused:
                raise _violation(refused[role])
            if role not in files.roles:
                raise RuleViolation("T7", Reason.MISSING, f"{role} is not there", role=role)
        found = {role: RoleFile.parse(role, files.roles[role]) for role in order}
        root = found[layout.ROOT]
        metadata.check_root(root, self._namespace)
        metadata.check_signed(root.root, root)
        for role in (layout.TIMESTAMP, layout.SNAPSHOT, layout.TARGETS):
            metadata.check_signed(root.root, found[role])
        metadata.check_targets(found[layout.TARGETS], self._namespace)
        metadata.check_online_keys(
            root.root, found[layout.TARGETS].targets, metadata.online_key(root.root)
        )
        metadata.check_complete(found[layout.TARGETS].targets, found[layout.SNAPSHOT].snapshot)
        for role in order:
            keys, threshold = metadata.role_keys(root.root, role)
            self._memory.check_version(found[role], keys, threshold)
            if not self._reading_back:
                self._check_times(found[role])
        self._check_timestamp(found[layout.TIMESTAMP], root)
        self._roles.update(found)
        for role in order:
            self._raise_mark(found[role], metadata.signer_keys(root.root, role, found[role]))
        self._raise_bound(found[layout.TIMESTAMP])

    def _check_times(self, file: RoleFile) -> None:
        time = self._moment.time
        metadata.check_not_expired(file, time.expiry_t)
        if file.role in layout.ONLINE:
            metadata.check_online_version(file, time.expiry_t)
            metadata.check_expiry_cap(file, time.expiry_t)

    def _check_timestamp(self, file: RoleFile, root: RoleFile) -> None:
        """T15, T16: signed time does not go back under one key, nor over a day ahead."""
        issued = metadata.issued_of(file)
        if self._moment.time.plausible:
            metadata.check_issued(file, self._moment.time.wall)
        bound = self._memory.bound
        signer = metadata.fingerprint(metadata.online_key(root.root))
        if bound is not None and bound.signer == signer and issued < bound.issued:
            raise RuleViolation(
                "T15",
                Reason.ROLLED_BACK,
                f"timestamp was issued at {issued}, before the {bound.issued} that was seen",
                role=layout.TIMESTAMP,
            )

    def _raise_bound(self, file: RoleFile) -> None:
        signer = metadata.fingerprint(metadata.online_key(self._roles[layout.ROOT].root))
        issued = metadata.issued_of(file)
        bound = self._memory.bound
        if bound is not None and bound.signer == signer and bound.issued >= issued:
            return
        moment = self._moment
        newer = Bound(
            issued=issued, signer=signer, boot_id=moment.boot_id, boot_s=int(moment.boot_s)
        )
        self._memory = self._memory.model_copy(update={"bound": newer})

    def _raise_mark(self, file: RoleFile, signers: frozenset[bytes]) -> None:
        self._memory = self._memory.with_role(file, signers)

    # --- delegated roles ------------------------------------------------------------------

    def _admit_delegated(
        self, role: str, files: SignedFiles, refused: Mapping[str, Problem]
    ) -> None:
        try:
            if role in refused and not self._reading_back:
                raise _violation(refused[role])
            file, documents, parsed = self._judge_authentic(role, files)
            problem = refused.get(role) or self._judge_current(file)
            if problem is not None and not self._reading_back:
                raise _violation(problem)
        except RuleViolation as error:
            self._problems[role] = refused.get(role) or Problem.of(error, role)
            self._keep_previous(role)
            return
        if problem is not None:
            self._problems[role] = problem
        self._believe(file, documents, parsed)

    def _believe(
        self, file: RoleFile, documents: Mapping[str, bytes], parsed: Mapping[str, Document]
    ) -> None:
        self._roles[file.role] = file
        self._documents.update(documents)
        self._parsed.update(parsed)
        targets = self._roles[layout.TARGETS].targets
        if file.role not in self._problems:
            self._raise_mark(file, metadata.signer_keys(targets, file.role, file))
        for path, document in parsed.items():
            if isinstance(document, Channel):
                self._remember_channel(document, documents[path])
                self._remember_final(document)

    def _judge_authentic(
        self, role: str, files: SignedFiles
    ) -> tuple[RoleFile, dict[str, bytes], dict[str, Document]]:
        """The file and its documents are signed, for this namespace and this place."""
        if role not in files.roles:
            raise RuleViolation("T7", Reason.MISSING, f"{role} is not there", role=role)
        file = RoleFile.parse(role, files.roles[role])
        metadata.check_delegated(file, self._namespace)
        metadata.check_signed(self._roles[layout.TARGETS].targets, file)
        documents, parsed = self._judge_documents(file, files)
        return file, documents, parsed

    def _judge_current(self, file: RoleFile) -> Problem | None:
        """The file is the newest, unexpired, and goes on from what was seen."""
        try:
            targets = self._roles[layout.TARGETS].targets
            keys, threshold = metadata.role_keys(targets, file.role)
            self._memory.check_version(file, keys, threshold)
            listed = self._roles[layout.SNAPSHOT].snapshot.meta[f"{file.role}.json"].version
            if file.version != listed:
                raise RuleViolation(
                    "T7",
                    Reason.ROLLED_BACK if file.version < listed else Reason.MISSING,
                    f"{file.role} has the version {file.version}, the snapshot says {listed}",
                    role=file.role,
                )
            self._check_times(file)
            self._check_follows_previous(file)
        except RuleViolation as error:
            return Problem.of(error, file.role)
        return None

    def _check_follows_previous(self, file: RoleFile) -> None:
        before = self._previous.roles.get(file.role) if self._previous else None
        if before is None or file.role in {layout.HOLD, layout.STOP}:
            return
        if layout.parse_role_name(file.role).role_class is RoleClass.RELEASES:
            metadata.check_append_only(before.targets, file.targets, file.role)
        else:
            metadata.check_channels_kept(before.targets, file.targets, file.role)

    def _judge_documents(
        self, file: RoleFile, files: SignedFiles
    ) -> tuple[dict[str, bytes], dict[str, Document]]:
        documents: dict[str, bytes] = {}
        parsed: dict[str, Document] = {}
        for path, target in file.targets.targets.items():
            place = layout.parse_document_path(path)
            if place.version is not None or place.artifact not in self._wanted:
                continue
            data = files.documents.get(path)
            if data is None:
                raise RuleViolation("T7", Reason.MISSING, f"{path} is not there", role=file.role)
            metadata.check_document_bytes(file.role, path, target, data)
            model = metadata.document_model(path)
            document = metadata.parse_placed_document(model, self._namespace, path, data)
            if isinstance(document, Channel):
                self._check_channel(file.role, place.artifact, document, data)
            documents[path] = data
            parsed[path] = document
        return documents, parsed

    def _check_channel(
        self, role: str, artifact: ArtifactName, channel: Channel, data: bytes
    ) -> None:
        """T3, T11: the channel goes only forward, from what this home has seen of it."""
        digest = sha256_bytes(data)
        mark = self._channel_mark(role, artifact, channel.channel)
        if mark is not None and channel.sequence < mark.sequence:
            raise RuleViolation(
                "T3",
                Reason.ROLLED_BACK,
                f"{artifact}:{channel.channel} has the sequence {channel.sequence}, "
                f"after {mark.sequence} was seen",
                role=role,
            )
        if mark is not None and channel.sequence == mark.sequence and digest != mark.sha256:
            raise RuleViolation(
                "T11",
                Reason.SEQUENCE_REUSED,
                f"{artifact}:{channel.channel} has other bytes under the sequence "
                f"{channel.sequence}",
                role=role,
            )
        path = layout.channel_path(artifact, channel.channel)
        before = self._previous.parsed.get(path) if self._previous else None
        if isinstance(before, Channel) and self._previous is not None:
            metadata.check_channel_follows(before, channel, self._previous.documents[path], data)

    def _channel_mark(
        self, role: str, artifact: ArtifactName, channel: ChannelName
    ) -> ChannelMark | None:
        """A channel's mark falls with its role's, when the keys that signed it were replaced."""
        keys, threshold = metadata.role_keys(self._roles[layout.TARGETS].targets, role)
        fallen = role in self._memory.roles and not self._memory.version_seen(role, keys, threshold)
        return None if fallen else self._memory.channels.get(f"{artifact}:{channel}")

    # --- what is remembered -----------------------------------------------------------------

    def _remember_channel(self, channel: Channel, data: bytes) -> None:
        artifact = channel.artifact.artifact
        mark = ChannelMark(sequence=channel.sequence, sha256=sha256_bytes(data))
        self._memory = self._memory.with_channel(artifact, channel.channel, mark)

    def _remember_final(self, channel: Channel) -> None:
        """T14: a final hold is recorded only for the id of the admitted channel document."""
        path = layout.hold_path(channel.artifact.artifact, channel.channel)
        hold = self._parsed.get(path)
        if isinstance(hold, Hold) and hold.rollout == channel.rollout.id and hold.state.is_final:
            self._memory = self._memory.with_final(channel.rollout.id, hold.state)

    def _keep_previous(self, role: str) -> None:
        """T7: what failed keeps its last admitted file, if its keys still count."""
        before = self._previous.roles.get(role) if self._previous else None
        if before is None or self._previous is None:
            return
        try:
            metadata.check_signed(self._roles[layout.TARGETS].targets, before)
        except RuleViolation:
            return
        self._roles[role] = before
        for path, document in self._previous.parsed.items():
            if layout.parse_document_path(path).role == role:
                self._parsed[path] = document
                self._documents[path] = self._previous.documents[path]
                if isinstance(document, Channel):
                    self._remember_final(document)


def _violation(problem: Problem) -> RuleViolation:
    return RuleViolation(problem.rule, problem.reason, problem.message, role=problem.role)


def wanted_artifacts(
    targets: Targets, artifacts: tuple[ArtifactName, ...] | None
) -> tuple[ArtifactName, ...]:
    """The artifacts of a checked targets role that are asked for; None asks for all."""
    known = metadata.artifacts_of(targets)
    return known if artifacts is None else tuple(name for name in known if name in artifacts)
