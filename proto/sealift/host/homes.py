"""Where a home is, for the commands and for apps alike."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "SEALIFT_HOME"


def default_home() -> Path:
    """The home that is used when none is named: `SEALIFT_HOME`, else the user's data folder."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    return platformdirs.user_data_path("sealift", appauthor=False)


def device_folder(home: Path) -> Path:
    """The device's part of a home."""
    return home / "device"


def store_folder(home: Path) -> Path:
    """The device's folder of verified releases."""
    return device_folder(home) / "store"


def active_file(home: Path) -> Path:
    """The one pointer: which release of each artifact is active."""
    return device_folder(home) / "active.json"


def state_file(home: Path) -> Path:
    """What the device must not forget, such as the releases that it left."""
    return device_folder(home) / "state.json"
