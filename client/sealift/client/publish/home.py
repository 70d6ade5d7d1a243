"""A publisher's home on disk, one folder a namespace.

publisher/NS/settings.toml   the owner's: server, keys by role
publisher/NS/root.json       newest admitted root
publisher/NS/state.json      marks, and releases whose rollouts were ever held
publisher/NS/token           the home's credential
publisher/NS/keys/ID         encrypted keys
publisher/NS/recovery-kit.txt until it was printed and put away
publisher/NS/journal.jsonl   what each key signed (rule T25)
publisher/NS/trust/          a cache that verifies
publisher/NS/push/           hashes of files, and sets that were signed but not yet submitted
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealift.client.trust.admission import Problem
from sealift.client.trust.memory import Memory
from sealift.client.trust.scratch import Generations
from sealift.client.trust.session import NamespaceTrust
from sealift.host.clock import Clock, SystemClock
from sealift.host.files import (
    FileLock,
    Step,
    make_folder,
    no_step,
    read_or_none,
    sync_folder,
    write_atomically,
    writing,
)
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Digest, Namespace

SCHEMA = 1


class DamagedHome(SealiftError):
    """A file of a publisher's home cannot be read."""


class NoPublisherHome(SealiftError):
    """This home publishes nothing, or not in that namespace."""


class Settings(BaseModel):
    """`settings.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str
    keys: Mapping[str, tuple[str, ...]]
    """Key URIs by role, `*` for every role; `file:ID` is a file in the home's `keys`."""

    def encode(self) -> bytes:
        """The file's bytes."""
        lines = ["# This home's owner may change this file.", f"server = {json.dumps(self.server)}"]
        lines += ["", "[keys]"]
        lines += [
            f"{json.dumps(role)} = {json.dumps(list(uris))}" for role, uris in self.keys.items()
        ]
        return ("\n".join(lines) + "\n").encode()


class PublisherState(BaseModel):
    """`state.json`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    version: int = Field(default=SCHEMA, alias="schema")
    memory: Memory = Memory()
    held: tuple[Digest, ...] = ()
    """T27: releases whose rollout was ever halted or reverted, by any hold seen or ordered."""


class JournalEntry(BaseModel):
    """One signature (rule T25)."""

    model_config = ConfigDict(frozen=True)

    role: str
    version: int
    sha256: Digest
    key: str
    at: int


@dataclass(frozen=True, slots=True)
class PublisherHome:
    """One namespace's part of a publisher's home."""

    folder: Path
    namespace: Namespace
    clock: Clock
    step: Step = no_step

    @classmethod
    def at(
        cls, home: Path, namespace: Namespace, *, clock: Clock | None = None, step: Step = no_step
    ) -> PublisherHome:
        """The namespace's part of the home at a path."""
        return cls(home / "publisher" / namespace, namespace, clock or SystemClock(), step)

    @property
    def exists(self) -> bool:
        """True if `init` or `join` went through here."""
        return (self.folder / "root.json").exists()

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Holds the home's lock: one command signs at a time."""
        with FileLock(self.folder / "lock").held(purpose=purpose):
            yield

    def settings(self) -> Settings:
        """The owner's settings.

        Raises:
            DamagedHome: If the file is missing or damaged.
        """
        path = self.folder / "settings.toml"
        data = read_or_none(path)
        if data is None:
            raise DamagedHome(
                f"{path} is not there", hint=f"Run `sealift init {self.namespace}` again."
            )
        try:
            return Settings.model_validate(tomllib.loads(data.decode()))
        except (ValidationError, ValueError) as error:
            detail = (
                f"{'.'.join(map(str, error.errors()[0]['loc']))}: {error.errors()[0]['msg']}"
                if isinstance(error, ValidationError)
                else str(error)
            )
            raise DamagedHome(f"{path} is damaged: {detail}", hint="Mend that line.") from error

    def token(self) -> str | None:
        """The home's credential."""
        data = read_or_none(self.folder / "token")
        return data.decode().strip() if data else None

    @property
    def kit_file(self) -> Path:
        """Where the recovery kit lies until it was put away."""
        return self.folder / "recovery-kit.txt"

    # --- state --------------------------------------------------------------------------

    def state(self) -> PublisherState:
        """What the home remembers.

        Raises:
            DamagedHome: If the file is damaged or too new.
        """
        path = self.folder / "state.json"
        data = read_or_none(path)
        if data is None:
            return PublisherState()
        try:
            state = PublisherState.model_validate_json(data)
        except ValidationError as error:
            raise DamagedHome(
                f"{path} is damaged: {error.errors()[0]['msg']}",
                hint="It holds what this home must not forget; restore it from a backup.",
            ) from error
        if state.version > SCHEMA:
            raise DamagedHome(f"{path} was written by a newer Sealift", hint="Update Sealift.")
        return state

    def save(self, state: PublisherState) -> None:
        """Remembers, durably."""
        make_folder(self.folder)
        data = state.model_dump_json(by_alias=True, indent=1).encode() + b"\n"
        write_atomically(self.folder / "state.json", data, step=self.step)

    def remember_held(self, *releases: Digest) -> None:
        """T27: releases whose rollout was halted or reverted."""
        state = self.state()
        new = tuple(one for one in releases if one not in state.held)
        if new:
            self.save(state.model_copy(update={"held": (*state.held, *new)}))

    def trust(self) -> NamespaceTrust:
        """The namespace's trust, for every artifact."""
        return NamespaceTrust(
            self.namespace,
            self.folder / "root.json",
            Generations(self.folder / "trust"),
            _PublisherMemory(self),
            self.clock,
            None,
            self.step,
        )

    # --- journal ------------------------------------------------------------------------

    def journal(self) -> list[JournalEntry]:
        """What each key signed, oldest first; a line that was cut off is left out."""
        entries = []
        for line in (read_or_none(self.folder / "journal.jsonl") or b"").splitlines():
            try:
                entries.append(JournalEntry.model_validate_json(line))
            except ValidationError:
                continue
        return entries

    def journal_version(self, role: str) -> int:
        """The highest version of a role that a key of this home signed; 0 if none."""
        return max((entry.version for entry in self.journal() if entry.role == role), default=0)

    def write_journal(self, entries: list[JournalEntry]) -> None:
        """T25: writes what is about to be signed, durably, before the signatures leave."""
        path = self.folder / "journal.jsonl"
        existed = path.exists()
        with writing(path), path.open("ab") as file:
            if existed and file.tell() and not _ends_with_newline(path):
                file.write(b"\n")
            for entry in entries:
                file.write(entry.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not existed:
            sync_folder(path.parent)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def publisher_namespaces(home: Path) -> list[Namespace]:
    """The namespaces in which a home publishes."""
    folder = home / "publisher"
    if not folder.is_dir():
        return []
    return sorted(Namespace(one.name) for one in folder.iterdir() if (one / "root.json").exists())


@dataclass(frozen=True, slots=True)
class _PublisherMemory:
    """A namespace's memory within its `state.json`."""

    home: PublisherHome

    def load(self) -> Memory:
        return self.home.state().memory

    def save(self, memory: Memory, problems: Mapping[str, Problem], *, step: Step) -> None:
        del problems  # a publisher's command shows them itself, at once
        state = self.home.state()
        following = memory.beside(state.memory)
        if state.memory != following:
            self.home.save(state.model_copy(update={"memory": following}))
        step("admission:remembered")

    def problems(self) -> Mapping[str, Problem]:
        return {}
