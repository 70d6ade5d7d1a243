"""Invites and joining (rules T29, T30)."""

from __future__ import annotations

import re

from sqlalchemy import select

from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server import audit
from sealift.server.access import tokens
from sealift.server.access.callers import Caller, Right
from sealift.server.db.database import Database
from sealift.server.db.tables import DeviceRow, TokenRow
from sealift.server.errors import Refused, check_request_id
from sealift.server.namespaces import states

MAX_USES = 100_000
MIN_TTL_S = 60
MAX_TTL_S = 90 * 86_400
_LABEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def create_invite(
    database: Database,
    caller: Caller,
    namespace: Namespace,
    *,
    token_sha256: bytes,
    uses: int,
    ttl_s: int,
    now: int,
) -> int:
    """Registers an invite, whose token its maker keeps; idempotent by the token.

    Returns:
        When it expires, Unix seconds.

    Raises:
        Refused: If the caller may not invite, or uses or time are out of range.
    """
    if not 1 <= uses <= MAX_USES:
        raise Refused(Reason.INVALID_ARGUMENT, f"an invite has 1 to {MAX_USES:,} uses")
    if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        raise Refused(Reason.INVALID_ARGUMENT, "an invite is valid for 1 minute to 90 days")
    with database.transaction() as session:
        row = states.find(session, caller, namespace, Right.INVITE, lock=True)
        known = session.scalar(select(TokenRow).where(TokenRow.sha256 == token_sha256))
        if known is not None and known.namespace_id == row.id and known.role == "invite":
            return known.expires_at or 0
        made = tokens.register(
            session,
            name=f"{namespace}-invite-{token_sha256.hex()[:8]}",
            role="invite",
            sha256=token_sha256,
            now=now,
            namespace_id=row.id,
            expires_at=now + ttl_s,
            uses_left=uses,
        )
        audit.record(
            session,
            at=now,
            action="invite",
            caller=caller,
            namespace_id=row.id,
            subject=made.name,
            detail=f"invited {uses} device{'s' if uses > 1 else ''} for {ttl_s} s",
        )
        return now + ttl_s


def join(
    database: Database,
    caller: Caller,
    namespace: Namespace,
    *,
    request_id: str,
    token_sha256: bytes,
    label: str,
    now: int,
) -> str:
    """Spends one use of an invite and registers the device's own token.

    A repeated call with the same request_id and token spends no second use.

    Returns:
        The server's name for the device.

    Raises:
        Refused: If the invite is spent, or label or request_id cannot be.
    """
    check_request_id(request_id)
    if label and not _LABEL.fullmatch(label):
        raise Refused(
            Reason.INVALID_ARGUMENT,
            f"{label!r} is not a label",
            hint="Use a-z, 0-9, dot, hyphen and underscore, at most 63.",
        )
    with database.transaction() as session:
        row = states.find(session, caller, namespace, Right.JOIN, lock=True)
        known = session.scalar(
            select(DeviceRow).where(
                DeviceRow.namespace_id == row.id, DeviceRow.request_id == request_id
            )
        )
        if known is not None:
            token = session.get_one(TokenRow, known.token_id)
            if token.sha256 != token_sha256:
                raise Refused(Reason.ALREADY_EXISTS, "this request_id was used by another device")
            return _name(known)
        invite = session.get_one(TokenRow, caller.token_id)
        if not invite.uses_left:
            raise Refused(
                Reason.TOKEN_SPENT,
                f"the invite {invite.name} is used up",
                hint="Ask its publisher for a new join string.",
            )
        invite.uses_left -= 1
        token = tokens.register(
            session,
            name=f"{namespace}-device",
            role="device",
            sha256=token_sha256,
            now=now,
            namespace_id=row.id,
        )
        device = DeviceRow(
            namespace_id=row.id,
            token_id=token.id,
            request_id=request_id,
            label=label,
            joined_at=now,
        )
        session.add(device)
        session.flush()
        token.name = f"{namespace}-{_name(device)}"
        audit.record(
            session,
            at=now,
            action="join",
            caller=caller,
            namespace_id=row.id,
            subject=_name(device),
            detail=f"{_name(device)}{f' ({label})' if label else ''} joined",
        )
        return _name(device)


def _name(device: DeviceRow) -> str:
    return f"device-{device.id}"
