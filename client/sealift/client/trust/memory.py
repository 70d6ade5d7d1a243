"""What a home must never forget of a namespace: its marks (rule T3) and its signed time (T15).

Kept in `state.json`, outside every cache. Marks rise only from files that verified; they fall
only when the keys that signed them no longer reach the role's threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict

from sealift.protocol import layout, metadata
from sealift.protocol.documents import HoldState
from sealift.protocol.errors import RuleViolation
from sealift.protocol.join import ChannelMark, InviteMarks, RoleMark
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, ChannelName
from sealift.protocol.reasons import Reason
from sealift.protocol.trusted_time import SignedBound


class Bound(BaseModel):
    """The newest signed time, and when it was admitted by this machine's boot clock."""

    model_config = ConfigDict(frozen=True)

    issued: int
    signer: str
    """Fingerprint of the timestamp's key: the bound falls when root replaces it."""
    boot_id: str
    boot_s: int

    def signed_bound(self) -> SignedBound:
        """For `trusted_time`."""
        return SignedBound(self.issued, self.boot_id, self.boot_s)


class Memory(BaseModel):
    """The marks of one namespace."""

    model_config = ConfigDict(frozen=True)

    roles: Mapping[str, RoleMark] = {}
    channels: Mapping[str, ChannelMark] = {}
    final: Mapping[str, HoldState] = {}
    """Rollout ids of admitted channel documents that were seen halted or reverted (rule T14)."""
    bound: Bound | None = None

    @classmethod
    def from_invite(cls, marks: InviteMarks) -> Memory:
        """The marks that came with a join string."""
        final = {rollout: HoldState(state) for rollout, state in marks.final.items()}
        return cls(roles=marks.roles, channels=marks.channels, final=final)

    def for_invite(self, artifacts: tuple[ArtifactName, ...]) -> InviteMarks:
        """The marks that a join string carries: top-level roles, `_stop`, the artifacts' own."""
        wanted = {layout.STOP, *layout.TOP_LEVEL} | {
            str(role) for artifact in artifacts for role in layout.artifact_roles(artifact)
        }
        return InviteMarks(
            roles={role: mark for role, mark in self.roles.items() if role in wanted},
            channels={
                place: mark
                for place, mark in self.channels.items()
                if place.partition(":")[0] in artifacts
            },
            final={
                rollout: "reverted" if state is HoldState.REVERTED else "halted"
                for rollout, state in self.final.items()
            },
        )

    def raised_by(self, other: Memory) -> Self:
        """The higher of both marks each: joining again never lowers one (rule T5)."""
        roles = dict(self.roles)
        for role, mark in other.roles.items():
            if role not in roles or roles[role].version < mark.version:
                roles[role] = mark
        channels = dict(self.channels)
        for place, seen in other.channels.items():
            if place not in channels or channels[place].sequence < seen.sequence:
                channels[place] = seen
        final = {**other.final, **self.final}
        final |= {
            rollout: state for rollout, state in other.final.items() if state is HoldState.REVERTED
        }
        return self.model_copy(update={"roles": roles, "channels": channels, "final": final})

    def beside(self, saved: Memory) -> Self:
        """This memory, after what another process saved while it was made.

        Where a key signed both marks of a role the higher one stands, with its channels' and the
        bound; else this one, as the mark fell with its keys (rule T3).
        """
        roles, channels = dict(self.roles), dict(self.channels)
        for role, mark in saved.roles.items():
            mine = roles.get(role)
            if mine is not None and _other_keys(mine, mark):
                continue
            if mine is None or mine.version < mark.version:
                roles[role] = mark
            for place, seen in saved.channels.items():
                artifact, _, channel = place.partition(":")
                if role != layout.channel_role(ArtifactName(artifact), ChannelName(channel)):
                    continue
                if place not in channels or channels[place].sequence < seen.sequence:
                    channels[place] = seen
        bound = self.bound
        if saved.bound is not None and (
            bound is None
            or (bound.signer == saved.bound.signer and bound.issued < saved.bound.issued)
        ):
            bound = saved.bound
        update = {"roles": roles, "channels": channels, "bound": bound}
        return self.model_copy(update=update).raised_by(Memory(final=saved.final))

    def version_seen(self, role: str, keys: frozenset[bytes], threshold: int) -> int:
        """The version below which a role's file is refused; 0 if none.

        Args:
            role: The role.
            keys: SPKI of the keys that may sign it now.
            threshold: How many of them must.
        """
        mark = self.roles.get(role)
        if mark is None:
            return 0
        if not mark.signers:
            return mark.version
        standing = {metadata.fingerprint(key) for key in keys}.intersection(mark.signers)
        return mark.version if len(standing) >= threshold else 0

    def check_version(self, file: RoleFile, keys: frozenset[bytes], threshold: int) -> None:
        """T3: no role goes below its mark.

        Raises:
            RuleViolation: If this file does (`rolled_back`).
        """
        seen = self.version_seen(file.role, keys, threshold)
        if file.version < seen:
            raise RuleViolation(
                "T3",
                Reason.ROLLED_BACK,
                f"{file.role} {file.version} is older than the {seen} that was seen before",
                role=file.role,
            )

    def with_role(self, file: RoleFile, signers: frozenset[bytes]) -> Self:
        """With the mark of a role's verified file.

        The caller has checked that the file is not below the mark; a mark whose keys no longer
        count may fall with it.
        """
        prints = tuple(sorted(metadata.fingerprint(key) for key in signers))
        mark = RoleMark(version=file.version, signers=prints)
        return self.model_copy(update={"roles": {**self.roles, file.role: mark}})

    def with_channel(self, artifact: ArtifactName, channel: ChannelName, mark: ChannelMark) -> Self:
        """With the mark of a channel's verified document."""
        place = f"{artifact}:{channel}"
        return self.model_copy(update={"channels": {**self.channels, place: mark}})

    def with_final(self, rollout: str, state: HoldState) -> Self:
        """T14: with a rollout that was seen halted or reverted; reverted outlasts halted."""
        if self.final.get(rollout) is HoldState.REVERTED:
            return self
        return self.model_copy(update={"final": {**self.final, rollout: state}})


def _other_keys(mine: RoleMark, saved: RoleMark) -> bool:
    """True if no key signed both marks; one without keys is of whatever keys there are."""
    return bool(mine.signers and saved.signers) and not set(mine.signers) & set(saved.signers)
