"""What a publisher's home keeps: a journal, a kit apart, and which releases were held."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealift.client.publish.channels import ChannelMove, ChannelRefused, next_channel, rollback_move
from sealift.client.publish.home import JournalEntry, PublisherHome, Settings
from sealift.client.publish.keyring import Keyring
from sealift.client.publish.recovery_kit import DamagedKit, new_code, read_kit, write_kit
from sealift.client.publish.signing import NextState
from sealift.client.trust.admission import Admitted
from sealift.host import signers
from sealift.host.files import make_folder
from sealift.host.hashing import sha256_bytes
from sealift.host.signers import WrongPassphrase, new_private_key, write_key
from sealift.protocol import layout, metadata
from sealift.protocol.documents import HoldState, ReleasePointer, Severity, Stage
from sealift.protocol.errors import RuleViolation
from sealift.protocol.layout import DAY_S, RoleClass
from sealift.protocol.names import Version
from support.repository import (
    ACME,
    MODEL,
    STABLE,
    START,
    Device,
    FakeClock,
    SignedNamespace,
    manifest_of,
    spki,
)

RELEASES = layout.role_name(MODEL, RoleClass.RELEASES)


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that open quickly."""
    monkeypatch.setattr(signers.encode_private_key, "__defaults__", (1,))


class Office:
    """A publisher's home that admits from a namespace in memory."""

    def __init__(self, folder: Path) -> None:
        self.acme = SignedNamespace()
        self.home = PublisherHome.at(folder, ACME, clock=self.acme.clock)
        make_folder(self.home.folder / "keys")
        (self.home.folder / "root.json").write_bytes(self.acme.current[layout.ROOT].data)
        private = self.acme.daily._private_key
        assert isinstance(private, Ed25519PrivateKey)
        write_key(self.home.folder / "keys" / "daily", private, None)
        settings = Settings(server="127.0.0.1:1", keys={"*": ("file:daily",)})
        (self.home.folder / "settings.toml").write_bytes(settings.encode())

    def admit(self) -> Admitted:
        """Admits what is published."""
        with self.acme.clock.standing():
            return self.home.trust().admit(self.acme.fetcher(1))

    def sign_release(self, version: str) -> dict[str, bytes]:
        """Signs the next releases role."""
        state = NextState(self.home, self.admit())
        path = layout.release_path(MODEL, Version.parse(version))
        state.put_document(path, manifest_of("acme/model", version))
        signed, _ = state.sign(Keyring(self.home, lambda _: None), spki(self.acme.online))
        return dict(signed.files)

    def move(self, version: str, **more: object) -> ChannelMove:
        """A move of stable to a released version."""
        digest = self.admit().releases(MODEL)[Version.parse(version)]
        release = ReleasePointer(version=Version.parse(version), sha256=digest[0], length=digest[1])
        return ChannelMove(MODEL, STABLE, release, (), **more)  # type: ignore[arg-type]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """A publisher's home."""
    return Office(tmp_path)


# --- T25 --------------------------------------------------------------------------------------


def test_t25_no_version_of_a_role_is_signed_twice(office: Office) -> None:
    """Signed and never submitted, then another: two versions, each in the journal."""
    first = office.sign_release("1.0.0")[RELEASES]
    second = office.sign_release("2.0.0")[RELEASES]

    versions = [metadata.RoleFile.parse(RELEASES, data).version for data in (first, second)]
    assert versions == [2, 3]
    entries = [entry for entry in office.home.journal() if entry.role == RELEASES]
    assert [(entry.version, entry.sha256) for entry in entries] == [
        (2, sha256_bytes(first)),
        (3, sha256_bytes(second)),
    ]


def test_t25_the_next_version_is_above_the_servers_too(office: Office) -> None:
    office.sign_release("1.0.0")
    for number in range(5):
        office.acme.release(f"0.{number}.0")

    data = office.sign_release("2.0.0")[RELEASES]

    assert metadata.RoleFile.parse(RELEASES, data).version == 7


def test_t25_a_set_that_was_refused_has_burnt_its_version(office: Office) -> None:
    state = NextState(office.home, office.admit())
    path = layout.release_path(MODEL, Version.parse("1.0.0"))
    state.put_document(path, manifest_of("acme/other", "1.0.0"))
    with pytest.raises(RuleViolation):
        state.sign(Keyring(office.home, lambda _: None), spki(office.acme.online))

    data = office.sign_release("1.0.0")[RELEASES]

    assert metadata.RoleFile.parse(RELEASES, data).version == 3


def test_t25_a_line_that_was_cut_off_spoils_no_other(office: Office) -> None:
    office.sign_release("1.0.0")
    path = office.home.folder / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"role": "_stop", "versi')
    entry = JournalEntry(role="_stop", version=9, sha256=sha256_bytes(b""), key="k", at=1)

    office.home.write_journal([entry])

    assert office.home.journal_version("_stop") == 9
    assert office.home.journal_version(RELEASES) == 2
    assert office.home.journal_version("none") == 0


# --- T26 --------------------------------------------------------------------------------------


def test_t26_the_kit_alone_gives_the_key_back() -> None:
    private = new_private_key()
    code = new_code()
    kit = write_kit(ACME, private, code, START)

    found = read_kit(kit)

    assert found.namespace == ACME
    assert found.private.private_bytes_raw() == private.private_bytes_raw()
    assert len(code.replace("-", "")) == 25
    assert kit.count(code) == 1
    assert private.private_bytes_raw() not in kit.encode()


def test_t26_spaces_and_line_ends_of_a_scan_do_not_matter() -> None:
    kit = write_kit(ACME, new_private_key(), new_code(), START)
    scanned = "\r\n".join(f"{line}  " for line in kit.splitlines())

    assert read_kit(f"\n\n{scanned}\n").namespace == ACME


def test_t26_a_kit_with_any_line_changed_is_refused() -> None:
    lines = write_kit(ACME, new_private_key(), new_code(), START).splitlines()
    for index, line in enumerate(lines):
        if not line:
            continue
        changed = [
            *lines[:index],
            line[:-1] + ("a" if line[-1] != "a" else "b"),
            *lines[index + 1 :],
        ]
        with pytest.raises(DamagedKit):
            read_kit("\n".join(changed))
        with pytest.raises(DamagedKit):
            read_kit("\n".join(lines[:index] + lines[index + 1 :]))
    with pytest.raises(DamagedKit):
        read_kit("")


def test_t26_a_kit_without_its_parts_is_damaged() -> None:
    body = "SEALIFT RECOVERY KIT\n"

    with pytest.raises(DamagedKit):
        read_kit(f"{body}checksum: {sha256_bytes(body.encode())[:12]}\n")


def test_t26_another_code_does_not_open_the_kit() -> None:
    kit = write_kit(ACME, new_private_key(), new_code(), START)
    lines = [
        f"code: {new_code()}" if line.startswith("code:") else line for line in kit.splitlines()
    ]
    body = "\n".join(lines[:-1]) + "\n"

    with pytest.raises(WrongPassphrase):
        read_kit(f"{body}checksum: {sha256_bytes(body.encode())[:12]}\n")


# --- T27, and the choice of the fallback ------------------------------------------------------


def test_the_open_release_is_the_next_ones_fallback(office: Office) -> None:
    first = office.acme.release("1.0.0")
    office.acme.release("1.1.0")
    office.acme.channel(first)
    move = office.move("1.1.0")

    channel = next_channel(office.home, office.admit(), move)

    assert channel.fallback is not None
    assert channel.fallback.sha256 == first.sha256
    assert channel.fallback.until == START + 7 * DAY_S
    assert channel.sequence == 2


def test_a_release_not_yet_open_to_all_is_no_fallback(office: Office) -> None:
    first, second = office.acme.release("1.0.0"), office.acme.release("1.1.0")
    office.acme.release("1.2.0")
    stages = (Stage(basis_points=10_000, not_before=START + 1),)
    office.acme.channel(second, fallback=first, stages=stages)

    channel = next_channel(office.home, office.admit(), office.move("1.2.0"))

    assert channel.fallback is not None
    assert channel.fallback.sha256 == first.sha256


def test_a_new_plan_for_the_same_release_keeps_salt_and_fallback(office: Office) -> None:
    first, second = office.acme.release("1.0.0"), office.acme.release("1.1.0")
    before = office.acme.channel(second, fallback=first)

    channel = next_channel(office.home, office.admit(), office.move("1.1.0"))

    assert channel.rollout.salt == before.rollout.salt
    assert channel.rollout.id != before.rollout.id
    assert channel.fallback is not None
    assert channel.fallback.sha256 == first.sha256
    other = next_channel(office.home, office.admit(), office.move("1.0.0"))
    assert other.rollout.salt != before.rollout.salt


def test_t27_a_release_that_was_held_by_anyone_is_never_a_fallback(office: Office) -> None:
    """Halted by a colleague, and the channel has long moved on since."""
    first, second = office.acme.release("1.0.0"), office.acme.release("1.1.0")
    for version in ("1.2.0", "1.3.0"):
        office.acme.release(version)
    held = office.acme.channel(second, fallback=first)
    office.acme.hold(held.rollout.id, HoldState.HALTED)
    third = next_channel(office.home, office.admit(), office.move("1.2.0"))
    assert third.fallback is not None
    assert third.fallback.sha256 == first.sha256
    assert third.release is not None
    office.acme.channel(third.release, 2, fallback=first)
    office.admit()

    with pytest.raises(ChannelRefused, match="halted or reverted"):
        next_channel(office.home, office.admit(), office.move("1.3.0", fallback="1.1.0"))


def test_t27_a_release_whose_hold_was_ordered_here_is_remembered(office: Office) -> None:
    first = office.acme.release("1.0.0")
    office.acme.release("1.1.0")
    office.acme.channel(first)
    office.home.remember_held(first.sha256)

    channel = next_channel(office.home, office.admit(), office.move("1.1.0"))

    assert channel.fallback is None


@pytest.mark.parametrize("severity", [Severity.NO_NEW, Severity.STOP])
def test_a_revoked_release_is_no_fallback(office: Office, severity: Severity) -> None:
    first = office.acme.release("1.0.0")
    office.acme.release("1.1.0")
    office.acme.channel(first)
    office.acme.stop(first, severity)

    assert next_channel(office.home, office.admit(), office.move("1.1.0")).fallback is None


def test_a_fallback_below_the_floor_is_refused(office: Office) -> None:
    first = office.acme.release("1.0.0")
    office.acme.release("1.1.0")
    office.acme.channel(first)

    chosen = next_channel(office.home, office.admit(), office.move("1.1.0", floor="1.1.0"))

    assert chosen.fallback is None
    move = office.move("1.1.0", floor="1.1.0", fallback="1.0.0")
    with pytest.raises(ChannelRefused, match="below the floor"):
        next_channel(office.home, office.admit(), move)


def test_an_urgent_release_cannot_be_reverted(office: Office) -> None:
    office.acme.channel(office.acme.release("1.0.0"))
    office.acme.release("1.1.0")

    channel = next_channel(office.home, office.admit(), office.move("1.1.0", urgent=True))

    assert channel.fallback is not None
    assert channel.fallback.until == 0


def test_a_rollback_goes_to_the_fallback_and_has_none_itself(office: Office) -> None:
    first, second = office.acme.release("1.0.0"), office.acme.release("1.1.0")
    office.acme.channel(second, fallback=first)
    admitted = office.admit()

    channel = next_channel(office.home, admitted, rollback_move(admitted, MODEL, STABLE, None))

    assert channel.release == first
    assert channel.fallback is None
    assert channel.rollout.stages == ()
    assert channel.sequence == 2


def test_without_a_fallback_a_rollback_names_its_release(office: Office) -> None:
    office.acme.channel(office.acme.release("1.0.0"))

    with pytest.raises(ChannelRefused, match="no fallback"):
        rollback_move(office.admit(), MODEL, STABLE, None)


# --- T29 --------------------------------------------------------------------------------------


def test_t29_marks_travel_with_an_invite_and_a_new_home_goes_not_below(tmp_path: Path) -> None:
    acme = SignedNamespace()
    channel = acme.channel(acme.release("1.0.0"))
    old = acme.published()
    acme.hold(channel.rollout.id, HoldState.HALTED)
    first = Device.joined(tmp_path / "first", acme)
    first.admit(acme)
    acme.clock.pass_s(60)
    acme.channel(acme.release("1.1.0"), 2)
    first.admit(acme)

    marks = first.memory.for_invite((MODEL,))

    expected = {layout.STOP, *layout.TOP_LEVEL, *map(str, layout.artifact_roles(MODEL))}
    assert set(marks.roles) == expected
    assert marks.channels["model:stable"].sequence == 2
    assert marks.final == {channel.rollout.id: "halted"}
    memory = type(first.memory).from_invite(marks)
    second = Device.joined(tmp_path / "second", acme, memory=memory)
    with pytest.raises(RuleViolation) as refused:
        second.admit(acme, old)
    assert refused.value.rule == "T3"
    assert not second.admit(acme).problems
    assert isinstance(second.clock, FakeClock)
    assert json.loads(marks.model_dump_json())["final"] == {channel.rollout.id: "halted"}
