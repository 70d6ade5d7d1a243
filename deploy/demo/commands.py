"""Runs the real commands as their real processes, and shows each as it is run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deploy.demo.stage import Stage

PROGRAMS = Path(sys.executable).parent
COMMAND_S = 60.0

A = TypeVar("A", bound="Actor")
T = TypeVar("T")


class StoryBroken(Exception):
    """A command ended otherwise than the story needs, so that it cannot go on."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run."""

    who: str
    line: str
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """What it printed with `--output json`."""
        try:
            found: dict[str, Any] = json.loads(self.out)
        except ValueError as error:
            raise StoryBroken(f"{self.who}$ {self.line}\n{self.out}{self.err}") from error
        return found


def environment(**more: str) -> dict[str, str]:
    """This process's variables without Sealift's own, with the project's programs first.

    Bytecode may be kept: the story starts some eighty processes, each of which would compile anew.
    """
    dropped = ("SEALIFT_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    path = f"{PROGRAMS}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "COLUMNS": "100", **more}


@dataclass(frozen=True, slots=True)
class Actor:
    """Someone with a home who runs commands in the demo's folder.

    Attributes:
        name: As it stands before the prompt.
        stage: Where commands are shown.
        folder: The demo's folder; the home is `folder/name`.
        variables: More variables for the commands.
    """

    name: str
    stage: Stage
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The actor's home."""
        return self.folder / self.name

    def run(self, *words: str, codes: Sequence[int] = (0,), stdin: str = "") -> Ran:
        """Runs a command and shows it with its output.

        Raises:
            StoryBroken: If it ends with another exit code than these.
        """
        self.stage.command(self.name, shlex.join(words))
        ran = self.quietly(*words, codes=codes, stdin=stdin)
        self.stage.output(ran.out + ran.err)
        return ran

    def ask(self, *words: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Runs a command with `--output json`, shows the command, and returns what it said."""
        words = (*words, "--output", "json")
        self.stage.command(self.name, shlex.join(words))
        return self.quietly(*words, codes=codes).document

    def quietly(self, *words: str, codes: Sequence[int] = (0,), stdin: str = "") -> Ran:
        """Runs a command without showing it."""
        done = subprocess.run(
            self.command(words),
            cwd=self.folder,
            env=environment(SEALIFT_HOME=self.name, **self.variables),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        ran = Ran(self.name, shlex.join(words), done.returncode, done.stdout, done.stderr)
        if ran.code not in codes:
            raise StoryBroken(
                f"{ran.who}$ {ran.line}\nended with {ran.code}:\n{ran.out}{ran.err}".rstrip()
            )
        return ran

    @staticmethod
    def command(words: Sequence[str]) -> list[str]:
        """The command as the system runs it: programs of this project's own environment."""
        program = PROGRAMS / words[0]
        return [str(program if program.exists() else words[0]), *words[1:]]


def together(actors: Sequence[A], work: Callable[[A], T]) -> list[T]:
    """Does the same for all at the same time."""
    with ThreadPoolExecutor(len(actors)) as pool:
        return list(pool.map(work, actors))


def wait_until(what: str, done: Callable[[], bool], seconds: float = COMMAND_S) -> float:
    """Waits for something, and returns for how many seconds.

    Raises:
        StoryBroken: If it does not come.
    """
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > seconds:
            raise StoryBroken(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - started
