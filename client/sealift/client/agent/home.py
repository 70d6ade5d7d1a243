"""A device's home on disk.

device/settings.toml          the owner's
device/identity/secret        32 random bytes beside a hash of the machine id
device/identity/NS/root.json  newest admitted root
device/identity/NS/token      the device's credential
device/state.json             what must never be forgotten
device/active.json            the one pointer
device/history.jsonl          what happened, for people
device/trust/ device/store/   caches that verify
device/lock                   guards state and pointer, held for moments
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealift.client.agent.state import DeviceState, JoinedNamespace, ProblemRecord
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
    write_atomically,
    writing,
)
from sealift.protocol.names import Namespace

MACHINE_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
OPEN_FOLDER = 0o755
OPEN_FILE = 0o644
HISTORY_LIMIT_BYTES = 512 * 1024
HISTORY_KEPT_BYTES = HISTORY_LIMIT_BYTES // 2


def machine_id() -> bytes:
    """What tells this machine from its clones; empty where the system has none."""
    for path in MACHINE_ID_FILES:
        data = read_or_none(path)
        if data and data.strip():
            return data.strip()
    return b""


@dataclass(frozen=True, slots=True)
class DeviceHome:
    """The device's part of a home.

    Attributes:
        folder: `HOME/device`.
        clock: The machine's clocks.
        step: The crash hook.
    """

    folder: Path
    clock: Clock
    step: Step = no_step

    @classmethod
    def at(cls, home: Path, *, clock: Clock | None = None, step: Step = no_step) -> DeviceHome:
        """The device's part of the home at a path."""
        return cls(home / "device", clock or SystemClock(), step)

    @property
    def exists(self) -> bool:
        """True if this home has ever joined anything."""
        return (self.folder / "state.json").exists()

    @property
    def store_folder(self) -> Path:
        """The folder of verified releases."""
        return self.folder / "store"

    @property
    def pointer_file(self) -> Path:
        """The one pointer."""
        return self.folder / "active.json"

    @contextmanager
    def locked(self, purpose: str) -> Iterator[None]:
        """Holds the home's lock for a moment, never across the network.

        Raises:
            HomeLocked: If another process holds it for over 10 s.
        """
        self._prepare()
        with FileLock(self.folder / "lock").held(purpose=purpose):
            yield

    def _prepare(self) -> None:
        """Apps of other users read pointer, state and releases; only `identity` is secret."""
        make_folder(self.folder, OPEN_FOLDER)
        make_folder(self.folder / "identity")

    # --- state --------------------------------------------------------------------------

    def state(self) -> DeviceState:
        """What the device remembers.

        Raises:
            DamagedState: If the file is damaged or too new.
        """
        path = self.folder / "state.json"
        data = read_or_none(path)
        return DeviceState.parse(data, str(path)) if data is not None else DeviceState()

    def change(
        self, what: str, change: Callable[[DeviceState], DeviceState], *, locked: bool = False
    ) -> DeviceState:
        """Changes the state, durably when it returns.

        Args:
            what: For those who wait for the lock.
            change: From the newest state to the next.
            locked: True if the caller holds the lock.
        """
        if locked:
            before = self.state()
            after = change(before)
            if after != before or not self.exists:
                path = self.folder / "state.json"
                write_atomically(path, after.encode(), mode=OPEN_FILE, step=self.step)
            return after
        with self.locked(what):
            return self.change(what, change, locked=True)

    # --- identity -----------------------------------------------------------------------

    def identity_folder(self, namespace: Namespace) -> Path:
        """Where a namespace's root and token lie."""
        return self.folder / "identity" / namespace

    def secret(self) -> bytes:
        """The device's 32 secret bytes, of which its tickets are made; never sent.

        They belong to this machine: on a clone of its disk they are drawn anew.
        """
        path = self.folder / "identity" / "secret"
        machine = hashlib.sha256(b"sealift" + machine_id()).hexdigest()
        data = read_or_none(path)
        if data is not None:
            try:
                said = json.loads(data)
                if said["machine"] == machine and len(said["secret"]) == 64:
                    return bytes.fromhex(said["secret"])
            except (ValueError, KeyError, TypeError):
                pass  # damaged: drawn anew, which only changes this device's places
        secret = secrets.token_bytes(32)
        self._prepare()
        content = json.dumps({"machine": machine, "secret": secret.hex()}).encode()
        write_atomically(path, content, step=self.step)
        return secret

    def token(self, namespace: Namespace) -> str | None:
        """The credential for a namespace's server."""
        data = read_or_none(self.identity_folder(namespace) / "token")
        return data.decode().strip() if data else None

    # --- trust --------------------------------------------------------------------------

    def trust(self, namespace: Namespace, state: DeviceState) -> NamespaceTrust:
        """A namespace's trust, for the artifacts that are followed or pinned."""
        wanted = (one.artifact for one in state.artifacts() if one.namespace == namespace)
        return NamespaceTrust(
            namespace,
            self.identity_folder(namespace) / "root.json",
            Generations(self.folder / "trust" / namespace),
            _DeviceMemory(self, namespace),
            self.clock,
            tuple(wanted),
            self.step,
        )

    # --- history ------------------------------------------------------------------------

    def record(self, event: str, **fields: Any) -> None:
        """Writes a line of what happened, for people; the oldest lines go."""
        path = self.folder / "history.jsonl"
        line = json.dumps({"at": self.clock.wall(), "event": event, **fields}) + "\n"
        with writing(path):
            if path.exists() and path.stat().st_size > HISTORY_LIMIT_BYTES:
                kept = path.read_bytes()[-HISTORY_KEPT_BYTES:].partition(b"\n")[2]
                write_atomically(path, kept)
            with path.open("a") as file:
                file.write(line)

    def history(self) -> list[dict[str, Any]]:
        """What happened, oldest first; a line that was cut off is left out."""
        events = []
        for line in (read_or_none(self.folder / "history.jsonl") or b"").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


@dataclass(frozen=True, slots=True)
class _DeviceMemory:
    """A namespace's memory within `state.json`."""

    home: DeviceHome
    namespace: Namespace

    def load(self) -> Memory:
        return self.home.state().joined(self.namespace).memory

    def save(self, memory: Memory, problems: Mapping[str, Problem], *, step: Step) -> None:
        records = {role: ProblemRecord.of(problem) for role, problem in problems.items()}

        def change(state: DeviceState) -> DeviceState:
            joined = state.joined(self.namespace)
            update = {
                "memory": memory.beside(joined.memory),
                "problems": records,
                "admitted_at": joined.admitted_at if "" in problems else self.home.clock.wall(),
            }
            return state.with_namespace(self.namespace, joined.model_copy(update=update))

        self.home.change("admission", change)
        step("admission:remembered")

    def problems(self) -> Mapping[str, Problem]:
        joined: JoinedNamespace = self.home.state().joined(self.namespace)
        return {role: record.problem() for role, record in joined.problems.items()}
