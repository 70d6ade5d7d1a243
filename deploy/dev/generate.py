"""Makes the Python code of the wire contract, `proto/sealift/v1/*_pb2*`, which is committed.

`generate.py` writes it. `generate.py --check` writes it to a temporary folder instead and exits 1
with the differences if the committed code is not what the contract says.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parents[2] / "proto"
CONTRACT = PROTO / "sealift" / "v1"


def generate(out: Path) -> None:
    """Writes the code of every contract file below `out`.

    Raises:
        SystemExit: If a contract file does not compile.
    """
    plugins = Path(sys.executable).parent
    sources = sorted(str(source.relative_to(PROTO)) for source in CONTRACT.glob("*.proto"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--proto_path={PROTO}",
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ],
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)


def generated(root: Path) -> dict[str, str]:
    """The generated files below `root`, by name."""
    return {path.name: path.read_text() for path in (root / "sealift/v1").glob("*_pb2*.py*")}


def check() -> int:
    """Prints how the committed code differs from the contract; 1 if it does, else 0."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        wanted = generated(Path(folder))
    committed = generated(PROTO)
    stale = sorted(
        name for name in wanted.keys() | committed.keys() if wanted.get(name) != committed.get(name)
    )
    for name in stale:
        before = committed.get(name, "").splitlines(keepends=True)
        after = wanted.get(name, "").splitlines(keepends=True)
        sys.stderr.writelines(difflib.unified_diff(before, after, f"{name} (committed)", name))
    if stale:
        print(f"{', '.join(stale)}: not what the contract says; run `make generate`.")
    return 1 if stale else 0


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if parser.parse_args().check:
        return check()
    for name in generated(PROTO):
        (CONTRACT / name).unlink()
    generate(PROTO)
    return 0


if __name__ == "__main__":
    sys.exit(main())
