"""Ranges of versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.protocol.errors import InvalidName
from sealift.protocol.names import Version
from sealift.protocol.ranges import VersionRange

NUMBER = st.integers(0, 4)
CORE = st.builds(Version, NUMBER, NUMBER, NUMBER)
PRERELEASE = st.builds(
    lambda core, part, number: Version(core.major, core.minor, core.patch, (part, str(number))),
    CORE,
    st.sampled_from(["alpha", "rc"]),
    NUMBER,
)
ANY = st.one_of(CORE, PRERELEASE)


def matches(text: str, version: str) -> bool:
    return Version.parse(version) in VersionRange.parse(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=1.4,<2", ["1.4.0", "1.9.9"], ["1.3.9", "2.0.0", "2.0.0-rc.1", "1.5.0-rc.1"]),
        ("1.4.2", ["1.4.2"], ["1.4.3", "1.4.2-rc.1"]),
        ("==1.4.2", ["1.4.2"], ["1.4.1"]),
        ("=1.4", ["1.4.0", "1.4.99"], ["1.3.9", "1.5.0"]),
        ("1", ["1.0.0", "1.99.0"], ["0.9.9", "2.0.0"]),
        (">1.4", ["1.5.0"], ["1.4.0", "1.4.9"]),
        ("<=1.4", ["1.4.9", "0.1.0"], ["1.5.0"]),
        (">1.4.0", ["1.4.1"], ["1.4.0"]),
        ("<=1.4.0", ["1.4.0"], ["1.4.1"]),
        (" >= 1.4 , < 2 ", ["1.5.0"], ["2.0.0"]),
        (">=1.5.0-rc.1", ["1.5.0-rc.1", "1.5.0-rc.2", "1.5.0", "1.6.0"], ["1.6.0-rc.1", "1.4.9"]),
        ("1.5.0-rc.1", ["1.5.0-rc.1"], ["1.5.0", "1.5.0-rc.2"]),
        (">1.0.0,>1.2", ["1.3.0"], ["1.1.0"]),
    ],
)
def test_ranges_say_what_they_seem_to_say(text: str, inside: list[str], outside: list[str]) -> None:
    assert [one for one in inside if not matches(text, one)] == []
    assert [one for one in outside if matches(text, one)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        ">=",
        ">=1.4,",
        "^1.4",
        "~1",
        "1.x",
        ">=1.4 <2",
        "=>1",
        ">=01.4",
        "1.4.2+b",
        "!=1",
        "*",
        ">=1," * 60 + "<2",
    ],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a range"):
        VersionRange.parse(text)


@given(CORE, CORE)
def test_comparators_follow_the_order_of_versions(bound: Version, version: Version) -> None:
    assert (version in VersionRange.parse(f">={bound}")) == (version >= bound)
    assert (version in VersionRange.parse(f">{bound}")) == (version > bound)
    assert (version in VersionRange.parse(f"<={bound}")) == (version <= bound)
    assert (version in VersionRange.parse(f"<{bound}")) == (version < bound)
    assert (version in VersionRange.parse(f"={bound}")) == (version == bound)


@given(NUMBER, NUMBER, CORE)
def test_parts_left_out_stand_for_all(major: int, minor: int, version: Version) -> None:
    within = (version.major, version.minor) == (major, minor)
    assert (version in VersionRange.parse(f"{major}.{minor}")) == within
    below = version in VersionRange.parse(f"<{major}.{minor}")
    above = version in VersionRange.parse(f">{major}.{minor}")
    assert [below, within, above].count(True) == 1


SIGNS = st.sampled_from([">=", ">", "<=", "<", "="])


@given(st.lists(st.tuples(SIGNS, ANY), min_size=1, max_size=4), ANY)
def test_a_comma_means_and(bounds: list[tuple[str, Version]], version: Version) -> None:
    texts = [f"{sign}{bound}" for sign, bound in bounds]
    both = version in VersionRange.parse(",".join(texts))
    if not version.prerelease:
        assert both == all(version in VersionRange.parse(text) for text in texts)
    elif both:
        assert any(version.major == bound.major for _, bound in bounds)


@given(CORE, PRERELEASE)
def test_nobody_gets_a_pre_release_unasked(bound: Version, version: Version) -> None:
    for sign in (">=", ">", "<=", "<", "="):
        assert version not in VersionRange.parse(f"{sign}{bound}")
