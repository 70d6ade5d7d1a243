"""A signed namespace and a device that has admitted its first state."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.repository import Device, SignedNamespace


@pytest.fixture
def acme() -> SignedNamespace:
    """A namespace with one artifact, `model`."""
    return SignedNamespace()


@pytest.fixture
def device(acme: SignedNamespace, tmp_path: Path) -> Device:
    """A device that trusts the first root and has admitted nothing yet."""
    return Device.joined(tmp_path / "home", acme)
