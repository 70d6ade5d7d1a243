"""What a person or a script sees: data on stdout, progress and errors on stderr, exit codes.

A command shows one result, either as a table for people or as one JSON document. Exit 0 is done,
1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from rich import markup
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from sealift.protocol.errors import (
    InvalidJoinString,
    InvalidName,
    InvalidPlan,
    RuleViolation,
    SealiftError,
    legible,
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
QUIET_S = 1.0
"""Nothing is shown of what takes less than this."""
PIPED_WIDTH = 200
"""Columns of a table where there is no terminal."""
LINE_S = 5.0
"""How often a line is printed where there is no terminal."""


class UsageError(SealiftError):
    """A command that was given what cannot be."""


class Interrupted(BaseException):
    """Ctrl-C, anywhere."""


USAGE_ERRORS: tuple[type[SealiftError], ...] = (
    UsageError,
    InvalidName,
    InvalidPlan,
    InvalidJoinString,
)


@dataclass(slots=True)
class Out:
    """Where a command shows its result.

    Attributes:
        as_json: One JSON document instead of tables.
    """

    as_json: bool = False
    _stdout: Console = field(default_factory=lambda: _console(stderr=False))
    _stderr: Console = field(default_factory=lambda: _console(stderr=True))

    def show(self, document: Mapping[str, Any], people: Callable[[Out], None]) -> None:
        """Shows a command's result: the document, or what `people` prints."""
        if self.as_json:
            print(json.dumps(document, indent=2, ensure_ascii=False, default=str))
        else:
            people(self)

    def line(self, text: str = "") -> None:
        """A line for people on stdout."""
        self._stdout.print(_plain(text))

    def heading(self, text: str) -> None:
        """A heading for people."""
        self._stdout.print(f"[bold]{_plain(text)}[/bold]")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; aligned columns without frames, so that it can be piped on."""
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_plain(str(cell)) for cell in row))
        self._stdout.print(table, soft_wrap=False)

    def remark(self, text: str) -> None:
        """A remark for people on stderr: it is no part of the data."""
        self._stderr.print(f"[yellow]note:[/yellow] {_plain(text)}")

    def error(self, error: SealiftError) -> None:
        """An error: what is wrong, and what to do."""
        if self.as_json:
            said = {"message": error.message, "hint": error.hint, "reason": reason_of(error)}
            if isinstance(error, RuleViolation):
                said |= {"rule": error.rule, "role": error.role}
            print(json.dumps({"error": said}, indent=2, ensure_ascii=False))
        self._stderr.print(f"[red]error:[/red] {_plain(error.message)}")
        if error.hint:
            self._stderr.print(f"       {_plain(error.hint)}")

    @contextmanager
    def progress(self, label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Shows how far something is, on stderr, once it takes longer than a second.

        Yields:
            A function to be called with the bytes done since the last call, from any thread.
        """
        shown: _Bar | _Lines
        if self._stderr.is_terminal and not self.as_json:
            shown = _Bar(self._stderr, label, total_bytes)
        else:
            shown = _Lines(label, total_bytes)
        try:
            yield shown.advance
        finally:
            shown.close()


def _plain(text: str) -> str:
    """Text as it is: no markup, and no escape sequences that a server or a device sent."""
    return markup.escape(legible(text, None))


def _console(*, stderr: bool) -> Console:
    """A console; where there is no terminal its lines are long, so that they can be piped on."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=width)


def reason_of(error: SealiftError) -> str:
    """The stable reason of an error; empty if it has none."""
    reason = getattr(error, "reason", "")
    return str(reason)


class _Bar:
    """A progress bar with rate and remaining time, for terminals."""

    def __init__(self, console: Console, label: str, total: int) -> None:
        self._console = console
        self._label = label
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task: Any = None

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is None and time.monotonic() - self._started > QUIET_S:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    DownloadColumn(binary_units=True),
                    TransferSpeedColumn(),
                    TimeRemainingColumn(),
                    console=self._console,
                    transient=True,
                )
                self._task = self._progress.add_task(self._label, total=self._total)
                self._progress.start()
            if self._progress is not None:
                self._progress.update(self._task, completed=self._done)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


class _Lines:
    """A line every few seconds, where there is no terminal."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._next = self._started + QUIET_S
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + LINE_S
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else 0
            percent = 100 * self._done // self._total if self._total else 100
            print(
                f"{self._label}: {percent} % of {format_bytes(self._total)}, "
                f"{format_bytes(int(rate))}/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        pass


def format_bytes(count: int) -> str:
    """Bytes for people: `1.5 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    # A second Ctrl-C while cleaning up ends at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise Interrupted


def run_command(command: Callable[[], None], out: Callable[[], Out]) -> NoReturn:
    """Runs a command line to its exit, turning every expected error into lines for people.

    Args:
        command: Runs it; may raise `SystemExit`.
        out: The output that the command line chose, as far as it was read.
    """
    signal.signal(signal.SIGINT, _interrupt)
    code = 0
    try:
        command()
    except Interrupted:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except SealiftError as error:
        out().error(error)
        code = EXIT_USAGE if isinstance(error, USAGE_ERRORS) else EXIT_FAILED
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        out().error(SealiftError(f"cannot use{where}: {error.strerror or error}"))
        code = EXIT_FAILED
    sys.stdout.flush()
    raise SystemExit(code)
