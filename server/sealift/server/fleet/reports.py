"""What devices say that they run, and browsing it. Hostile input: it decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select

from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.database import Database
from sealift.server.db.tables import AuditRow, DeviceRow, ReportRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states

MAX_ARTIFACTS = 1_000
_LIMITS = {"artifact": 63, "channel": 63, "version": 64, "digest": 64, "reason": 40}


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device says of one artifact."""

    artifact: str
    channel: str
    version: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device and what it last reported."""

    name: str
    label: str
    joined_at: int
    reported_at: int
    artifacts: tuple[Reported, ...]


def report(
    database: Database, caller: Caller, namespace: Namespace, reports: Sequence[Reported], now: int
) -> None:
    """Keeps what a device says in place of what it said before.

    Raises:
        Refused: If the caller is no device, or says too much.
    """
    unusable = any(
        len(text := getattr(one, name)) > limit or not text.isprintable()
        for one in reports
        for name, limit in _LIMITS.items()
    )
    if len(reports) > MAX_ARTIFACTS or unusable:
        raise Refused(Reason.INVALID_ARGUMENT, "the report is too long, or cannot be printed")
    with database.transaction() as session:
        states.find(session, caller, namespace, Right.REPORT)
        mine = select(DeviceRow).where(DeviceRow.token_id == caller.token_id)
        device = session.scalar(mine.with_for_update())
        if device is None:
            raise Refused(Reason.PERMISSION_DENIED, "only a device may report")
        device.reported_at = now
        session.execute(delete(ReportRow).where(ReportRow.device_id == device.id))
        for one in {one.artifact: one for one in reports}.values():
            session.add(
                ReportRow(
                    device_id=device.id,
                    artifact=one.artifact,
                    channel=one.channel,
                    version=one.version,
                    digest=one.digest,
                    reason=one.reason,
                )
            )


def devices(
    database: Database, caller: Caller, namespace: Namespace, *, after: int, count: int
) -> tuple[list[DeviceView], int]:
    """A page of devices in the order of their joining.

    Returns:
        The devices, and where the next page begins; 0 at the end.
    """
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.BROWSE)
        rows = session.scalars(
            select(DeviceRow)
            .where(DeviceRow.namespace_id == row.id, DeviceRow.id > after)
            .order_by(DeviceRow.id)
            .limit(count + 1)
        ).all()
        page = rows[:count]
        said: dict[int, list[Reported]] = {device.id: [] for device in page}
        for one in session.scalars(select(ReportRow).where(ReportRow.device_id.in_(list(said)))):
            said[one.device_id].append(
                Reported(one.artifact, one.channel, one.version, one.digest, one.reason)
            )
    found = [
        DeviceView(
            f"device-{device.id}",
            device.label,
            device.joined_at,
            device.reported_at,
            tuple(said[device.id]),
        )
        for device in page
    ]
    return found, page[-1].id if len(rows) > count else 0


def audit_events(
    database: Database,
    caller: Caller,
    namespace: Namespace,
    *,
    artifact: str,
    before: int,
    count: int,
) -> tuple[list[AuditRow], int]:
    """A page of the audit log, newest first, and where the next one begins; 0 at the end."""
    with database.reading() as session:
        row = states.find(session, caller, namespace, Right.BROWSE)
        query = select(AuditRow).where(AuditRow.namespace_id == row.id)
        if artifact:
            query = query.where(AuditRow.artifact == artifact)
        if before:
            query = query.where(AuditRow.id < before)
        rows = session.scalars(query.order_by(AuditRow.id.desc()).limit(count + 1)).all()
    page = list(rows[:count])
    return page, page[-1].id if len(rows) > count else 0
