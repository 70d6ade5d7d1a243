"""The `sealift` command: `arguments` finds the options that stand anywhere, `context` holds them,
`publishing`, `looking` and `device` are its commands."""

from __future__ import annotations

import sys
from typing import NoReturn

from sealift.client.cli.arguments import global_options_first


def main() -> NoReturn:
    """Runs the command line and exits."""
    from sealift.client.cli.application import app
    from sealift.client.cli.context import current
    from sealift.host.console import run_command

    arguments = global_options_first(sys.argv[1:])
    run_command(lambda: app(arguments, prog_name="sealift"), lambda: current().out)
