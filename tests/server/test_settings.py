"""Settings: what cannot be is refused with file and key, before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.server.settings import InvalidSettings, load_settings


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("workers = many", "line 1, column 11"),
        ('workers = "many"', "workers"),
        ("workers = 0", "workers"),
        ("drain_s = -1", "drain_s"),
        ("drain_s = nan", "drain_s"),
        ('colour = "blue"', "colour"),
        ('blobs = "tape"', "blobs"),
        ('blobs = "s3"\n[s3]\nendpoint = 1', "s3.endpoint"),
    ],
)
def test_damaged_settings_are_named_by_file_and_key(
    tmp_path: Path, content: str, named: str
) -> None:
    (tmp_path / "settings.toml").write_text(content)
    with pytest.raises(InvalidSettings) as refused:
        load_settings(tmp_path)
    assert named in refused.value.message
    assert str(tmp_path / "settings.toml") in refused.value.message


def test_a_damaged_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALIFT_SERVER_S3", "{")
    with pytest.raises(InvalidSettings, match="s3") as refused:
        load_settings(tmp_path)
    assert "SEALIFT_SERVER_" in refused.value.message


def test_the_command_line_wins_over_variables_and_they_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.toml").write_text('listen = "127.0.0.1:1"\nhttp = "127.0.0.1:2"')
    monkeypatch.setenv("SEALIFT_SERVER_HTTP", "127.0.0.1:3")
    assert load_settings(tmp_path).listen == "127.0.0.1:1"
    assert load_settings(tmp_path).http == "127.0.0.1:3"
    assert load_settings(tmp_path, http="127.0.0.1:4").http == "127.0.0.1:4"


@pytest.mark.parametrize("key", ["listen", "http"])
@pytest.mark.parametrize("address", ["0.0.0.0:1", "192.0.2.1:1", "example.org:1", "[::]:1", ":1"])
def test_an_address_off_loopback_is_refused(tmp_path: Path, key: str, address: str) -> None:
    with pytest.raises(InvalidSettings, match="no TLS yet") as refused:
        load_settings(tmp_path, **{key: address})
    assert f"--{key} {address}" in refused.value.message


@pytest.mark.parametrize("address", ["", "x", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536"])
def test_what_is_no_address_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidSettings, match="--listen"):
        load_settings(tmp_path, listen=address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:1", "localhost:1"])
def test_loopback_is_taken(tmp_path: Path, address: str) -> None:
    assert load_settings(tmp_path, listen=address).listen == address
