"""The supervisor's view of a worker: what it says, when it is worn out, how it is ended; and that it is started with all it needs."""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from termserver.channel import Channel
from termserver.config import Config, Timeouts, Workers
from termserver.process import worker as module
from termserver.process.worker import DRAINING, READY, STARTING, Worker

Make = Callable[..., Worker]


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would have been sent to whom."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda pid, number: sent.append((pid, number)))
    return sent


@pytest.fixture
def make(signals: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make a worker without a process; the jitter is none. Its other end is `worker.its`."""
    monkeypatch.setattr(module.random, "uniform", lambda low, high: (low + high) / 2)
    opened: list[socket.socket] = []

    def one(**limits: Any) -> Any:
        ours, its = socket.socketpair()
        opened.extend((ours, its))
        config = Config(workers=replace(Workers(), **limits), timeouts=replace(Timeouts(), graceful=10.0))
        return Worker(1, 1, 4_000_000, Channel(ours), config, 100.0)

    yield one
    for each in opened:
        each.close()


def ready(worker: Worker, now: float = 100.0) -> Worker:
    worker.take({"is": "ready"}, now)
    return worker


# --- what it says ---


def test_it_is_ready_when_it_says_so(make: Make) -> None:
    worker = make()
    assert worker.stage is STARTING
    ready(worker, 101.0)
    assert (worker.stage, worker.ready_at, worker.heard) == (READY, 101.0, 101.0)


def test_it_is_not_ready_any_more_once_it_was_told_to_end(make: Make) -> None:
    worker = make()
    worker.drain(100.0, restarting=False)
    assert ready(worker).stage is DRAINING


def test_a_beat_is_a_sign_of_life_with_figures(make: Make) -> None:
    worker = make()
    worker.take({"is": "beat", "requests": 7}, 102.0)
    assert (worker.heard, worker.beats, worker.said["requests"]) == (102.0, 1, 7)


def test_why_it_could_not_begin_is_kept_and_other_words_are_not(make: Make) -> None:
    worker = make()
    worker.take({"is": "failed", "code": 3, "reason": "no module"}, 101.0)
    worker.take({"is": "gossip"}, 101.0)
    assert (worker.failure, worker.heard) == ((3, "no module"), None)


# --- worn out (spec limits L47, L52) ---


@pytest.mark.parametrize(
    ("limits", "said", "now", "reason"),
    [
        pytest.param({}, {"requests": 10**9, "stuck": 99}, 10**6, "", id="no limit"),
        pytest.param({"requests": 10}, {"requests": 9}, 200, "", id="not yet so many requests"),
        pytest.param({"requests": 10}, {"requests": 10}, 200, "it has served 10 requests", id="requests"),
        pytest.param({"requests": 10}, {}, 200, "", id="no figures yet"),
        pytest.param({"age": 60}, {}, 159, "", id="young"),
        pytest.param({"age": 60}, {}, 160, "it is 60 s old", id="age"),
        pytest.param({}, {"stuck": 100}, 200, "100 application calls are stuck", id="stuck"),
        pytest.param({"stuck": 0}, {"stuck": 1_000}, 200, "", id="stuck is off"),
        pytest.param({"memory": 300 << 20}, {}, 200, "", id="little memory"),
        pytest.param({"memory": 200 << 20}, {}, 200, "it has 200 MiB", id="memory"),
    ],
)
def test_it_is_worn_out(
    make: Make, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], said: dict[str, Any], now: float, reason: str
) -> None:
    worker = ready(make(**limits))
    monkeypatch.setattr(worker, "memory", lambda: 200 << 20)
    worker.take({"is": "beat", **said}, 100.0)
    assert worker.worn_out(now) == reason


def test_limits_are_spread_by_a_fifth() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        config = Config(workers=replace(Workers(), requests=1_000, age=1_000.0))
        workers = [Worker(1, 1, 1, Channel(ours), config, 0.0) for _ in range(300)]
        for name in ("_most_requests", "_oldest"):
            limits = [getattr(worker, name) for worker in workers]
            assert 800 <= min(limits) < 850
            assert 1_150 < max(limits) <= 1_200


def test_memory_is_what_is_resident(make: Make) -> None:
    worker = make()
    assert worker.memory() == 0
    worker.pid = os.getpid()
    status = Path("/proc/self/status").read_text()
    assert worker.memory() == pytest.approx(int(status.split("VmRSS:")[1].split()[0]) * 1024, rel=0.2)


# --- ending it (spec limits L45, L50) ---


def test_it_is_told_once_to_end_and_killed_five_seconds_after_its_grace(make: Make, signals: list[Any]) -> None:
    worker = ready(make(heartbeat=0))
    assert worker.next_check() == float("inf")
    worker.drain(100.0, restarting=True)
    worker.drain(109.0, restarting=False)
    assert worker.next_check() == 115.0
    assert worker.check(114.9) == ""
    assert signals == []
    assert worker.check(115.0) == "does not end: killed"
    assert worker.check(200.0) == ""
    assert signals == [(4_000_000, signal.SIGKILL)]


def test_a_stop_says_whether_another_takes_over() -> None:
    for restarting in (True, False):
        ours, its = socket.socketpair()
        with ours, its:
            Worker(1, 1, 1, Channel(ours), Config(), 0.0).drain(0.0, restarting=restarting)
            assert list(Channel(its).hear()) == [{"is": "stop", "restarting": restarting}]


def test_a_silent_worker_is_aborted_then_killed(make: Make, signals: list[Any]) -> None:
    worker = ready(make(heartbeat=30))
    assert worker.next_check() == 130.0
    assert worker.check(129.9) == ""
    assert worker.check(130.0).startswith("gave no sign of life for 30.0 s")
    assert signals == [(4_000_000, signal.SIGABRT)]
    assert worker.next_check() == 135.0
    assert worker.check(131.0) == ""
    assert worker.check(135.0) == "does not end: killed"
    assert signals[1:] == [(4_000_000, signal.SIGKILL)]


def test_beats_put_the_check_off(make: Make, signals: list[Any]) -> None:
    worker = ready(make(heartbeat=30))
    worker.take({"is": "beat"}, 125.0)
    assert worker.check(150.0) == ""
    assert worker.next_check() == 155.0
    assert not signals


def test_without_a_limit_silence_is_no_fault(make: Make, signals: list[Any]) -> None:
    worker = ready(make(heartbeat=0))
    assert worker.check(10**6) == ""
    assert not signals


def test_one_that_says_nothing_yet_is_no_silent_one(make: Make, signals: list[Any]) -> None:
    worker = make(heartbeat=30)
    assert (worker.check(10**6), worker.next_check()) == ("", float("inf"))
    assert not signals


def test_a_start_up_that_blocks_the_loop_has_the_time_of_a_start_up(make: Make, signals: list[Any]) -> None:
    worker = make(heartbeat=30)
    worker.take({"is": "beat"}, 100.0)  # the loop runs; then the application loads a large model in lifespan.startup
    assert worker.check(140.0) == ""


def test_one_that_is_gone_already_cannot_be_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_pid: int, _number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(module.os, "kill", gone)
    make().kill()


# --- starting it ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where `fakeworker.py` is what a worker runs."""
    monkeypatch.setattr(module, "MODULE", "fakeworker")
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}


Start = Callable[[str], Worker]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What a worker accepts from."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def start(environment: dict[str, str], listener: socket.socket) -> Iterator[Start]:
    """Start a worker for an application."""
    lifeline, held = os.pipe()
    sockets = {"main": [listener], "redirect": list[socket.socket]()}

    def one(application: str) -> Worker:
        config = Config(application=application)
        return module.start(
            number=1, generation=1, config=config, listeners=sockets, environment=environment, lifeline=lifeline, now=time.monotonic()
        )

    yield one
    os.close(lifeline)
    os.close(held)


def wait_said(worker: Worker, kind: str) -> list[dict[str, Any]]:
    """Give what it said up to this."""
    end, found = time.monotonic() + 20, list[dict[str, Any]]()
    while time.monotonic() < end and not worker.channel.closed:
        select.select([worker.channel], [], [], 1)
        found += worker.channel.hear()
        if any(said["is"] == kind for said in found):
            return found
    pytest.fail(f"it did not say {kind!r}, but {found}")


def test_a_worker_is_started_with_its_sockets_and_ended_over_its_channel(start: Start, listener: socket.socket) -> None:
    before = set(os.listdir("/proc/self/fd"))
    worker = start("ready")
    ready, nonsense = wait_said(worker, "nonsense")[:2]
    assert ready["is"] == "ready"
    number = nonsense["sockets"]["main"][0]
    assert os.readlink(f"/proc/{worker.pid}/fd/{number}") == os.readlink(f"/proc/self/fd/{listener.fileno()}")
    assert not os.get_inheritable(listener.fileno())
    worker.drain(time.monotonic(), restarting=False)
    assert os.waitpid(worker.pid, 0)[1] == 0
    worker.channel.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_worker_that_cannot_be_started_leaves_nothing_open(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        start("ready")
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("flags", "options", "expected"),
    [
        pytest.param({}, [], ["-P"], id="none"),
        pytest.param({"_xoptions": {"dev": True, "importtime": "2"}}, [], ["-P", "-X", "dev", "-X", "importtime=2"], id="-X"),
        pytest.param({"ignore_environment": 1, "no_user_site": 1}, [], ["-P", "-E", "-s"], id="alone"),
        pytest.param({"optimize": 2}, [], ["-P", "-O", "-O"], id="optimize"),
        pytest.param({"isolated": 1}, [], ["-P", "-I"], id="isolated"),
        pytest.param({}, ["error", "ignore::ResourceWarning"], ["-P", "-W", "error", "-W", "ignore::ResourceWarning"], id="warnings"),
    ],
)
def test_an_interpreters_flags_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, object], options: list[str], expected: list[str]
) -> None:
    class Flags:
        optimize = isolated = ignore_environment = no_user_site = 0

    monkeypatch.setattr(module.sys, "_xoptions", flags.pop("_xoptions", {}))
    monkeypatch.setattr(module.sys, "flags", type("Given", (Flags,), flags))
    monkeypatch.setattr(module.sys, "warnoptions", options)
    assert module._interpreter_flags() == expected
