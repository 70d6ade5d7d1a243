"""The published vectors: what other implementations can check themselves by."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sealift.protocol.chunks import decode_chunks, encode_chunks
from sealift.protocol.documents import DOCUMENT_TYPES, Channel, HoldState, Severity, Stage
from sealift.protocol.errors import InvalidDocument
from sealift.protocol.join import JoinString
from sealift.protocol.names import Digest
from sealift.protocol.parsing import encode_document, encode_json, parse_document, parse_json
from sealift.protocol.rollout import (
    Facts,
    HoldStatus,
    decide,
    opens_at,
    share_at,
    ticket,
)

FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str) -> dict[str, Any]:
    """A file of vectors."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


ROLLOUT, DOCUMENTS = load("rollout.json"), load("documents.json")
CHUNKS, JOIN = load("chunks.json"), load("join.json")


def stages_of(said: list[Any]) -> tuple[Stage, ...]:
    """Stages as a document has them."""
    return tuple(parse_document(Stage, encode_json(one)) for one in said)


@pytest.mark.parametrize("vector", ROLLOUT["tickets"])
def test_tickets(vector: dict[str, Any]) -> None:
    salt, secret = bytes.fromhex(vector["salt"]), bytes.fromhex(vector["secret"])

    assert ticket(salt, secret) == vector["ticket"]


@pytest.mark.parametrize("vector", ROLLOUT["shares"])
def test_shares(vector: dict[str, Any]) -> None:
    stages = stages_of(vector["stages"])

    assert share_at(stages, frozenset(vector["labels"]), vector["t"]) == vector["share"]


@pytest.mark.parametrize("vector", ROLLOUT["opens_at"])
def test_opens_at(vector: dict[str, Any]) -> None:
    stages = stages_of(vector["stages"])

    assert opens_at(stages, frozenset(vector["labels"]), vector["ticket"]) == vector["opens_at"]


@pytest.mark.parametrize("vector", ROLLOUT["decisions"], ids=lambda vector: str(vector["name"]))
def test_decisions(vector: dict[str, Any]) -> None:
    hold = vector["hold"]
    facts = Facts(
        t=vector["t"],
        channel=Channel.parse(encode_json(vector["channel"])),
        hold=HoldStatus(HoldState(hold["state"]), hold["cap"], hold["known"]),
        secret=bytes.fromhex(vector["secret"]),
        labels=frozenset(vector["labels"]),
        active=Digest(vector["active"]) if vector["active"] else None,
        revoked={Digest(one): Severity(level) for one, level in vector["revoked"].items()},
        denylist=frozenset(Digest(one) for one in vector["denylist"]),
    )

    decision = decide(facts)

    assert decision.action.value == vector["action"]
    assert (decision.release and str(decision.release.version)) == vector["version"]
    assert [reason.value for reason in decision.reasons] == vector["reasons"]
    assert decision.opens_at == vector["opens_at"]


@pytest.mark.parametrize("vector", DOCUMENTS["valid"], ids=lambda vector: str(vector["type"]))
def test_documents(vector: dict[str, Any]) -> None:
    data = vector["text"].encode()

    document = DOCUMENT_TYPES[vector["type"]].parse(data)

    assert encode_document(document) == data
    assert hashlib.sha256(data).hexdigest() == vector["sha256"]


def test_each_type_of_document_has_a_vector() -> None:
    assert {vector["type"] for vector in DOCUMENTS["valid"]} == set(DOCUMENT_TYPES)


@pytest.mark.parametrize("vector", DOCUMENTS["invalid_json"], ids=lambda one: str(one["why"]))
def test_what_no_reader_may_take(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument):
        parse_json(base64.b64decode(vector["base64"]))


def test_chunks() -> None:
    pieces = [(one["length"], bytes.fromhex(one["sha256"])) for one in CHUNKS["pieces"]]
    blob = bytes.fromhex(CHUNKS["blob"])

    assert encode_chunks(pieces) == blob
    assert [(one.length, one.sha256) for one in decode_chunks(blob, CHUNKS["length"])] == pieces
    assert hashlib.sha256(blob).hexdigest() == CHUNKS["sha256"]


@pytest.mark.parametrize("blob", CHUNKS["invalid"])
def test_chunks_that_no_reader_may_take(blob: str) -> None:
    with pytest.raises(InvalidDocument):
        decode_chunks(bytes.fromhex(blob), CHUNKS["length"])


def test_join_string() -> None:
    decoded = JoinString.decode(JOIN["text"])

    assert decoded.model_dump(mode="json", by_alias=True, exclude_none=True) == JOIN["content"]
    assert decoded.encode() == JOIN["text"]
