"""WebSocketExchange: every WebSocket row of the ASGI text, with real engines and no connection (spec asgi parts 3, 5, 6)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fakes import Log, in_loop, read_answer, turns
from termserver.asgi.scope import base_scope, websocket_scope
from termserver.asgi.websocket import GRACE, WebSocketExchange
from termserver.config import Limits
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Closed, Fields, Phase, Request
from termserver.wire.handshake import Opening, read_opening
from termserver.wire.head import HeadParser
from termserver.wire.http1 import Http1
from termserver.wire.response import DefaultFields
from termserver.wire.websocket import Terms, WebSocket

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HANDSHAKE = (
    b"GET /chat?a=b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: one, two\r\n\r\n"
)
ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}


def text(value: object, **more: object) -> Message:
    return {"type": "websocket.send", "text": value, **more}


class Safe(str):
    """A string as Django marks them."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Talk:
    """One socket and one application: what `net` does, without time and connections. It is the exchange's outlet too."""

    def __init__(self, *, queue_limit: int = 16) -> None:
        limits = Limits()
        self.http = Http1(HeadParser(limits), limits, DefaultFields(b""))
        request = self.http.receive(HANDSHAKE)[0]
        if not isinstance(request, Request):
            raise AssertionError(request)  # noqa: TRY004 - a plain assert would be gone under -O
        opening: Opening = read_opening(request)
        self.subprotocols = opening.subprotocols
        self.exchange = WebSocketExchange(self.http, self, request, opening, queue_limit=queue_limit)
        self.receive, self.send = self.exchange.receive, self.exchange.send
        self.engine: WebSocket | None = None
        self.wire = bytearray()
        self.calls: list[str] = []
        self._room = asyncio.Event()
        self._room.set()

    # the outlet

    @property
    def writable(self) -> bool:
        return self._room.is_set()

    @writable.setter
    def writable(self, value: bool) -> None:
        (self._room.set if value else self._room.clear)()

    def upgrade(self, exchange: WebSocketExchange, headers: Fields, window_bits: int) -> None:
        self.http.upgrade(0, headers)
        self.wire += self.http.output()
        self.engine = WebSocket(Terms(Limits()), window_bits)
        exchange.opened(self.engine, self)

    def flush(self) -> None:
        self.wire += self.http.output() if self.engine is None else b"".join(self.engine.output())

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")
        self.exchange.held = False

    def finished(self, exchange: WebSocketExchange) -> None:  # noqa: ARG002 - the outlet's interface
        self.calls.append("finished")
        self.flush()

    def returned(self, exchange: WebSocketExchange) -> None:
        self.calls.append("running" if exchange.running else "returned")

    async def wait_writable(self) -> None:
        await self._room.wait()

    # what a test does

    def begin(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> "asyncio.Task[None]":
        base = base_scope(scheme="http", client=None, server=None, root_path="")
        scope = websocket_scope(base, self.exchange.request, self.subprotocols, {}, {})
        self.exchange.task = asyncio.get_running_loop().create_task(self.exchange.run(app, scope))
        return self.exchange.task

    async def run(self, *messages: Message) -> None:
        """Run an application that says just this."""

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)

        await self.begin(app)

    async def open(self) -> None:
        assert await self.receive() == {"type": "websocket.connect"}
        await self.send(ACCEPT)
        self.wire.clear()

    def answer(self) -> Any:
        """Read the refusal as a client would."""
        return read_answer(bytes(self.wire), b"GET", ended=True)

    @property
    def closing(self) -> tuple[int, str]:
        """What the Close frame on the wire says."""
        assert self.wire[0] == 0x88, self.wire
        return int.from_bytes(self.wire[2:4], "big"), self.wire[4:].decode()


# --- the verdict ---


@in_loop
async def test_w31_connect_comes_first_and_accept_answers_101() -> None:
    talk = Talk()
    assert await talk.receive() == {"type": "websocket.connect"}
    assert talk.wire == b""
    assert not talk.exchange.begun
    await talk.send(ACCEPT)
    assert talk.wire.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert talk.exchange.begun
    assert not talk.exchange.done
    assert talk.exchange.status == 101


@in_loop
async def test_w32_accept_carries_subprotocol_and_headers_in_order() -> None:
    talk = Talk()
    await talk.send({**ACCEPT, "subprotocol": "two", "headers": [[b"X-B", b"1"], (b"x-a", b"2")], "unknown": 1})
    assert b"sec-websocket-protocol: two\r\nX-B: 1\r\nx-a: 2\r\n" in talk.wire


@pytest.mark.parametrize(
    "wrong",
    [{"subprotocol": "three"}, {"subprotocol": b"one"}, {"headers": [(b"sec-websocket-protocol", b"one")]}, {"headers": [(b"a", b"\n")]}],
)
def test_w32_accept_that_no_client_may_be_given_raises(wrong: Message) -> None:
    @in_loop
    async def run() -> None:
        talk = Talk()
        with pytest.raises(InvalidMessage):
            await talk.send(ACCEPT | wrong)
        assert talk.wire == b""
        await talk.send(ACCEPT)  # nothing was said yet

    run()


@in_loop
async def test_w38_close_before_accept_is_403_and_the_end() -> None:
    talk = Talk()
    await talk.receive()
    await talk.send(CLOSE)
    assert (talk.answer().status, talk.answer().whole) == (403, True)
    assert talk.exchange.done
    assert talk.exchange.status == 403
    assert await talk.receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@in_loop
async def test_denial_response_is_streamed() -> None:
    talk = Talk()
    await talk.send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"y")]})
    assert talk.exchange.begun
    await talk.send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
    assert b"log " in talk.wire
    assert not talk.exchange.done
    talk.exchange.tell_disconnect()  # a refusal under way may go on
    await talk.send({"type": "websocket.http.response.body", "body": b"in"})
    answer = talk.answer()
    assert (answer.status, answer.body, answer.whole) == (401, b"log in", True)
    assert talk.exchange.sent == 6
    assert talk.exchange.done


@in_loop
async def test_denial_response_that_breaks_its_length_is_cut() -> None:
    talk = Talk()
    await talk.send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-length", b"1")]})
    with pytest.raises(InvalidMessage):
        await talk.send({"type": "websocket.http.response.body", "body": b"too long"})
    assert talk.exchange.done


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.http.response.start"},
        {"type": "websocket.http.response.start", "status": 99},
        {"type": "websocket.http.response.start", "status": 400, "headers": [(b"a b", b"")]},
    ],
)
def test_denial_response_that_cannot_be_sent_raises(message: Message) -> None:
    @in_loop
    async def run() -> None:
        with pytest.raises(InvalidMessage):
            await Talk().send(message)

    run()


@in_loop
async def test_body_of_a_denial_is_bytes() -> None:
    talk = Talk()
    await talk.send({"type": "websocket.http.response.start", "status": 400})
    with pytest.raises(InvalidMessage):
        await talk.send({"type": "websocket.http.response.body", "body": "text"})


# --- messages ---


@in_loop
async def test_messages_come_in_order_each_with_one_key() -> None:
    talk = Talk()
    await talk.open()
    talk.exchange.feed(["", "text", b"", b"bytes"])
    assert [await talk.receive() for _ in range(4)] == [
        {"type": "websocket.receive", "text": ""},
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "bytes": b"bytes"},
    ]


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (text("hello"), b"\x81\x05hello"),
        (text(""), b"\x81\x00"),
        (text("a", bytes=None), b"\x81\x01a"),
        (text(None, bytes=b"ab"), b"\x82\x02ab"),
        ({"type": "websocket.send", "bytes": b""}, b"\x82\x00"),
        ({"type": "websocket.send", "bytes": bytearray(b"x")}, b"\x82\x01x"),
        ({"type": "websocket.send", "bytes": memoryview(b"x")}, b"\x82\x01x"),
        (text("a", unknown=1), b"\x81\x01a"),
        (text(Safe("<b>")), b"\x81\x03<b>"),
    ],
)
def test_w35_what_is_sent(message: Message, frame: bytes) -> None:
    @in_loop
    async def run() -> None:
        talk = Talk()
        await talk.open()
        await talk.send(message)
        assert talk.wire == frame

    run()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        text(None),
        text("a", bytes=b"b"),
        text(b"bytes"),
        text(7),
        {"type": "websocket.send", "bytes": "text"},
        text("\ud800"),
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.close", "code": 1006},
        {"type": "websocket.close", "code": 999},
        {"type": "websocket.close", "code": "1000"},
        {"type": "websocket.close", "reason": "x" * 124},
        {"type": "websocket.close", "reason": b"bytes"},
        {"type": "http.response.start", "status": 200},
        {"type": ["websocket.send"]},
        {},
        "websocket.send",
        None,
    ],
)
def test_a7_what_cannot_be_used_raises_and_writes_nothing(message: Any) -> None:
    @in_loop
    async def run() -> None:
        talk = Talk()
        await talk.open()
        with pytest.raises(InvalidMessage):
            await talk.send(message)
        assert talk.wire == b""
        await talk.send(text("still there"))
        assert talk.wire

    run()


@pytest.mark.parametrize("kind", ["websocket.send", "websocket.http.response.body"])
def test_message_ahead_of_the_verdict_raises(kind: str) -> None:
    @in_loop
    async def run() -> None:
        with pytest.raises(UnexpectedMessage, match=r"expected 'websocket.accept'"):
            await Talk().send({"type": kind, "text": ""})

    run()


@pytest.mark.parametrize("kind", ["websocket.accept", "websocket.http.response.start", "websocket.http.response.body"])
def test_second_verdict_raises(kind: str) -> None:
    @in_loop
    async def run() -> None:
        talk = Talk()
        await talk.open()
        with pytest.raises(UnexpectedMessage, match=r"expected 'websocket.send'"):
            await talk.send({"type": kind, "status": 200})

    run()


@in_loop
async def test_send_while_refusing_raises() -> None:
    talk = Talk()
    await talk.send({"type": "websocket.http.response.start", "status": 400})
    with pytest.raises(UnexpectedMessage, match=r"expected 'websocket.http.response.body'"):
        await talk.send(text("a"))


# --- the end ---


@in_loop
async def test_w36_disconnect_comes_once_behind_what_came_before() -> None:
    talk = Talk()
    await talk.open()
    talk.exchange.feed(["first", Closed(4_000, "bye")])
    talk.exchange.lost()
    assert (await talk.receive())["text"] == "first"
    assert await talk.receive() == {"type": "websocket.disconnect", "code": 4_000, "reason": "bye"}
    again = asyncio.ensure_future(talk.receive())
    await turns()
    assert not again.done()
    assert talk.exchange.waiting_for == "receive"
    again.cancel()


@in_loop
async def test_w36_lost_connection_is_1006_and_wakes_who_waits() -> None:
    talk = Talk()
    await talk.open()
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.exchange.lost()
    assert await waiting == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@in_loop
async def test_connection_lost_before_the_verdict_is_told_and_accept_is_in_vain() -> None:
    talk = Talk()
    talk.exchange.lost()
    assert (await talk.receive())["type"] == "websocket.connect"
    await talk.send(ACCEPT)
    assert talk.wire == b""
    assert (await talk.receive())["type"] == "websocket.disconnect"


@in_loop
async def test_tell_disconnect_ends_what_has_no_verdict_only() -> None:
    talk = Talk()
    await talk.open()
    talk.exchange.tell_disconnect()
    assert not talk.exchange.done
    other = Talk()
    other.exchange.tell_disconnect()
    assert other.exchange.done


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (CLOSE, (1000, "")),
        ({**CLOSE, "code": None, "reason": None}, (1000, "")),
        ({**CLOSE, "code": 4_999, "reason": "ż" * 61}, (4_999, "ż" * 61)),
        ({**CLOSE, "code": 1012}, (1012, "")),
    ],
)
def test_w39_close_has_the_code_and_reason(message: Message, expected: tuple[int, str]) -> None:
    @in_loop
    async def run() -> None:
        talk = Talk()
        await talk.open()
        await talk.send(message)
        assert talk.closing == expected
        talk.wire.clear()
        await talk.send(message)
        await talk.send(text("into the void"))
        with pytest.raises(UnexpectedMessage):
            await talk.send(ACCEPT)
        assert talk.wire == b""
        talk.exchange.feed([Closed(expected[0], "")])
        assert (await talk.receive())["code"] == expected[0]

    run()


@in_loop
async def test_send_to_a_client_that_left_is_silent_for_a_grace_and_raises_then() -> None:
    talk = Talk()
    await talk.open()
    loop = asyncio.get_running_loop()
    began = loop.time()
    talk.exchange.lost()
    for _ in range(105):  # they cost a turn each, later ones a moment
        await talk.send(text("late"))
        await asyncio.sleep(0)
    await talk.send(CLOSE)
    assert talk.wire == b""
    real = loop.time
    try:
        loop.time = lambda: began + GRACE + 3_600  # type: ignore[method-assign]
        for message in (text("late"), CLOSE, {"type": "anything"}):
            with pytest.raises(ClientDisconnected):
                await talk.send(message)
    finally:
        loop.time = real  # type: ignore[method-assign]
    assert issubclass(ClientDisconnected, OSError)


# --- what the application leaves undone ---


@in_loop
async def test_w28_application_that_returns_closes_with_1000() -> None:
    talk = Talk()
    await talk.run(ACCEPT)
    talk.wire = talk.wire[talk.wire.index(b"\r\n\r\n") + 4 :]
    assert talk.closing == (1000, "")
    assert talk.calls == ["returned"]
    assert not talk.exchange.running


def raising(error: BaseException, *messages: Message) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise error

    return app


def test_application_that_raises_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def run() -> None:
        talk, log = Talk(), Log(caplog)
        await talk.begin(raising(RuntimeError("x"), ACCEPT))
        assert talk.wire.endswith(b"\x88\x02\x03\xf3")
        assert log.errors == ["Exception in the application: WebSocket /chat"]
        assert log.tracebacks == 1

    run()


@pytest.mark.parametrize("raises", [True, False])
def test_application_that_ends_without_a_verdict_is_a_500(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def run() -> None:
        talk, log = Talk(), Log(caplog)
        await (talk.begin(raising(RuntimeError("x"))) if raises else talk.run())
        assert talk.answer().status == 500
        assert talk.exchange.status == 500
        assert len(log.errors) == 1

    run()


@pytest.mark.parametrize("body", [[], [{"type": "websocket.http.response.body", "body": b"half", "more_body": True}]])
def test_denial_response_that_is_not_finished_is_cut(body: list[Message], caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def run() -> None:
        talk, log = Talk(), Log(caplog)
        await talk.run({"type": "websocket.http.response.start", "status": 400}, *body)
        assert not read_answer(bytes(talk.wire), b"GET", ended=False).whole
        assert talk.calls == ["finished", "returned"]
        assert len(log.errors) == 1

    run()


@pytest.mark.parametrize(
    ("error", "level"), [(ClientDisconnected("the client has left"), logging.DEBUG), (RuntimeError("late"), logging.INFO)]
)
def test_a11_what_comes_of_a_departure_is_no_error(error: Exception, level: int, caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def run() -> None:
        talk, log = Talk(), Log(caplog)

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            while (await receive())["type"] != "websocket.disconnect":
                pass
            raise error

        task = talk.begin(app)
        await turns()
        talk.exchange.lost()
        await task
        assert log.quiet
        assert len(log.lines(level)) == 1

    run()


def test_cancelled_application_ends_quietly_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    @in_loop
    async def run() -> None:
        talk, log = Talk(), Log(caplog)

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            await send(ACCEPT)
            await asyncio.Event().wait()

        task = talk.begin(app)
        await turns()
        assert talk.exchange.waiting_for == "other"
        task.cancel()
        await task
        assert talk.wire.endswith(b"\x88\x02\x03\xf3")
        assert log.quiet

    run()


def test_interrupt_is_passed_on() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise KeyboardInterrupt

    @in_loop
    async def run() -> None:
        talk = Talk()
        running = talk.exchange.run(app, {})
        with pytest.raises(KeyboardInterrupt):
            running.send(None)
        assert talk.answer().status == 500

    run()


# --- waiting, both ways ---


@in_loop
async def test_cancelled_receive_loses_nothing_and_leaves_the_others_waiting() -> None:
    talk = Talk()
    await talk.open()
    first, second = asyncio.ensure_future(talk.receive()), asyncio.ensure_future(talk.receive())
    await turns()
    first.cancel()
    await turns()
    talk.exchange.feed(["one"])
    assert (await second)["text"] == "one"
    talk.exchange.feed(["two", "three"])
    third = asyncio.ensure_future(talk.receive())
    await turns()
    assert third.done()
    assert (await talk.receive())["text"] == "three"


@in_loop
async def test_waiter_that_is_cancelled_as_news_comes_loses_nothing() -> None:
    talk = Talk()
    await talk.open()
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.exchange.feed(["news"])
    talk.exchange.feed(["more"])  # the waiter has been told already
    waiting.cancel()
    await turns()
    assert [(await talk.receive())["text"] for _ in range(2)] == ["news", "more"]


@in_loop
async def test_l38_full_queue_is_said_and_reading_goes_on_at_half() -> None:
    talk = Talk(queue_limit=4)
    await talk.open()
    talk.exchange.feed(["1", "2", "3"])
    assert not talk.exchange.full
    talk.exchange.feed(["4"])
    assert talk.exchange.full
    talk.exchange.held = True
    await talk.receive()
    assert talk.calls == []
    await talk.receive()
    assert talk.calls == ["resume_reading"]
    assert not Talk(queue_limit=0).exchange.full


@in_loop
async def test_a4_send_waits_for_a_client_that_does_not_read() -> None:
    talk = Talk()
    await talk.open()
    talk.writable = False
    sending = asyncio.ensure_future(talk.send(text("a")))
    await turns()
    assert not sending.done()
    assert talk.exchange.waiting_for == "send"
    talk.writable = True
    await sending
    assert talk.exchange.waiting_for == "other"


@in_loop
async def test_nothing_is_fed_after_the_end() -> None:
    talk = Talk()
    await talk.open()
    talk.exchange.lost()
    talk.exchange.feed(["late"])
    assert (await talk.receive())["type"] == "websocket.disconnect"
    assert talk.engine is not None
    assert talk.engine.phase is Phase.OPEN
