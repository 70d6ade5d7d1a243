"""What the server signs, how often, and that no version exists twice (rules T15, T17, T20)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tuf.api.metadata import Metadata, Root, Timestamp

from sealift.protocol import layout, metadata
from sealift.protocol.documents import HoldState
from sealift.protocol.layout import DAY_S, HOUR_S
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Right
from sealift.server.db.tables import CurrentRow, MetadataRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.freshness import ClockGuard, resign_due
from sealift.server.namespaces.holding import set_hold
from sealift.server.namespaces.online_keys import OnlineKeys
from sealift.server.namespaces.submitting import submit
from support.publishers import FIRST, MODEL, STABLE, again
from support.servers import ACME, NOW, Parts, TurnedClock


def _resign(server: Parts) -> list[Namespace]:
    return resign_due(server.server.database, server.server.keys, server.clock.now)


def _files(server: Parts) -> dict[str, RoleFile]:
    with server.server.database.reading() as session:
        return states.current_files(session, 1)


def _online(server: Parts) -> dict[str, int]:
    return {role: file.version for role, file in _files(server).items() if role in layout.ONLINE}


def test_t17_versions_are_the_time_of_signing(server: Parts) -> None:
    server.begun()
    assert _online(server) == dict.fromkeys(layout.ONLINE, NOW)


def test_t17_versions_rise_within_one_second(server: Parts) -> None:
    publisher = server.begun()
    server.submit(publisher, publisher.artifact())
    assert _online(server) == {
        layout.HOLD: NOW,
        layout.SNAPSHOT: NOW + 1,
        layout.TIMESTAMP: NOW + 1,
    }


def test_t17_versions_rise_though_the_clock_went_back(server: Parts) -> None:
    publisher = server.begun()
    server.clock.pass_s(-300)
    server.submit(publisher, publisher.artifact())
    assert _online(server)[layout.TIMESTAMP] == NOW + 1


def test_timestamps_are_signed_anew_each_hour_and_nothing_else(server: Parts) -> None:
    server.begun()
    server.clock.pass_s(HOUR_S - 1)
    assert _resign(server) == []
    server.clock.pass_s(1)
    assert _resign(server) == [ACME]
    assert _resign(server) == []
    assert _online(server) == {
        layout.HOLD: NOW,
        layout.SNAPSHOT: NOW,
        layout.TIMESTAMP: NOW + HOUR_S,
    }


def test_snapshot_and_hold_are_signed_anew_each_day(server: Parts) -> None:
    server.released()
    before = _files(server)
    server.clock.pass_s(DAY_S)
    assert _resign(server) == [ACME]
    after = _files(server)
    assert _online(server) == dict.fromkeys(layout.ONLINE, NOW + DAY_S)
    held = before[layout.HOLD].targets.targets
    assert after[layout.HOLD].targets.targets == held
    assert after[layout.SNAPSHOT].expires == server.clock.now + 7 * DAY_S
    metadata.check_complete(after[layout.TARGETS].targets, after[layout.SNAPSHOT].snapshot)


def test_a_hold_lives_on_when_it_is_signed_anew(server: Parts) -> None:
    server.released()
    _hold(server, HoldState.PAUSED)
    held = _files(server)[layout.HOLD].targets.targets
    server.clock.pass_s(DAY_S)
    _resign(server)
    assert list(held) == ["_hold/model/stable.json"]
    assert _files(server)[layout.HOLD].targets.targets == held


def test_t15_a_timestamp_says_when_it_was_issued(server: Parts) -> None:
    server.begun()
    server.clock.pass_s(HOUR_S)
    _resign(server)
    timestamp = _files(server)[layout.TIMESTAMP]
    assert metadata.issued_of(timestamp) == NOW + HOUR_S
    assert timestamp.expires == server.clock.now + 6 * HOUR_S


def test_what_is_signed_anew_verifies_against_root_and_targets(server: Parts) -> None:
    server.released()
    server.clock.pass_s(DAY_S)
    _resign(server)
    files = _files(server)
    root = Metadata[Root].from_bytes(files[layout.ROOT].data).signed
    for role in (layout.SNAPSHOT, layout.TIMESTAMP):
        metadata.check_signed(root, files[role])
    metadata.check_signed(files[layout.TARGETS].targets, files[layout.HOLD])


def test_a_namespace_without_a_root_has_nothing_to_sign(server: Parts) -> None:
    server.create()
    server.clock.pass_s(DAY_S)
    assert _resign(server) == []


def test_a_lost_key_leaves_the_other_namespaces_fresh(server: Parts) -> None:
    server.begun()
    server.begun(Namespace("other"))
    keys = OnlineKeys(server.settings.home / "keys")
    keys.path(ACME).unlink()
    done = resign_due(server.server.database, keys, server.clock.now + HOUR_S)
    assert done == [Namespace("other")]


# --- T20 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [601, -601, 400 * DAY_S])
def test_t20_nothing_is_signed_after_the_clock_jumped(one_server: Parts, jump_s: int) -> None:
    one_server.clock.pass_s(DAY_S)
    assert one_server.server.signing_time() == one_server.clock.now
    one_server.clock.now += jump_s
    with pytest.raises(Refused) as refused:
        one_server.server.signing_time()
    assert refused.value.reason is Reason.CLOCK_JUMPED
    one_server.clock.now -= jump_s
    assert one_server.server.signing_time() == one_server.clock.now


@pytest.mark.parametrize("step_s", [600, -600])
def test_t20_a_clock_may_be_set_right_by_ten_minutes(step_s: int) -> None:
    clock = TurnedClock()
    guard = ClockGuard(clock)
    clock.now += step_s
    assert guard.jump_s() == 0.0


# --- at once ----------------------------------------------------------------------------------


def _hold(server: Parts, state: HoldState) -> int:
    return set_hold(
        server.server.database,
        server.server.keys,
        server.caller("publisher", ACME, Right.HOLD),
        ACME,
        MODEL,
        STABLE,
        rollout_id=FIRST,
        state=state,
        reason="test",
        validate_only=False,
        now=server.clock.now,
    )


def test_eight_at_once_sign_no_version_twice_and_lose_nothing(server: Parts) -> None:
    """Every file that was ever current is in the table, each signed over the one before it."""
    publisher = server.released()
    holder = server.caller("publisher", ACME, Right.HOLD)
    pusher = server.pusher()
    server.clock.pass_s(DAY_S)
    start = threading.Barrier(8)
    releases = layout.role_name(MODEL, layout.RoleClass.RELEASES)
    submitted = [publisher.release(f"1.0.{number}") for number in range(1, 5)]

    def submitting(number: int) -> str:
        start.wait()
        try:
            submit(
                server.server.database,
                server.server.keys,
                pusher,
                ACME,
                submitted[number],
                now=server.clock.now,
            )
        except Refused as refused:
            return refused.reason
        return "committed"

    def holding(number: int) -> str:
        start.wait()
        for state in (HoldState.PAUSED, HoldState.RUNNING):
            set_hold(
                server.server.database,
                server.server.keys,
                holder,
                ACME,
                MODEL,
                STABLE,
                rollout_id=FIRST,
                state=state,
                reason=f"by {number}",
                validate_only=False,
                now=server.clock.now,
            )
        return "held"

    def resigning(number: int) -> str:
        start.wait()
        for _ in range(3):
            _resign(server)
        return "signed"

    work: list[tuple[Callable[[int], str], int]] = [(submitting, one) for one in range(4)]
    work += [(holding, one) for one in range(2)] + [(resigning, one) for one in range(2)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda one: one[0](one[1]), work))
    assert sorted(outcomes[:4]) == ["committed", "conflict", "conflict", "conflict"]
    with server.server.database.reading() as session:
        rows = session.query(MetadataRow).all()
        current = {row.role: row.version for row in session.query(CurrentRow)}
    assert len({(row.role, row.version) for row in rows}) == len(rows)
    newest: dict[str, int] = {}
    for row in rows:
        newest[row.role] = max(newest.get(row.role, 0), row.version)
    assert newest == current
    files = _files(server)
    snapshot = files[layout.SNAPSHOT].snapshot
    assert {name: meta.version for name, meta in snapshot.meta.items()} == {
        f"{role}.json": file.version
        for role, file in files.items()
        if role not in {layout.ROOT, layout.SNAPSHOT, layout.TIMESTAMP}
    }
    timestamp = Metadata[Timestamp].from_bytes(files[layout.TIMESTAMP].data).signed
    assert timestamp.snapshot_meta.version == snapshot.version
    assert len(files[releases].targets.targets) == 2


def test_eight_of_one_request_are_one_commit(server: Parts) -> None:
    publisher = server.begun()
    submitted = publisher.artifact()
    pusher = server.pusher()
    database, keys = server.server.database, server.server.keys
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(
                lambda _: submit(database, keys, pusher, ACME, submitted, now=server.clock.now),
                range(8),
            )
        )
    assert len(set(done)) == 1
    with pytest.raises(Refused) as refused:
        submit(database, keys, pusher, ACME, again(submitted), now=server.clock.now)
    assert refused.value.reason is Reason.CONFLICT
