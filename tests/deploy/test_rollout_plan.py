"""The share that the demo chooses, so that exactly one of three devices is first."""

from __future__ import annotations

from deploy.demo.act_rollout import share_between
from hypothesis import given
from hypothesis import strategies as st

from sealift.protocol.plan import format_share, parse_plan

TICKETS = st.integers(0, 9_999)


@given(TICKETS, TICKETS)
def test_the_share_offers_to_the_lowest_ticket_alone(first: int, second: int) -> None:
    lowest, middle = sorted((first, second))
    share = share_between(lowest, middle)
    if lowest == middle:
        assert share is None
    else:
        assert share is not None
        assert lowest < share <= middle
        stages = parse_plan(f"{format_share(share)}/30d,100%", 0)
        assert stages[0].basis_points == share
