"""The demo's real files: what is fetched is checked, what is not listed is refused."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from deploy.demo import files
from deploy.demo.files import RealFile, WrongFile, fetch

DATA = b'{"a": 1}'


def _listed(data: bytes = DATA) -> RealFile:
    sha256 = hashlib.sha256(data).hexdigest()
    return RealFile("pack", "1.0", "pack/en.json", "prompts", "en.json", len(data), sha256, "MIT")


class Registry:
    """Gives out wheels that it makes, and counts."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[str] = []

    def __call__(self, requirement: str, folder: Path) -> None:
        self.asked.append(requirement)
        with zipfile.ZipFile(folder / "pack-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("pack/en.json", self.data)


def test_a_listed_file_is_fetched_once(tmp_path: Path) -> None:
    registry = Registry(DATA)
    assert fetch([_listed()], tmp_path, registry)
    assert (tmp_path / "prompts" / "en.json").read_bytes() == DATA
    assert not fetch([_listed()], tmp_path, registry)
    assert registry.asked == ["pack==1.0"]


@pytest.mark.parametrize("other", [b'{"a": 2}', b'{"a": 1} ', b""])
def test_other_bytes_than_the_listed_ones_are_refused_and_not_kept(
    tmp_path: Path, other: bytes
) -> None:
    with pytest.raises(WrongFile, match=r"pack==1\.0 has other bytes"):
        fetch([_listed()], tmp_path, Registry(other))
    assert not list(tmp_path.rglob("*.json"))


def test_a_file_that_was_spoilt_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    registry = Registry(DATA)
    fetch([_listed()], tmp_path, registry)
    (tmp_path / "prompts" / "en.json").write_bytes(b"spoilt")
    assert fetch([_listed()], tmp_path, registry)
    assert (tmp_path / "prompts" / "en.json").read_bytes() == DATA


def test_the_list_says_all_of_each_file_and_no_registry() -> None:
    listed = files.listed()
    assert {one.package for one in listed} == {"magika", "crewai"}
    assert all(len(one.sha256) == 64 and one.size > 0 and one.licence for one in listed)
    assert len({(one.folder, one.name) for one in listed}) == len(listed)
    assert "://" not in files.LIST.read_text()
    assert json.loads(files.LIST.read_text())
