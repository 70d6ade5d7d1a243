"""The command tree and the options that every command has."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated

import typer

from sealift.client.cli import device, looking, publishing
from sealift.client.cli.context import current
from sealift.host.rpc import ServerAddress
from sealift.protocol.names import Namespace

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Secure updates for AI models and prompts: signed by their publisher, verified here.",
    epilog="Options above may stand before or after the command. Passphrases are asked on the "
    "terminal, or taken from SEALIFT_PASSPHRASE.",
)
# One flat tree, its commands grouped in the help by who needs them.
for part in (publishing.app, looking.app, device.app):
    app.registered_commands += part.registered_commands
app.add_typer(
    device.agent_app,
    name="agent",
    help="The program that keeps a device up to date.",
    rich_help_panel=device.PANEL,
)


class Output(StrEnum):
    """How results are shown."""

    TEXT = "text"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sealift {distribution_version('sealift')}")
        raise typer.Exit


@app.callback()
def options(
    output: Annotated[Output, typer.Option(help="Tables, or one JSON document.")] = Output.TEXT,
    home: Annotated[
        Path | None,
        typer.Option(envvar="SEALIFT_HOME", metavar="DIR", help="The home.", show_default=False),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="SEALIFT_SERVER",
            metavar="ADDRESS",
            help="The server; else what the home recorded.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="SEALIFT_TOKEN_FILE",
            metavar="FILE",
            help="A file with a token; else the home's own.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NS", help="Needed only where a home has several."),
    ] = None,
    passphrase_fd: Annotated[
        int | None,
        typer.Option(metavar="N", help="Read the passphrase from this descriptor."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Reads what every command needs."""
    del version
    context = current()
    context.out.as_json = output is Output.JSON
    if home is not None:
        context.home = home.expanduser().absolute()
    if server is not None:
        ServerAddress.parse(server)
    context.server = server
    context.token_file = token_file
    context.namespace = Namespace(namespace) if namespace is not None else None
    context.passphrase_fd = passphrase_fd
