"""Keys by URI: `file:PATH` is an encrypted (or, for a server's online key, plain) OpenSSH file.

Passphrases cost about 0.4 s to try: bcrypt with 64 rounds and more.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bcrypt  # noqa: F401 - the OpenSSH format needs it; fail at import, not at the first key
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from sealift.host.files import Step, no_step, read_or_none, write_atomically
from sealift.protocol.errors import SealiftError

BCRYPT_ROUNDS = 64

Passphrase = Callable[[str], bytes | None]
"""Asks for the passphrase of a key; the argument says which one. None: there is none to be had."""


class KeyUnavailable(SealiftError):
    """A key that cannot be opened: missing, damaged, or locked by a passphrase."""


class WrongPassphrase(KeyUnavailable):
    """The passphrase does not open the key."""


def new_private_key() -> Ed25519PrivateKey:
    """A new Ed25519 key."""
    return Ed25519PrivateKey.generate()


def signer_of(private: Ed25519PrivateKey) -> CryptoSigner:
    """A signer for a private key, with TUF's own key id."""
    return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))


def encode_private_key(
    private: Ed25519PrivateKey, passphrase: bytes | None, rounds: int = BCRYPT_ROUNDS
) -> bytes:
    """The OpenSSH file of a key; None leaves it unencrypted."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        builder = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(rounds)
        encryption = builder.build(passphrase)
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)


def decode_private_key(data: bytes, passphrase: bytes | None, name: str) -> Ed25519PrivateKey:
    """Reads an OpenSSH file.

    Args:
        data: The file's bytes.
        passphrase: None for an unencrypted file.
        name: What the key is called in errors.

    Raises:
        WrongPassphrase: If it does not open the key.
        KeyUnavailable: If the file is damaged, or not an Ed25519 key.
    """
    try:
        private = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None and _is_openssh(data):
            raise WrongPassphrase(
                f"the passphrase does not open {name}",
                hint="Try again; nothing was changed.",
            ) from error
        raise KeyUnavailable(f"{name} is not a usable key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnavailable(f"{name} is not an Ed25519 key")
    return private


def _is_openssh(data: bytes) -> bool:
    return data.lstrip().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----") and (
        b"-----END OPENSSH PRIVATE KEY-----" in data
    )


def is_encrypted(data: bytes) -> bool:
    """True if the OpenSSH file asks for a passphrase."""
    try:
        load_ssh_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return "encrypted" in str(error).lower() or "password" in str(error).lower()
    return False


def write_key(
    path: Path, private: Ed25519PrivateKey, passphrase: bytes | None, *, step: Step = no_step
) -> None:
    """Writes a key's file, readable by its owner alone."""
    write_atomically(path, encode_private_key(private, passphrase), step=step)


def load_signer(uri: str, passphrase: Passphrase) -> CryptoSigner:
    """Opens the key that a URI names.

    Raises:
        KeyUnavailable: If it cannot be opened; the error says what to do.
    """
    scheme, colon, rest = uri.partition(":")
    if scheme != "file" or not colon:
        raise KeyUnavailable(
            f"keys of the kind {scheme!r} are not supported", hint="Use file:PATH."
        )
    path = Path(rest)
    data = read_or_none(path)
    if data is None:
        raise KeyUnavailable(f"the key {path} is not there", hint="Restore it from a backup.")
    secret = None
    if is_encrypted(data):
        secret = passphrase(path.name)
        if secret is None:
            raise KeyUnavailable(
                f"the key {path.name} needs its passphrase, and there is no terminal to ask on",
                hint="Set SEALIFT_PASSPHRASE, or give --passphrase-fd N.",
            )
    return signer_of(decode_private_key(data, secret, path.name))
