"""Every reason for which Sealift says no, or goes back: one list for device, server and `why`."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A stable reason: its value travels in reports, errors and JSON, its text is for people."""

    # A device's decision about an artifact
    OFFERED = "offered"
    CURRENT = "current"
    REVOKED = "revoked"
    DENYLISTED = "denylisted"
    FLOOR = "floor"
    PINNED = "pinned"
    RANGE = "range"
    PAUSED = "paused"
    HALTED = "halted"
    REVERTED = "reverted"
    HOLD_UNKNOWN = "hold_unknown"
    SCHEDULE = "schedule"
    CAP = "cap"
    NOT_FOR_THIS_DEVICE = "not_for_this_device"
    FALLBACK = "fallback"
    HOLD_TOO_OLD = "hold_too_old"
    CLOCK = "clock"
    STALE = "stale"
    NOTHING_OFFERED = "nothing_offered"
    NOT_FOLLOWED = "not_followed"
    CLOSED = "closed"

    # Admission of signed metadata
    UNREACHABLE = "unreachable"
    BAD_SIGNATURE = "bad_signature"
    ROOT_MISMATCH = "root_mismatch"
    ROLLED_BACK = "rolled_back"
    EXPIRED = "expired"
    EXPIRY_TOO_FAR = "expiry_too_far"
    VERSION_TOO_FAR = "version_too_far"
    ISSUED_TOO_FAR = "issued_too_far"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    MALFORMED = "malformed"
    MISSING = "missing"
    BAD_DELEGATION = "bad_delegation"
    DUPLICATE_KEY = "duplicate_key"
    WRONG_NAMESPACE = "wrong_namespace"
    WRONG_PLACE = "wrong_place"
    HASH_MISMATCH = "hash_mismatch"
    SEQUENCE_REUSED = "sequence_reused"
    RELEASE_CHANGED = "release_changed"
    CHANNEL_DROPPED = "channel_dropped"
    ROLLOUT_CHANGED = "rollout_changed"
    ONLINE_KEY_MISMATCH = "online_key_mismatch"
    UNKNOWN_CRITICAL = "unknown_critical"
    REVOCATION_DROPPED = "revocation_dropped"

    # Content
    CONTENT_MISMATCH = "content_mismatch"
    CONTENT_MISSING = "content_missing"
    DISK_FULL = "disk_full"

    # The server's refusals
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"
    INVALID_ARGUMENT = "invalid_argument"
    THRESHOLD_NOT_MET = "threshold_not_met"
    BLOB_MISSING = "blob_missing"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason, not a secret
    TOKEN_SPENT = "token_spent"  # noqa: S105
    OFFSET_MISMATCH = "offset_mismatch"
    CLOCK_JUMPED = "clock_jumped"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    INTERNAL = "internal"

    @property
    def text(self) -> str:
        """One short sentence for people."""
        return _TEXT.get(self, self.value.replace("_", " "))


_TEXT = {
    Reason.OFFERED: "this device's turn has come",
    Reason.CURRENT: "this release is already active",
    Reason.REVOKED: "the publisher revoked this release",
    Reason.DENYLISTED: "this device left this release before; `update --retry` forgets that",
    Reason.FLOOR: "the version is below the channel's floor",
    Reason.PINNED: "this device is pinned to another release",
    Reason.RANGE: "the version is outside the range that is followed",
    Reason.PAUSED: "the rollout is paused",
    Reason.HALTED: "the rollout was halted for good",
    Reason.REVERTED: "the rollout was reverted",
    Reason.HOLD_UNKNOWN: "whether the rollout is held cannot be verified; taken as paused",
    Reason.SCHEDULE: "this device's stage has not opened yet",
    Reason.CAP: "the rollout is capped below this device's place",
    Reason.NOT_FOR_THIS_DEVICE: "no stage of the rollout is for this device's labels",
    Reason.FALLBACK: "not offered the new release; the named fallback is taken",
    Reason.HOLD_TOO_OLD: "the newest signed timestamp is too old to know that nothing is held",
    Reason.CLOCK: "this device's clock cannot be right",
    Reason.STALE: "the newest signed timestamp has expired; nothing new activates",
    Reason.NOTHING_OFFERED: "the channel offers nothing to this device",
    Reason.NOT_FOLLOWED: "this device does not follow the artifact",
    Reason.CLOSED: "the channel is closed",
    Reason.UNREACHABLE: "the server cannot be reached",
    Reason.BAD_SIGNATURE: "not signed by the keys that must sign it",
    Reason.ROOT_MISMATCH: "the root is not the one that this home trusts",
    Reason.ROLLED_BACK: "older than what this home has already seen",
    Reason.EXPIRED: "its signed expiry has passed",
    Reason.EXPIRY_TOO_FAR: "its signed expiry is further ahead than is permitted",
    Reason.VERSION_TOO_FAR: "its version is further ahead than is permitted",
    Reason.ISSUED_TOO_FAR: "it was issued further in the future than is permitted",
    Reason.TOO_LARGE: "larger than is permitted",
    Reason.TOO_SLOW: "sent too slowly",
    Reason.MALFORMED: "not well-formed",
    Reason.MISSING: "a signed file that must be there is missing",
    Reason.BAD_DELEGATION: "delegations other than the permitted ones",
    Reason.DUPLICATE_KEY: "one key is listed more than once",
    Reason.WRONG_NAMESPACE: "signed for another namespace",
    Reason.WRONG_PLACE: "signed for another place than the one where it was found",
    Reason.HASH_MISMATCH: "the bytes are not the ones that were signed",
    Reason.SEQUENCE_REUSED: "other bytes under a sequence that was already used",
    Reason.RELEASE_CHANGED: "a released version was changed or dropped",
    Reason.CHANNEL_DROPPED: "a channel was dropped instead of closed",
    Reason.ROLLOUT_CHANGED: "the same rollout id with another plan",
    Reason.ONLINE_KEY_MISMATCH: "names an online key that is not the server's",
    Reason.UNKNOWN_CRITICAL: "has a critical field that this version does not know",
    Reason.REVOCATION_DROPPED: "drops or softens a revocation",
    Reason.CONTENT_MISMATCH: "the content is not what was signed",
    Reason.CONTENT_MISSING: "the content is not there",
    Reason.DISK_FULL: "there is not enough room on the disk",
}
