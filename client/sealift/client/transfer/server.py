"""The sources that a device has of one namespace: the object store, then the server itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from sealift.client.transfer.grpc_source import ServerContent
from sealift.client.transfer.presigned import PresignedContent
from sealift.client.transfer.source import ContentSource, Patience
from sealift.host.rpc import ServerAddress
from sealift.protocol.names import Namespace


@contextmanager
def server_sources(
    channel: grpc.Channel,
    address: ServerAddress,
    namespace: Namespace,
    token: str | None,
    *,
    ca: str | None = None,
    patience: Patience | None = None,
) -> Iterator[Sequence[ContentSource]]:
    """Sources of a namespace's content, in the order in which they are tried.

    Args:
        channel: An open channel to the server; its owner closes it, after this block.
        address: The server's: over TLS, the object store must be too.
        namespace: Whose content.
        token: The device's credential; the object store never sees it.
        ca: The certificate that the home trusts for this server, in PEM, and so for its store.
        patience: How long to wait for each.
    """
    server = ServerContent(channel, namespace, token, patience)
    store = PresignedContent(server, patience=patience, require_tls=address.tls, ca=ca)
    try:
        yield [store, server]
    finally:
        store.close()
