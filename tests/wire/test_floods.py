"""What is counted of an HTTP/2 peer: spec limits L21 to L28."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.wire.floods import EMPTY, FAULT, OVERHEAD, PING, PRIORITY, RESET, SETTINGS, SMALL, Flood, FloodError, FloodLimits, Floods

ALL = [
    pytest.param(RESET, "http2_resets", 500, 10, id="L21"),
    pytest.param(FAULT, "http2_faults", 10, 10, id="L22"),
    pytest.param(OVERHEAD, "http2_overhead", 10_000, 10, id="L23"),
    pytest.param(SETTINGS, "http2_settings", 14, 60, id="L24"),
    pytest.param(PING, "http2_pings", 300, 60, id="L25"),
    pytest.param(PRIORITY, "http2_priorities", 120, 60, id="L26"),
    pytest.param(EMPTY, "http2_empty_frames", 100, 10, id="L28 frames"),
    pytest.param(SMALL, "http2_small_data", 25_600, 10, id="L28 bytes"),
]


def make(**limits: int) -> Floods:
    return Floods(FloodLimits(Limits(**limits)))


@pytest.mark.parametrize(("flood", "name", "limit", "period"), ALL)
def test_exactly_the_limit_passes(flood: Flood, name: str, limit: int, period: int) -> None:
    floods = make()
    for _ in range(limit):
        floods.count(flood, 5.0)
    with pytest.raises(FloodError, match="too m"):
        floods.count(flood, 5.0)


@pytest.mark.parametrize(("flood", "name", "limit", "period"), ALL)
def test_what_is_allowed_comes_back_over_its_period(flood: Flood, name: str, limit: int, period: int) -> None:
    floods = make()
    floods.count(flood, 0.0, limit)
    floods.count(flood, period / 2 + 0.0001, limit // 2)
    with pytest.raises(FloodError):
        floods.count(flood, period / 2 + 0.0001, 1)
    floods.count(flood, period * 10, limit)  # and never grows beyond the limit
    with pytest.raises(FloodError):
        floods.count(flood, period * 10, 1)


@pytest.mark.parametrize(("flood", "name", "limit", "period"), ALL)
def test_0_is_off(flood: Flood, name: str, limit: int, period: int) -> None:
    floods = make(**{name: 0})
    floods.count(flood, 0.0, 1 << 40)
    assert floods._buckets == {}


@pytest.mark.parametrize(("flood", "name", "limit", "period"), ALL)
def test_a_limit_of_one(flood: Flood, name: str, limit: int, period: int) -> None:
    floods = make(**{name: 1})
    floods.count(flood, 0.0)
    with pytest.raises(FloodError):
        floods.count(flood, period - 0.001)
    floods.count(flood, period + 0.001)


def test_each_has_a_bucket_of_its_own_and_none_before_it_is_used() -> None:
    floods = make(**{param.values[1]: 1 for param in ALL})
    assert floods._buckets == {}
    for flood in Flood:
        floods.count(flood, 0.0)
    reasons = set()
    for flood in Flood:
        with pytest.raises(FloodError) as raised:
            floods.count(flood, 0.0)
        reasons.add(raised.value.reason)
        assert str(raised.value) == raised.value.reason
    assert len(reasons) == len(Flood)


def test_connections_share_nothing() -> None:
    limits = FloodLimits(Limits(http2_pings=1))
    Floods(limits).count(PING, 0.0)
    Floods(limits).count(PING, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_in_no_period_more_than_twice_the_limit_passes(steps: list[float]) -> None:
    floods, now, passed = make(http2_faults=4), 0.0, []
    for step in steps:
        now += step
        try:
            floods.count(FAULT, now)
        except FloodError:
            continue
        passed.append(now)
    for start in passed:
        assert sum(start <= each < start + 10 for each in passed) <= 4 + 4
