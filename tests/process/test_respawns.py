"""How long to wait after workers that came to nothing (spec limits L51)."""

import pytest

from termserver.process.respawns import Respawns


def test_the_first_worker_is_started_at_once() -> None:
    assert Respawns().due == 0.0


def test_the_wait_doubles_up_to_half_a_minute() -> None:
    respawns, waits = Respawns(), []
    for _ in range(12):
        respawns.failed(100.0)
        waits.append(respawns.due - 100.0)
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0])


def test_a_worker_of_use_ends_the_wait() -> None:
    respawns = Respawns()
    for _ in range(4):
        respawns.failed(100.0)
    respawns.succeeded()
    assert respawns.due == 0.0
    respawns.failed(200.0)
    assert respawns.due == pytest.approx(200.1)
    assert not respawns.hopeless


@pytest.mark.parametrize(
    ("times", "hopeless"),
    [
        pytest.param([0, 1, 2, 3], False, id="four"),
        pytest.param([0, 1, 2, 3, 10], True, id="five within ten seconds"),
        pytest.param([0, 1, 2, 3, 10.5], False, id="five in more"),
        pytest.param([0, 5, 10, 11, 12, 13], True, id="the last five count"),
    ],
)
def test_five_failures_within_ten_seconds_are_hopeless(times: list[float], hopeless: bool) -> None:
    respawns = Respawns()
    for time in times:
        respawns.failed(time)
    assert respawns.hopeless is hopeless
