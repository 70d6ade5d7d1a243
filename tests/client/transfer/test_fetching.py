"""A release comes into the store whole and verified, and nothing is fetched that is there."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sealift.client.store.store import TRANSFER_LOCK
from sealift.client.transfer.errors import ContentMismatch, ContentMissing, NotTransferable
from sealift.client.transfer.fetching import Tuning
from sealift.host.files import DiskFull, FileLock, HomeLocked, Unwritable
from sealift.host.rpc import ServerRefused
from sealift.protocol.chunks import CUT_BYTES, encode_chunks
from sealift.protocol.errors import InvalidDocument
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason
from support.content_servers import GrpcContent, HttpContent, flips
from support.releases import PIECE_BYTES, MadeRelease, make_release, noise

from .conftest import QUICK, Device

Publish = Callable[[MadeRelease], MadeRelease]
MODEL = noise(20 * PIECE_BYTES + 123)
FILES = {"model.bin": MODEL, "tok/vocab.txt": b"a\nb\n", "empty": b"", "again.bin": MODEL}


@pytest.mark.parametrize("stores", ["server", "object_store"])
def test_a_release_is_installed_as_it_was_signed(
    device: Device, publish: Publish, request: pytest.FixtureRequest, stores: str
) -> None:
    source: GrpcContent | HttpContent = request.getfixturevalue(stores)
    release = make_release(FILES)
    device.server.blobs.update(release.blobs)
    source.blobs.update(release.blobs)
    device.fetch(release)
    device.check_installed(release)
    assert sum(device.told) == release.manifest.length
    assert source.reads.bytes_of() == sum(map(len, release.blobs.values()))


def test_a_release_that_is_there_is_not_fetched_again(device: Device, publish: Publish) -> None:
    release = publish(make_release(FILES))
    device.fetch(release)
    device.server.blobs.clear()
    device.server.refuse = Reason.INTERNAL
    device.fetch(release)
    assert device.told == [release.manifest.length]
    device.check_installed(release)


def test_the_object_store_never_sees_the_token(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    device.fetch(publish(make_release(FILES)))
    assert object_store.headers
    for headers, path in zip(object_store.headers, object_store.paths, strict=True):
        assert {name.lower() for name in headers} == {
            "host",
            "range",
            "accept-encoding",
            "user-agent",
        }
        assert device.token not in str(headers) + path


def test_neighbouring_pieces_come_by_one_request(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    device.fetch(publish(make_release({"model.bin": MODEL})))
    ranges = [one["Range"] for one in object_store.headers]
    assert 2 <= len(ranges) <= 8
    assert device.server.reads.ranges == []


# What is had already


def test_files_of_other_releases_are_not_fetched(device: Device, publish: Publish) -> None:
    device.fetch(publish(make_release({"model.bin": MODEL, "a": b"1"})))
    before = device.server.reads.bytes_of()
    second = publish(make_release({"renamed.bin": MODEL, "a": b"22"}, "2.0.0"))
    device.fetch(second)
    device.check_installed(second)
    assert device.server.reads.bytes_of() - before == 2
    assert sum(device.told) == second.manifest.length


def test_pieces_of_other_releases_are_copied_not_fetched(device: Device, publish: Publish) -> None:
    device.fetch(publish(make_release({"model.bin": MODEL})))
    changed = bytearray(MODEL)
    changed[5 * PIECE_BYTES + 7] ^= 1
    second = publish(make_release({"model.bin": bytes(changed)}, "2.0.0"))
    before = device.server.reads.bytes_of()
    device.fetch(second)
    device.check_installed(second)
    fetched = device.server.reads.bytes_of() - before
    assert fetched == PIECE_BYTES + len(second.blobs[second.lists[0]])


def test_a_damaged_installed_file_spoils_nothing(device: Device, publish: Publish) -> None:
    first = publish(make_release({"model.bin": MODEL}))
    device.fetch(first)
    path = device.store.files_folder(first.digest) / "model.bin"
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"rotten")
    second = publish(make_release({"model.bin": MODEL + b"more"}, "2.0.0"))
    device.fetch(second)
    device.check_installed(second)


def test_a_damaged_release_is_mended_in_place(device: Device, publish: Publish) -> None:
    release = publish(make_release(FILES))
    device.fetch(release)
    folder = device.store.files_folder(release.digest)
    (folder / "model.bin").chmod(0o644)
    with (folder / "model.bin").open("r+b") as file:
        file.seek(3 * PIECE_BYTES)
        file.write(b"rotten")
    (folder / "tok" / "vocab.txt").unlink()
    report = device.store.verify(release.digest)
    assert {one.path for one in report.damaged} == {"model.bin", "again.bin", "tok/vocab.txt"}
    device.store.discard_blobs(one.expected for one in report.damaged)
    with device.store.lease(release.digest):
        device.fetch(release)
    device.check_installed(release)
    assert sum(device.told) == release.manifest.length


def test_a_damaged_manifest_is_mended(device: Device, publish: Publish) -> None:
    release = publish(make_release({"a": b"1"}))
    device.fetch(release)
    path = device.store.release_folder(release.digest) / "manifest.json"
    path.unlink()
    device.fetch(release)
    device.check_installed(release)


# What is not as it was signed


@pytest.mark.parametrize("file", ["model.bin", "small"])
def test_bytes_that_nobody_signed_are_refused_by_name(
    device: Device, publish: Publish, object_store: HttpContent, file: str
) -> None:
    content = {"model.bin": MODEL, "small": noise(5_000)}[file]
    release = publish(make_release({file: content}))
    device.server.spoil = object_store.spoil = flips(4_321)
    with pytest.raises(ContentMismatch) as raised:
        device.fetch(release)
    error = raised.value
    assert error.reason is Reason.CONTENT_MISMATCH
    assert error.file == file
    signed = make_release({"piece": content[:PIECE_BYTES]}).manifest.files[0].sha256
    assert error.expected == signed
    assert error.expected in error.message
    assert error.got in error.message
    device.check_not_installed(release)
    for path in device.store.transfer_folder(release.digest).iterdir():
        assert bytes([content[4_320], content[4_321] ^ 1]) not in path.read_bytes()[4_320:4_322]


def test_a_source_that_lies_is_told_from_one_that_does_not(
    device: Device, publish: Publish, object_store: HttpContent
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    object_store.spoil = flips(3 * PIECE_BYTES + 1)
    device.fetch(release)
    device.check_installed(release)
    sent = device.server.reads.bytes_of(release.manifest.files[0].sha256)
    assert PIECE_BYTES <= sent < len(MODEL)


def test_bytes_that_were_spoilt_once_are_fetched_once_more(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    device.server.spoil = flips(3 * PIECE_BYTES + 1, times=1)
    device.fetch(release)
    device.check_installed(release)


def test_a_list_of_pieces_that_does_not_fit_the_file_names_the_file(
    device: Device, publish: Publish
) -> None:
    other = noise(len(MODEL), seed=99)
    right = make_release({"model.bin": other})
    release = make_release({"model.bin": MODEL}, lists={"model.bin": right.blobs[right.lists[0]]})
    device.server.blobs.update(release.blobs)
    device.server.blobs[release.manifest.files[0].sha256] = other
    with pytest.raises(ContentMismatch, match="the whole file") as raised:
        device.fetch(release)
    assert raised.value.got == right.manifest.files[0].sha256
    device.check_not_installed(release)
    assert not device.store.has_blob(release.manifest.files[0].sha256, len(MODEL))
    fetched = device.server.reads.bytes_of()
    with pytest.raises(ContentMismatch):
        device.fetch(release)
    assert device.server.reads.bytes_of() == fetched


@pytest.mark.parametrize(
    "listed", [b"", b"nonsense", encode_chunks([(5, bytes(32))]), encode_chunks([])]
)
def test_a_signed_list_that_is_none_is_refused(
    device: Device, publish: Publish, listed: bytes
) -> None:
    release = publish(make_release({"model.bin": MODEL}, lists={"model.bin": listed}))
    with pytest.raises(NotTransferable, match=r"model\.bin"):
        device.fetch(release)
    device.check_not_installed(release)


def test_a_wrong_digest_of_an_empty_file_is_refused(device: Device) -> None:
    release = make_release({"e": b""})
    entry = release.manifest.files[0].model_copy(update={"sha256": Digest("a" * 64)})
    manifest = release.manifest.model_copy(update={"files": (entry,)})
    with pytest.raises(ContentMismatch):
        device.fetch(MadeRelease(manifest, release.data, release.digest, {}, {}))


def test_other_bytes_than_the_manifest_are_refused(device: Device) -> None:
    release = make_release({"a": b"1"})
    with pytest.raises(InvalidDocument):
        device.fetch(MadeRelease(release.manifest, b"{}", release.digest, {}, {}))


def test_a_blob_that_is_nowhere_is_named(device: Device, publish: Publish) -> None:
    release = publish(make_release({"model.bin": MODEL, "a/b.txt": b"1"}))
    del device.server.blobs[release.manifest.files[1].sha256]
    with pytest.raises(ContentMissing, match=r"a/b\.txt"):
        device.fetch(release)
    device.check_not_installed(release)


def test_a_refused_token_ends_the_transfer_at_once(device: Device, publish: Publish) -> None:
    release = publish(make_release(FILES))
    device.token = "sl_device_wrong"
    with pytest.raises(ServerRefused) as raised:
        device.fetch(release)
    assert raised.value.reason is Reason.UNAUTHENTICATED


# The disk


def test_a_disk_without_room_is_seen_before_the_first_byte(
    device: Device, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(make_release(FILES))
    monkeypatch.setattr("sealift.host.files._free_bytes", lambda path: len(MODEL))
    with pytest.raises(DiskFull):
        device.fetch(release)
    assert device.server.reads.bytes_of() == 0


def test_a_disk_that_fills_up_loses_nothing(
    device: Device, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    real, written = os.pwrite, [0]

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if written[0] > 10 * PIECE_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        written[0] += len(data)
        return real(descriptor, data, offset)

    monkeypatch.setattr("sealift.client.transfer.partial.os.pwrite", full)
    with pytest.raises(DiskFull):
        device.fetch(release)
    device.check_not_installed(release)
    monkeypatch.undo()
    before = device.server.reads.bytes_of()
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() - before <= len(MODEL) - 10 * PIECE_BYTES
    assert sum(device.told) == len(MODEL)


def test_after_a_sync_that_failed_only_the_journal_is_believed(
    device: Device, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(make_release({"model.bin": MODEL}))

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sealift.client.transfer.partial.sync_data", broken)
    with pytest.raises(Unwritable):
        device.fetch(release)
    monkeypatch.undo()
    names = [one.suffix for one in device.store.transfer_folder(release.digest).iterdir()]
    assert ".unsure" in names
    assert ".part" not in names
    before = device.server.reads.bytes_of(release.manifest.files[0].sha256)
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of(release.manifest.files[0].sha256) - before == len(MODEL)


def test_a_disk_that_changes_what_was_written_is_found_and_mended(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    part = device.store.transfer_folder(release.digest) / f"{release.manifest.files[0].sha256}.part"

    def stop_late(name: str) -> None:
        if name == "download:blob" and part.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.fetch(release, step=stop_late)
    with part.open("r+b") as file:
        file.seek(7 * PIECE_BYTES)
        file.write(b"rotten")
    before = device.server.reads.bytes_of()
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() - before == PIECE_BYTES


# Stopping, and others


def test_what_the_progress_raises_ends_the_transfer_and_it_goes_on_later(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    done = [0]

    class Draining(Exception):
        pass

    def advance(count: int) -> None:
        done[0] += count
        if done[0] > 8 * PIECE_BYTES:
            raise Draining

    with pytest.raises(Draining):
        device.fetch(release, advance=advance)
    device.check_not_installed(release)
    before = device.server.reads.bytes_of()
    device.fetch(release)
    device.check_installed(release)
    assert device.server.reads.bytes_of() - before < len(MODEL) - 5 * PIECE_BYTES


def test_an_interruption_ends_the_transfer_at_once_and_it_goes_on_later(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    main = threading.main_thread().ident
    pieces = itertools.count(1)

    def step(name: str) -> None:
        if name == "download:piece" and next(pieces) == 6 and main is not None:
            signal.pthread_kill(main, signal.SIGINT)

    # A shell starts its background jobs with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            device.fetch(release, step=step)
    finally:
        signal.signal(signal.SIGINT, before)
    device.check_not_installed(release)
    device.fetch(release)
    device.check_installed(release)


def test_two_processes_do_not_fetch_the_same_release_twice(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    release = publish(make_release({"model.bin": MODEL}))
    device.store.prepare()
    lock = FileLock(device.store.transfer_folder(release.digest) / TRANSFER_LOCK)
    device.tuning = Tuning(lock_wait_s=0.0, retries=QUICK)
    with lock.held(purpose="download"), pytest.raises(HomeLocked, match="download"):
        device.fetch(release)
    device.tuning = Tuning(lock_wait_s=30.0, retries=QUICK)
    arrived = threading.Barrier(2)

    def one() -> None:
        arrived.wait()
        Device(device.store, device.server, tuning=device.tuning).fetch(release)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(one) for _ in range(2)]:
            future.result()
    device.check_installed(release)
    assert device.server.reads.bytes_of(release.manifest.files[0].sha256) == len(MODEL)


def test_blobs_that_are_collected_meanwhile_are_fetched_again(
    device: Device, publish: Publish
) -> None:
    release = publish(make_release({"a": b"1", "b": b"2"}))
    collected: list[str] = []

    def step(name: str) -> None:
        if name == "release:build" and not collected:
            collected.append(name)
            device.store.discard_blobs([release.manifest.files[0].sha256])

    device.store = type(device.store)(device.store.folder, step)
    device.fetch(release)
    device.check_installed(release)
    assert collected


def test_a_collection_leaves_a_transfer_under_way_alone(device: Device, publish: Publish) -> None:
    release = publish(make_release({"model.bin": MODEL, "a": b"1"}))

    def step(name: str) -> None:
        if name == "download:piece":
            device.store.collect(())

    device.fetch(release, step=step)
    device.check_installed(release)
    assert device.server.reads.bytes_of(release.manifest.files[1].sha256) == 1


def test_long_files_without_a_list_are_refused_before_the_first_byte(device: Device) -> None:
    release = make_release({"a": b"1"})
    entry = release.manifest.files[0].model_copy(update={"length": 100 * CUT_BYTES})
    manifest = release.manifest.model_copy(update={"files": (entry,)})
    with pytest.raises(NotTransferable, match="no list of pieces"):
        device.fetch(MadeRelease(manifest, release.data, release.digest, {}, {}))
