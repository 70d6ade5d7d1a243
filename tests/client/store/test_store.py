"""The device's store: releases appear at once, stay while used, go when nothing needs them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sealift.client.store.store import TRANSFER_LOCK, MissingBlob, Store
from sealift.host.files import FileLock, make_folder
from sealift.host.installed import (
    DamagedRelease,
    NotInstalled,
    ReleaseFolders,
    ReleaseInUse,
)
from sealift.protocol.errors import InvalidDocument
from sealift.protocol.names import Digest
from support.releases import MadeRelease, make_release, noise

FILES = {
    "model.bin": noise(200_000),
    "tok/vocab.txt": b"a\nb\n",
    "tok/deep/x": b"",
    "copy": b"a\nb\n",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def put_blobs(store: Store, release: MadeRelease) -> None:
    for digest, data in release.blobs.items():
        store.blob_path(digest).write_bytes(data)
        store.blob_path(digest).chmod(0o444)


def install(store: Store, release: MadeRelease) -> Digest:
    put_blobs(store, release)
    store.add_release(release.manifest, release.digest, release.data)
    return release.digest


def test_an_installed_release_has_its_files_under_their_names_and_nothing_else(
    store: Store,
) -> None:
    digest = install(store, make_release(FILES))
    folder = store.files_folder(digest)
    found = {str(one.relative_to(folder)): one for one in folder.rglob("*") if one.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == FILES
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in found.values())
    assert all(p.stat().st_mode & 0o777 == 0o755 for p in folder.rglob("*") if p.is_dir())
    assert store.verify(digest).ok
    assert store.is_whole(digest)


def test_files_take_no_room_twice(store: Store) -> None:
    release = make_release(FILES)
    digest = install(store, release)
    blob = store.blob_path(release.manifest.files[0].sha256)
    assert blob.samefile(store.files_folder(digest) / "model.bin")


def test_without_hard_links_files_are_copies(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr("sealift.client.store.placing.os.link", no_link)
    digest = install(store, make_release(FILES))
    path = store.files_folder(digest) / "model.bin"
    assert path.stat().st_nlink == 1
    assert path.stat().st_mode & 0o777 == 0o444
    assert store.verify(digest).ok


def test_other_bytes_than_the_manifest_are_refused(store: Store) -> None:
    release = make_release(FILES)
    put_blobs(store, release)
    with pytest.raises(InvalidDocument):
        store.add_release(release.manifest, Digest("0" * 64), release.data)
    assert store.digests() == []


def test_a_release_is_not_installed_without_all_its_blobs(store: Store) -> None:
    release = make_release(FILES)
    put_blobs(store, release)
    store.discard_blobs([release.manifest.files[0].sha256])
    with pytest.raises(MissingBlob):
        store.add_release(release.manifest, release.digest, release.data)
    assert not store.has(release.digest)
    assert list(store.releases.iterdir()) == []


@pytest.mark.parametrize("at", ["release:build", "release:rename", "release:sync"])
def test_a_kill_while_installing_leaves_the_release_or_nothing(tmp_path: Path, at: str) -> None:
    release = make_release(FILES)
    store = Store(tmp_path / "store")
    store.prepare()
    put_blobs(store, release)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from sealift.client.store.store import Store\n"
        "from sealift.protocol.documents import Manifest\n"
        "from sealift.host.hashing import sha256_bytes\n"
        "data = sys.stdin.buffer.read()\n"
        "def step(name):\n"
        f"    if name == {at!r}: os._exit(9)\n"
        f"store = Store(Path({str(store.folder)!r}), step)\n"
        "store.add_release(Manifest.parse(data), sha256_bytes(data), data)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=release.data, check=False)
    assert done.returncode == 9
    assert store.has(release.digest) == (at == "release:sync")
    store.add_release(release.manifest, release.digest, release.data)
    assert store.verify(release.digest).ok
    store.collect({release.digest})
    assert [one.name for one in store.releases.iterdir()] == [release.digest]


def test_verify_names_each_file_that_is_not_what_was_signed(store: Store) -> None:
    release = make_release(FILES)
    digest = install(store, release)
    folder = store.files_folder(digest)
    changed = bytearray(FILES["model.bin"])
    changed[1000] ^= 1
    (folder / "model.bin").chmod(0o644)
    (folder / "model.bin").write_bytes(changed)
    (folder / "tok/vocab.txt").unlink()
    (folder / "copy").unlink()
    (folder / "copy").symlink_to("model.bin")
    (folder / "tok/new").write_bytes(b"")
    report = store.verify(digest)
    entry = release.manifest.files[0]
    found = {one.path: one for one in report.damaged}
    assert set(found) == {"model.bin", "tok/vocab.txt", "copy"}
    assert found["model.bin"].expected == entry.sha256
    assert found["model.bin"].got not in {None, entry.sha256}
    assert found["tok/vocab.txt"].got is None
    assert report.extra == ("tok/new",)
    assert not report.ok
    assert {one.path for one in store.verify(digest, hashes=False).damaged} == {
        "tok/vocab.txt",
        "copy",
    }


def test_a_truncated_file_is_seen_without_reading(store: Store) -> None:
    digest = install(store, make_release(FILES))
    path = store.files_folder(digest) / "model.bin"
    path.chmod(0o644)
    os.truncate(path, 10)
    assert not store.is_whole(digest)
    assert store.has(digest)


def test_discarded_blobs_make_a_release_not_whole(store: Store) -> None:
    release = make_release(FILES)
    digest = install(store, release)
    store.discard_blobs([release.manifest.files[0].sha256])
    assert not store.is_whole(digest)
    assert store.verify(digest).ok


def test_mending_puts_good_files_in_place_and_keeps_leases(store: Store) -> None:
    release = make_release(FILES)
    digest = install(store, release)
    folder = store.files_folder(digest)
    with store.lease(digest):
        (folder / "model.bin").unlink()
        (folder / "model.bin").mkdir()
        (folder / "extra").write_bytes(b"x")
        report = store.verify(digest)
        store.mend(release.manifest, digest, release.data, report)
        assert store.verify(digest).ok
        with pytest.raises(ReleaseInUse):
            store.remove(digest)


def test_a_changed_manifest_is_damage(store: Store) -> None:
    digest = install(store, make_release(FILES))
    path = store.release_folder(digest) / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(DamagedRelease):
        store.read(digest)
    assert store.installed() == []
    path.unlink()
    with pytest.raises(DamagedRelease):
        store.read(digest)


# Leases


def test_a_release_in_use_is_not_removed_and_removal_does_not_wait(store: Store) -> None:
    digest = install(store, make_release(FILES))
    first, second = store.lease(digest), ReleaseFolders(store.folder).lease(digest)
    for lease in (first, second):
        with pytest.raises(ReleaseInUse):
            store.remove(digest)
        lease.close()
    store.remove(digest)
    assert not store.has(digest)
    assert list(store.releases.iterdir()) == []


def test_a_lease_dies_with_its_process(store: Store) -> None:
    digest = install(store, make_release(FILES))
    program = (
        "import sys; from pathlib import Path\n"
        "from sealift.host.installed import ReleaseFolders\n"
        "from sealift.protocol.names import Digest\n"
        f"lease = ReleaseFolders(Path({str(store.folder)!r})).lease(Digest({str(digest)!r}))\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ReleaseInUse):
            store.remove(digest)
        holder.kill()
        holder.wait()
        store.remove(digest)


def test_what_is_not_installed_has_no_lease(store: Store) -> None:
    digest = install(store, make_release(FILES))
    store.remove(digest)
    with pytest.raises(NotInstalled):
        store.lease(digest)
    with pytest.raises(NotInstalled):
        store.remove(digest)
    with pytest.raises(NotInstalled):
        store.read(digest)


AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from sealift.host.installed import ReleaseFolders
from sealift.protocol.names import Digest

if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
folders, digest = ReleaseFolders(Path(sys.argv[1])), Digest(sys.argv[2])
assert not os.access(folders.releases, os.W_OK), "this user can write"
with folders.lease(digest):
    print(folders.read(digest).manifest.version, flush=True)
    sys.stdin.read()
"""


def test_a_lease_needs_no_right_to_write() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = Store(Path(name) / "store")
        store.prepare()
        digest = install(store, make_release(FILES))
        if os.getuid() != 0:
            store.releases.chmod(0o555)
        with subprocess.Popen(
            [sys.executable, "-c", AS_ANOTHER_USER, store.folder, digest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as app:
            assert app.stdout is not None
            assert app.stdout.readline() == b"1.0.0\n"
            store.releases.chmod(0o755)
            with pytest.raises(ReleaseInUse):
                store.remove(digest)
            app.communicate()
        assert app.returncode == 0


# What may go


def test_collection_keeps_what_is_wanted_or_in_use(store: Store) -> None:
    old = install(store, make_release({"a": b"old", "shared": FILES["model.bin"]}, "1.0.0"))
    used = install(store, make_release({"a": b"used"}, "2.0.0"))
    kept = install(store, make_release({"a": b"kept", "shared": FILES["model.bin"]}, "3.0.0"))
    with store.lease(used):
        assert store.collect({kept}) == [old]
        assert set(store.digests()) == {used, kept}
    for digest in (used, kept):
        assert store.verify(digest).ok
        assert store.is_whole(digest)
    needed = {
        blob
        for release in store.installed()
        for entry in release.manifest.files
        for blob in (entry.sha256, entry.chunks.sha256 if entry.chunks else entry.sha256)
    }
    assert {one.name for one in store.blobs.iterdir()} == needed


def test_collection_gives_up_transfers_that_nobody_wants_or_runs(store: Store) -> None:
    unwanted, wanted, running = (make_release({"a": noise(9, seed)}) for seed in (1, 2, 3))
    for release in (unwanted, wanted, running):
        folder = store.transfer_folder(release.digest)
        make_folder(folder)
        (folder / "manifest.json").write_bytes(release.data)
        put_blobs(store, release)
    lock = FileLock(store.transfer_folder(running.digest) / TRANSFER_LOCK)
    with lock.held():
        store.collect({wanted.digest})
    assert {one.name for one in store.partial.iterdir()} == {wanted.digest, running.digest}
    assert {one.name for one in store.blobs.iterdir()} == {*wanted.blobs, *running.blobs}


def test_what_is_being_built_elsewhere_is_left_alone(store: Store) -> None:
    release = make_release(FILES)
    put_blobs(store, release)
    seen: list[list[str]] = []

    def step(name: str) -> None:
        if name == "release:rename":
            other = Store(store.folder)
            other._drop_leftovers()
            seen.append([one.name for one in store.releases.iterdir()])

    Store(store.folder, step).add_release(release.manifest, release.digest, release.data)
    assert len(seen[0]) == 1
    assert store.verify(release.digest).ok
