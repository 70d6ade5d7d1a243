"""The rules of trust over signed TUF metadata, beyond what TUF 1.0 itself asks for.

Called by the server when it takes a submission, by a publisher before it signs, and by every home
when it admits. No IO: bytes and `tuf.api.metadata` objects come in, a `RuleViolation` that names
its rule comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.exceptions import StorageError
from securesystemslib.signer import Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from sealift.protocol import layout
from sealift.protocol.documents import Channel, Document, Hold, Manifest, Stop
from sealift.protocol.errors import InvalidDocument, InvalidKey, InvalidName, RuleViolation
from sealift.protocol.layout import DAY_S
from sealift.protocol.names import ArtifactName, Digest, Namespace, Version
from sealift.protocol.parsing import parse_json
from sealift.protocol.reasons import Reason

MAX_VERSION_STEP = 1_000
"""How far ahead of the current version a publisher's next one may be (rule T21)."""
MAX_RELEASES = 2_000
"""Releases in one artifact's releases role."""
EXPIRY_FACTOR = 2
"""A file may expire this many times its lifetime ahead (rules T17 and T21)."""
RENEWAL_SLACK_S = 600
"""Clocks of publisher and server may differ by this much."""

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
D = TypeVar("D", bound=Document)

_TYPES: dict[str, type[Signed]] = {
    layout.ROOT: Root,
    layout.TIMESTAMP: Timestamp,
    layout.SNAPSHOT: Snapshot,
}


@dataclass(frozen=True, slots=True)
class RoleFile:
    """One signed file of a role, as bytes and as what they say."""

    role: str
    data: bytes
    metadata: Metadata[Root] | Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets]

    @classmethod
    def parse(cls, role: str, data: bytes) -> RoleFile:
        """Reads a role's file, strictly: no duplicate keys, no floats, of the right type.

        Raises:
            RuleViolation: If it is not such a file, or longer than permitted.
        """
        if len(data) > layout.length_limit(role):
            raise RuleViolation("T6", Reason.TOO_LARGE, f"{role}: {len(data)} bytes", role=role)
        try:
            parse_json(data)
            metadata = Metadata.from_bytes(data)
        except (InvalidDocument, DeserializationError, ValueError) as error:
            raise RuleViolation(
                "T21", Reason.MALFORMED, f"{role} is not a metadata file: {error}", role=role
            ) from error
        expected = _TYPES.get(role, Targets)
        if not isinstance(metadata.signed, expected):
            raise RuleViolation(
                "T10",
                Reason.WRONG_PLACE,
                f"{role} is of the type {metadata.signed.type!r}",
                role=role,
            )
        return cls(role, data, metadata)

    @property
    def version(self) -> int:
        """The file's version."""
        return self.metadata.signed.version

    @property
    def expires(self) -> int:
        """Unix seconds."""
        return int(self.metadata.signed.expires.timestamp())

    @property
    def root(self) -> Root:
        """What the file says, for the role root."""
        return cast(Root, self.metadata.signed)

    @property
    def timestamp(self) -> Timestamp:
        """What the file says, for the role timestamp."""
        return cast(Timestamp, self.metadata.signed)

    @property
    def snapshot(self) -> Snapshot:
        """What the file says, for the role snapshot."""
        return cast(Snapshot, self.metadata.signed)

    @property
    def targets(self) -> Targets:
        """What the file says, for targets and every delegated role."""
        return cast(Targets, self.metadata.signed)


# --- keys -------------------------------------------------------------------------------------


def subject_public_key_info(key: Key) -> bytes:
    """The key's SubjectPublicKeyInfo (RFC 5280) in DER, encoded anew from the loaded key.

    Two spellings of one key give the same bytes (rule T9).

    Raises:
        InvalidKey: If the key cannot be loaded, or is neither Ed25519 nor ECDSA P-256.
    """
    if not isinstance(key, SSlibKey):
        raise InvalidKey(f"the key {key.keyid[:12]} is of the kind {key.keytype!r}")
    try:
        if key.keytype == "ed25519":
            # 12 bytes of DER stand before the 32 of an Ed25519 key (RFC 8410 section 4).
            raw = bytes.fromhex(key.keyval["public"])
            if len(raw) != 32:
                raise ValueError(f"{len(raw)} bytes instead of 32")
            return bytes.fromhex("302a300506032b6570032100") + raw
        if key.keytype == "ecdsa" and key.scheme == "ecdsa-sha2-nistp256":
            loaded = load_pem_public_key(key.keyval["public"].encode())
            if not isinstance(loaded, EllipticCurvePublicKey) or loaded.curve.name != "secp256r1":
                raise ValueError("it is on another curve, or on none")
            return loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (KeyError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidKey(f"the key {key.keyid[:12]} cannot be loaded: {error}") from error
    raise InvalidKey(
        f"the key {key.keyid[:12]} is of the kind {key.keytype}/{key.scheme}",
        hint="Use Ed25519 or ECDSA P-256.",
    )


def check_distinct_keys(role: str, keys: Mapping[str, Key], roles: Mapping[str, Role]) -> None:
    """T9: no key stands in the table twice, every role can reach its threshold.

    Raises:
        RuleViolation: If one does, or a key cannot be loaded.
    """
    seen: dict[bytes, str] = {}
    for keyid, key in keys.items():
        try:
            spki = subject_public_key_info(key)
        except InvalidKey as error:
            raise RuleViolation(
                "T9", Reason.MALFORMED, f"{role}: {error.message}", role=role
            ) from error
        if spki in seen:
            raise RuleViolation(
                "T9",
                Reason.DUPLICATE_KEY,
                f"{role} lists one key twice, as {seen[spki][:12]} and {keyid[:12]}",
                role=role,
            )
        seen[spki] = keyid
    for name, entry in roles.items():
        known = [keyid for keyid in entry.keyids if keyid in keys]
        if not 1 <= entry.threshold <= len(set(known)) or len(set(entry.keyids)) != len(known):
            raise RuleViolation(
                "T9",
                Reason.BAD_DELEGATION,
                f"{role} asks for {entry.threshold} of {len(set(known))} keys for {name}",
                role=role,
            )


def signer_keys(parent: Root | Targets, role: str, file: RoleFile) -> frozenset[bytes]:
    """The keys, as SubjectPublicKeyInfo, whose valid signatures the file has under `parent`."""
    result = parent.get_verification_result(
        role, file.metadata.signed_bytes, file.metadata.signatures
    )
    return frozenset(subject_public_key_info(key) for key in result.signed.values())


def role_keys(parent: Root | Targets, role: str) -> tuple[frozenset[bytes], int]:
    """The keys that may sign a role, as SubjectPublicKeyInfo, and its threshold.

    Raises:
        RuleViolation: If the parent does not name the role.
    """
    entry = delegation_of(parent, role)
    keys = parent.keys if isinstance(parent, Root) else _delegations_keys(parent)
    found = (keys.get(keyid) for keyid in entry.keyids)
    return frozenset(subject_public_key_info(key) for key in found if key), entry.threshold


def _delegations_keys(targets: Targets) -> dict[str, Key]:
    return targets.delegations.keys if targets.delegations else {}


def delegation_of(parent: Root | Targets, role: str) -> Role:
    """What the parent says of a role.

    Raises:
        RuleViolation: If it does not name the role.
    """
    roles: Mapping[str, Role]
    if isinstance(parent, Root):
        roles = parent.roles
    else:
        roles = (parent.delegations.roles if parent.delegations else None) or {}
    if role not in roles:
        raise RuleViolation(
            "T8", Reason.MISSING, f"{role} is not named by {parent.type}", role=role
        )
    return roles[role]


def check_signed(parent: Root | Targets, file: RoleFile) -> None:
    """The file is signed by a threshold of distinct keys of its role.

    Raises:
        RuleViolation: If it is not (`bad_signature`).
    """
    entry = delegation_of(parent, file.role)
    count = len(signer_keys(parent, file.role, file))
    if count < entry.threshold:
        raise RuleViolation(
            "T9",
            Reason.BAD_SIGNATURE,
            f"{file.role} {file.version} is signed by {count} of the "
            f"{entry.threshold} keys that it needs",
            role=file.role,
        )


# --- what a role's file may say ---------------------------------------------------------------


def check_namespace(file: RoleFile, namespace: Namespace) -> None:
    """T10: a publisher-signed file says which namespace it is for."""
    said = file.metadata.signed.unrecognized_fields.get(layout.NAMESPACE_FIELD)
    if said != namespace:
        raise RuleViolation(
            "T10",
            Reason.WRONG_NAMESPACE,
            f"{file.role} {file.version} is signed for the namespace {said!r}, not {namespace!r}",
            role=file.role,
        )


def check_root(file: RoleFile, namespace: Namespace) -> None:
    """T9, T10, T22: what a root must be beyond TUF: consistent snapshots, one online key.

    Snapshot and timestamp have the same single key, of which one signature is enough.
    """
    root = file.root
    check_namespace(file, namespace)
    check_distinct_keys(layout.ROOT, root.keys, root.roles)
    if root.consistent_snapshot is not True:
        raise RuleViolation(
            "T8", Reason.MALFORMED, "root does not ask for consistent snapshots", role=layout.ROOT
        )
    online = [root.roles[name] for name in (layout.SNAPSHOT, layout.TIMESTAMP)]
    if len({tuple(role.keyids) for role in online}) != 1 or len(online[0].keyids) != 1:
        raise RuleViolation(
            "T22",
            Reason.ONLINE_KEY_MISMATCH,
            "root names different keys for snapshot and timestamp, or more than one",
            role=layout.ROOT,
        )


def online_key(root: Root) -> bytes:
    """The server's key as SubjectPublicKeyInfo, as a checked root names it."""
    (keyid,) = root.roles[layout.TIMESTAMP].keyids
    return subject_public_key_info(root.keys[keyid])


def check_online_keys(root: Root, targets: Targets, expected: bytes) -> None:
    """T22: snapshot, timestamp and `_hold` are signed by the server's own key and no other.

    Args:
        expected: The server's key as SubjectPublicKeyInfo.
    """
    held, threshold = role_keys(targets, layout.HOLD)
    if online_key(root) != expected or held != {expected} or threshold != 1:
        raise RuleViolation(
            "T22",
            Reason.ONLINE_KEY_MISMATCH,
            "snapshot, timestamp and _hold must name the server's own key alone",
            role=layout.TARGETS,
        )


def artifacts_of(targets: Targets) -> tuple[ArtifactName, ...]:
    """The artifacts that a targets role delegates, in order.

    Raises:
        RuleViolation: If it delegates a role that no artifact has (rule T8).
    """
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    try:
        names = [layout.parse_role_name(role).artifact for role in roles if role.startswith("a.")]
    except InvalidName as error:
        raise RuleViolation(
            "T8",
            Reason.BAD_DELEGATION,
            f"targets delegates what cannot be: {error.message}",
            role=layout.TARGETS,
        ) from error
    return tuple(dict.fromkeys(names))


def check_targets(file: RoleFile, namespace: Namespace) -> None:
    """T8, T9, T10: targets delegates exactly the computed roles and lists nothing itself."""
    check_namespace(file, namespace)
    targets = file.targets

    def refuse(message: str) -> RuleViolation:
        return RuleViolation("T8", Reason.BAD_DELEGATION, message, role=layout.TARGETS)

    if targets.targets:
        raise refuse("targets lists files itself; only its delegated roles may")
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise refuse("targets delegates nothing, or by hash bins")
    roles = delegations.roles
    artifacts = artifacts_of(targets)
    permitted = {layout.STOP, layout.HOLD} | {
        str(role) for artifact in artifacts for role in layout.artifact_roles(artifact)
    }
    if set(roles) != permitted:
        odd = sorted(set(roles) ^ permitted)
        raise refuse(f"targets delegates other roles than it must: {', '.join(odd)}")
    for name, role in roles.items():
        _check_delegation(name, role, refuse)
    check_distinct_keys(layout.TARGETS, delegations.keys, roles)


def _check_delegation(
    name: str, role: DelegatedRole, refuse: Callable[[str], RuleViolation]
) -> None:
    """T8: the delegation is terminating and has exactly the computed paths."""
    if not role.terminating or role.paths != layout.delegated_path_patterns(name):
        raise refuse(f"the delegation of {name} has other paths, or is not terminating")
    if role.path_hash_prefixes is not None:
        raise refuse(f"the delegation of {name} goes by hash prefixes")


def check_delegated(file: RoleFile, namespace: Namespace) -> None:
    """T8, T10, T11: a delegated role delegates nothing and lists only its own paths.

    `_hold` is signed by the server, and says its namespace all the same.
    """
    check_namespace(file, namespace)
    targets = file.targets
    if targets.delegations is not None:
        raise RuleViolation(
            "T8", Reason.BAD_DELEGATION, f"{file.role} delegates; it must not", role=file.role
        )
    for path, target in targets.targets.items():
        check_target(file.role, path, target)
    if file.role.endswith(f".{layout.RoleClass.RELEASES}") and len(targets.targets) > MAX_RELEASES:
        raise RuleViolation(
            "T21",
            Reason.TOO_LARGE,
            f"{file.role} lists over {MAX_RELEASES} releases",
            role=file.role,
        )


def check_target(role: str, path: str, target: TargetFile) -> Digest:
    """T8, T11: a role lists only its own paths, each with one hash, SHA-256.

    Returns:
        The SHA-256 that the target names.
    """
    try:
        place = layout.parse_document_path(path)
    except InvalidName as error:
        raise RuleViolation(
            "T11", Reason.WRONG_PLACE, f"{role}: {error.message}", role=role
        ) from error
    if place.role != role or place.path != path:
        raise RuleViolation(
            "T11", Reason.WRONG_PLACE, f"{role} lists {path}, which is not its own", role=role
        )
    if list(target.hashes) != ["sha256"]:
        raise RuleViolation(
            "T11", Reason.MALFORMED, f"{path} has other hashes than one SHA-256", role=role
        )
    try:
        return Digest(target.hashes["sha256"])
    except InvalidName as error:
        raise RuleViolation(
            "T11", Reason.MALFORMED, f"{path}: {error.message}", role=role
        ) from error


# --- versions and expiry ----------------------------------------------------------------------


def check_not_expired(file: RoleFile, t: int) -> None:
    """T17: the file has not expired at time `t` (Unix seconds)."""
    if file.expires <= t:
        raise RuleViolation(
            "T17",
            Reason.EXPIRED,
            f"{file.role} {file.version} expired {file.metadata.signed.expires:%Y-%m-%d %H:%M} UTC",
            role=file.role,
        )


def check_expiry_cap(file: RoleFile, t: int) -> None:
    """T17, T21: the file expires at most twice its role's lifetime ahead of `t`."""
    limit = t + EXPIRY_FACTOR * layout.lifetime_s(file.role) + RENEWAL_SLACK_S
    if file.expires > limit:
        raise RuleViolation(
            "T17",
            Reason.EXPIRY_TOO_FAR,
            f"{file.role} {file.version} expires {file.metadata.signed.expires:%Y-%m-%d %H:%M} "
            f"UTC, over {EXPIRY_FACTOR} lifetimes ahead",
            role=file.role,
        )


def check_online_version(file: RoleFile, t: int) -> None:
    """T17: versions of timestamp, snapshot and `_hold` are Unix seconds, at most a day ahead."""
    if file.version > t + DAY_S:
        raise RuleViolation(
            "T17",
            Reason.VERSION_TOO_FAR,
            f"the version {file.version} of {file.role} is over a day ahead of this clock",
            role=file.role,
        )


def next_online_version(previous: int | None, now: int) -> int:
    """T17: `max(previous + 1, now)`, `previous` counting only files of the current key."""
    return max((previous or 0) + 1, now)


def issued_of(file: RoleFile) -> int:
    """T15: when a timestamp says that it was signed, Unix seconds."""
    issued = file.metadata.signed.unrecognized_fields.get(layout.ISSUED_FIELD)
    if not isinstance(issued, int) or isinstance(issued, bool) or issued < 0:
        raise RuleViolation(
            "T15",
            Reason.MALFORMED,
            f"timestamp has no valid {layout.ISSUED_FIELD}",
            role=layout.TIMESTAMP,
        )
    return issued


def check_issued(file: RoleFile, wall: int) -> None:
    """T16: a timestamp issued over a day ahead of a plausible wall clock is refused."""
    issued = issued_of(file)
    if issued > wall + DAY_S:
        raise RuleViolation(
            "T16",
            Reason.ISSUED_TOO_FAR,
            f"timestamp says it was signed at {issued}, over a day ahead of this clock ({wall})",
            role=layout.TIMESTAMP,
        )


def check_next_version(current: RoleFile | None, following: RoleFile) -> None:
    """T21: a publisher's next version is above the current one (0 if new), at most 1,000 above it.

    Root goes on by exactly 1, from 1.
    """
    before = current.version if current else 0
    step = 1 if following.role == layout.ROOT else MAX_VERSION_STEP
    if not before < following.version <= before + step:
        raise RuleViolation(
            "T21",
            Reason.ROLLED_BACK if following.version <= before else Reason.VERSION_TOO_FAR,
            f"the version {following.version} of {following.role} does not follow {before}",
            role=following.role,
        )


# --- from one state to the next ---------------------------------------------------------------


def check_append_only(current: Targets, following: Targets, role: str) -> None:
    """T12, T21: a released version is never changed or dropped."""
    for path, target in current.targets.items():
        later = following.targets.get(path)
        if later is None or later.hashes != target.hashes or later.length != target.length:
            raise RuleViolation(
                "T12",
                Reason.RELEASE_CHANGED,
                f"{role} {'drops' if later is None else 'changes'} {path}, which was released",
                role=role,
            )


def check_channels_kept(current: Targets, following: Targets, role: str) -> None:
    """T11: a channel is closed, never dropped."""
    for path in current.targets:
        if path not in following.targets:
            raise RuleViolation(
                "T11", Reason.CHANNEL_DROPPED, f"{role} drops {path}; close it instead", role=role
            )


def check_artifacts_kept(current: Targets, following: Targets) -> None:
    """T12: an artifact's delegation is not dropped by routine work."""
    lost = set(artifacts_of(current)) - set(artifacts_of(following))
    if lost:
        raise RuleViolation(
            "T12",
            Reason.RELEASE_CHANGED,
            f"targets drops the artifact {min(lost)}",
            role=layout.TARGETS,
        )


def check_stop_kept(current: Stop, following: Stop, *, targets_signed: bool) -> None:
    """T23: a revocation is not dropped or softened, unless the same set signs targets anew."""
    if targets_signed:
        return
    order = ["warn", "no_new", "stop"]
    later = {entry.sha256: entry for entry in following.releases}
    for entry in current.releases:
        now = later.get(entry.sha256)
        if now is None or order.index(now.severity) < order.index(entry.severity):
            raise RuleViolation(
                "T23",
                Reason.REVOCATION_DROPPED,
                f"the revocation of {entry.version} is dropped or softened",
                role=layout.STOP,
            )


def check_channel_follows(
    current: Channel, following: Channel, current_data: bytes, following_data: bytes
) -> None:
    """T11 and the rollout rules: sequences rise, one rollout id is one plan.

    The same id always means the same release, salt, stages and fallback; equal sequence means
    equal bytes.
    """
    place = f"{following.artifact}:{following.channel}"
    if following.sequence < current.sequence:
        raise RuleViolation(
            "T11",
            Reason.ROLLED_BACK,
            f"{place} has the sequence {following.sequence}, after {current.sequence}",
        )
    if following.sequence == current.sequence:
        if current_data != following_data:
            raise RuleViolation(
                "T11",
                Reason.SEQUENCE_REUSED,
                f"{place} has other bytes under the sequence {following.sequence}",
            )
        return
    if following.rollout.id == current.rollout.id:
        same = (
            following.release == current.release
            and following.rollout.salt == current.rollout.salt
            and following.rollout.stages == current.rollout.stages
            and following.fallback == current.fallback
        )
        if not same:
            raise RuleViolation(
                "T14",
                Reason.ROLLOUT_CHANGED,
                f"{place} has another plan under the same rollout id",
            )


# --- documents --------------------------------------------------------------------------------


def check_document_bytes(role: str, path: str, target: TargetFile, data: bytes) -> Digest:
    """The document's bytes are the ones that the role's file names.

    Raises:
        RuleViolation: If they are not (`hash_mismatch`).
    """
    digest = check_target(role, path, target)
    try:
        target.verify_length_and_hashes(data)
    except (RepositoryError, StorageError) as error:
        raise RuleViolation(
            "T11",
            Reason.HASH_MISMATCH,
            f"{path} is not the document that {role} signed",
            role=role,
        ) from error
    return digest


def parse_placed_document(model: type[D], namespace: Namespace, path: str, data: bytes) -> D:
    """Reads a verified document, and checks that it is where it says (rules T10 and T11).

    Raises:
        RuleViolation: If it is malformed or belongs elsewhere.
    """
    place = layout.parse_document_path(path)
    if len(data) > model.max_bytes:
        raise RuleViolation(
            "T6", Reason.TOO_LARGE, f"{path} has {len(data)} bytes", role=place.role
        )
    try:
        document = model.parse(data)
    except InvalidDocument as error:
        raise RuleViolation(
            "T10", Reason.MALFORMED, f"{path}: {error.message}", role=place.role
        ) from error
    except RuleViolation as error:
        raise RuleViolation(
            error.rule, error.reason, f"{path} {error.message}", role=place.role
        ) from error
    check_document_place(document, namespace, place)
    return document


def check_document_place(
    document: Document, namespace: Namespace, place: layout.DocumentPath
) -> None:
    """T10, T11: artifact, channel and version in the document are those of its path."""
    said_artifact = getattr(document, "artifact", None)
    said_channel = document.channel if isinstance(document, Channel | Hold) else None
    said_version = document.version if isinstance(document, Manifest) else None
    if (
        str(said_artifact) != f"{namespace}/{place.artifact}"
        or said_channel != place.channel
        or said_version != place.version
    ):
        raise RuleViolation(
            "T10",
            Reason.WRONG_PLACE,
            f"{place.path} holds a document of {said_artifact}"
            f"{f':{said_channel}' if said_channel else ''}"
            f"{f'@{said_version}' if said_version else ''}",
            role=place.role,
        )


def document_model(path: str) -> type[Document]:
    """The type of the document that stands at a target path."""
    place = layout.parse_document_path(path)
    if place.role == layout.STOP:
        return Stop
    if place.role == layout.HOLD:
        return Hold
    return Manifest if place.version is not None else Channel


def released_versions(releases: Targets) -> dict[Version, tuple[Digest, int]]:
    """What a checked releases role lists: digest and length of each version's manifest."""
    found: dict[Version, tuple[Digest, int]] = {}
    for path, target in releases.targets.items():
        version = layout.parse_document_path(path).version
        if version is not None:
            found[version] = (Digest(target.hashes["sha256"]), target.length)
    return found


def check_complete(targets: Targets, snapshot: Snapshot, roles: Iterable[str] = ()) -> None:
    """T7: a snapshot has targets and every role that targets delegates."""
    delegated = (targets.delegations.roles if targets.delegations else None) or {}
    for role in {layout.TARGETS, *delegated, *roles}:
        if f"{role}.json" not in snapshot.meta:
            raise RuleViolation("T7", Reason.MISSING, f"{role} is not in the snapshot", role=role)


def fingerprint(spki: bytes) -> str:
    """What a mark keeps of a key: the first 32 hex digits of the SHA-256 of its SPKI."""
    return sha256(spki).hexdigest()[:32]


def sha256_digest(data: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return sha256(data).digest()
