"""The recovery kit: a second root key on paper (rule T26).

Text with a checksum. The key in it is encrypted under a random code that is printed on the kit and
kept nowhere else.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealift.host.signers import decode_private_key, encode_private_key
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import Namespace

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no letter that is read as a digit."""
_GROUPS = 5
_GROUP = 5
_TITLE = "SEALIFT RECOVERY KIT"


class DamagedKit(SealiftError):
    """A kit that cannot be read."""


@dataclass(frozen=True, slots=True)
class RecoveryKit:
    """A kit's content."""

    namespace: Namespace
    private: Ed25519PrivateKey


def new_code() -> str:
    """A random code of 125 bits, in groups that can be read aloud."""
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))
    return "-".join(groups)


def write_kit(namespace: Namespace, private: Ed25519PrivateKey, code: str, made: int) -> str:
    """The kit's text.

    Args:
        namespace: Whose root key it is.
        private: The key.
        code: From `new_code`.
        made: Unix seconds.
    """
    key = encode_private_key(private, code.encode()).decode().strip()
    body = "\n".join(
        [
            _TITLE,
            "",
            f"namespace: {namespace}",
            f"made: {datetime.fromtimestamp(made, UTC):%Y-%m-%d}",
            f"code: {code}",
            "",
            "This is a root key: it replaces every other key of the namespace.",
            "Print it, seal it, put it where a fire or a thief does not find it together",
            "with your daily key, and delete the file.",
            "",
            key,
            "",
        ]
    )
    return f"{body}checksum: {_checksum(body)}\n"


def read_kit(text: str) -> RecoveryKit:
    """Reads a kit, typed or scanned; spaces at the ends of lines do not matter.

    Raises:
        DamagedKit: If a line is wrong; the checksum tells.
    """
    lines = [line.rstrip() for line in text.strip().splitlines()]
    fields = dict(line.split(": ", 1) for line in lines if ": " in line and not line.endswith("."))
    body = "\n".join(lines[:-1]) + "\n"
    if not lines or lines[0] != _TITLE or fields.get("checksum") != _checksum(body):
        raise DamagedKit(
            "this is not a whole recovery kit: its checksum is wrong",
            hint="Compare each line with the paper.",
        )
    begins = [index for index, line in enumerate(lines) if line.startswith("-----BEGIN")]
    if not begins or not {"code", "namespace"} <= fields.keys():
        raise DamagedKit("this recovery kit has no key, no code or no namespace in it")
    key = "\n".join(lines[begins[0] : -1]) + "\n"
    private = decode_private_key(key.encode(), fields["code"].encode(), "the recovery kit")
    return RecoveryKit(Namespace(fields["namespace"]), private)


def _checksum(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]
