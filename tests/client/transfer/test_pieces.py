"""Which bytes are asked for, by how many requests."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.client.transfer.errors import NotTransferable
from sealift.client.transfer.pieces import (
    BUFFERS_BYTES,
    span_bytes,
    spans,
    threads_for,
    wanted_files,
    wanted_lists,
)
from sealift.protocol.chunks import Piece
from support.releases import make_release, noise

LENGTHS = st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=50)


@given(LENGTHS, st.integers(1, 300))
def test_spans_are_the_wanted_pieces_and_no_other_byte(
    lengths: list[tuple[int, bool]], most: int
) -> None:
    offset, wanted = 0, []
    for length, is_wanted in lengths:
        if is_wanted:
            wanted.append(Piece(offset, length, bytes(32)))
        offset += length
    found = spans(wanted, most)
    assert [piece for span in found for piece in span.pieces] == wanted
    assert sum(span.length for span in found) == sum(piece.length for piece in wanted)
    for span in found:
        assert span.length <= most or len(span.pieces) == 1
    for first, second in itertools.pairwise(found):
        touches = first.offset + first.length == second.offset
        assert not touches or first.length + second.pieces[0].length > most


@given(LENGTHS, st.integers(1, 8))
def test_every_stream_has_something_to_do(lengths: list[tuple[int, bool]], streams: int) -> None:
    pieces = [Piece(0, length, bytes(32)) for length, _ in lengths]
    total = sum(piece.length for piece in pieces)
    assert 1 <= span_bytes(pieces, streams) <= max(total // streams, 1)


@given(st.integers(1, 8), st.integers(0, 64 * 1024 * 1024))
def test_buffers_stay_small(streams: int, longest: int) -> None:
    threads = threads_for(streams, longest)
    assert 1 <= threads <= streams
    assert threads * longest <= BUFFERS_BYTES


def test_the_same_bytes_are_wanted_once() -> None:
    release = make_release({"a": b"1", "b": b"1", "c": noise(200_000), "d": noise(200_000)})
    assert [one.path for one in wanted_files(release.manifest)] == ["a", "c"]
    digests = {entry.sha256 for entry in release.manifest.files}
    assert len(wanted_lists(release.manifest, digests)) == 1
    assert wanted_lists(release.manifest, ()) == []


def test_one_hash_with_two_lengths_is_refused() -> None:
    release = make_release({"a": b"1", "b": b"1"})
    entry = release.manifest.files[1].model_copy(update={"length": 2})
    files = (release.manifest.files[0], entry)
    with pytest.raises(NotTransferable, match="two lengths"):
        wanted_files(release.manifest.model_copy(update={"files": files}))
