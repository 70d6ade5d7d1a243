"""Apps read `state.json` with the strict reader of documents, which takes no floats."""

from __future__ import annotations

from sealift.client.agent.state import DeviceState, JoinedNamespace
from sealift.client.trust.memory import Bound, Memory
from sealift.protocol.names import Namespace
from sealift.protocol.parsing import parse_json


def test_apps_can_read_what_an_admission_left_in_the_state() -> None:
    bound = Bound(issued=1_795_000_000, signer="aa", boot_id="b", boot_s=9850)
    joined = JoinedNamespace(server="127.0.0.1:1", memory=Memory(bound=bound))
    state = DeviceState().with_namespace(Namespace("acme"), joined)
    assert parse_json(state.encode())["denylist"] == []
