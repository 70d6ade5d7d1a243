"""Where everything stands in a namespace's TUF repository: role names, paths and lifetimes.

Only what is computed here is permitted; a server, a publisher and a device all refuse the rest
(rules T8 and T11). TUF's path patterns match more than they should (`x/*.json` matches `x/.json`),
so paths are parsed here, not matched.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sealift.protocol.errors import InvalidName
from sealift.protocol.names import ArtifactName, ChannelName, Digest, Version

ROOT = "root"
TIMESTAMP = "timestamp"
SNAPSHOT = "snapshot"
TARGETS = "targets"
STOP = "_stop"
HOLD = "_hold"
TOP_LEVEL = frozenset({ROOT, TIMESTAMP, SNAPSHOT, TARGETS})
ONLINE = frozenset({TIMESTAMP, SNAPSHOT, HOLD})
"""The roles that the server signs."""

NAMESPACE_FIELD = "x-sealift-namespace"
"""Signed field of every publisher-signed role file (rule T10)."""
ISSUED_FIELD = "x-sealift-issued"
"""Signed field of every timestamp: Unix seconds of its signing (rule T15)."""

DAY_S = 86_400
HOUR_S = 3_600


class RoleClass(StrEnum):
    """The three roles of each artifact."""

    RELEASES = "releases"
    PREVIEWS = "previews"
    CHANNELS = "channels"


@dataclass(frozen=True, slots=True)
class ArtifactRole:
    """A role of one artifact: `a.llama-edge.releases`."""

    artifact: ArtifactName
    role_class: RoleClass

    def __str__(self) -> str:
        return f"a.{self.artifact}.{self.role_class}"

    @property
    def path_pattern(self) -> str:
        """The only pattern that its delegation has."""
        return f"{self.artifact}/{self.role_class}/*.json"


def role_name(artifact: ArtifactName, role_class: RoleClass) -> str:
    """The name of an artifact's role."""
    return str(ArtifactRole(artifact, role_class))


def channel_role(artifact: ArtifactName, channel: ChannelName) -> str:
    """The name of the role that signs a channel: previews and protected ones are apart."""
    role_class = RoleClass.PREVIEWS if channel.is_preview else RoleClass.CHANNELS
    return role_name(artifact, role_class)


def parse_role_name(name: str) -> ArtifactRole:
    """Reads an artifact's role name.

    Raises:
        InvalidName: If it is not one.
    """
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "a" or parts[2] not in list(RoleClass):
        raise InvalidName(f"{name!r} is not the name of an artifact's role")
    return ArtifactRole(ArtifactName(parts[1]), RoleClass(parts[2]))


def artifact_roles(artifact: ArtifactName) -> tuple[ArtifactRole, ...]:
    """The three roles of an artifact."""
    return tuple(ArtifactRole(artifact, role_class) for role_class in RoleClass)


def delegated_path_patterns(role: str) -> list[str]:
    """The path patterns that the delegation of a role has.

    Raises:
        InvalidName: If there is no such role.
    """
    if role == STOP:
        return ["_stop/*.json"]
    if role == HOLD:
        return ["_hold/*/*.json"]
    return [parse_role_name(role).path_pattern]


@dataclass(frozen=True, slots=True)
class DocumentPath:
    """What a target path stands for, and the role that must list it."""

    role: str
    artifact: ArtifactName
    version: Version | None = None
    channel: ChannelName | None = None

    @property
    def path(self) -> str:
        """The target path."""
        if self.role == STOP:
            return f"_stop/{self.artifact}.json"
        if self.role == HOLD:
            return f"_hold/{self.artifact}/{self.channel}.json"
        if self.version is not None:
            return f"{self.artifact}/releases/{self.version}.json"
        return f"{self.artifact}/{parse_role_name(self.role).role_class}/{self.channel}.json"


def release_path(artifact: ArtifactName, version: Version) -> str:
    """The path of a release's manifest."""
    return f"{artifact}/releases/{version}.json"


def channel_path(artifact: ArtifactName, channel: ChannelName) -> str:
    """The path of a channel's document."""
    folder = RoleClass.PREVIEWS if channel.is_preview else RoleClass.CHANNELS
    return f"{artifact}/{folder}/{channel}.json"


def hold_path(artifact: ArtifactName, channel: ChannelName) -> str:
    """The path of a channel's hold."""
    return f"_hold/{artifact}/{channel}.json"


def stop_path(artifact: ArtifactName) -> str:
    """The path of an artifact's revocations."""
    return f"_stop/{artifact}.json"


def parse_document_path(path: str) -> DocumentPath:
    """Reads a target path.

    Raises:
        InvalidName: If no role may list it.
    """
    parts = path.split("/")
    if not path.endswith(".json") or not 2 <= len(parts) <= 3:
        raise InvalidName(f"{path!r} is not the path of a document")
    leaf = parts[-1].removesuffix(".json")
    if parts[0] == "_stop" and len(parts) == 2:
        return DocumentPath(STOP, ArtifactName(leaf))
    if parts[0] == "_hold" and len(parts) == 3:
        return DocumentPath(HOLD, ArtifactName(parts[1]), channel=ChannelName(leaf))
    if len(parts) != 3 or parts[1] not in list(RoleClass):
        raise InvalidName(f"{path!r} is not the path of a document")
    artifact, role_class = ArtifactName(parts[0]), RoleClass(parts[1])
    role = role_name(artifact, role_class)
    if role_class is RoleClass.RELEASES:
        return DocumentPath(role, artifact, version=Version.parse(leaf))
    channel = ChannelName(leaf)
    if channel.is_preview != (role_class is RoleClass.PREVIEWS):
        raise InvalidName(f"{path!r} is not where the channel {channel} stands")
    return DocumentPath(role, artifact, channel=channel)


def metadata_file_name(role: str, version: int) -> str:
    """The file of a role's version, as consistent snapshots name it."""
    return f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{version}.{role}.json"


def parse_metadata_file_name(name: str) -> tuple[str, int | None]:
    """The role and version of a metadata file; the version is None for `timestamp.json`.

    Raises:
        InvalidName: If it is not such a name.
    """
    if name == f"{TIMESTAMP}.json":
        return TIMESTAMP, None
    version, dot, rest = name.partition(".")
    role = rest.removesuffix(".json")
    if not dot or not rest.endswith(".json") or not version.isascii() or not version.isdigit():
        raise InvalidName(f"{name!r} is not a metadata file")
    if role not in TOP_LEVEL | {STOP, HOLD}:
        parse_role_name(role)
    return role, int(version[:17])


def hashed_document_path(path: str, sha256: Digest) -> str:
    """A document's path below `targets/`: the hash stands before the last name."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


def lifetime_s(role: str) -> int:
    """How long a file of the role is signed for, in seconds."""
    fixed = {
        ROOT: 365 * DAY_S,
        TARGETS: 365 * DAY_S,
        STOP: 365 * DAY_S,
        HOLD: 7 * DAY_S,
        SNAPSHOT: 7 * DAY_S,
        TIMESTAMP: 6 * HOUR_S,
    }
    if role in fixed:
        return fixed[role]
    return {
        RoleClass.RELEASES: 365 * DAY_S,
        RoleClass.PREVIEWS: 90 * DAY_S,
        RoleClass.CHANNELS: 180 * DAY_S,
    }[parse_role_name(role).role_class]


def length_limit(role: str) -> int:
    """The most bytes that a role's file may have, whatever its parent declares (rule T6)."""
    return {ROOT: 512_000, TIMESTAMP: 16_384, SNAPSHOT: 2_000_000}.get(role, 5_000_000)
