"""Names, versions, digests and references: the words of Sealift, parsed once at the edge.

`ArtifactName`, `Namespace` and `ChannelName` are strings that cannot hold anything else; `Version`
orders by SemVer 2.0; a `Reference` says which release of which artifact is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from sealift.protocol.errors import InvalidName

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE = r"(?:0|[1-9][0-9]*|[0-9]*[a-z-][0-9a-z-]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_PRE}(?:\.{_PRE})*))?")
MAX_VERSION_LENGTH = 64
"""Characters."""

WINDOWS_DEVICE_NAMES = frozenset(
    {"con", "prn", "aux", "nul"}
    | {f"{device}{number}" for device in ("com", "lpt") for number in "0123456789¹²³"}
    | {"conin$", "conout$"}
)
"""Names that cannot be files on Windows, whatever their ending."""


class _ValidatedString(str):
    """A string that was checked when it was made."""

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        if not isinstance(value, str):
            raise InvalidName(f"a string was expected, not {value!r}")
        cls._check(value)
        return super().__new__(cls, value)

    @classmethod
    def _check(cls, value: str) -> None:
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strict=True)
        )


class _Name(_ValidatedString):
    """1 to 63 of a-z, 0-9 and hyphen, neither first nor last a hyphen, no Windows device name."""

    __slots__ = ()
    _what = "name"

    @classmethod
    def _check(cls, value: str) -> None:
        if not _NAME.fullmatch(value):
            raise InvalidName(
                f"{value!r} is not {cls._what}",
                hint="Use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit.",
            )
        if value in WINDOWS_DEVICE_NAMES:
            raise InvalidName(f"{value!r} is the name of a device on Windows; choose another")


class Namespace(_Name):
    """The name of a publisher's area, such as `acme`."""

    __slots__ = ()
    _what = "a namespace's name"


class ArtifactName(_Name):
    """The name of an artifact within its namespace, such as `llama-edge`."""

    __slots__ = ()
    _what = "an artifact's name"


class ChannelName(_Name):
    """The name of a channel, such as `stable`."""

    __slots__ = ()
    _what = "a channel's name"

    @property
    def is_preview(self) -> bool:
        """True for `preview` and `preview-…`; every other channel is protected."""
        return self == "preview" or self.startswith("preview-")


STABLE = ChannelName("stable")


class Digest(_ValidatedString):
    """A SHA-256 as 64 lower-case hex digits."""

    __slots__ = ()

    @classmethod
    def _check(cls, value: str) -> None:
        if not _HEX64.fullmatch(value):
            raise InvalidName(f"{value!r} is not a SHA-256", hint="Use 64 lower-case hex digits.")

    @classmethod
    def from_bytes(cls, raw: bytes) -> Digest:
        """From the 32 bytes."""
        return cls(raw.hex())

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self)

    @property
    def reference(self) -> str:
        """As people write it: `sha256:HEX`."""
        return f"sha256:{self}"

    @property
    def short(self) -> str:
        """The first 12 digits, for tables."""
        return self[:12]


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A SemVer 2.0 version, lower case, without build metadata, at most 64 characters.

    Ordered by precedence as SemVer section 11 says.
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Version:
        """Reads a version.

        Raises:
            InvalidName: If it is not one.
        """
        if not isinstance(text, str):
            raise InvalidName(f"a version was expected, not {text!r}")
        match = _VERSION.fullmatch(text) if len(text) <= MAX_VERSION_LENGTH else None
        if match is None:
            raise InvalidName(
                f"{text!r} is not a version",
                hint="Use SemVer, such as 1.4.0 or 1.4.0-rc.1, in lower case, without build "
                f"metadata (+…), at most {MAX_VERSION_LENGTH} characters.",
            )
        major, minor, patch, pre = match.groups()
        return cls(int(major), int(minor), int(patch), tuple(pre.split(".")) if pre else ())

    def __str__(self) -> str:
        core = f"{self.major}.{self.minor}.{self.patch}"
        return f"{core}-{'.'.join(self.prerelease)}" if self.prerelease else core

    def _precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        identifiers = tuple(
            (False, int(part), "") if part.isdigit() else (True, 0, part)
            for part in self.prerelease
        )
        return self.major, self.minor, self.patch, not self.prerelease, identifiers

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return self._precedence() < other._precedence()

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def read(value: str | Version) -> Version:
            return value if isinstance(value, Version) else cls.parse(value)

        return core_schema.no_info_before_validator_function(
            read,
            core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(),
            json_schema_input_schema=core_schema.str_schema(max_length=MAX_VERSION_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class ArtifactId:
    """An artifact with its namespace: `acme/llama-edge`."""

    namespace: Namespace
    artifact: ArtifactName

    @classmethod
    def parse(cls, text: str) -> ArtifactId:
        """Reads `ns/art`.

        Raises:
            InvalidName: If it is not that.
        """
        if not isinstance(text, str):
            raise InvalidName(f"an artifact was expected, not {text!r}")
        namespace, slash, artifact = text.partition("/")
        if not slash:
            raise InvalidName(f"{text!r} names no namespace", hint="Write NAMESPACE/ARTIFACT.")
        return cls(Namespace(namespace), ArtifactName(artifact))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.artifact}"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def read(value: str | ArtifactId) -> ArtifactId:
            return value if isinstance(value, ArtifactId) else cls.parse(value)

        return core_schema.no_info_before_validator_function(
            read,
            core_schema.is_instance_schema(cls),
            serialization=core_schema.to_string_ser_schema(),
            json_schema_input_schema=core_schema.str_schema(),
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """Which release is meant.

    `ns/art@1.4.0` and `ns/art@sha256:…` do not move, `ns/art:channel` moves, bare `ns/art` leaves
    the choice to the command. The namespace may be left out where a home has only one.
    """

    artifact: ArtifactName
    namespace: Namespace | None = None
    version: Version | None = None
    digest: Digest | None = None
    channel: ChannelName | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads a reference.

        Raises:
            InvalidName: If it is not one.
        """
        head, slash, tail = text.partition("/")
        namespace = Namespace(head) if slash else None
        rest = tail if slash else head
        name, at, pinned = rest.partition("@")
        if at:
            if pinned.startswith("sha256:"):
                return cls(ArtifactName(name), namespace, digest=Digest(pinned[7:]))
            return cls(ArtifactName(name), namespace, version=Version.parse(pinned))
        name, colon, channel = rest.partition(":")
        return cls(ArtifactName(name), namespace, channel=ChannelName(channel) if colon else None)

    @property
    def moves(self) -> bool:
        """False if it names one release for ever."""
        return self.version is None and self.digest is None

    def __str__(self) -> str:
        head = f"{self.namespace}/{self.artifact}" if self.namespace else str(self.artifact)
        if self.version is not None:
            return f"{head}@{self.version}"
        if self.digest is not None:
            return f"{head}@{self.digest.reference}"
        return f"{head}:{self.channel}" if self.channel is not None else head
