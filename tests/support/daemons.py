"""Servers as processes of their own: started, waited for, and killed when their test is done."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import urllib3

LOGS: dict[str, Path] = {}
"""The logs of the servers that run, by name; shown with a test that fails."""
TAIL_BYTES = 4000
READY_S = 60.0


class DaemonFailed(Exception):
    """A server ended, or was not ready in time; its log is in the text."""


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server for a block.

    Args:
        name: What it is called in logs.
        command: How it is started. It runs in a process group of its own.
        log: Where its output goes.
        ready: Asked again and again until it answers yes.
        environment: Variables besides PATH, HOME and TMPDIR.

    Raises:
        DaemonFailed: If it ends, or is not ready within a minute.
    """
    inherited = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=inherited | dict(environment or {}),
            start_new_session=True,
        )
    LOGS[name] = log
    try:
        _wait(name, process, ready)
        yield process
    finally:
        LOGS.pop(name, None)  # another of the same name may have ended meanwhile
        kill_group(process)


def _wait(name: str, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not ready():
        if process.poll() is not None:
            raise DaemonFailed(f"{name} ended with {process.returncode}:\n{tail(LOGS[name])}")
        if time.monotonic() > deadline:
            raise DaemonFailed(f"{name} is not ready after {READY_S:.0f} s:\n{tail(LOGS[name])}")
        time.sleep(0.05)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that was started by `running`, and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path) -> str:
    """The last lines of a log."""
    return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered by 200."""
    pool = urllib3.PoolManager(timeout=2.0, retries=False)
    try:
        return pool.request("GET", url).status == 200
    except urllib3.exceptions.HTTPError:
        return False
    finally:
        pool.clear()
