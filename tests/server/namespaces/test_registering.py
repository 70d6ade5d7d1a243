"""Namespaces come into being (rule T30)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from sealift.host.tokens import make_token, token_sha256
from sealift.protocol.names import Namespace
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import Caller, Right
from sealift.server.db.tables import NamespaceRow, TokenRow
from sealift.server.errors import Refused
from sealift.server.namespaces.registering import create_namespace
from support.servers import ACME, NOW, Parts

TOKEN = make_token("publisher")


def _create(
    server: Parts, caller: Caller, request_id: str = "one", token: str = TOKEN, name: str = ACME
) -> str:
    key = create_namespace(
        server.server.database,
        server.server.keys,
        caller,
        Namespace(name),
        request_id=request_id,
        token_sha256=token_sha256(token),
        public=False,
        now=NOW,
    )
    return str(key.keyid)


def test_t30_creating_a_namespace_is_idempotent_by_request_id(server: Parts) -> None:
    admin = server.caller("admin")
    assert _create(server, admin) == _create(server, admin)
    with server.server.database.reading() as session:
        assert session.query(NamespaceRow).count() == 1
        assert session.query(TokenRow).filter_by(role="publisher").count() == 1
    publisher = server.server.authenticate(TOKEN)
    assert publisher.namespace == ACME
    assert publisher.rights == {Right.PUSH, Right.HOLD, Right.INVITE}


def test_a_taken_name_is_refused(server: Parts) -> None:
    admin = server.caller("admin")
    _create(server, admin)
    with pytest.raises(Refused) as refused:
        _create(server, admin, "another")
    assert refused.value.reason is Reason.ALREADY_EXISTS


@pytest.mark.parametrize("role", ["publisher", "device", "viewer", "invite", None])
def test_only_an_admin_may_create(server: Parts, role: str | None) -> None:
    caller = Caller(1, "x", role, ACME) if role else Caller()
    with pytest.raises(Refused) as refused:
        _create(server, caller)
    expected = Reason.PERMISSION_DENIED if role else Reason.UNAUTHENTICATED
    assert refused.value.reason is expected


def test_t30_once_there_is_a_root_a_repeated_request_brings_no_second_token(server: Parts) -> None:
    server.begun()
    with pytest.raises(Refused) as refused:
        _create(server, server.caller("admin"), "begin", make_token("publisher"))
    assert refused.value.reason is Reason.ALREADY_EXISTS


def test_eight_at_once_make_one_namespace_with_one_key(server: Parts) -> None:
    admin = server.caller("admin")
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: _create(server, admin), range(8)))
    assert len(set(keys)) == 1
    with server.server.database.reading() as session:
        assert session.query(NamespaceRow).count() == 1


def test_of_eight_others_at_once_one_gets_the_name(server: Parts) -> None:
    admin = server.caller("admin")

    def create(number: int) -> Reason | None:
        try:
            _create(server, admin, f"request-{number}", make_token("publisher"))
        except Refused as refused:
            return refused.reason
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(8)))
    assert sorted(map(str, outcomes)) == ["None", *["already_exists"] * 7]


@pytest.mark.parametrize("request_id", ["", "x" * 101, "a\0b"])
def test_a_request_id_that_no_database_takes_is_refused(server: Parts, request_id: str) -> None:
    with pytest.raises(Refused) as refused:
        _create(server, server.caller("admin"), request_id)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_a_hash_of_another_length_is_refused_and_leaves_nothing(server: Parts) -> None:
    with pytest.raises(Refused) as refused:
        create_namespace(
            server.server.database,
            server.server.keys,
            server.caller("admin"),
            ACME,
            request_id="one",
            token_sha256=b"short",
            public=False,
            now=NOW,
        )
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    with server.server.database.reading() as session:
        assert session.query(NamespaceRow).count() == 0
