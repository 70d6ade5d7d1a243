"""The `sealift-server` command. Imports nothing of the extra before it has said what to install."""

from __future__ import annotations

import importlib.util
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sealift.host.console import Out, UsageError, run_command
from sealift.host.files import write_atomically
from sealift.host.homes import default_home
from sealift.host.tokens import make_token, token_sha256
from sealift.protocol.errors import SealiftError

if TYPE_CHECKING:
    from sealift.server.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The Sealift server: takes signed sets from publishers and serves them to devices.",
)
token_app = typer.Typer(no_args_is_help=True, help="Tokens, by their names.")
app.add_typer(token_app, name="token")

HOME_VARIABLE = "SEALIFT_SERVER_HOME"
NEEDED = (
    "alembic",
    "grpc_health",
    "grpc_reflection",
    "minio",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy",
    "starlette",
    "structlog",
    "uvicorn",
)
OUT = Out()

HomeOption = Annotated[
    Path | None,
    typer.Option(envvar=HOME_VARIABLE, metavar="DIR", help="The server's home."),
]


class TokenKind(StrEnum):
    """The roles that a token can be made for by hand."""

    ADMIN = "admin"
    PUBLISHER = "publisher"
    VIEWER = "viewer"


class PublisherRight(StrEnum):
    """The rights of a publisher's token, given apart."""

    PUSH = "push"
    HOLD = "hold"
    INVITE = "invite"


class MissingExtra(SealiftError):
    """The server's dependencies are not installed."""


def main() -> NoReturn:
    """Runs the command line and exits."""

    def command() -> None:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingExtra(
                "the server's own dependencies are not installed",
                hint="Install them: pip install 'sealift[server]'",
            )
        app(prog_name="sealift-server")

    run_command(command, lambda: OUT)


@app.command()
def run(
    dev: Annotated[
        bool, typer.Option("--dev", help="Loopback, plain, embedded: nothing to set up.")
    ] = False,
    home: HomeOption = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="gRPC; 127.0.0.1:7443 by default.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="HTTP; 127.0.0.1:7480 by default.")
    ] = None,
) -> None:
    """Run the server until SIGTERM. HOME/admin.token is there when it is ready."""
    import asyncio

    from sealift.server.app import run_server
    from sealift.server.logs import configure_logs

    given: dict[str, Any] = {"listen": listen, "http": http}
    if dev:
        given |= {"database": "", "blobs": "folder"}
    settings = _settings(home, **given)
    os.umask(0o077)  # the database's files too are readable by their owner alone
    configure_logs()
    asyncio.run(run_server(settings))


def _settings(home: Path | None, **given: Any) -> Settings:
    from sealift.server.settings import load_settings

    return load_settings((home or default_home() / "server").absolute(), **given)


@token_app.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    role: Annotated[TokenKind, typer.Option(help="What it is for.")],
    namespace: Annotated[
        str | None, typer.Option(metavar="NS", help="The only namespace that it counts in.")
    ] = None,
    right: Annotated[
        list[PublisherRight] | None, typer.Option(help="A publisher's right; repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Write it there, not to stdout.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Make a token. It is shown once; the server keeps its hash."""
    from sqlalchemy import select

    from sealift.server.access import tokens
    from sealift.server.access.callers import Right
    from sealift.server.db.tables import NamespaceRow

    if role is not TokenKind.ADMIN and namespace is None:
        raise UsageError(f"a {role} token counts in one namespace", hint="Give --namespace NS.")
    if output is not None and output.exists():
        raise UsageError(f"{output} is there already", hint="Name another --file.")
    token = make_token(role.value)
    with _database(home) as (database, clock), database.transaction() as session:
        row = None
        if namespace is not None:
            row = session.scalar(select(NamespaceRow).where(NamespaceRow.name == namespace))
            if row is None:
                raise UsageError(f"there is no namespace {namespace}")
        rights = [Right(one) for one in right or []] if role is TokenKind.PUBLISHER else []
        tokens.register(
            session,
            name=name,
            role=role.value,
            sha256=token_sha256(token),
            now=clock.wall(),
            namespace_id=row.id if row else None,
            rights=rights,
        )
        if output is not None:  # before it counts, so that no token counts that nobody has
            write_atomically(output.absolute(), f"{token}\n".encode())
    if output is None:
        OUT.line(token)


@token_app.command("list")
def token_list(home: HomeOption = None) -> None:
    """List the tokens; never their secrets."""
    from sqlalchemy import select

    from sealift.server.db.tables import NamespaceRow, TokenRow

    with _database(home) as (database, clock), database.reading() as session:
        namespaces = {row.id: row.name for row in session.scalars(select(NamespaceRow))}
        rows = []
        for token in session.scalars(select(TokenRow).order_by(TokenRow.id)):
            state = "revoked" if token.revoked_at else "valid"
            if token.expires_at and token.expires_at <= clock.wall():
                state = "expired"
            where = namespaces.get(token.namespace_id or 0, "")
            rows.append((token.name, token.role, where, token.rights, state))
    OUT.table(["name", "role", "namespace", "rights", "state"], rows)


@token_app.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    home: HomeOption = None,
) -> None:
    """Revoke every token of that name, at once."""
    from sealift.server.access import tokens

    with _database(home) as (database, clock), database.transaction() as session:
        count = tokens.revoke(session, name, clock.wall())
    OUT.line(f"revoked {count}")


def _database(home: Path | None) -> Any:
    from contextlib import contextmanager

    from sealift.host.clock import SystemClock
    from sealift.server.db.database import Database

    settings = _settings(home)
    if not settings.database and not (settings.home / "sealift.db").exists():
        raise UsageError(
            f"{settings.home} is no server's home yet",
            hint="Start it once: sealift-server run --dev, or name the right --home DIR.",
        )

    @contextmanager
    def opened() -> Any:
        database = Database(settings.database_url)
        try:
            database.migrate()
            yield database, SystemClock()
        finally:
            database.close()

    return opened()
