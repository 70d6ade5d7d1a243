"""Tokens: `sl_ROLE_…` of 32 random bytes, made by the caller, known to the server as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Literal

TokenRole = Literal["admin", "publisher", "device", "viewer", "invite"]
_TOKEN = re.compile(r"sl_(admin|publisher|device|viewer|invite)_[A-Za-z0-9_-]{43}")


def make_token(role: TokenRole) -> str:
    """A new token."""
    return f"sl_{role}_{secrets.token_urlsafe(32)}"


def is_token(text: str) -> bool:
    """True if the text has a token's form."""
    return _TOKEN.fullmatch(text) is not None


def token_sha256(token: str) -> bytes:
    """What the server stores: 32 bytes."""
    return hashlib.sha256(token.encode()).digest()
