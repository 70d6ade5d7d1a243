"""Names, documents, lists of pieces and join strings: what is read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.host.hashing import sha256_bytes
from sealift.protocol.chunks import MAGIC, decode_chunks, encode_chunks
from sealift.protocol.documents import Channel, Manifest, Stage, check_path
from sealift.protocol.errors import (
    InvalidDocument,
    InvalidJoinString,
    InvalidName,
    RuleViolation,
)
from sealift.protocol.join import Follow, JoinString, RootAnchor
from sealift.protocol.names import (
    ArtifactId,
    ArtifactName,
    ChannelName,
    Digest,
    Namespace,
    Reference,
    Version,
)
from sealift.protocol.parsing import encode_document, encode_json, parse_document, parse_json
from support.repository import START, manifest_of

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in {"con", "prn", "aux", "nul"} and name[:3] not in {"com", "lpt"}
)
IDENTIFIERS = st.from_regex(r"0|[1-9][0-9]{0,3}|[0-9]{0,2}[a-z-][0-9a-z-]{0,3}", fullmatch=True)
VERSIONS = st.builds(
    Version,
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.lists(IDENTIFIERS, max_size=3).map(tuple),
)


# --- names ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_read_as_they_are_written_and_have_one_order(
    first: Version, second: Version, third: Version
) -> None:
    assert Version.parse(str(first)) == first
    assert (first < second) + (first == second) + (first > second) == 1
    ordered = sorted([first, second, third])
    assert ordered[0] <= ordered[1] <= ordered[2]
    assert ordered[0] <= ordered[2]


def test_versions_order_as_semver_says() -> None:
    """SemVer 2.0, section 11."""
    ordered = """
        1.0.0-1 1.0.0-2 1.0.0-11 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta
        1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.0.10 1.2.0 1.10.0 2.0.0-0 2.0.0
    """.split()  # noqa: SIM905 - easier to compare with the text

    assert [str(one) for one in sorted(map(Version.parse, reversed(ordered)))] == ordered


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "01.0.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-A",
        "1.0.0+b",
        "v1.0.0",
        "1.0.0\n",
        "1.0.0-a..b",
        " 1.0.0",
        "1.0.0-" + "a" * 60,
        "\u0661.0.0",
        "1.0.-1",
    ],
)
def test_what_is_not_a_version(text: str) -> None:
    with pytest.raises(InvalidName):
        Version.parse(text)


@pytest.mark.parametrize("value", [5, None, True, {}, [], 1.5, b"1.0.0"])
def test_what_is_not_even_text(value: Any) -> None:
    for parse in (Version.parse, ArtifactId.parse, Namespace, Digest):
        with pytest.raises(InvalidName):
            parse(value)


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a" * 64, "con", "com1", "lpt9", "a\n", "ä"]
)
def test_what_is_not_a_name(text: str) -> None:
    for kind in (Namespace, ArtifactName, ChannelName):
        with pytest.raises(InvalidName):
            kind(text)


@settings(max_examples=100)
@given(
    st.one_of(st.none(), NAMES),
    NAMES,
    st.one_of(
        st.just(""),
        VERSIONS.map(lambda version: f"@{version}"),
        st.binary(min_size=32, max_size=32).map(lambda raw: f"@sha256:{raw.hex()}"),
        NAMES.map(lambda name: f":{name}"),
    ),
)
def test_references_are_read_as_they_are_written(
    namespace: str | None, artifact: str, tail: str
) -> None:
    text = f"{namespace}/{artifact}{tail}" if namespace else f"{artifact}{tail}"

    reference = Reference.parse(text)

    assert str(reference) == text
    assert reference.moves == (not tail.startswith("@"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "a@",
        "a:",
        "a@1",
        "a@1.0.0:b",
        "a:b@1.0.0",
        "a@sha256:",
        "a@sha256:" + "A" * 64,
        "a@sha512:" + "0" * 64,
        "a b",
        "a:b:c",
        "a@@1.0.0",
    ],
)
def test_what_is_not_a_reference(text: str) -> None:
    with pytest.raises(InvalidName):
        Reference.parse(text)


def test_only_preview_channels_are_previews() -> None:
    assert ChannelName("preview").is_preview
    assert ChannelName("preview-ui").is_preview
    assert not ChannelName("previews").is_preview
    assert not ChannelName("stable").is_preview


# --- strict reading ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"1.0",
        b"1e3",
        b"-0.0",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5_000,
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"",
        b"{} {}",
        b"{'a':1}",
        b'{"a":1,}',
        b"\x00",
        b'"\xed\xa0\x80"',
    ],
)
def test_what_strict_reading_refuses(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        parse_json(data)


def test_what_strict_reading_takes() -> None:
    assert parse_json(b"9007199254740991") == 2**53 - 1
    assert parse_json(b"-9007199254740991") == -(2**53) + 1
    assert parse_json(b"[" * 32 + b"]" * 32) is not None
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=100)
@given(JSON)
def test_json_is_read_as_it_is_written_in_one_spelling(value: Any) -> None:
    data = encode_json(value)

    assert parse_json(data) == value
    assert encode_json(parse_json(data)) == data


# --- documents --------------------------------------------------------------------------------


def said_manifest() -> dict[str, Any]:
    """A manifest as JSON."""
    said: dict[str, Any] = json.loads(manifest_of("acme/model", "1.0.0"))
    return said


def test_a_document_is_read_as_it_is_written() -> None:
    data = manifest_of("acme/model", "1.0.0")

    assert encode_document(Manifest.parse(data)) == data


def test_unknown_fields_are_ignored_unless_they_are_critical() -> None:
    said = said_manifest() | {"later": [1]}
    assert Manifest.parse(encode_json(said)) == Manifest.parse(encode_json(said_manifest()))
    with pytest.raises(RuleViolation) as refused:
        Manifest.parse(encode_json(said | {"critical": ["files", "later"]}))
    assert refused.value.rule == "T13"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "sealift.channel/1"),
        ("type", None),
        ("artifact", "model"),
        ("artifact", 5),
        ("version", True),
        ("version", 1),
        ("kind", "program"),
        ("created", True),
        ("created", "5"),
        ("created", -1),
        ("created", None),
        ("files", []),
        ("files", {}),
        ("files", None),
        ("notes", 5),
        ("critical", "files"),
    ],
)
def test_a_field_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(InvalidDocument):
        Manifest.parse(encode_json(said_manifest() | {name: value}))


@pytest.mark.parametrize("missing", ["type", "artifact", "version", "kind", "created", "files"])
def test_a_field_that_must_be_there(missing: str) -> None:
    said = said_manifest()
    del said[missing]

    with pytest.raises(InvalidDocument):
        Manifest.parse(encode_json(said))


def test_a_field_has_one_name_in_a_document() -> None:
    """`for`, and not the name that it has in this code, which other readers would ignore."""
    said = b'{"basis_points":1,"not_before":1,"labels":["lab"]}'

    assert parse_document(Stage, said).labels == ()
    assert parse_document(Stage, said.replace(b"labels", b"for")).labels == ("lab",)


@pytest.mark.parametrize(
    "paths",
    [("a", "A"), ("a", "a/b"), ("A/b", "a"), ("stra\u00dfe", "STRASSE"), ("x", "x")],
)
def test_two_paths_are_two_files_on_every_disk(paths: tuple[str, str]) -> None:
    said = said_manifest()
    said["files"] = [said["files"][0] | {"path": path} for path in paths]

    with pytest.raises(InvalidDocument):
        Manifest.parse(encode_json(said))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        ".git",
        "a/.b",
        "a.",
        "a ",
        "a /b",
        "con",
        "CON.txt",
        "a/nul",
        "com1.gguf",
        "Com\u00b9",
        "lpt\u00b2.x",
        "conin$",
        "aux .txt",
        "a\\b",
        "a:b",
        "a*",
        "a?",
        'a"',
        "a<",
        "a>",
        "a|",
        "a\x00",
        "a\n",
        "a\x7f",
        "a\u200b",
        "a\u202eb",
        "\ufeffa",
        "e\u0301",
        "a\ud800",
        "a" * 201,
        "\u00e4" * 101,
    ],
)
def test_a_path_that_not_every_disk_can_store(path: str) -> None:
    with pytest.raises(InvalidName):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b.c", "a b", "\u00e9", "a" * 200, "console", "a..b", "\u65e5\u672c/x", "a-_~"]
)
def test_a_path_that_every_disk_can_store(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "stages",
    [
        [(100, 1, []), (100, 2, [])],
        [(100, 1, []), (50, 2, [])],
        [(100, 2, []), (200, 1, [])],
        [(100, 1, ["lab"]), (100, 2, ["lab"])],
        [(0, 1, [])],
        [(10_001, 1, [])],
    ],
)
def test_stages_of_one_label_rise(stages: list[tuple[int, int, list[str]]]) -> None:
    rollout = {"id": "0" * 16, "salt": "0" * 32}
    said = {
        "type": "sealift.channel/1",
        "artifact": "acme/model",
        "channel": "stable",
        "sequence": 1,
        "release": {"version": "1.0.0", "sha256": "0" * 64, "length": 1},
        "created": 1,
    }
    steps = [{"basis_points": bp, "not_before": t, "for": labels} for bp, t, labels in stages]
    assert Channel.parse(encode_json(said | {"rollout": rollout}))
    with pytest.raises(InvalidDocument):
        Channel.parse(encode_json(said | {"rollout": rollout | {"stages": steps}}))


# --- lists of pieces --------------------------------------------------------------------------

PIECES = st.lists(st.tuples(st.integers(1, 64 << 20), st.binary(min_size=32, max_size=32)))


@settings(max_examples=50)
@given(PIECES)
def test_pieces_are_read_as_they_are_written(pieces: list[tuple[int, bytes]]) -> None:
    total = sum(length for length, _ in pieces)

    decoded = decode_chunks(encode_chunks(pieces), total)

    assert [(one.length, one.sha256) for one in decoded] == pieces
    assert [one.offset for one in decoded] == [
        sum(length for length, _ in pieces[:index]) for index in range(len(pieces))
    ]
    with pytest.raises(InvalidDocument):
        decode_chunks(encode_chunks(pieces), total + 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC[:-1],
        MAGIC + b"x",
        b"sealift.chunks/2" + bytes(36),
        MAGIC + bytes(36),
        encode_chunks([((64 << 20) + 1, bytes(32))]),
        encode_chunks([(5, bytes(32))])[:-1],
        encode_chunks([(5, bytes(32))]) + b"\0",
    ],
)
def test_what_is_not_a_list_of_pieces(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        decode_chunks(data, 5)


# --- join strings -----------------------------------------------------------------------------


def join_string() -> JoinString:
    """What a join string says."""
    return JoinString(
        server="127.0.0.1:7443",
        namespace=Namespace("acme"),
        purpose="device",
        root=RootAnchor(version=1, sha256=sha256_bytes(b"root")),
        follow=(Follow(artifact=ArtifactName("model"), channel=ChannelName("stable")),),
        token=f"sl_invite_{'A' * 43}",
        expires=START,
    )


def test_t29_a_join_string_is_read_as_it_is_written() -> None:
    text = join_string().encode()

    assert JoinString.decode(text) == join_string()
    assert JoinString.decode(f"  {text[:40]}\n {text[40:]} ") == join_string()


def test_t29_damage_at_any_character_is_seen() -> None:
    """Or changes nothing: bits at the end that belong to no byte."""
    text = join_string().encode()
    for index, character in enumerate(text):
        for other in ("A" if character != "A" else "B", "\u00e9", "=", "!"):
            damaged = text[:index] + other + text[index + 1 :]
            try:
                assert JoinString.decode(damaged) == join_string(), (index, other)
            except InvalidJoinString:
                continue
            assert index == len(text) - 1
        with pytest.raises(InvalidJoinString):
            JoinString.decode(text[:index])
        with pytest.raises(InvalidJoinString):
            JoinString.decode(text[:index] + text[index + 1 :])


@pytest.mark.parametrize("text", ["", "x", "sealift2.abc", "sealift1.", "sealift1.e30", "\u00e9"])
def test_t29_what_is_not_a_join_string(text: str) -> None:
    with pytest.raises(InvalidJoinString):
        JoinString.decode(text)


def test_t29_a_join_string_has_a_limit() -> None:
    with pytest.raises(InvalidJoinString):
        JoinString.decode("sealift1." + "A" * 300_000)
