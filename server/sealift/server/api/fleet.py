"""FleetService: invites, joining, reports."""

from __future__ import annotations

from typing import Any

import grpc

from sealift.protocol.reasons import Reason
from sealift.server.api.edge import Server, namespace_of
from sealift.server.errors import Refused
from sealift.server.fleet import joining, reports
from sealift.server.fleet.reports import Reported
from sealift.v1 import fleet_pb2, fleet_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Invites, admits and hears devices."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def CreateInvite(  # noqa: N802
        self, request: fleet_pb2.CreateInviteRequest, context: Context
    ) -> fleet_pb2.CreateInviteResponse:
        """See the service."""
        caller = await self._server.caller(context)
        if request.kind != fleet_pb2.INVITE_KIND_DEVICE:
            raise Refused(Reason.INVALID_ARGUMENT, "only devices can be invited as yet")
        expires = await self._server.run(
            joining.create_invite,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            token_sha256=request.token_sha256,
            uses=request.uses,
            ttl_s=request.ttl_s,
            now=self._server.clock.wall(),
        )
        return fleet_pb2.CreateInviteResponse(expires_at=expires)

    async def Join(  # noqa: N802
        self, request: fleet_pb2.JoinRequest, context: Context
    ) -> fleet_pb2.JoinResponse:
        """See the service."""
        caller = await self._server.caller(context)
        device = await self._server.run(
            joining.join,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            request_id=request.request_id,
            token_sha256=request.token_sha256,
            label=request.label,
            now=self._server.clock.wall(),
        )
        return fleet_pb2.JoinResponse(device=device)

    async def Report(  # noqa: N802
        self, request: fleet_pb2.ReportRequest, context: Context
    ) -> fleet_pb2.ReportResponse:
        """See the service."""
        caller = await self._server.caller(context)
        said = [
            Reported(one.artifact, one.channel, one.version, one.digest, one.reason)
            for one in request.artifacts
        ]
        await self._server.run(
            reports.report,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            said,
            self._server.clock.wall(),
        )
        return fleet_pb2.ReportResponse()
