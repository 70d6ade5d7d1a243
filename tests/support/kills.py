"""Commands that are killed at a named step, and ones that tell which steps they take.

Each runs in a process of its own, forked from one that has the imports done, as hundreds of them
are run. The keys of tests are cheap to open: one round of bcrypt in place of many.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KILLED = 137
TIMEOUT_S = 120

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["sealift.client.cli.application", "sealift.client.cli.context"])


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


def run_sealift(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    trace: Path | None = None,
    kill: str = "",
    at: int = 1,
) -> Done:
    """Runs a `sealift` command in a process of its own.

    Args:
        arguments: After `sealift`.
        environment: Added to this process's.
        trace: A file that gets the name of each step before it is done.
        kill: The step before which the process ends at once, as by SIGKILL.
        at: At which time that this step comes, from 1.
    """
    with tempfile.TemporaryDirectory(prefix="sealift-") as folder:
        outputs = Path(folder) / "stdout", Path(folder) / "stderr"
        given = (list(arguments), dict(environment), outputs, trace, kill, at)
        process = _FORKS.Process(target=_child, args=given)
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{' '.join(arguments)} did not end within {TIMEOUT_S} s")
        stdout, stderr = (path.read_text() if path.exists() else "" for path in outputs)
        return Done(process.exitcode, stdout, stderr)


def _child(
    arguments: list[str],
    environment: dict[str, str],
    outputs: tuple[Path, Path],
    trace: Path | None,
    kill: str,
    at: int,
) -> None:
    from sealift.client.cli import main
    from sealift.client.cli.context import current
    from sealift.host import signers

    for descriptor, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    os.environ.update(environment)
    os.environ.pop("SEALIFT_SERVER", None)
    warnings.simplefilter("ignore")
    signers.encode_private_key.__defaults__ = (1,)
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        if trace is not None:
            with trace.open("a") as file:
                file.write(f"{name}\n")
        if name == kill:
            seen += 1
            if seen == at:
                os._exit(KILLED)

    current().step = step
    sys.argv = ["sealift", *arguments]
    main()
