"""Options that may stand before or after the subcommand."""

from __future__ import annotations

GLOBAL_OPTIONS = frozenset(
    {"--output", "--home", "--server", "--token-file", "--namespace", "--passphrase-fd"}
)


def global_options_first(arguments: list[str]) -> list[str]:
    """The same arguments with the global options moved to the front.

    What follows `--` belongs to another program and is left alone.
    """
    first: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if argument == "--":
            rest += arguments[index:]
            break
        name, equals, _ = argument.partition("=")
        if name in GLOBAL_OPTIONS:
            count = 1 if equals else 2
            first += arguments[index : index + count]
            index += count
            continue
        rest.append(argument)
        index += 1
    return first + rest
