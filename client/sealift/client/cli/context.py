"""What every command needs: the home, the server, the credential, the passphrase, the output."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sealift.client.agent.home import DeviceHome
from sealift.client.agent.state import JoinedNamespace
from sealift.client.connection import Connection
from sealift.client.publish.connection import PublisherConnection
from sealift.client.publish.home import NoPublisherHome, PublisherHome, publisher_namespaces
from sealift.client.publish.keyring import Keyring
from sealift.host.clock import Clock, SystemClock
from sealift.host.console import Out, UsageError
from sealift.host.files import Step, no_step
from sealift.host.homes import default_home
from sealift.host.rpc import ServerAddress
from sealift.host.tokens import is_token
from sealift.protocol.errors import SealiftError
from sealift.protocol.names import STABLE, ArtifactId, ChannelName, Namespace, Reference

PASSPHRASE_VARIABLE = "SEALIFT_PASSPHRASE"  # noqa: S105 - a variable's name


@dataclass(slots=True)
class Context:
    """What the global options said.

    Attributes:
        home: The home's folder.
        server: An address that wins over what the home recorded.
        token_file: A file with a token that wins over the home's own.
        namespace: Needed only where a home has several.
        passphrase_fd: A descriptor to read the passphrase from.
        out: Where results go.
        clock: The machine's clocks.
        step: The crash hook.
    """

    home: Path = field(default_factory=default_home)
    server: str | None = None
    token_file: Path | None = None
    namespace: Namespace | None = None
    passphrase_fd: int | None = None
    out: Out = field(default_factory=Out)
    clock: Clock = field(default_factory=SystemClock)
    step: Step = no_step
    _passphrase: bytes | None = None

    # --- parts of the home ----------------------------------------------------------------

    @property
    def device(self) -> DeviceHome:
        """The home's device part."""
        return DeviceHome.at(self.home, clock=self.clock, step=self.step)

    def publisher(self, namespace: Namespace | None = None) -> PublisherHome:
        """The home's publisher part for a namespace, or its only one.

        Raises:
            NoPublisherHome: If there is none, or it must be said which.
        """
        wanted = namespace or self.namespace
        known = publisher_namespaces(self.home)
        if wanted is None:
            if len(known) > 1:
                raise NoPublisherHome(
                    f"this home publishes in {', '.join(known)}",
                    hint="Say which: --namespace NS",
                )
            if not known:
                raise NoPublisherHome(
                    f"{self.home} publishes nothing yet",
                    hint="Begin a namespace: sealift init NAMESPACE",
                )
            wanted = known[0]
        if wanted not in known:
            raise NoPublisherHome(
                f"{self.home} does not publish in {wanted}",
                hint=f"Begin it: sealift init {wanted}",
            )
        return PublisherHome.at(self.home, wanted, clock=self.clock, step=self.step)

    def keyring(self, home: PublisherHome) -> Keyring:
        """The home's keys, opened when they are needed."""
        return Keyring(home, self.passphrase)

    # --- the server -----------------------------------------------------------------------

    def token(self) -> str | None:
        """The token that was given explicitly.

        Raises:
            UsageError: If the file has none.
        """
        if self.token_file is None:
            return None
        try:
            text = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the token file {self.token_file}",
                hint="Give --token-file the path of a file that you may read.",
            ) from error
        if not is_token(text):
            raise UsageError(f"{self.token_file} holds no token", hint="One looks like sl_admin_….")
        return text

    @contextmanager
    def connect_publisher(self, home: PublisherHome) -> Iterator[PublisherConnection]:
        """A connection to a publisher's server, for a block."""
        address = ServerAddress.parse(self.server or home.settings().server)
        with PublisherConnection.open(address, self.token() or home.token()) as connection:
            yield connection

    @contextmanager
    def connect_device(self, namespace: Namespace, joined: JoinedNamespace) -> Iterator[Connection]:
        """A connection to a device's server, for a block."""
        address = ServerAddress.parse(self.server or joined.server)
        token = self.token() or self.device.token(namespace)
        with Connection.open(address, token, joined.ca) as connection:
            yield connection

    # --- passphrases ----------------------------------------------------------------------

    def passphrase(self, key: str) -> bytes | None:
        """The passphrase of a key: given by descriptor or variable, else asked on the terminal."""
        if self._passphrase is None:
            self._passphrase = self._given_passphrase()
        if self._passphrase is None and sys.stdin.isatty():
            self._passphrase = getpass.getpass(f"Passphrase of {key}: ").encode()
        return self._passphrase

    def new_passphrase(self) -> bytes:
        """A new passphrase, asked twice where it is asked.

        Raises:
            UsageError: If there is none to be had, or it is empty.
        """
        given = self._given_passphrase()
        if given is None and sys.stdin.isatty():
            given = getpass.getpass("New passphrase for the daily key: ").encode()
            if getpass.getpass("The same again: ").encode() != given:
                raise UsageError("the two passphrases differ", hint="Run the command again.")
        if not given:
            raise UsageError(
                "the daily key needs a passphrase, and none was given",
                hint=f"Run it on a terminal, set {PASSPHRASE_VARIABLE}, or give --passphrase-fd N.",
            )
        self._passphrase = given
        return given

    def _given_passphrase(self) -> bytes | None:
        if self.passphrase_fd is not None:
            try:
                with os.fdopen(self.passphrase_fd, "rb", closefd=False) as file:
                    return file.readline().rstrip(b"\r\n")
            except OSError as error:
                raise UsageError(f"cannot read descriptor {self.passphrase_fd}") from error
        value = os.environ.get(PASSPHRASE_VARIABLE)
        return value.encode() if value else None

    # --- references -----------------------------------------------------------------------

    def artifact(self, reference: Reference) -> ArtifactId:
        """The artifact of a reference on this device, with its namespace filled in.

        Raises:
            UsageError: If it must be said which namespace.
        """
        namespace = reference.namespace or self.namespace or self._only_namespace()
        return ArtifactId(namespace, reference.artifact)

    def _only_namespace(self) -> Namespace:
        known = sorted(self.device.state().namespaces)
        if len(known) != 1:
            joined = f" Joined are {', '.join(known)}." if known else ""
            raise UsageError(
                "it is not clear which namespace is meant",
                hint=f"Write NAMESPACE/ARTIFACT.{joined}",
            )
        return known[0]

    def followed_channel(self, artifact: ArtifactId, reference: Reference) -> ChannelName:
        """The channel that a reference means on this device."""
        followed = self.device.state().following.get(str(artifact))
        return reference.channel or (followed.channel if followed else STABLE)


def require_device(context: Context) -> DeviceHome:
    """The device's part of the home.

    Raises:
        SealiftError: If this home is no device.
    """
    if not context.device.exists:
        raise SealiftError(
            f"{context.home} has joined nothing yet",
            hint="Ask a publisher for a join string, then: sealift join STRING",
        )
    return context.device


_CURRENT = Context.__new__(Context)


def current() -> Context:
    """The context of this process's command line."""
    global _CURRENT  # noqa: PLW0603 - one command line a process
    if not hasattr(_CURRENT, "out"):
        _CURRENT = Context()
    return _CURRENT
