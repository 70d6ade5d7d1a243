"""FleetService, CatalogService and AdminService."""

from __future__ import annotations

import json
from typing import Any

import grpc

from sealift.protocol.reasons import Reason
from sealift.server.api.edge import Server, namespace_of
from sealift.server.errors import Refused
from sealift.server.fleet import joining, reports
from sealift.server.fleet.reports import Reported
from sealift.server.namespaces.registering import create_namespace
from sealift.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
)

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

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


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    """Browsing."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def ListAuditEvents(  # noqa: N802
        self, request: catalog_pb2.ListAuditEventsRequest, context: Context
    ) -> catalog_pb2.ListAuditEventsResponse:
        """See the service."""
        caller = await self._server.caller(context)
        rows, following = await self._server.run(
            reports.audit_events,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            artifact=request.artifact,
            before=_page_token(request.page_token),
            count=_page_size(request.page_size),
        )
        return catalog_pb2.ListAuditEventsResponse(
            events=[
                catalog_pb2.AuditEvent(
                    at=row.at,
                    action=row.action,
                    actor=row.actor,
                    subject=row.subject,
                    detail=row.detail,
                )
                for row in rows
            ],
            next_page_token=str(following) if following else "",
        )

    async def ListDevices(  # noqa: N802
        self, request: catalog_pb2.ListDevicesRequest, context: Context
    ) -> catalog_pb2.ListDevicesResponse:
        """See the service."""
        caller = await self._server.caller(context)
        views, following = await self._server.run(
            reports.devices,
            self._server.database,
            caller,
            namespace_of(request.namespace),
            after=_page_token(request.page_token),
            count=_page_size(request.page_size),
        )
        return catalog_pb2.ListDevicesResponse(
            devices=[
                catalog_pb2.Device(
                    device=view.name,
                    label=view.label,
                    joined_at=view.joined_at,
                    reported_at=view.reported_at,
                    artifacts=[
                        catalog_pb2.DeviceArtifact(
                            artifact=one.artifact,
                            channel=one.channel,
                            version=one.version,
                            digest=one.digest,
                            reason=one.reason,
                        )
                        for one in view.artifacts
                    ],
                )
                for view in views
            ],
            next_page_token=str(following) if following else "",
        )


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


def _page_size(asked: int) -> int:
    if not 0 <= asked <= MAX_PAGE:
        raise Refused(Reason.INVALID_ARGUMENT, f"a page has at most {MAX_PAGE} entries")
    return asked or DEFAULT_PAGE


def _page_token(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 18):
        raise Refused(Reason.INVALID_ARGUMENT, "the page token is not one of ours")
    return int(text or 0)
