"""What a device must never lose: `state.json`, small, synced, never a cache.

It is changed only through `DeviceHome.change`, which holds the home's lock for that moment.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealift.client.trust.admission import Problem
from sealift.client.trust.memory import Memory
from sealift.protocol.documents import HoldState, Label, ReleasePointer
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import ArtifactId, ChannelName, Digest, Namespace
from sealift.protocol.reasons import Reason

SCHEMA = 1


class DamagedState(SealiftError):
    """`state.json` cannot be read."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemRecord(_Part):
    """A problem of the last admission, kept to be shown."""

    role: str
    reason: Reason
    message: str
    rule: str = ""

    @classmethod
    def of(cls, problem: Problem) -> ProblemRecord:
        """From a problem."""
        return cls(
            role=problem.role, reason=problem.reason, message=problem.message, rule=problem.rule
        )

    def problem(self) -> Problem:
        """As a problem."""
        return Problem(self.role, self.reason, self.message, self.rule)


class JoinedNamespace(_Part):
    """A namespace that this device has joined."""

    server: str
    ca: str | None = None
    device: str = ""
    """The server's name for this device."""
    memory: Memory = Memory()
    problems: Mapping[str, ProblemRecord] = {}
    admitted_at: int = 0
    """Unix seconds of the last admission that changed or confirmed something."""


class Following(_Part):
    """One channel of an artifact, followed."""

    channel: ChannelName


class Pin(_Part):
    """A release that is kept whatever a channel says."""

    release: ReleasePointer


class _Schema(_Part):
    """What is read first: a newer file may have anything else in it."""

    version: int = Field(default=SCHEMA, alias="schema")


class DeviceState(_Part):
    """All of `state.json`."""

    version: int = Field(default=SCHEMA, alias="schema")
    namespaces: Mapping[Namespace, JoinedNamespace] = {}
    following: Mapping[str, Following] = {}
    """By `ns/art`."""
    pins: Mapping[str, Pin] = {}
    """By `ns/art`."""
    denylist: tuple[Digest, ...] = ()
    revoked: tuple[Digest, ...] = ()
    """Digests that an admitted `_stop` forbids; for apps, which read no signed files."""
    labels: tuple[Label, ...] = ()

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    @classmethod
    def parse(cls, data: bytes, where: str) -> DeviceState:
        """Reads `state.json`.

        Raises:
            DamagedState: If it is damaged, or written by a newer Sealift.
        """
        try:
            schema = _Schema.model_validate_json(data).version
            state = cls.model_validate_json(data) if schema <= SCHEMA else None
        except ValidationError as error:
            raise DamagedState(
                f"{where} is damaged: {error.errors()[0]['msg']}",
                hint="It holds what this device must not forget. Restore it from a backup, or "
                "join again from a new string.",
            ) from error
        if state is None:
            raise DamagedState(
                f"{where} was written by a newer Sealift", hint="Update Sealift on this device."
            )
        return state

    def encode(self) -> bytes:
        """The file's bytes."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"

    def joined(self, namespace: Namespace) -> JoinedNamespace:
        """What is known of a joined namespace.

        Raises:
            SealiftError: If this device has not joined it.
        """
        found = self.namespaces.get(namespace)
        if found is None:
            raise SealiftError(
                f"this device has not joined {namespace}",
                hint="Ask its publisher for a join string, then: sealift join STRING",
            )
        return found

    def with_namespace(self, namespace: Namespace, joined: JoinedNamespace) -> DeviceState:
        """With a namespace replaced."""
        return self.model_copy(update={"namespaces": {**self.namespaces, namespace: joined}})

    def with_following(self, artifact: ArtifactId, channel: ChannelName | None) -> DeviceState:
        """With an artifact followed on a channel, or no longer followed."""
        following = {key: one for key, one in self.following.items() if key != str(artifact)}
        if channel is not None:
            following[str(artifact)] = Following(channel=channel)
        return self.model_copy(update={"following": following})

    def with_pin(self, artifact: ArtifactId, release: ReleasePointer | None) -> DeviceState:
        """With an artifact pinned to a release, or no longer pinned."""
        pins = {key: pin for key, pin in self.pins.items() if key != str(artifact)}
        if release is not None:
            pins[str(artifact)] = Pin(release=release)
        return self.model_copy(update={"pins": pins})

    def with_denied(self, digest: Digest) -> DeviceState:
        """With a release that this device left and must not take again by itself."""
        kept = tuple(one for one in self.denylist if one != digest)
        return self.model_copy(update={"denylist": (*kept, digest)})

    def without_denied(self, *digests: Digest) -> DeviceState:
        """With releases forgiven."""
        kept = tuple(one for one in self.denylist if one not in digests)
        return self.model_copy(update={"denylist": kept})

    def artifacts(self) -> tuple[ArtifactId, ...]:
        """What is followed or pinned, in order."""
        return tuple(ArtifactId.parse(key) for key in sorted({*self.following, *self.pins}))

    def final_rollouts(self, namespace: Namespace) -> Mapping[str, HoldState]:
        """Rollouts that were seen halted or reverted."""
        return self.joined(namespace).memory.final
