"""AdminService: namespaces."""

from __future__ import annotations

import json
from typing import Any

import grpc

from sealift.server.api.edge import Server, namespace_of
from sealift.server.namespaces.registering import create_namespace
from sealift.v1 import admin_pb2, admin_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Namespaces."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def CreateNamespace(  # noqa: N802
        self, request: admin_pb2.CreateNamespaceRequest, context: Context
    ) -> admin_pb2.CreateNamespaceResponse:
        """See the service."""
        caller = await self._server.caller(context)
        key = await self._server.run(
            create_namespace,
            self._server.database,
            self._server.keys,
            caller,
            namespace_of(request.namespace),
            request_id=request.request_id,
            token_sha256=request.token_sha256,
            public=request.public,
            now=self._server.clock.wall(),
        )
        return admin_pb2.CreateNamespaceResponse(
            online_key=json.dumps(key.to_dict()).encode(), online_key_id=key.keyid
        )
