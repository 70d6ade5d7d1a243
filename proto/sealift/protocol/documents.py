"""The signed documents: manifest, channel, hold and stop.

Each is a small JSON target file of a namespace's TUF repository. It says its type, the full name
of its artifact and its channel or version, so that it cannot be taken for another (rule T10).
Times are Unix seconds, durations end in `_s`, shares are basis points. Fields that a reader does
not know are ignored, unless the document names them in `critical`.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sealift.protocol.errors import InvalidDocument, InvalidName, RuleViolation
from sealift.protocol.names import (
    WINDOWS_DEVICE_NAMES,
    ArtifactId,
    ChannelName,
    Digest,
    Version,
)
from sealift.protocol.parsing import MAX_INTEGER, parse_document
from sealift.protocol.reasons import Reason

MAX_FILES = 10_000
MAX_PATH_BYTES = 200
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_CHANNEL_BYTES = 64 * 1024
MAX_HOLD_BYTES = 64 * 1024
MAX_STOP_BYTES = 1024 * 1024
MAX_STAGES = 100
FULL_BP = 10_000
"""Every device, in basis points."""

Time = Annotated[int, Field(ge=0, lt=MAX_INTEGER)]
Length = Annotated[int, Field(ge=0, lt=MAX_INTEGER)]
Sequence = Annotated[int, Field(ge=1, lt=MAX_INTEGER)]
BasisPoints = Annotated[int, Field(ge=0, le=FULL_BP)]
HexSalt = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
RolloutId = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
MediaType = Annotated[str, Field(pattern=r"^[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,100}$")]


def check_path(path: str) -> str:
    """Checks that a file's path is one that every machine can store under the same name.

    Relative, normalised, NFC, at most 200 bytes of UTF-8, no `..`, no name that begins with a dot
    or ends with a dot or a space, no Windows device names, no control characters or backslashes.

    Raises:
        InvalidName: If it is not.
    """
    if unicodedata.normalize("NFC", path) != path:
        raise InvalidName(f"the path {path!r} is not in Unicode's composed form (NFC)")
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise InvalidName(f"the path {path[:40]!r}… is longer than {MAX_PATH_BYTES} bytes")
    for part in path.split("/"):
        if part in {"", ".", ".."} or part.startswith("."):
            raise InvalidName(f"the path {path!r} is not relative and normalised")
        if part[-1] in ". ":
            raise InvalidName(f"the path {path!r} has a name that ends with a dot or a space")
        if part.split(".", 1)[0].rstrip(" ").lower() in WINDOWS_DEVICE_NAMES:
            raise InvalidName(f"the path {path!r} has the name of a device on Windows")
        if any(unicodedata.category(c) in {"Cc", "Cs", "Cf"} or c in '\\:*?"<>|' for c in part):
            raise InvalidName(f"the path {path!r} has a character that not every disk can store")
    return path


FilePath = Annotated[str, AfterValidator(check_path)]


class Document(BaseModel):
    """What all signed documents have."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)
    max_bytes: ClassVar[int] = 0

    critical: tuple[str, ...] = ()
    """Names of fields that a reader must know, else it must refuse the document."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads the document from its verified bytes.

        Raises:
            InvalidDocument: If they are not such a document.
            RuleViolation: If it names a critical field that this version does not know.
        """
        document = parse_document(cls, data)
        if "type" not in document.model_fields_set:
            raise InvalidDocument("it does not say its type")
        known = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = sorted(set(document.critical) - known)
        if unknown:
            raise RuleViolation(
                "T13",
                Reason.UNKNOWN_CRITICAL,
                f"needs a newer Sealift, one that knows {', '.join(unknown)}",
            )
        return document


class Kind(StrEnum):
    """What an artifact is; fixed by its first release."""

    MODEL = "model"
    PROMPT = "prompt"
    BUNDLE = "bundle"
    PROFILE = "profile"
    DATASET = "dataset"


class ChunksReference(BaseModel):
    """Names a `sealift.chunks/1` blob."""

    model_config = ConfigDict(frozen=True)

    sha256: Digest
    length: Length


class FileEntry(BaseModel):
    """One file of a release."""

    model_config = ConfigDict(frozen=True)

    path: FilePath
    sha256: Digest
    length: Length
    media_type: MediaType
    chunks: ChunksReference | None = None


class Manifest(Document):
    """`sealift.release/1`: what a release is made of. Its digest is the release's digest."""

    max_bytes: ClassVar[int] = MAX_MANIFEST_BYTES

    type: Literal["sealift.release/1"] = "sealift.release/1"
    artifact: ArtifactId
    kind: Kind
    version: Version
    created: Time
    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=MAX_FILES)
    notes: str = Field(default="", max_length=64 * 1024)

    @model_validator(mode="after")
    def _paths_are_distinct(self) -> Self:
        """Distinct on disks that fold case, and no file is another's folder."""
        files: set[str] = set()
        folders: set[str] = set()
        for entry in self.files:
            folded = entry.path.casefold()
            if folded in files:
                raise ValueError(f"two files are called {entry.path!r} where case is folded")
            files.add(folded)
            parts = folded.split("/")[:-1]
            folders.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
        both = files & folders
        if both:
            raise ValueError(f"{min(both)!r} is both a file and a folder")
        return self

    @property
    def length(self) -> int:
        """Bytes of all files."""
        return sum(entry.length for entry in self.files)


class ReleasePointer(BaseModel):
    """Names one manifest by its version, SHA-256 and length."""

    model_config = ConfigDict(frozen=True)

    version: Version
    sha256: Digest
    length: Annotated[int, Field(ge=1, le=MAX_MANIFEST_BYTES)]


class FallbackPointer(ReleasePointer):
    """The release for devices that are not offered the new one, or are sent back until `until`."""

    until: Time


class Stage(BaseModel):
    """One step of a rollout: a share of the devices with one of the labels, from a time on."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    basis_points: Annotated[int, Field(ge=1, le=FULL_BP)]
    not_before: Time
    ramp_s: Annotated[int, Field(ge=0, le=366 * 86400)] = 0
    labels: tuple[Label, ...] = Field(default=(), alias="for", max_length=20)


class FailurePolicy(StrEnum):
    """The most that the server's judgement may do to a rollout that fails."""

    PAUSE = "pause"
    HALT = "halt"
    REVERT = "revert"


class Rollout(BaseModel):
    """The signed schedule of a channel's move. The same id is always the same plan."""

    model_config = ConfigDict(frozen=True)

    id: RolloutId
    salt: HexSalt
    stages: tuple[Stage, ...] = Field(default=(), max_length=MAX_STAGES)
    max_hold_age_s: Annotated[int, Field(ge=600, le=86_400)] = 7_200
    failure_policy: FailurePolicy = FailurePolicy.HALT

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        newest: dict[tuple[str, ...], Stage] = {}
        for stage in self.stages:
            before = newest.get(stage.labels)
            if before and (
                stage.basis_points <= before.basis_points or stage.not_before < before.not_before
            ):
                raise ValueError(
                    "the stages of one label must rise in share and not go back in time"
                )
            newest[stage.labels] = stage
        return self


class Channel(Document):
    """`sealift.channel/1`: where a channel points, and how it gets there."""

    max_bytes: ClassVar[int] = MAX_CHANNEL_BYTES

    type: Literal["sealift.channel/1"] = "sealift.channel/1"
    artifact: ArtifactId
    channel: ChannelName
    sequence: Sequence
    release: ReleasePointer | None = None
    """None: the channel is closed."""
    rollout: Rollout
    fallback: FallbackPointer | None = None
    floor: Version | None = None
    urgent: bool = False
    created: Time

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.release is None and (self.fallback is not None or self.rollout.stages):
            raise ValueError("a closed channel has neither stages nor fallback")
        for pointer in (self.release, self.fallback):
            if pointer is not None and self.floor is not None and pointer.version < self.floor:
                raise ValueError(f"{pointer.version} is below the floor {self.floor}")
        return self


class HoldState(StrEnum):
    """What a hold does. `halted` and `reverted` are final for their rollout id (rule T14)."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    REVERTED = "reverted"

    @property
    def is_final(self) -> bool:
        """True if it cannot be lifted."""
        return self in {HoldState.HALTED, HoldState.REVERTED}


class Hold(Document):
    """`sealift.hold/1`: the online-signed brake on one rollout. It only subtracts."""

    max_bytes: ClassVar[int] = MAX_HOLD_BYTES

    type: Literal["sealift.hold/1"] = "sealift.hold/1"
    artifact: ArtifactId
    channel: ChannelName
    rollout: RolloutId
    state: HoldState
    cap: BasisPoints = FULL_BP
    reason: str = Field(default="", max_length=2_000)
    evidence: tuple[str, ...] = Field(default=(), max_length=1_000)


class Severity(StrEnum):
    """How strongly a release is revoked."""

    WARN = "warn"
    NO_NEW = "no_new"
    STOP = "stop"

    @property
    def forbids_activation(self) -> bool:
        """True if a device must not activate the release anew."""
        return self is not Severity.WARN


class StoppedRelease(BaseModel):
    """A revoked release."""

    model_config = ConfigDict(frozen=True)

    sha256: Digest
    version: Version
    severity: Severity
    advisory: str = Field(default="", max_length=200)
    replacement: str = Field(default="", max_length=200)
    """For people only (rule T23)."""


class Stop(Document):
    """`sealift.stop/1`: an artifact's revoked releases."""

    max_bytes: ClassVar[int] = MAX_STOP_BYTES

    type: Literal["sealift.stop/1"] = "sealift.stop/1"
    artifact: ArtifactId
    releases: tuple[StoppedRelease, ...] = Field(max_length=2_000)

    @model_validator(mode="after")
    def _releases_are_distinct(self) -> Self:
        if len({entry.sha256 for entry in self.releases}) != len(self.releases):
            raise ValueError("one release is revoked twice")
        return self


DOCUMENT_TYPES: dict[str, type[Document]] = {
    "sealift.release/1": Manifest,
    "sealift.channel/1": Channel,
    "sealift.hold/1": Hold,
    "sealift.stop/1": Stop,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each document, by its type."""
    return {name: model.model_json_schema() for name, model in DOCUMENT_TYPES.items()}
