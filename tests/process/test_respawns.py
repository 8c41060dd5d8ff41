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


def test_five_failures_in_a_row_are_hopeless() -> None:
    respawns = Respawns()
    for number in range(5):
        assert not respawns.hopeless
        respawns.failed(100.0 * number)  # however long a worker takes to fail
    assert respawns.hopeless


def test_a_success_makes_it_begin_anew() -> None:
    respawns = Respawns()
    for _ in range(3):
        for number in range(4):
            respawns.failed(float(number))
        respawns.succeeded()
    assert not respawns.hopeless
