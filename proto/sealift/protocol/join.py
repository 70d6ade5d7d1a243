"""Join strings: all that a new home needs to trust a namespace, in one line (rule T29).

`sealift1.` and base64url of a JSON object. It is a secret, for the token in it, and a trust
anchor, for the root's hash and the marks: it must travel by an authenticated way.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sealift.protocol.documents import RolloutId, Sequence, Time
from sealift.protocol.errors import InvalidDocument, InvalidJoinString
from sealift.protocol.names import ArtifactName, ChannelName, Digest, Namespace
from sealift.protocol.parsing import encode_json, parse_document, parse_json

PREFIX = "sealift1."
MAX_LENGTH = 256 * 1024
"""Characters."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class RootAnchor(_Part):
    """The root that the first admission starts from."""

    version: Sequence
    sha256: Digest


class RoleMark(_Part):
    """The highest version of a role that was seen, and the keys that signed it (rule T3)."""

    version: Sequence
    signers: tuple[str, ...] = ()
    """Fingerprints of the keys, see `metadata.fingerprint`."""


class ChannelMark(_Part):
    """The highest sequence of a channel that was seen, and the hash of its document."""

    sequence: Sequence
    sha256: Digest


class InviteMarks(_Part):
    """What the inviting home had seen: the new one never goes below it."""

    roles: dict[str, RoleMark] = {}
    """The mark of each role, by role name."""
    channels: dict[str, ChannelMark] = {}
    """The mark of each channel, by `artifact:channel`."""
    final: dict[RolloutId, Literal["halted", "reverted"]] = {}
    """Rollout ids that were seen to be final."""


class Follow(_Part):
    """A channel that the device will follow."""

    artifact: ArtifactName
    channel: ChannelName


class JoinString(_Part):
    """What a join string says."""

    server: str = Field(min_length=1, max_length=300)
    ca: str | None = None
    namespace: Namespace
    purpose: Literal["device", "publisher"] = Field(alias="for")
    root: RootAnchor
    marks: InviteMarks = InviteMarks()
    follow: tuple[Follow, ...] = ()
    token: str = Field(pattern=r"^sl_[a-z]+_[A-Za-z0-9_-]{43}$")
    expires: Time

    def encode(self) -> str:
        """The string. A short checksum in it tells a damaged one from a refused one."""
        value: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        value["check"] = _check(value)
        return PREFIX + base64.urlsafe_b64encode(encode_json(value)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinString:
        """Reads a join string; white space and line breaks in it are ignored.

        Raises:
            InvalidJoinString: If it is damaged, or not one.
        """
        text = "".join(text.split())
        if not text.startswith("sealift"):
            raise InvalidJoinString(
                "this is not a join string", hint="It begins with `sealift1.`; ask for it anew."
            )
        if not text.startswith(PREFIX):
            raise InvalidJoinString(
                f"a join string of the kind {text.partition('.')[0][:20]!r} is not known",
                hint="Update Sealift on this machine.",
            )
        try:
            if len(text) > MAX_LENGTH:
                raise InvalidDocument(f"longer than {MAX_LENGTH} characters")
            body = text.removeprefix(PREFIX)
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            value = parse_json(data)
            if not isinstance(value, dict) or value.pop("check", None) != _check(value):
                raise InvalidDocument("its checksum is wrong")
            return parse_document(cls, data)
        except ValueError as error:  # of base64, or an InvalidDocument
            raise InvalidJoinString(
                f"the join string is damaged: {error}",
                hint="Copy it whole, from `sealift1.` to its end, or ask for a new one.",
            ) from error


def _check(value: dict[str, Any]) -> str:
    return hashlib.sha256(encode_json(value)).hexdigest()[:8]
