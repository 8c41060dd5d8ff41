"""Calls whose clients have left, in virtual time: cancelled, then counted as stuck (spec limits L47)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from fakes import App, Receive, Send, SocketTalk, accept, in_loop, socket_send, turns
from termserver.config import Timeouts
from termserver.net import departures as module
from termserver.net.deadlines import Deadlines
from termserver.net.departures import Departures


class Time:
    """A clock, its wheel, and the departures under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **timeouts: float) -> None:
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.wheel = Deadlines(clock=lambda: self.now)
        self.departures = Departures(self.wheel, Timeouts(application_close=10, application_cancel=5, **timeouts))

    async def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            self.wheel.tick()
            await turns(3)


class Call:
    """An exchange, as far as departures look at it."""

    def __init__(self, coroutine: Callable[[], Awaitable[None]], *, begun: bool = False) -> None:
        self.request = SimpleNamespace(method="GET", path=b"/slow")
        self.begun = begun
        self.waiting_for = "other"
        self.task: asyncio.Task[None] | None = asyncio.ensure_future(coroutine())  # type: ignore[assignment]


async def endless() -> None:
    await asyncio.Event().wait()


async def deaf() -> None:
    async def inner() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if closing:
                    raise

    await inner()


closing: list[bool] = []


def test_call_is_cancelled_after_its_time_with_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless)
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(9.5)
        assert left.task is not None
        assert not left.task.done()
        await time.wait(1)
        assert left.task.cancelled()
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", "GET /slow: cancelled 10 s after its client left; it was waiting for other")
        ]

    with caplog.at_level(logging.INFO, "termserver"):
        main()


def test_call_that_has_begun_its_response_is_no_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless, begun=True)
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(11)

    with caplog.at_level(logging.INFO, "termserver"):
        main()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_call_that_ends_by_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless)
        time.departures.add(left)  # type: ignore[arg-type]
        assert time.departures
        time.departures.discard(left)  # type: ignore[arg-type]
        time.departures.discard(left)  # type: ignore[arg-type]
        assert not time.departures
        await time.wait(30)
        assert left.task is not None
        assert not left.task.done()
        left.task.cancel()

    main()


def test_call_that_ignores_its_cancellation_is_stuck_and_shown_to_the_innermost_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(deaf)
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(15.5)
        assert time.departures.stuck == 1
        assert time.departures.exchanges() == []
        assert "still running 15 s after its client left, cancelled in vain" in caplog.text
        assert "in inner" in caplog.text
        assert "Event().wait()" in caplog.text
        await time.wait(100)
        assert time.departures.stuck == 1
        closing.append(True)
        assert left.task is not None
        left.task.cancel()

    main()


def test_client_that_leaves_twice_left_at_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless)
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(6)
        time.departures.add(left)  # type: ignore[arg-type]
        assert time.departures.exchanges() == [left]
        await time.wait(5)
        assert left.task is not None
        assert left.task.cancelled()

    main()


def test_call_without_a_task_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless)
        assert left.task is not None
        left.task.cancel()
        left.task = None
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(11)
        assert time.departures.exchanges() == []

    main()


def test_zero_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_loop
    async def main() -> None:
        time, left = Time(monkeypatch), Call(endless)
        time.departures = Departures(time.wheel, Timeouts(application_close=0))
        time.departures.add(left)  # type: ignore[arg-type]
        await time.wait(1_000)
        assert left.task is not None
        assert not left.task.done()
        left.task.cancel()

    main()


# --- WebSockets ---


async def deaf_socket(_scope: object, _receive: Receive, send: Send) -> None:
    await send(accept())
    await asyncio.Event().wait()


async def talker(_scope: object, _receive: Receive, send: Send) -> None:
    await send(accept())
    await send(socket_send("x"))


async def listener(_scope: object, receive: Receive, send: Send) -> None:
    await send(accept())
    while True:
        await receive()


@pytest.mark.parametrize(
    ("app", "level", "waiting_for"),
    [(deaf_socket, "WARNING", "other"), (talker, "WARNING", "send"), (listener, "WARNING", "receive")],
    ids=["other", "send", "receive"],
)
def test_call_of_a_websocket_is_cancelled_with_one_line_that_says_what_it_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, app: App, level: str, waiting_for: str
) -> None:
    @in_loop
    async def main() -> None:
        time, talk = Time(monkeypatch), SocketTalk()
        talk.outlet.writable = waiting_for != "send"
        task = talk.begin(app)
        await turns()
        talk.exchange.lost()
        await turns()
        time.departures.add(talk.exchange)
        await time.wait(9.5)
        assert not task.done()
        await time.wait(1)
        assert task.done()

    with caplog.at_level(logging.INFO, "termserver"):
        main()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (level, f"GET /socket: cancelled 10 s after its client left; it was waiting for {waiting_for}")
    ]
