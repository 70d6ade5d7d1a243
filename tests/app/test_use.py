"""`app.use`: the right release, claimed for as long as it is used."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sealift import app
from sealift.client.store.store import Store
from sealift.host.active import ActivePointer, DamagedPointer, ReleaseId
from sealift.host.homes import active_file, default_home, state_file, store_folder
from sealift.host.installed import ReleaseInUse
from sealift.protocol.names import Digest
from support.releases import MadeRelease, make_release, noise

FILES = {"model.bin": noise(1_000), "tok/vocab.json": b"{}"}


class Home:
    """A device's home with some releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(store_folder(folder))
        self.store.prepare()

    def install(self, version: str, artifact: str = "acme/model") -> MadeRelease:
        release = make_release({**FILES, "version": version.encode()}, version, artifact)
        for digest, data in release.blobs.items():
            self.store.blob_path(digest).write_bytes(data)
        self.store.add_release(release.manifest, release.digest, release.data)
        return release

    def activate(self, release: MadeRelease) -> None:
        pointer = ActivePointer.load(active_file(self.folder))
        manifest = release.manifest
        one = ReleaseId(version=manifest.version, digest=release.digest)
        after = pointer.with_active(manifest.artifact, one, keep_last_good=True, now=1)
        after.save(active_file(self.folder))

    def state(self, **lists: list[Digest]) -> None:
        state_file(self.folder).write_text(json.dumps({"schema": 1, **lists}))

    def version(self, ref: str = "acme/model", wanted: str | None = None) -> str:
        with app.use(ref, wanted, self.folder) as release:
            return release.version


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_the_active_release_is_used(home: Home) -> None:
    active = home.install("1.0.0")
    home.install("2.0.0")
    home.activate(active)
    with app.use("acme/model", home=home.folder) as release:
        assert release.version == "1.0.0"
        assert release.artifact == "acme/model"
        assert release.digest == active.digest.reference
        assert release.path("model.bin").read_bytes() == FILES["model.bin"]
        assert release.path("tok/vocab.json").parent.parent == release.folder
        assert sorted(release.files) == ["model.bin", "tok/vocab.json", "version"]


def test_an_active_release_out_of_range_is_replaced_by_the_newest_that_matches(home: Home) -> None:
    for version in ("1.4.0", "1.10.0", "2.0.0-rc.1"):
        home.install(version)
    home.activate(home.install("2.0.0"))
    assert home.version(wanted=">=1.4,<2") == "1.10.0"
    assert home.version(wanted=">=1.4") == "2.0.0"
    assert home.version("acme/model@1.4.0") == "1.4.0"
    assert home.version("acme/model@2.0.0-rc.1") == "2.0.0-rc.1"


def test_one_release_can_be_asked_for_by_digest(home: Home) -> None:
    old = home.install("1.0.0")
    home.activate(home.install("2.0.0"))
    assert home.version(f"acme/model@{old.digest.reference}") == "1.0.0"


@pytest.mark.parametrize("key", ["denylist", "revoked"])
def test_releases_that_were_left_or_revoked_are_not_chosen(home: Home, key: str) -> None:
    home.install("1.4.0")
    left = home.install("1.5.0")
    home.activate(home.install("2.0.0"))
    home.state(**{key: [left.digest]})
    assert home.version(wanted="<2") == "1.4.0"
    with pytest.raises(app.NoMatchingRelease, match=r"left every release.*1\.5\.0"):
        home.version(wanted="=1.5")


def test_what_is_active_is_used_whatever_became_of_the_state(home: Home) -> None:
    home.install("1.0.0")
    home.activate(home.install("2.0.0"))
    state_file(home.folder).write_bytes(b"\x00")
    assert home.version() == "2.0.0"
    with pytest.raises(DamagedPointer):
        home.version(wanted="<2")


def test_a_namespace_may_be_left_out_where_it_is_clear(home: Home) -> None:
    home.activate(home.install("1.0.0"))
    assert home.version("model") == "1.0.0"
    home.install("1.0.0", "other/model")
    with pytest.raises(app.NoMatchingRelease, match="acme/model, other/model"):
        home.version("model")
    with pytest.raises(app.NoMatchingRelease, match="nothing of unknown"):
        home.version("unknown")


def test_without_a_match_the_error_says_what_is_there(home: Home) -> None:
    home.install("1.0.0")
    home.install("1.1.0")
    with pytest.raises(app.NoMatchingRelease, match=r"matches acme/model >=2.*1\.1\.0, 1\.0\.0"):
        home.version(wanted=">=2")
    with pytest.raises(app.NoMatchingRelease, match="nothing of acme/other is there"):
        home.version("acme/other")
    with pytest.raises(app.NoMatchingRelease):
        app.use("acme/model", home=home.folder / "nowhere").__enter__()


def test_an_active_release_that_is_gone_says_what_to_do(home: Home) -> None:
    release = home.install("1.0.0")
    home.activate(release)
    home.store.remove(release.digest)
    with pytest.raises(app.NoMatchingRelease, match="sealift update"):
        home.version()


@pytest.mark.parametrize("ref", ["", "Acme/model", "acme/model@1", "a/b/c", "acme/model:stable"])
def test_references_that_cannot_be_one_are_refused_at_once(home: Home, ref: str) -> None:
    with pytest.raises(app.InvalidName):
        app.use(ref, home=home.folder)


def test_a_range_that_is_none_is_refused_at_once(home: Home) -> None:
    with pytest.raises(app.InvalidName, match="range"):
        app.use("acme/model", "newest", home.folder)


@pytest.mark.parametrize(
    "path", ["../manifest.json", "/etc/passwd", "", ".", "tok", "tok/../model.bin", "MODEL.BIN"]
)
def test_paths_out_of_the_release_are_refused_and_the_names_shown(home: Home, path: str) -> None:
    home.activate(home.install("1.0.0"))
    with (
        app.use("acme/model", home=home.folder) as release,
        pytest.raises(app.NoSuchFile, match=r"It has model\.bin, tok/vocab\.json"),
    ):
        release.path(path)


def test_a_release_stays_while_it_is_used_and_goes_after(home: Home) -> None:
    release = home.install("1.0.0")
    home.activate(release)
    with app.use("acme/model", home=home.folder), pytest.raises(ReleaseInUse):
        home.store.remove(release.digest)
    with pytest.raises(ValueError, match="the app's own"), app.use("acme/model", home=home.folder):
        raise ValueError("the app's own")
    home.store.remove(release.digest)


def test_a_release_that_goes_between_choice_and_lease_is_chosen_anew(home: Home) -> None:
    old, new = home.install("1.0.0"), home.install("2.0.0")
    home.activate(old)
    using = app.use("acme/model", home=home.folder)
    real = using._folders.lease

    def lease_after_an_update(digest):  # type: ignore[no-untyped-def]
        if digest == old.digest:
            home.activate(new)
            home.store.remove(old.digest)
        return real(digest)

    using._folders.lease = lease_after_an_update  # type: ignore[method-assign]
    with using as release:
        assert release.version == "2.0.0"


def test_one_use_is_not_entered_twice_at_a_time_but_again(home: Home) -> None:
    home.activate(home.install("1.0.0"))
    using = app.use("acme/model", home=home.folder)
    with using, pytest.raises(RuntimeError):
        using.__enter__()
    with using as release:
        assert release.version == "1.0.0"


def test_async_use_claims_and_lets_go(home: Home) -> None:
    release = home.install("1.0.0")
    home.activate(release)

    async def run() -> None:
        async with app.use("acme/model", home=home.folder) as used:
            assert used.version == "1.0.0"
            with pytest.raises(ReleaseInUse):
                home.store.remove(release.digest)

    asyncio.run(run())
    home.store.remove(release.digest)


def test_an_async_use_that_is_cancelled_lets_go(home: Home) -> None:
    release = home.install("1.0.0")
    home.activate(release)

    async def run() -> None:
        entering = asyncio.ensure_future(app.use("acme/model", home=home.folder).__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(run())
    home.store.remove(release.digest)


def test_the_home_comes_from_the_environment(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home.activate(home.install("1.0.0"))
    monkeypatch.setenv("SEALIFT_HOME", str(home.folder))
    with app.use("acme/model") as release:
        assert release.version == "1.0.0"
    monkeypatch.delenv("SEALIFT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home().name == "sealift"
    assert default_home().is_relative_to(tmp_path)


def test_the_face_of_the_library_is_short_and_true() -> None:
    assert app.__all__ == sorted(app.__all__)
    assert len(app.__all__) <= 8
    for name in app.__all__:
        assert getattr(app, name).__doc__
    drawn = app.__doc__ or ""
    for name in ("AppError", "NoMatchingRelease", "NoSuchFile", "InvalidName"):
        assert name in drawn


def test_apps_need_neither_grpc_nor_tuf_nor_cryptography() -> None:
    program = (
        "import sys; from sealift import app\n"
        "heavy = {'grpc', 'tuf', 'cryptography', 'securesystemslib', 'google', 'asyncio'}\n"
        "sys.exit(sorted(heavy & {name.partition('.')[0] for name in sys.modules}) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
