"""CatalogService: browsing."""

from __future__ import annotations

from typing import Any

import grpc

from sealift.protocol.names import ArtifactName
from sealift.protocol.reasons import Reason
from sealift.server.api.edge import Server, namespace_of
from sealift.server.errors import Refused
from sealift.server.fleet import reports
from sealift.v1 import catalog_pb2, catalog_pb2_grpc

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


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
            artifact=ArtifactName(request.artifact) if request.artifact else "",
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


def _page_size(asked: int) -> int:
    """AIP-158: more than there may be is cut down, less than nothing is refused."""
    if asked < 0:
        raise Refused(Reason.INVALID_ARGUMENT, "a page has no fewer than 0 entries")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _page_token(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 18):
        raise Refused(Reason.INVALID_ARGUMENT, "the page token is not one of ours")
    return int(text or 0)
