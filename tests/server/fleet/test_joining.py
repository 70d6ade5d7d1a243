"""Invites, joining and reports (rules T29, T30)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sealift.host.tokens import make_token, token_sha256
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.tables import DeviceRow, TokenRow
from sealift.server.errors import Refused
from sealift.server.fleet import reports
from sealift.server.fleet.joining import create_invite, join
from sealift.server.fleet.reports import Reported
from support.servers import ACME, Parts

DEVICE = make_token("device")


def _invite(server: Parts, uses: int = 1, ttl_s: int = 3_600, token: str = "") -> Caller:
    token = token or make_token("invite")
    create_invite(
        server.server.database,
        server.caller("publisher", ACME, Right.INVITE),
        ACME,
        token_sha256=token_sha256(token),
        uses=uses,
        ttl_s=ttl_s,
        now=server.clock.now,
    )
    return server.server.authenticate(token)


def _join(
    server: Parts, invite: Caller, request_id: str = "one", token: str = DEVICE, label: str = ""
) -> str:
    return join(
        server.server.database,
        invite,
        ACME,
        request_id=request_id,
        token_sha256=token_sha256(token),
        label=label,
        now=server.clock.now,
    )


def _uses(server: Parts) -> int | None:
    with server.server.database.reading() as session:
        return session.query(TokenRow).filter_by(role="invite").one().uses_left


def _reason(server: Parts, invite: Caller, request_id: str, token: str = DEVICE) -> Reason:
    with pytest.raises(Refused) as refused:
        _join(server, invite, request_id, token)
    return refused.value.reason


def test_t30_a_repeated_join_spends_one_use(server: Parts) -> None:
    server.begun()
    invite = _invite(server)
    assert _join(server, invite) == _join(server, invite) == "device-1"
    assert _uses(server) == 0


def test_t30_a_join_that_is_repeated_by_eight_at_once_spends_one_use(server: Parts) -> None:
    server.begun()
    invite = _invite(server, uses=8)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: _join(server, invite), range(8))) == {"device-1"}
    assert _uses(server) == 7


def test_eight_at_once_do_not_share_a_use(server: Parts) -> None:
    server.begun()
    invite = _invite(server, uses=3)

    def attempt(number: int) -> str:
        try:
            return _join(server, invite, f"request-{number}", make_token("device"))
        except Refused as refused:
            return refused.reason

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == ["device-1", "device-2", "device-3", *["token_spent"] * 5]


def test_a_spent_invite_admits_nobody_else(server: Parts) -> None:
    server.begun()
    invite = _invite(server)
    _join(server, invite)
    assert _reason(server, invite, "two", make_token("device")) is Reason.TOKEN_SPENT
    assert _reason(server, invite, "one", make_token("device")) is Reason.ALREADY_EXISTS


def test_t30_the_token_of_another_is_not_taken_and_spends_nothing(server: Parts) -> None:
    server.begun()
    invite = _invite(server, uses=2)
    _join(server, invite)
    assert _reason(server, invite, "two", DEVICE) is Reason.ALREADY_EXISTS
    assert _uses(server) == 1


def test_a_device_that_joined_may_read_and_report_and_not_join_again(server: Parts) -> None:
    server.begun()
    _join(server, _invite(server))
    device = server.server.authenticate(DEVICE)
    assert (device.role, device.namespace) == ("device", ACME)
    assert _reason(server, device, "two") is Reason.PERMISSION_DENIED


def test_an_invite_is_idempotent_by_its_token(server: Parts) -> None:
    server.begun()
    token = make_token("invite")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _invite(server, token=token), range(4)))
    with server.server.database.reading() as session:
        assert session.query(TokenRow).filter_by(role="invite").count() == 1


@pytest.mark.parametrize(
    ("uses", "ttl_s"), [(0, 3_600), (100_001, 3_600), (1, 59), (1, 90 * 86_400 + 1)]
)
def test_an_invite_out_of_range_is_refused(one_server: Parts, uses: int, ttl_s: int) -> None:
    one_server.begun()
    with pytest.raises(Refused) as refused:
        _invite(one_server, uses, ttl_s)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_inviting_is_a_right_of_its_own(one_server: Parts) -> None:
    one_server.begun()
    for rights in ((Right.PUSH,), (Right.HOLD,)):
        with pytest.raises(Refused) as refused:
            create_invite(
                one_server.server.database,
                one_server.caller("publisher", ACME, *rights),
                ACME,
                token_sha256=b"x" * 32,
                uses=1,
                ttl_s=60,
                now=one_server.clock.now,
            )
        assert refused.value.reason is Reason.PERMISSION_DENIED


@pytest.mark.parametrize("label", ["A", "a b", "-a", "x" * 64, "a\0", "lab\n"])
def test_a_label_that_cannot_be_is_refused(one_server: Parts, label: str) -> None:
    one_server.begun()
    invite = _invite(one_server)
    with pytest.raises(Refused) as refused:
        _join(one_server, invite, label=label)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


# --- reports ----------------------------------------------------------------------------------


def _reported(version: str, artifact: str = "model") -> Reported:
    return Reported(artifact, "stable", version, "0" * 64, "current")


def _report(server: Parts, *said: Reported) -> None:
    device = server.server.authenticate(DEVICE)
    reports.report(server.server.database, device, ACME, said, server.clock.now)


def _devices(server: Parts, count: int = 10, after: int = 0) -> tuple[list[str], int]:
    viewer = server.caller("viewer", ACME)
    views, following = reports.devices(
        server.server.database, viewer, ACME, after=after, count=count
    )
    said = [f"{view.name}:{','.join(one.version for one in view.artifacts)}" for view in views]
    return said, following


def test_a_report_takes_the_place_of_the_one_before(server: Parts) -> None:
    server.begun()
    _join(server, _invite(server))
    _report(server, _reported("1.0.0"), _reported("1.0.0", "other"))
    _report(server, _reported("1.1.0"))
    assert _devices(server) == (["device-1:1.1.0"], 0)


def test_reports_at_once_leave_one(server: Parts) -> None:
    server.begun()
    _join(server, _invite(server))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _report(server, _reported(f"1.{number}.0")), range(8)))
    (said,), _ = _devices(server)
    assert said in {f"device-1:1.{number}.0" for number in range(8)}


@pytest.mark.parametrize(
    "said",
    [
        [_reported("x" * 65)],
        [_reported("1.0.0\0")],
        [_reported("1.0.0", f"a{number}") for number in range(1_001)],
    ],
)
def test_a_report_that_no_database_takes_is_refused(server: Parts, said: list[Reported]) -> None:
    server.begun()
    _join(server, _invite(server))
    with pytest.raises(Refused) as refused:
        _report(server, *said)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_only_a_device_reports(one_server: Parts) -> None:
    one_server.begun()
    with pytest.raises(Refused) as refused:
        reports.report(one_server.server.database, one_server.pusher(), ACME, [], 0)
    assert refused.value.reason is Reason.PERMISSION_DENIED


def test_pages_of_devices_and_events_are_complete_and_disjoint(server: Parts) -> None:
    server.begun()
    invite = _invite(server, uses=5)
    for number in range(5):
        _join(server, invite, f"request-{number}", make_token("device"))
    found: list[str] = []
    after = 0
    while True:
        page, after = _devices(server, 2, after)
        found += page
        if not after:
            break
    assert found == [f"device-{number}:" for number in range(1, 6)]
    with server.server.database.reading() as session:
        assert session.query(DeviceRow).count() == 5
    viewer = server.caller("viewer", ACME)
    events: list[int] = []
    before = 0
    while True:
        rows, before = reports.audit_events(
            server.server.database, viewer, ACME, artifact="", before=before, count=3
        )
        events += [row.id for row in rows]
        if not before:
            break
    assert events == sorted(set(events), reverse=True)
    assert len(events) == 8
