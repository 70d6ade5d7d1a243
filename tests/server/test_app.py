"""Staying fresh: what is due is signed, and the server says when it cannot (rule T20)."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from sealift.protocol import layout
from sealift.protocol.layout import HOUR_S
from sealift.server.app import refresh
from sealift.server.namespaces import states
from support.servers import NOW, Parts

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _refreshed(server: Parts) -> tuple[int, int]:
    """What health says after a round, and the version of the timestamp."""

    async def round_() -> int:
        servicer = HealthServicer()
        await refresh(server.server, servicer)
        answer = await servicer.Check(health_pb2.HealthCheckRequest(), None)  # type: ignore[func-returns-value]
        assert isinstance(answer, health_pb2.HealthCheckResponse)
        return answer.status

    status = asyncio.run(round_())
    with server.server.database.reading() as session:
        files = states.current_files(session, 1, [layout.TIMESTAMP])
    return status, files[layout.TIMESTAMP].version


def test_t20_a_clock_that_jumped_stops_signing_and_health_says_so(one_server: Parts) -> None:
    one_server.begun()
    one_server.clock.pass_s(HOUR_S)
    assert _refreshed(one_server) == (SERVING, NOW + HOUR_S)
    one_server.clock.now += 30 * HOUR_S
    assert _refreshed(one_server) == (NOT_SERVING, NOW + HOUR_S)
    one_server.clock.now -= 30 * HOUR_S
    one_server.clock.pass_s(HOUR_S)
    assert _refreshed(one_server) == (SERVING, NOW + 2 * HOUR_S)
