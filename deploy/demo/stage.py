"""What the audience sees: acts, commands with their output, and whether each expectation held."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

COLOURS = {"server": "blue", "publisher": "magenta", "gateway": "cyan", "intruder": "red"}
PIPED_WIDTH = 110
OUTPUT_LINES = 12
"""What a command prints beyond this is cut."""


@dataclass(slots=True)
class Stage:
    """Prints the story and remembers what did not hold.

    Attributes:
        pausing: Wait for Enter between acts.
        failures: The expectations that did not hold.
    """

    pausing: bool = field(default_factory=lambda: os.environ.get("PAUSE", "") not in {"", "0"})
    failures: list[str] = field(default_factory=list)
    held: int = 0
    _console: Console = field(
        default_factory=lambda: Console(
            highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH
        )
    )
    _acts: int = 0

    def title(self, text: str, prose: str) -> None:
        """Opens the story."""
        self._console.print()
        self._console.rule(f"[bold]{escape(text)}[/]", characters="═")
        self._prose(prose)

    def act(self, title: str, prose: str) -> None:
        """Begins an act; waits before it, if asked to."""
        if self._acts and self.pausing and sys.stdin.isatty():
            self._console.input("\n  [dim]Enter goes on …[/]")
        self._acts += 1
        self._console.print()
        self._console.rule(f"[bold]{self._acts}  {escape(title)}[/]", align="left")
        self._prose(prose)

    def command(self, who: str, line: str) -> None:
        """A command as it is run."""
        colour = COLOURS[who.partition("-")[0]]
        self._console.print(f"\n[bold {colour}]{who}$[/] {escape(line)}", soft_wrap=True)

    def output(self, text: str, *, prefix: str = "") -> None:
        """What a command printed."""
        lines = text.rstrip().splitlines()
        for line in lines[:OUTPUT_LINES]:
            self._console.print(f"  [dim]{escape(prefix)}{escape(line)}[/]", soft_wrap=True)
        if len(lines) > OUTPUT_LINES:
            self._console.print(f"  [dim]… {len(lines) - OUTPUT_LINES} more lines[/]")

    def say(self, text: str) -> None:
        """A word to the audience."""
        self._console.print(f"  [yellow]→[/] {escape(text)}", soft_wrap=True)

    def expect(self, held: bool, text: str) -> None:
        """Says what to see, and whether it is so."""
        if held:
            self.held += 1
            self._console.print(f"  [green]✓[/] {escape(text)}", soft_wrap=True)
        else:
            self.failures.append(text)
            self._console.print(f"  [bold red]✗ not so:[/] {escape(text)}", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table."""
        table = Table(header_style="bold", show_lines=False, padding=(0, 1))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._console.print()
        self._console.print(Padding(table, (0, 2)))

    def lines(self, heading: str, lines: Sequence[str]) -> None:
        """Lines to copy."""
        self._console.print(f"\n[bold]{escape(heading)}[/]")
        for line in lines:
            self._console.print(f"  {escape(line)}", soft_wrap=True)

    def _prose(self, text: str) -> None:
        self._console.print(Padding(f"[italic]{escape(text)}[/]", (0, 2)), width=100)
