"""Polls bring what is new and wanted; every file that was ever current can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import pytest
from tuf.api.metadata import Metadata

from sealift.host.hashing import sha256_bytes
from sealift.protocol import layout
from sealift.protocol.documents import HoldState
from sealift.protocol.metadata import RoleFile
from sealift.protocol.names import ArtifactName, Namespace
from sealift.protocol.parsing import encode_document
from sealift.protocol.reasons import Reason
from sealift.server.access.callers import ANYONE, Caller, Right
from sealift.server.errors import Refused
from sealift.server.namespaces import states
from sealift.server.namespaces.freshness import resign_due
from sealift.server.namespaces.holding import set_hold
from sealift.server.namespaces.reading import HeldState, poll, read_file
from support.publishers import FIRST, MODEL, SECOND, STABLE, Publisher
from support.servers import ACME, NOW, Parts

MANIFEST = "model/releases/1.0.0.json"


def _device(namespace: Namespace = ACME) -> Caller:
    return Caller(1, "device", "device", namespace)


def _poll(
    server: Parts,
    versions: dict[str, int] | None = None,
    *,
    artifacts: Iterable[str] = ("model",),
    everything: bool = False,
    documents: Iterable[bytes] = (),
) -> list[str]:
    held = HeldState(ACME, versions or {}, frozenset(artifacts), everything, frozenset(documents))
    found = list(poll(server.server.database, _device(), [held]))
    assert all(one.refused is None for one in found)
    return [one.path for one in found]


def _versions(server: Parts) -> dict[str, int]:
    with server.server.database.reading() as session:
        return {role: file.version for role, file in states.current_files(session, 1).items()}


def _stable(server: Parts, publisher: Publisher) -> str:
    with server.server.database.reading() as session:
        (data,) = states.listed_documents(
            session, 1, states.current_files(session, 1, ["a.model.channels"]).values()
        ).values()
    return (
        f"targets/{layout.hashed_document_path('model/channels/stable.json', sha256_bytes(data))}"
    )


def test_a_first_poll_brings_everything_that_is_wanted_and_no_manifest(server: Parts) -> None:
    publisher = server.released()
    assert sorted(_poll(server)) == sorted(
        [
            "metadata/1.root.json",
            "metadata/timestamp.json",
            f"metadata/{NOW + 1}.snapshot.json",
            "metadata/2.targets.json",
            "metadata/1._stop.json",
            f"metadata/{NOW}._hold.json",
            "metadata/1.a.model.releases.json",
            "metadata/1.a.model.previews.json",
            "metadata/1.a.model.channels.json",
            _stable(server, publisher),
        ]
    )


def test_a_poll_that_holds_everything_brings_nothing(server: Parts) -> None:
    server.released()
    assert _poll(server, _versions(server)) == []


def test_a_poll_brings_only_what_changed(server: Parts) -> None:
    publisher = server.released()
    held = _versions(server)
    server.clock.pass_s(60)
    server.submit(publisher, publisher.channel(rollout=SECOND, seq=6))
    assert sorted(_poll(server, held)) == sorted(
        [
            "metadata/timestamp.json",
            f"metadata/{NOW + 60}.snapshot.json",
            "metadata/2.a.model.channels.json",
            _stable(server, publisher),
        ]
    )


def test_an_hour_later_a_poll_brings_the_timestamp_alone(server: Parts) -> None:
    server.released()
    held = _versions(server)
    server.clock.pass_s(3_600)
    resign_due(server.server.database, server.server.keys, server.clock.now)
    assert _poll(server, held) == ["metadata/timestamp.json"]


def test_an_artifact_that_is_not_wanted_is_left_out(server: Parts) -> None:
    publisher = server.released()
    server.submit(publisher, publisher.artifact(ArtifactName("other")))
    for_none = _poll(server, artifacts=())
    assert not [path for path in for_none if "model" in path or "other" in path]
    for_one = _poll(server, artifacts=["other"])
    assert "metadata/1.a.other.releases.json" in for_one
    assert not [path for path in for_one if "model" in path]
    for_all = _poll(server, artifacts=(), everything=True)
    assert {"metadata/1.a.other.releases.json", "metadata/1.a.model.releases.json"} <= set(for_all)


def test_a_document_that_is_held_is_not_sent_again(server: Parts) -> None:
    publisher = server.released()
    path = _stable(server, publisher)
    data = read_file(server.server.database, _device(), ACME, path)
    found = _poll(server, documents=[sha256_bytes(data).raw])
    assert path not in found
    assert "metadata/1.a.model.channels.json" in found


def test_a_poll_brings_the_hold_of_what_is_wanted(server: Parts) -> None:
    server.released()
    set_hold(
        server.server.database,
        server.server.keys,
        server.caller("publisher", ACME, Right.HOLD),
        ACME,
        MODEL,
        STABLE,
        rollout_id=FIRST,
        state=HoldState.PAUSED,
        reason="",
        validate_only=False,
        now=server.clock.now,
    )
    assert [path for path in _poll(server) if path.startswith("targets/_hold/model/")]
    others = _poll(server, artifacts=["other"])
    assert not [path for path in others if path.startswith("targets/")]


def test_every_root_since_the_one_that_is_held_comes_in_order(server: Parts) -> None:
    publisher = server.begun()
    for _ in range(3):
        draft = publisher.draft()
        draft.root = publisher.root()
        draft.root.version += 1
        server.submit(publisher, draft.signed())
    found = _poll(server, {layout.ROOT: 2})
    assert [path for path in found if "root" in path] == [
        "metadata/3.root.json",
        "metadata/4.root.json",
    ]


def test_a_namespace_that_is_refused_touches_no_other(server: Parts) -> None:
    server.released()
    server.released(Namespace("other"))
    names = ["other", ACME, "NOT A NAME", "nowhere"]
    held = [HeldState(name, {}, frozenset(), False, frozenset()) for name in names]
    found = list(poll(server.server.database, _device(), held))
    refused = {one.namespace: one.refused.reason for one in found if one.refused is not None}
    assert refused == {
        "other": Reason.PERMISSION_DENIED,
        "NOT A NAME": Reason.INVALID_ARGUMENT,
        "nowhere": Reason.PERMISSION_DENIED,
    }
    assert {one.namespace for one in found if one.refused is None} == {ACME}


def test_a_namespace_without_a_root_is_refused(server: Parts) -> None:
    server.create()
    (answer,) = poll(
        server.server.database, _device(), [HeldState(ACME, {}, frozenset(), True, frozenset())]
    )
    assert answer.refused is not None
    assert answer.refused.reason is Reason.NOT_FOUND


# --- by path ----------------------------------------------------------------------------------


def _read(server: Parts, path: str) -> bytes:
    return read_file(server.server.database, _device(), ACME, path)


def test_old_versions_stay_readable(server: Parts) -> None:
    publisher = server.released()
    old_channel = _stable(server, publisher)
    old = {name: _read(server, f"metadata/{name}") for name in ("1.a.model.channels.json",)}
    old_snapshot = _read(server, f"metadata/{NOW + 1}.snapshot.json")
    server.clock.pass_s(86_400)
    server.submit(publisher, publisher.channel(rollout=SECOND, seq=6))
    assert {name: _read(server, f"metadata/{name}") for name in old} == old
    assert _read(server, f"metadata/{NOW + 1}.snapshot.json") == old_snapshot
    assert _read(server, old_channel) != _read(server, _stable(server, publisher))


def test_a_document_is_read_under_both_layouts(server: Parts) -> None:
    publisher = server.released()
    data = encode_document(publisher.manifest())
    digest = sha256_bytes(data)
    assert _read(server, f"targets/model/releases/{digest}.1.0.0.json") == data
    assert _read(server, f"targets/{digest}.{MANIFEST}") == data


_NOWHERE = [
    "",
    "metadata",
    "metadata/",
    "metadata/root.json",
    "metadata/2.root.json",
    "metadata/0.root.json",
    "metadata/99999999999999999999.root.json",
    "metadata/1.timestamp.json",
    "metadata/1.a.other.releases.json",
    "metadata/1.a/../x.json",
    "metadata/1.root.json\0",
    f"targets/{MANIFEST}",
    f"targets/{'0' * 64}.{MANIFEST}",
    f"targets/model/releases/{'0' * 64}.1.0.0.json\0",
    f"targets/../{'0' * 64}.1.0.0.json",
    "elsewhere/1.root.json",
]


def test_what_is_not_there_is_not_found(server: Parts) -> None:
    server.released()
    for path in _NOWHERE:
        with pytest.raises(Refused) as refused:
            _read(server, path)
        assert refused.value.reason is Reason.NOT_FOUND, path


def test_more_documents_than_a_query_takes_are_listed(one_server: Parts) -> None:
    """SQLite takes at most 32,766 values; a namespace of 1,000 artifacts has more documents."""
    publisher = one_server.begun()
    draft = publisher.draft()
    draft.create()
    stop = draft.targets(layout.STOP)
    one = publisher.stop()
    draft.put(one)
    target = stop.targets["_stop/model.json"]
    stop.targets |= {f"_stop/m{number}.json": target for number in range(40_000)}
    with one_server.server.database.transaction() as session:
        states.write_document(session, 1, "_stop/model.json", encode_document(one))
        states.write_document(session, 1, "_stop/m39999.json", encode_document(one))
    role = RoleFile("_stop", b"", Metadata(stop))
    with one_server.server.database.reading() as session:
        connection = session.connection().connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)  # as SQLite is built
        found = states.listed_documents(session, 1, [role])
    assert set(found) == {"_stop/model.json", "_stop/m39999.json"}


def test_a_reader_sees_one_state(server: Parts) -> None:
    """While somebody commits, too."""
    publisher = server.released()
    submitted = publisher.channel(rollout=SECOND, seq=6)
    with server.server.database.reading() as session:
        before = states.current_files(session, 1)
        server.submit(publisher, submitted)
        session.expire_all()
        assert states.current_files(session, 1) == before
    with server.server.database.reading() as session:
        assert states.current_files(session, 1) != before


def test_nobody_reads_a_private_namespace(server: Parts) -> None:
    server.released()
    with pytest.raises(Refused) as refused:
        read_file(server.server.database, ANYONE, ACME, "metadata/timestamp.json")
    assert refused.value.reason is Reason.UNAUTHENTICATED


def test_anyone_reads_a_public_namespace(server: Parts) -> None:
    server.released(public=True)
    assert read_file(server.server.database, ANYONE, ACME, "metadata/timestamp.json")
