"""The journal can be read whatever became of it, and vouches for nothing that it should not."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sealift.client.transfer.journal import Journal, head, read_journal
from sealift.host.hashing import sha256_bytes
from sealift.protocol.chunks import Piece
from sealift.protocol.names import Digest

LISTED = Digest("ab" * 32)
PIECES = [Piece(10 * n, 10, sha256_bytes(str(n).encode()).raw) for n in range(200)]


def written(path: Path, *batches: set[int]) -> bytes:
    journal = Journal(path, LISTED, PIECES)
    for batch in batches:
        journal.add(batch)
    journal.close()
    return path.read_bytes()


def test_what_is_added_is_read(tmp_path: Path) -> None:
    data = written(tmp_path / "j", {3, 1}, {199}, {1, 4})
    assert read_journal(data, LISTED, PIECES) == {1, 3, 4, 199}


def test_a_journal_of_another_list_of_pieces_vouches_for_nothing(tmp_path: Path) -> None:
    data = written(tmp_path / "j", {1, 2})
    assert read_journal(data, Digest("cd" * 32), PIECES) == set()
    other = [Piece(0, 10, bytes(32)) for _ in PIECES]
    assert read_journal(data, LISTED, other) == set()
    assert read_journal(data, LISTED, PIECES[:2]) == {1}


@given(cut=st.integers(0, 400))
def test_a_torn_journal_vouches_for_a_part_of_the_same(cut: int) -> None:
    whole = head(LISTED) + b"".join(
        b"%d %s\n" % (n, PIECES[n].sha256[:4].hex().encode()) for n in range(20)
    )
    found = read_journal(whole[:cut], LISTED, PIECES)
    assert found <= set(range(20))
    assert found == set(range(len(found)))
    assert len(found) >= whole[:cut].count(b"\n") - 1


@given(garbage=st.binary(max_size=300), at=st.integers(0, 300))
def test_garbage_never_adds_a_piece(garbage: bytes, at: int) -> None:
    whole = head(LISTED) + b"".join(
        b"%d %s\n" % (n, PIECES[n].sha256[:4].hex().encode()) for n in range(20)
    )
    damaged = whole[:at] + garbage + whole[at + len(garbage) :]
    assert read_journal(damaged, LISTED, PIECES) <= set(range(20))


def test_writing_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    data = written(path, {10, 11, 12})
    path.write_bytes(data[:-7])
    assert read_journal(written(path, {13}), LISTED, PIECES) == {10, 11, 13}


def test_what_is_forgotten_is_not_vouched_for(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, {1, 2, 3})
    journal = Journal(path, LISTED, PIECES)
    journal.done -= {2}
    journal.rewrite()
    journal.close()
    assert read_journal(path.read_bytes(), LISTED, PIECES) == {1, 3}
