"""The brake on a rollout: it only subtracts, and what is final stays (rules T14, T28)."""

from __future__ import annotations

import pytest

from sealift.protocol import layout
from sealift.protocol.documents import Hold, HoldState
from sealift.protocol.names import ArtifactName, ChannelName
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.tables import AuditRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.holding import set_hold
from support.publishers import FIRST, MODEL, SECOND, STABLE
from support.servers import ACME, Parts

PATH = layout.hold_path(MODEL, STABLE)


def _set(
    server: Parts,
    state: HoldState,
    *,
    caller: Caller | None = None,
    rollout: str = FIRST,
    artifact: ArtifactName = MODEL,
    channel: ChannelName = STABLE,
    reason: str = "it answers nonsense",
    validate_only: bool = False,
) -> int:
    return set_hold(
        server.server.database,
        server.server.keys,
        caller or server.caller("publisher", ACME, Right.HOLD),
        ACME,
        artifact,
        channel,
        rollout_id=rollout,
        state=state,
        reason=reason,
        validate_only=validate_only,
        now=server.clock.now,
    )


def _held(server: Parts) -> Hold | None:
    with server.server.database.reading() as session:
        files = states.current_files(session, 1, [layout.HOLD])
        documents = states.listed_documents(session, 1, files.values())
    return Hold.parse(documents[PATH]) if PATH in documents else None


def test_a_hold_is_served_with_its_rollout_and_reason(server: Parts) -> None:
    server.released()
    assert _held(server) is None
    version = _set(server, HoldState.PAUSED)
    held = _held(server)
    assert held is not None
    assert (held.state, held.rollout, held.reason) == (
        HoldState.PAUSED,
        FIRST,
        "it answers nonsense",
    )
    with server.server.database.reading() as session:
        assert states.current_files(session, 1)[layout.HOLD].version == version


def test_a_pause_is_lifted(server: Parts) -> None:
    server.released()
    _set(server, HoldState.PAUSED)
    _set(server, HoldState.RUNNING)
    held = _held(server)
    assert held is not None
    assert held.state is HoldState.RUNNING


def test_setting_the_same_hold_again_signs_nothing(server: Parts) -> None:
    server.released()
    version = _set(server, HoldState.PAUSED)
    server.clock.pass_s(60)
    assert _set(server, HoldState.PAUSED) == version


@pytest.mark.parametrize("final", [HoldState.HALTED, HoldState.REVERTED])
@pytest.mark.parametrize("state", [HoldState.RUNNING, HoldState.PAUSED])
def test_t14_a_final_hold_stays(one_server: Parts, final: HoldState, state: HoldState) -> None:
    one_server.released()
    _set(one_server, final)
    for validate_only in (True, False):
        with pytest.raises(Refused) as refused:
            _set(one_server, state, validate_only=validate_only)
        assert refused.value.reason is Reason.FAILED_PRECONDITION
    held = _held(one_server)
    assert held is not None
    assert held.state is final


def test_t14_what_was_halted_may_be_reverted_and_not_the_other_way(one_server: Parts) -> None:
    one_server.released()
    _set(one_server, HoldState.HALTED)
    _set(one_server, HoldState.REVERTED)
    with pytest.raises(Refused):
        _set(one_server, HoldState.HALTED)


def test_a_hold_meant_for_another_rollout_conflicts(server: Parts) -> None:
    server.released()
    with pytest.raises(Refused) as refused:
        _set(server, HoldState.HALTED, rollout=SECOND)
    assert refused.value.reason is Reason.CONFLICT
    assert _held(server) is None


def test_a_new_rollout_drops_the_old_hold(server: Parts) -> None:
    publisher = server.released()
    _set(server, HoldState.HALTED)
    server.submit(publisher, publisher.channel(rollout=SECOND, seq=6))
    assert _held(server) is None
    _set(server, HoldState.PAUSED, rollout=SECOND)


def test_a_set_that_leaves_the_rollout_alone_leaves_its_hold(server: Parts) -> None:
    publisher = server.released()
    version = _set(server, HoldState.HALTED)
    server.submit(publisher, publisher.artifact(ArtifactName("other")))
    held = _held(server)
    assert held is not None
    assert held.state is HoldState.HALTED
    with server.server.database.reading() as session:
        assert states.current_files(session, 1)[layout.HOLD].version == version


def test_validate_only_changes_nothing(server: Parts) -> None:
    server.released()
    _set(server, HoldState.HALTED, validate_only=True)
    assert _held(server) is None


def test_t28_a_token_that_can_push_cannot_hold(server: Parts) -> None:
    server.released()
    with pytest.raises(Refused) as refused:
        _set(server, HoldState.PAUSED, caller=server.pusher())
    assert refused.value.reason is Reason.PERMISSION_DENIED
    assert _held(server) is None


@pytest.mark.parametrize(
    ("artifact", "channel"), [("other", "stable"), ("model", "beta"), ("model", "preview")]
)
def test_what_is_not_there_cannot_be_held(one_server: Parts, artifact: str, channel: str) -> None:
    one_server.released()
    with pytest.raises(Refused) as refused:
        _set(
            one_server,
            HoldState.PAUSED,
            artifact=ArtifactName(artifact),
            channel=ChannelName(channel),
        )
    assert refused.value.reason is Reason.NOT_FOUND


def test_a_reason_is_one_line_of_the_log(server: Parts) -> None:
    """PostgreSQL takes no NUL, and a reader of the log no forged line."""
    server.released()
    _set(server, HoldState.PAUSED, reason="a\0b\nroot 2")
    with server.server.database.reading() as session:
        row = session.query(AuditRow).order_by(AuditRow.id.desc()).first()
        assert row is not None
        assert row.detail == "model:stable running → paused: a b root 2"
