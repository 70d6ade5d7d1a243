"""Beginning a namespace. Run again after an interruption, it continues with what is there."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Key, SSlibKey

from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import PublisherHome, Settings
from sealift.client.publish.keyring import ANY_ROLE, Keyring
from sealift.client.publish.recovery_kit import new_code, read_kit, write_kit
from sealift.client.publish.signing import NextState, SignedSet
from sealift.host.files import make_folder, read_or_none, write_atomically
from sealift.host.hashing import sha256_bytes
from sealift.host.rpc import ServerRefused
from sealift.host.signers import decode_private_key, new_private_key, signer_of, write_key
from sealift.host.tokens import make_token, token_sha256
from sealift.protocol import layout, metadata
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Digest
from sealift.protocol.reasons import Reason

DAILY_KEY = "daily"


class AlreadyInitialised(SealiftError):
    """The namespace is there, and this home has it."""


@dataclass(frozen=True, slots=True)
class Initialised:
    """What `init` did.

    Attributes:
        root_sha256: The root's fingerprint, to be compared by those who join.
        kit: Where the recovery kit lies.
        public: True if anyone may read.
    """

    root_sha256: Digest
    kit: Path
    public: bool


@dataclass(frozen=True, slots=True)
class Initialiser:
    """Begins one namespace.

    Attributes:
        home: The home to be.
        admin: A connection with a token that may create.
        server: The server's address, as it is remembered.
        passphrase: For the daily key.
        kit_file: Where the kit goes.
        public: True to let anyone read.
    """

    home: PublisherHome
    admin: PublisherConnection
    server: str
    passphrase: bytes
    kit_file: Path
    public: bool

    def run(self) -> Initialised:
        """Makes keys, kit and namespace, signs the first root and submits it.

        Raises:
            AlreadyInitialised: If this home has the namespace already.
            ServerRefused: If the name is taken, or the token may not create.
        """
        progress = self._progress()
        if progress is None and self.home.exists:
            raise AlreadyInitialised(
                f"{self.home.namespace} is there, in {self.home.folder}",
                hint="See it: sealift status",
            )
        new = progress is None
        progress = progress or {
            "request_id": secrets.token_hex(16),
            "token": make_token("publisher"),
            "kit": str(self.kit_file),
            "public": self.public,
        }
        self._save(progress)
        try:
            online = self._create(progress)
        except ServerRefused:
            if new:  # nothing half-done stays behind
                shutil.rmtree(self.home.folder)
            raise
        self.home.step("init:created")
        write_atomically(self.home.folder / "token", progress["token"].encode())
        daily = self._daily_key()
        kit = Path(progress["kit"])
        recovery = self._recovery_key(kit)
        self.home.step("init:keys")
        if "set" not in progress:
            progress["set"] = self._sign(daily, recovery, online)
            self._save(progress)
        self.home.step("init:signed")
        signed = _decode_set(progress["set"])
        root = signed.files[layout.ROOT]
        connection = replace(self.admin, token=progress["token"])
        connection.submit(self.home.namespace, signed)
        self.home.step("init:submitted")
        write_atomically(self.home.folder / "root.json", root)
        connection.admit(self.home.trust())
        (self.home.folder / "push" / "init.json").unlink()
        return Initialised(sha256_bytes(root), kit, progress["public"])

    # --- what is there ----------------------------------------------------------------------

    def _progress(self) -> dict[str, Any] | None:
        data = read_or_none(self.home.folder / "push" / "init.json")
        if data is None:
            return None
        found: dict[str, Any] = json.loads(data)
        return found

    def _save(self, progress: dict[str, Any]) -> None:
        make_folder(self.home.folder / "push")
        data = json.dumps(progress).encode()
        write_atomically(self.home.folder / "push" / "init.json", data, step=self.home.step)

    def _create(self, progress: dict[str, Any]) -> Key:
        answer = self.admin.create_namespace(
            self.home.namespace,
            progress["request_id"],
            token_sha256(progress["token"]),
            public=progress["public"],
        )
        try:
            return Key.from_dict(answer.online_key_id, json.loads(answer.online_key))
        except (ValueError, KeyError, TypeError) as error:
            raise ServerRefused(
                Reason.MALFORMED, "the server answered with no usable online key"
            ) from error

    def _daily_key(self) -> Ed25519PrivateKey:
        folder = self.home.folder / "keys"
        if not (folder / DAILY_KEY).exists():
            make_folder(folder)
            write_key(folder / DAILY_KEY, new_private_key(), self.passphrase, step=self.home.step)
        settings = Settings(server=self.server, keys={ANY_ROLE: (f"file:{DAILY_KEY}",)})
        write_atomically(self.home.folder / "settings.toml", settings.encode())
        data = (folder / DAILY_KEY).read_bytes()
        return decode_private_key(data, self.passphrase, DAILY_KEY)

    def _keyring(self) -> Keyring:
        return Keyring(self.home, lambda _: self.passphrase)

    def _recovery_key(self, kit: Path) -> Key:
        text = read_or_none(kit)
        if text is not None:
            found = read_kit(text.decode())
            if found.namespace != self.home.namespace:
                raise SealiftError(
                    f"{kit} is the recovery kit of {found.namespace}",
                    hint="Give another --recovery-kit FILE.",
                )
            private = found.private
        else:
            private = new_private_key()
            made = write_kit(self.home.namespace, private, new_code(), self.home.clock.wall())
            make_folder(kit.parent)
            write_atomically(kit, made.encode(), mode=0o600, step=self.home.step)
        return SSlibKey.from_crypto(private.public_key())

    def _sign(self, daily: Ed25519PrivateKey, recovery: Key, online: Key) -> dict[str, Any]:
        public = signer_of(daily).public_key
        state = NextState(self.home, None)
        state.create_namespace([public, recovery], public, online)
        signed, _ = state.sign(self._keyring(), metadata.subject_public_key_info(online))
        return _encode_set(signed)


def _encode_set(signed: SignedSet) -> dict[str, Any]:
    return {
        "request_id": signed.request_id,
        "files": {role: base64.b64encode(data).decode() for role, data in signed.files.items()},
    }


def _decode_set(said: dict[str, Any]) -> SignedSet:
    files = {role: base64.b64decode(data) for role, data in said["files"].items()}
    return SignedSet(said["request_id"], {}, files, {})
