"""The server's settings: `HOME/settings.toml`, then variables that begin with `SEALIFT_SERVER_`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from sealift.host.rpc import is_loopback
from sealift.protocol.errors import SealiftError
from sealift.server.content.folder import FolderStore
from sealift.server.content.s3 import S3Store
from sealift.server.content.s3_bucket import S3Settings
from sealift.server.content.store import BlobStore

DEFAULT_LISTEN = "127.0.0.1:7443"
DEFAULT_HTTP = "127.0.0.1:7480"


class InvalidSettings(SealiftError):
    """A setting that cannot be."""


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="SEALIFT_SERVER_", env_nested_delimiter="__", extra="forbid"
    )

    home: Path
    listen: str = DEFAULT_LISTEN
    http: str = DEFAULT_HTTP
    database: str = ""
    """Empty: SQLite in the home."""
    blobs: Literal["folder", "s3"] = "folder"
    s3: S3Settings | None = None
    workers: int = Field(default=16, ge=1, le=1_000)
    """Threads for transactions and disks."""
    drain_s: float = Field(default=20.0, ge=0, le=3_600)
    """How long calls under way may go on when the server is asked to stop."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line wins over variables, variables over the file."""
        del dotenv_settings, file_secret_settings
        home = Path(init_settings()["home"])
        file = TomlConfigSettingsSource(settings_cls, home / "settings.toml")
        return init_settings, env_settings, file

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database or f"sqlite:///{self.home / 'sealift.db'}"

    def open_store(self) -> BlobStore:
        """The blob store.

        Raises:
            InvalidSettings: If S3 is asked for without saying where.
        """
        if self.blobs == "folder":
            return FolderStore(self.home / "blobs")
        if self.s3 is None:
            raise InvalidSettings(
                "blobs are to lie in S3, but there is no [s3] section",
                hint="Give endpoint, access_key, secret_key and bucket in settings.toml.",
            )
        return S3Store(self.s3)


def load_settings(home: Path, **given: Any) -> Settings:
    """Reads the settings.

    Args:
        home: The server's home.
        given: What the command line said; None is left out.

    Raises:
        InvalidSettings: If a setting cannot be; it names file, key and problem.
    """
    file = home / "settings.toml"
    try:
        settings = Settings(
            home=home, **{key: value for key, value in given.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(
            f"the setting {key} is wrong: {first['msg']}; it stands in {file} or in a variable "
            "SEALIFT_SERVER_…",
            hint="Mend it, or leave it out.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is damaged: {error}", hint="Mend that line.") from error
    for key in ("listen", "http"):
        _check_address(key, getattr(settings, key))
    return settings


def _check_address(key: str, text: str) -> None:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidSettings(f"--{key} {text!r} is not an address", hint="Write HOST:PORT.")
    if not is_loopback(host.strip("[]")):
        raise InvalidSettings(
            f"--{key} {text} is off loopback, and this version has no TLS yet",
            hint="Listen on 127.0.0.1, and put a proxy with TLS before it.",
        )
