"""An open channel to a server with a credential, and admission over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import grpc

from sealift.client.trust.admission import Admitted
from sealift.client.trust.fetcher import RepositorySource, fetcher_of
from sealift.client.trust.session import NamespaceTrust
from sealift.host import rpc
from sealift.host.rpc import ServerAddress, ServerRefused
from sealift.protocol.reasons import Reason


@dataclass(frozen=True, slots=True)
class Connection:
    """An open channel with a credential."""

    channel: grpc.Channel
    token: str | None
    address: ServerAddress
    ca: str | None = None

    @classmethod
    @contextmanager
    def open(
        cls, address: ServerAddress, token: str | None, ca: str | None = None
    ) -> Iterator[Self]:
        """Opens a connection for a block.

        Raises:
            ServerRefused: From the block; with the address, if it cannot be reached.
        """
        channel = rpc.open_channel(address, ca.encode() if ca else None)
        try:
            yield cls(channel, token, address, ca)
        except ServerRefused as error:
            raise with_address(error, address) from error
        finally:
            channel.close()

    @property
    def source(self) -> RepositorySource:
        """Signed files of this server."""
        return RepositorySource(self.channel, self.token)

    def admit(self, trust: NamespaceTrust) -> Admitted:
        """Brings a home's view of its namespace up to date.

        Roles that were refused one by one are in its `problems`.

        Raises:
            ServerRefused: If the server cannot be reached or refuses.
            RuleViolation: If what it sent was refused as a whole.
        """
        source = self.source
        held = trust.held()
        polled = source.poll([held])[trust.namespace]
        if polled.refused is not None:
            raise polled.refused
        return trust.admit(fetcher_of(source, trust.namespace, polled.files, held.versions))


def with_address(error: ServerRefused, address: ServerAddress) -> ServerRefused:
    """The same refusal; with the address, if nothing answers there."""
    if error.reason is not Reason.UNREACHABLE:
        return error
    return ServerRefused(error.reason, f"the server {address} cannot be reached", hint=error.hint)
