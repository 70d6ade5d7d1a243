"""Default deny: who may do what, and what a denial gives away."""

from __future__ import annotations

import itertools

import pytest

from sealift.host.tokens import make_token, token_sha256
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access import tokens
from sealift.server.access.callers import ANYONE, PUBLISHER_RIGHTS, Caller, Right
from sealift.server.db.tables import TokenRow
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from support.servers import ACME, Parts

OTHER = Namespace("other")
READS = {Right.READ_METADATA, Right.READ_CONTENT}
ALLOWED = {
    "admin": set(),
    "publisher": {*PUBLISHER_RIGHTS, *READS, Right.BROWSE},
    "device": {*READS, Right.REPORT},
    "viewer": {Right.READ_METADATA, Right.BROWSE},
    "invite": {Right.READ_METADATA, Right.JOIN},
    "": set(),
}


def _may(server: Parts, caller: Caller, namespace: Namespace, right: Right) -> Reason | None:
    try:
        with server.server.database.reading() as session:
            states.find(session, caller, namespace, right)
    except Refused as refused:
        return refused.reason
    return None


def _caller(role: str, namespace: Namespace | None = ACME) -> Caller:
    if not role:
        return ANYONE
    rights = frozenset(PUBLISHER_RIGHTS) if role == "publisher" else frozenset()
    return Caller(1, role, role, None if role == "admin" else namespace, rights)


@pytest.mark.parametrize("role", list(ALLOWED))
def test_each_role_has_its_rights_in_its_namespace_and_no_others(
    one_server: Parts, role: str
) -> None:
    one_server.create()
    one_server.create(OTHER, public=True)
    caller = _caller(role)
    denied = Reason.PERMISSION_DENIED if role else Reason.UNAUTHENTICATED
    for right in Right:
        expected = None if right in ALLOWED[role] else denied
        assert _may(one_server, caller, ACME, right) is expected, right
        # Elsewhere nobody has any, but that a public namespace is read by anyone.
        expected = None if right in READS else denied
        assert _may(one_server, caller, OTHER, right) is expected, right


def test_a_denial_does_not_tell_whether_a_private_namespace_exists(server: Parts) -> None:
    server.create()
    server.create(OTHER)
    database = server.server.database

    def told(caller: Caller, namespace: Namespace, right: Right, lock: bool) -> tuple[object, ...]:
        with pytest.raises(Refused) as refused, database.transaction() as session:
            states.find(session, caller, namespace, right, lock=lock)
        error = refused.value
        return error.reason, error.message.replace(namespace, "NAME"), error.hint, error.details

    nowhere = Namespace("nowhere")
    for role, right, lock in itertools.product(ALLOWED, Right, (True, False)):
        caller = _caller(role)
        assert told(caller, OTHER, right, lock) == told(caller, nowhere, right, lock), (role, right)


def test_an_invite_reads_metadata_and_no_content(server: Parts) -> None:
    server.released()
    invite = server.caller("invite", ACME)
    assert _may(server, invite, ACME, Right.READ_METADATA) is None
    assert _may(server, invite, ACME, Right.READ_CONTENT) is Reason.PERMISSION_DENIED


# --- tokens -----------------------------------------------------------------------------------


def _refusal(server: Parts, token: str) -> Refused:
    with pytest.raises(Refused) as refused:
        server.server.authenticate(token)
    assert token not in refused.value.message
    return refused.value


def test_t30_the_server_keeps_no_token(server: Parts) -> None:
    token = server.token("admin")
    with server.server.database.reading() as session:
        row = session.query(TokenRow).one()
        kept = {column.name: getattr(row, column.name) for column in TokenRow.__table__.columns}
    assert token not in str(kept)
    assert token.encode() not in kept["sha256"]
    assert len(kept["sha256"]) == 32


def test_an_unknown_token_is_refused_and_never_repeated(server: Parts) -> None:
    for token in ("x", "sl_admin_" + "x" * 43, "sl_admin_\0", "a" * 100_000):
        assert _refusal(server, token).reason is Reason.UNAUTHENTICATED


def test_an_expired_token_counts_for_nothing(server: Parts) -> None:
    server.create()
    token = make_token("invite")
    with server.server.database.transaction() as session:
        tokens.register(
            session,
            name="short",
            role="invite",
            sha256=token_sha256(token),
            now=server.clock.now,
            namespace_id=1,
            expires_at=server.clock.now + 60,
        )
    assert server.server.authenticate(token).name == "short"
    server.clock.pass_s(60)
    assert _refusal(server, token).reason is Reason.TOKEN_EXPIRED


def test_a_revoked_token_counts_for_nothing_and_is_named(server: Parts) -> None:
    token = server.token("admin")
    with server.server.database.transaction() as session:
        assert tokens.revoke(session, "admin-0", server.clock.now) == 1
    error = _refusal(server, token)
    assert error.reason is Reason.UNAUTHENTICATED
    assert "admin-0" in error.message
    with server.server.database.transaction() as session, pytest.raises(Refused):
        tokens.revoke(session, "admin-0", server.clock.now)


def test_a_tokens_name_is_one_short_line(server: Parts) -> None:
    for name in ("", "x" * 101, "a\0b", "a\nb"):
        with server.server.database.transaction() as session, pytest.raises(Refused) as refused:
            tokens.register(session, name=name, role="admin", sha256=b"x" * 32, now=0)
        assert refused.value.reason is Reason.INVALID_ARGUMENT
