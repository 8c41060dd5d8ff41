"""A WebSocket on a connection: the switch, backpressure, the closing handshake on the wire, time; both kinds of transport, virtual time."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from fakes import (
    GET,
    Message,
    Receive,
    Send,
    Switched,
    accept,
    denial_body,
    denial_start,
    handshake,
    in_virtual_time,
    now,
    read_answer,
    read_switched,
    socket_close,
    socket_send,
    turns,
)
from net.wires import CLIENT, LoopWire, TwistedWire, Wire
from termserver.config import Config, Limits, Logging, Proxy, Timeouts
from termserver.net import connection as connection_module
from termserver.net import departures as departures_module
from termserver.net import server as server_module
from termserver.net import websocket as module
from termserver.net.deadlines import Deadlines
from termserver.net.departures import Departures
from termserver.net.endpoints import LoopTransport
from termserver.net.server import SERVING, STOPPED, Server
from termserver.net.websocket import SocketConnection
from termserver.observe.access import AccessLog
from termserver.wire.handshake import normal_origin
from wire.frames import CLOSE, CONT, PING, PONG, TEXT, Sent, close, frame

App = Callable[..., Awaitable[None]]
both = pytest.mark.parametrize("kind", [LoopWire, TwistedWire], ids=["loop", "twisted"])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every clock show the loop's virtual time."""
    for each in (module, connection_module):
        monkeypatch.setattr(each, "monotonic", now)
    for each in (server_module, departures_module):
        monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=now))


class Sink:
    """Where the access log goes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: list[str]) -> None:
        self.lines += [line.rstrip("\n") for line in lines]


class Puppet:
    """An application that does what a test has it do: accepts and listens unless told otherwise, and writes down what it hears."""

    def __init__(self, *, accepts: bool = True, listens: bool = True) -> None:
        self.accepts = accepts
        self.listens = listens
        self.scope: Message = {}
        self.heard: list[Message] = []
        self.raised: BaseException | None = None
        self.done = asyncio.Event()
        self.receive: Receive
        self.send: Send

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        try:
            await receive()
            if self.accepts:
                await send(accept())
            while self.listens and not (self.heard and self.heard[-1]["type"] == "websocket.disconnect"):
                self.heard.append(await receive())
            if not self.listens:
                await self.done.wait()
        except BaseException as error:
            self.raised = error
            raise

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.heard if "text" in message]

    @property
    def end(self) -> tuple[int, str] | None:
        """What `websocket.disconnect` said."""
        last = self.heard[-1] if self.heard else {}
        return (last["code"], last["reason"]) if last.get("type") == "websocket.disconnect" else None


class Talk:
    """A server without ports, and one connection of it."""

    def __init__(
        self,
        app: App,
        kind: type[Wire] = LoopWire,
        *,
        goes: bool = True,
        limits: Limits | None = None,
        log: str | None = None,
        config: Config | None = None,
        **timeouts: float,
    ) -> None:
        config = config or Config()
        self.sink = Sink()
        self.log = AccessLog(log, self.sink) if log else None  # type: ignore[arg-type]
        config = replace(config, limits=limits or Limits(), timeouts=Timeouts(**timeouts), logging=Logging(access_log=None))  # type: ignore[arg-type]
        self.server = Server(config, app, access_log=self.log)
        self.server.loop = asyncio.get_running_loop()
        self.server.context = contextvars.copy_context()
        self.server.deadlines = Deadlines(clock=now)
        self.server.departures = Departures(self.server.deadlines, config.timeouts)
        self.server.deadlines.start(self.server.loop)
        self.server.stage = SERVING
        self.kind = kind
        self.wire = self.connect(goes=goes)

    def connect(self, *, goes: bool = True) -> Wire:
        return self.kind(self.server, goes=goes)

    async def receive(self, *data: bytes) -> None:
        self.wire.receive(b"".join(data))
        await turns()

    async def open(self, *data: bytes) -> None:
        """Let the client ask for a WebSocket, `data` right behind it."""
        await self.receive(handshake(), *data)
        assert self.wire.sent.startswith(b"HTTP/1.1 101 "), bytes(self.wire.sent)

    @property
    def socket(self) -> SocketConnection:
        [connection] = self.server.connections
        assert isinstance(connection, SocketConnection)
        return connection

    @property
    def switched(self) -> Switched:
        return read_switched(bytes(self.wire.sent))

    @property
    def frames(self) -> list[Sent]:
        return self.switched.frames

    @property
    def status(self) -> int:
        return read_answer(bytes(self.wire.sent), b"GET", ended=True).status

    @property
    def over(self) -> bool:
        """Whether nothing is left of the connection and its call."""
        return not self.server.connections and not self.server.running and not self.server.departures

    def logged(self) -> list[str]:
        assert self.log is not None
        self.log.flush()
        return self.sink.lines


def text(data: bytes | str) -> bytes:
    return frame(TEXT, data if isinstance(data, bytes) else data.encode())


def closed(code: int, reason: bytes = b"") -> Sent:
    return Sent(CLOSE, code.to_bytes(2, "big") + reason)


async def opened(kind: type[Wire] = LoopWire, *, listens: bool = True, **options: Any) -> tuple[Talk, Puppet]:
    app = Puppet(listens=listens)
    talk = Talk(app, kind, **options)
    await talk.open()
    return talk, app


# --- the switch ---


@both
@in_virtual_time
async def test_acceptance_hands_the_transport_to_a_socket_connection(kind: type[Wire]) -> None:
    app = Puppet()
    talk = Talk(app, kind)
    [before] = talk.server.connections
    await talk.open()
    assert isinstance(talk.socket, SocketConnection)
    assert before not in talk.server.connections
    assert (app.scope["type"], app.scope["scheme"], app.scope["path"]) == ("websocket", "ws", "/socket")
    assert "websocket.http.response" in app.scope["extensions"]
    await talk.receive(text("hello"), frame(TEXT, b"in ", fin=False), frame(CONT, b"parts"))
    assert app.texts == ["hello", "in parts"]
    await app.send(socket_send("answer"))
    assert talk.frames == [Sent(TEXT, b"answer")]
    talk.wire.lose()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_what_comes_right_behind_the_handshake_is_frames(kind: type[Wire]) -> None:
    app = Puppet()
    talk = Talk(app, kind)
    await talk.open(text("early"), frame(PING, b"p"), text("half")[:5])
    await talk.receive(text("half")[5:])
    assert app.texts == ["early", "half"]
    assert talk.frames == [Sent(PONG, b"p")]


@both
@in_virtual_time
async def test_what_comes_before_the_verdict_is_frames_too(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    await talk.receive(text("early")[:3])
    await talk.receive(text("early")[3:])
    assert not talk.wire.sent
    await app.send(accept())
    assert (await app.receive())["text"] == "early"


@both
@in_virtual_time
async def test_reading_stops_where_too_much_comes_before_the_verdict_and_goes_on_after_it(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind, limits=Limits(pipeline_buffer=10))
    await talk.receive(handshake(), text("x" * 100))
    assert not talk.wire.reading
    await app.send(accept())
    assert talk.wire.reading
    assert (await app.receive())["text"] == "x" * 100


@both
@in_virtual_time
async def test_the_close_may_come_right_behind_the_handshake(kind: type[Wire]) -> None:
    app = Puppet()
    talk = Talk(app, kind)
    await talk.open(text("hello"), close(1000))
    assert app.texts == ["hello"]
    assert app.end == (1000, "")
    assert talk.frames == [closed(1000)]
    assert talk.over


@both
@in_virtual_time
async def test_a_client_that_does_not_read_its_101_is_not_written_to(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    talk.wire.block()
    accepting = asyncio.ensure_future(app.send(accept()))
    await turns()
    assert not accepting.done()
    await talk.receive(frame(PING, b"held"))
    assert talk.frames == []
    talk.wire.unblock()
    await accepting
    assert talk.frames == [Sent(PONG, b"held")]


@both
@in_virtual_time
async def test_every_socket_of_a_server_has_an_engine_of_its_own(kind: type[Wire]) -> None:
    apps: list[Puppet] = []

    async def app(*call: Any) -> None:
        apps.append(Puppet())
        await apps[-1](*call)

    talk = Talk(app, kind)
    await talk.open()
    first, talk.wire = talk.wire, talk.connect()
    await talk.open()
    first.receive(text("half")[:4])
    await talk.receive(text("other"))
    first.receive(text("half")[4:])
    await turns()
    assert [each.texts for each in apps] == [["half"], ["other"]]
    assert len(talk.server.connections) == 2


@both
@in_virtual_time
async def test_an_earlier_request_of_the_connection_is_no_hindrance(kind: type[Wire]) -> None:
    puppet = Puppet()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await puppet(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    talk = Talk(app, kind)
    await talk.receive(GET, handshake(), text("hello"))
    await turns()
    first, _, rest = bytes(talk.wire.sent).partition(b"hello")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert read_switched(rest).status == 101
    assert puppet.texts == ["hello"]


@both
@pytest.mark.parametrize(
    ("trusted", "scheme", "host"), [(("*",), "wss", "203.0.113.1"), (("10.0.0.1",), "ws", None)], ids=["trusted", "a stranger"]
)
@in_virtual_time
async def test_w29_a_proxy_s_word_is_taken_if_it_is_trusted(
    kind: type[Wire], trusted: tuple[str, ...], scheme: str, host: str | None
) -> None:
    app = Puppet()
    talk = Talk(app, kind, config=Config(proxy=Proxy(headers=True, trusted=trusted)))
    await talk.receive(handshake(b"X-Forwarded-For: 203.0.113.1", b"X-Forwarded-Proto: https"))
    assert app.scope["scheme"] == scheme
    assert app.scope["client"][0] == (host or talk.wire.transport.getPeer().host)


# --- backpressure inwards (L38) ---


@both
@in_virtual_time
async def test_l38_reading_stops_at_a_full_queue_and_goes_on_when_it_is_taken(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=4))
    await talk.receive(*[text(str(number)) for number in range(3)])
    assert talk.wire.reading
    await talk.receive(*[text(str(number)) for number in range(3, 20)])
    assert not talk.wire.reading
    found = [(await app.receive())["text"] for _ in range(20)]
    assert found == [str(number) for number in range(20)]
    assert talk.wire.reading
    await talk.receive(text("on"))
    assert (await app.receive())["text"] == "on"


@both
@in_virtual_time
async def test_l38_nothing_is_lost_and_the_queue_stays_bounded(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=4))
    stream = b"".join(text(f"message {number}") for number in range(500))
    found: list[str] = []
    while len(found) < 500:
        if talk.wire.reading and stream:
            await talk.receive(stream[:301])
            stream = stream[301:]
        else:
            found.append((await app.receive())["text"])
        assert len(talk.socket.exchanges()[0]._queue) < 12
    assert found == [f"message {number}" for number in range(500)]


@both
@in_virtual_time
async def test_l38_zero_is_no_limit(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=0))
    await talk.receive(*[text("x") for _ in range(1_000)])
    assert talk.wire.reading
    assert {(await app.receive())["text"] for _ in range(1_000)} == {"x"}


@both
@in_virtual_time
async def test_l38_the_close_behind_a_full_queue_comes_last(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(*[text(str(number)) for number in range(5)], close(4000, b"bye"))
    assert talk.frames == []
    messages = [await app.receive() for _ in range(6)]
    assert [message.get("text") for message in messages] == ["0", "1", "2", "3", "4", None]
    assert (messages[-1]["code"], messages[-1]["reason"]) == (4000, "bye")
    await turns()
    assert talk.frames == [closed(4000, b"bye")]
    assert talk.wire.calls == ["close"]


@both
@in_virtual_time
async def test_what_came_before_the_close_can_still_be_answered(kind: type[Wire]) -> None:
    async def echo(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        while (message := await receive())["type"] != "websocket.disconnect":
            await send(socket_send(message["text"]))

    talk = Talk(echo, kind)
    await talk.open()
    await talk.receive(text("one"), text("two"), close(1000))
    assert talk.frames == [Sent(TEXT, b"one"), Sent(TEXT, b"two"), closed(1000)]


@both
@in_virtual_time
async def test_the_close_does_not_overtake_a_full_queue(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=4))
    await talk.receive(*[text(str(number)) for number in range(5)], close(1000))
    found = []
    while (message := await app.receive())["type"] != "websocket.disconnect":
        found.append(message["text"])
        await app.send(socket_send(message["text"]))
    assert found == ["0", "1", "2", "3", "4"]
    await turns()
    assert talk.frames[0] == Sent(TEXT, b"0")
    assert talk.frames[-1] == closed(1000)
    assert talk.wire.calls == ["close"]


@both
@in_virtual_time
async def test_a_transport_that_had_read_on_is_not_stopped_twice(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(text("0"), text("1"))
    assert not talk.wire.reading
    talk.socket.dataReceived(text("2"))
    assert not talk.wire.reading
    assert [(await app.receive())["text"] for _ in range(3)] == ["0", "1", "2"]
    await turns()
    assert talk.wire.reading


@both
@pytest.mark.parametrize("end", [close(4000), frame(TEXT, b"x", mask=None)], ids=["close", "fault"])
@in_virtual_time
async def test_the_end_that_fills_the_queue_stops_nothing(kind: type[Wire], end: bytes) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(text("0"))
    await talk.receive(end)
    assert len(talk.frames) == 1
    assert talk.wire.calls == (["close"] if end == close(4000) else ["shut"])
    assert [(await app.receive())["type"] for _ in range(2)] == ["websocket.receive", "websocket.disconnect"]
    if end != close(4000):
        assert talk.wire.reading  # to discard


@both
@in_virtual_time
async def test_a_close_and_the_loss_in_one_turn_is_the_close(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    talk.wire.receive(text("last") + close(1000, b"bye"))
    await asyncio.sleep(0)
    talk.wire.shut()
    await turns()
    assert app.texts == ["last"]
    assert app.end == (1000, "bye")
    assert talk.over


# --- backpressure outwards ---


@both
@in_virtual_time
async def test_a4_send_waits_while_the_client_does_not_read(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    sent: list[int] = []

    async def speak() -> None:
        for number in range(3):
            await app.send(socket_send(str(number)))
            sent.append(number)

    talk.wire.block()
    speaking = asyncio.ensure_future(speak())
    await turns()
    assert sent == []
    talk.wire.unblock()
    await speaking
    assert talk.frames == [Sent(TEXT, b"0"), Sent(TEXT, b"1"), Sent(TEXT, b"2")]


@both
@in_virtual_time
async def test_all_that_wait_to_send_go_on_or_end_with_the_connection(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    talk.wire.block()
    sending = [asyncio.ensure_future(app.send(socket_send("x"))) for _ in range(3)]
    await turns()
    assert not any(each.done() for each in sending)
    talk.wire.lose()
    await asyncio.gather(*sending)
    assert app.end == (1006, "")


@both
@in_virtual_time
async def test_rfc6455_5_5_3_pongs_are_held_while_the_client_does_not_read_and_the_newest_is_enough(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    talk.wire.block()
    await talk.receive(frame(PING, b"1"), frame(PING, b"2"))
    await talk.receive(frame(PING, b"3"))
    assert talk.frames == []
    talk.wire.unblock()
    assert talk.frames == [Sent(PONG, b"3")]
    await talk.receive(frame(PING, b"4"), frame(PING, b"5"))
    assert talk.frames[1:] == [Sent(PONG, b"4"), Sent(PONG, b"5")]


@both
@in_virtual_time
async def test_a_long_message_leaves_in_pieces_that_are_one(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_send(b"x" * 100_000))
    assert talk.frames == [Sent(2, b"x" * 100_000)]
    assert talk.socket.progress() == 100_000 + 10


@in_virtual_time
async def test_progress_is_what_the_client_has_taken_as_far_as_it_is_known() -> None:
    talk, app = await opened(LoopWire)
    await app.send(socket_send("x" * 98))
    talk.wire.waiting = 60
    assert talk.socket.progress() == 40


# --- the closing handshake (RFC 6455 §7) ---


@both
@in_virtual_time
async def test_rfc6455_7_the_client_closes_first(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.receive(close(4001, b"bye"))
    assert app.end == (4001, "bye")
    assert talk.frames == [closed(4001, b"bye")]
    assert talk.wire.calls == ["close"]
    assert talk.over


@both
@in_virtual_time
async def test_rfc6455_7_the_application_closes_first(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close(4002, reason="enough"))
    await turns()
    assert talk.frames == [closed(4002, b"enough")]
    assert talk.wire.calls == []  # the client has the last word
    await talk.receive(text("too late"), frame(PING, b"?"), close(4002))
    assert app.texts == []
    assert app.end == (4002, "")
    assert talk.frames == [closed(4002, b"enough")]
    assert talk.wire.calls == ["close"]
    assert talk.over


@both
@in_virtual_time
async def test_rfc6455_7_both_close_at_once(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close(4002))
    await talk.receive(close(1001))
    assert talk.frames == [closed(4002)]
    assert app.end == (1001, "")
    assert talk.over


@both
@in_virtual_time
async def test_rfc6455_7_what_is_discarded_while_closing_fills_no_queue(kind: type[Wire]) -> None:
    talk, app = await opened(kind, limits=Limits(websocket_queue=4))
    await app.send(socket_close())
    await talk.receive(*[text("late") for _ in range(100)])
    await talk.receive(*[text("late") for _ in range(100)], close(1000))
    assert app.end == (1000, "")
    assert talk.over


@both
@in_virtual_time
async def test_an_application_that_closes_with_a_full_queue_still_gets_the_answer(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=4))
    await talk.receive(*[text(str(number)) for number in range(10)])
    assert not talk.wire.reading
    await app.send(socket_close())
    await turns()
    assert talk.wire.reading
    await talk.receive(text("late"), close(1000))
    assert talk.wire.calls == ["close"]
    messages = [await app.receive() for _ in range(5)]
    assert [message.get("text") for message in messages] == ["0", "1", "2", "3", None]
    assert messages[-1]["code"] == 1000


@both
@in_virtual_time
async def test_a_call_that_returns_with_a_full_queue_closes_and_reads_on(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(*[text("x") for _ in range(5)])
    app.done.set()
    await turns()
    assert talk.frames == [closed(1000)]
    assert talk.wire.reading
    await talk.receive(close(1000))
    assert talk.over


@both
@in_virtual_time
async def test_a_call_that_raises_closes_with_1011(kind: type[Wire]) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        raise ValueError("on purpose")

    talk = Talk(app, kind)
    await talk.open()
    assert talk.frames == [closed(1011)]
    await talk.receive(close(1011))
    assert talk.over


@both
@in_virtual_time
async def test_what_a_client_does_not_read_is_sent_before_the_close(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    talk.wire.block()
    talk.wire.waiting = 10
    await talk.receive(close(1000))
    assert talk.wire.calls == ["close"]
    assert not talk.over
    talk.wire.unblock()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_what_comes_after_the_close_is_of_no_interest(kind: type[Wire]) -> None:
    talk, app = await opened(kind, goes=False)
    await talk.receive(close(1000))
    connection = talk.socket
    connection.dataReceived(text("late"))
    connection.readConnectionLost()
    connection.close(1000, "again")
    await app.send(socket_send("late"))
    assert talk.frames == [closed(1000)]
    assert set(talk.wire.calls) == {"close"}
    assert app.texts == []


# --- a connection that ends without a closing handshake ---


@both
@in_virtual_time
async def test_w36_a_client_that_shuts_its_side_without_a_close_frame_is_1006(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.receive(text("last"))
    talk.wire.shut()
    await turns()
    assert app.texts == ["last"]
    assert app.end == (1006, "")
    assert talk.wire.calls == ["close"]
    assert talk.over


@both
@in_virtual_time
async def test_w36_who_shuts_its_side_has_left_even_while_it_does_not_read_what_it_was_sent(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    talk.wire.block()
    talk.wire.waiting = 10
    talk.wire.shut()
    await turns()
    assert talk.wire.calls == ["close"]
    assert app.end == (1006, "")
    assert talk.server.connections
    await asyncio.sleep(11)
    assert talk.over


@both
@in_virtual_time
async def test_w36_a_connection_that_is_lost_is_1006(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    talk.wire.lose()
    await turns()
    assert app.end == (1006, "")
    assert talk.over


@both
@in_virtual_time
async def test_w36_a_client_that_shuts_its_side_instead_of_answering_our_close(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close(4000))
    talk.wire.shut()
    await turns()
    assert app.end == (1006, "")
    assert talk.over


@both
@in_virtual_time
async def test_l47_a_call_that_does_not_listen_is_watched_and_cancelled(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind, listens=False)
    talk.wire.lose()
    await turns()
    assert len(talk.server.departures) == 1
    await asyncio.sleep(9)
    assert app.raised is None
    await asyncio.sleep(2)
    assert isinstance(app.raised, asyncio.CancelledError)
    assert talk.over
    assert [record.getMessage() for record in caplog.records] == [
        "GET /socket: cancelled 10 s after its client left; it was waiting for other"
    ]


# --- a client that breaks the protocol ---


@both
@in_virtual_time
async def test_rfc6455_7_1_7_a_fault_is_answered_our_side_shut_and_the_rest_discarded(
    kind: type[Wire], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind)
    await talk.receive(text("fine"))
    await talk.receive(frame(TEXT, b"x", mask=None))
    assert app.texts == ["fine"]
    assert app.end == (1006, "a frame that is not masked")
    assert talk.frames[0].code == 1002
    assert talk.wire.calls == ["shut"]
    await talk.receive(text("more") * 100)
    await app.send(socket_send("late"))
    assert len(talk.frames) == 1
    assert app.texts == ["fine"]
    assert [record.getMessage() for record in caplog.records] == ["Closed a WebSocket with 1002: a frame that is not masked"]
    talk.wire.shut()
    await turns()
    assert talk.wire.calls == ["shut", "close"]
    assert talk.over


@both
@in_virtual_time
async def test_l36_too_large_is_1009_and_the_log_says_which_option(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind, limits=Limits(websocket_message=10))
    await talk.receive(frame(TEXT, b"x" * 11))
    assert talk.frames[0].code == 1009
    assert app.end == (1006, "a message that is too large")
    assert "--websocket-max-message-size" in caplog.text


@both
@in_virtual_time
async def test_l17_who_broke_the_protocol_is_cut_when_it_says_nothing_more(kind: type[Wire]) -> None:
    talk, _ = await opened(kind, goes=False)
    await talk.receive(frame(TEXT, b"x", mask=None))
    await asyncio.sleep(4.5)
    assert talk.wire.calls == ["shut"]
    await asyncio.sleep(1)
    assert talk.wire.calls == ["shut", "close"]
    await asyncio.sleep(1.5)
    assert talk.wire.calls[:3] == ["shut", "close", "abort"]


@both
@in_virtual_time
async def test_l17_who_goes_on_sending_is_read_for_thirty_seconds(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    await talk.receive(frame(TEXT, b"x", mask=None))
    for _ in range(29):
        await talk.receive(b"x" * 1_000)
        await asyncio.sleep(1)
    assert talk.wire.calls == ["shut"]
    await talk.receive(b"x")
    await asyncio.sleep(1.5)
    assert talk.wire.calls == ["shut", "close"]
    assert talk.over


@both
@in_virtual_time
async def test_a_fault_behind_a_full_queue_comes_last_and_reading_goes_on(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(*[text(str(number)) for number in range(4)], frame(TEXT, b"x", mask=None))
    assert not talk.wire.reading
    messages = [await app.receive() for _ in range(5)]
    assert [message.get("text") for message in messages] == ["0", "1", "2", "3", None]
    await turns()
    assert talk.wire.reading  # to discard
    assert talk.frames[0].code == 1002
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_a_fault_of_a_client_that_does_not_read(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    talk.wire.block()
    await talk.receive(frame(TEXT, b"x", mask=None))
    talk.wire.unblock()
    assert set(talk.wire.calls) == {"shut"}
    talk.wire.shut()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_a_fault_while_closing_ends_it(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close(4000))
    await talk.receive(frame(TEXT, b"x", mask=None))
    assert talk.frames == [closed(4000)]
    assert talk.wire.calls == ["shut"]
    assert app.end == (1006, "a frame that is not masked")


@both
@in_virtual_time
async def test_l25_too_many_pings_are_1008(kind: type[Wire]) -> None:
    talk, _ = await opened(kind, limits=Limits(websocket_pings=10))
    await talk.receive(frame(PING) * 111)
    assert talk.frames[-1].code == 1008
    assert len(talk.frames) == 111


# --- time: L39, L40, L53, L35 ---


@both
@in_virtual_time
async def test_l39_ping_after_silence_and_only_then(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    for _ in range(10):
        await asyncio.sleep(15)
        await talk.receive(text("x"))
    assert talk.frames == []
    await asyncio.sleep(20.5)
    assert talk.frames == [Sent(PING, b"")]
    await talk.receive(frame(PONG))
    await asyncio.sleep(15)
    assert talk.frames == [Sent(PING, b"")]


@both
@in_virtual_time
async def test_l39_a_silent_client_is_told_1011_and_cut(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind)
    await asyncio.sleep(49.5)
    assert talk.frames == [Sent(PING, b"")]
    await asyncio.sleep(1)
    assert talk.frames == [Sent(PING, b""), closed(1011, b"no answer to a ping")]
    assert talk.wire.calls == ["abort"]
    assert app.end == (1006, "")
    assert talk.over
    assert "a WebSocket client did not answer a ping" in caplog.text


@in_virtual_time
async def test_l39_the_cut_waits_a_moment_for_the_client_to_take_the_reason() -> None:
    talk, app = await opened(LoopWire)
    talk.wire.waiting = 10
    await asyncio.sleep(50.5)
    assert talk.wire.calls == []
    talk.wire.receive(frame(PONG) + close(1011))  # too late
    talk.wire.waiting = 0
    await asyncio.sleep(0.1)
    assert talk.wire.calls == ["abort"]
    assert app.end == (1006, "")


@in_virtual_time
async def test_l39_who_takes_nothing_is_cut_a_second_later_all_the_same() -> None:
    talk, app = await opened(LoopWire)
    talk.wire.waiting = 10
    await asyncio.sleep(52)
    assert talk.wire.calls == ["abort"]
    assert app.end == (1006, "")


@both
@in_virtual_time
async def test_l39_silence_is_ours_while_the_application_does_not_take_what_is_there(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.receive(text("1"), text("2"))
    assert not talk.wire.reading
    await asyncio.sleep(1_010)  # between two looks
    pings = len(talk.frames)
    assert talk.frames == [Sent(PING, b"")] * 50  # a client that has left answers them with a reset, any other keeps them for later
    for _ in range(2):
        await app.receive()
    await turns()
    assert talk.wire.reading
    await asyncio.sleep(19.5)
    assert len(talk.frames) == pings
    await asyncio.sleep(1)
    assert talk.frames[pings:] == [Sent(PING, b"")]


def test_client_that_left_while_it_was_not_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @in_virtual_time
    async def run() -> None:
        talk, app = await opened(listens=False, limits=Limits(websocket_queue=2))
        await talk.receive(text("1"), text("2"))
        await asyncio.sleep(21)
        assert talk.wire.calls == ["abort"]
        assert [(await app.receive())["type"] for _ in range(3)] == ["websocket.receive", "websocket.receive", "websocket.disconnect"]

    monkeypatch.setattr(LoopTransport, "peer_left", lambda _: True)
    run()


@both
@in_virtual_time
async def test_flood_of_frames_is_read_in_turns(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    talk.socket.dataReceived(frame(PONG, b"") * 1_000)
    assert not talk.wire.reading
    await turns(20)
    assert talk.wire.reading


@both
@in_virtual_time
async def test_application_that_talks_on_while_the_server_closes_lets_go_of_the_loop(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False)

    async def talk_on() -> None:
        while not closed:
            await app.send(socket_send("x"))
            await asyncio.sleep(0)
        while True:  # nothing is written any more, so nothing else would suspend it
            await app.send(socket_send("x"))

    closed: list[bool] = []
    talking = asyncio.ensure_future(talk_on())
    await turns(2)
    talk.socket.close(1001, "the server stops")
    closed.append(True)
    await turns(2)
    talk.socket.abort()
    talk.wire.lose()
    await asyncio.sleep(3)
    assert talking.done()
    assert isinstance(talking.exception(), OSError)


@both
@in_virtual_time
async def test_l53_an_old_socket_is_closed_with_1000(kind: type[Wire]) -> None:
    talk, app = await opened(kind, websocket_age=100)
    for _ in range(10):
        await asyncio.sleep(9.9)
        await talk.receive(text("x"))
    assert talk.frames == []
    await asyncio.sleep(1.5)
    assert talk.frames == [closed(1000, b"open for too long")]
    await talk.receive(close(1000))
    assert app.end == (1000, "")
    assert talk.over


@both
@in_virtual_time
async def test_l40_who_does_not_answer_our_close_is_cut_once_however_much_it_sends(
    kind: type[Wire], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind)
    await app.send(socket_close())
    for _ in range(19):
        await talk.receive(text("x"))
        await asyncio.sleep(0.5)
    assert talk.wire.calls == []
    await talk.receive(text("x"))
    await asyncio.sleep(1)
    assert talk.wire.calls == ["abort"]
    assert app.end == (1006, "")
    assert talk.over
    assert [record.getMessage() for record in caplog.records] == ["Cut a connection: the peer did not go away"]


@both
@in_virtual_time
async def test_l40_a_close_that_does_not_get_out_is_cut_too(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    talk.wire.waiting = 10
    await talk.receive(close(1000))
    await asyncio.sleep(9.5)
    assert talk.wire.calls == ["close"]
    await asyncio.sleep(1)
    assert talk.wire.calls == ["close", "abort"]
    assert talk.over


@both
@in_virtual_time
async def test_l35_a_client_that_takes_nothing_is_cut(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "termserver")
    talk, app = await opened(kind, websocket_ping_interval=0)
    talk.wire.block()
    sending = asyncio.ensure_future(app.send(socket_send("x")))
    await asyncio.sleep(59)
    assert talk.wire.calls == []
    await asyncio.sleep(2)
    assert talk.wire.calls == ["abort"]
    await sending
    assert app.end == (1006, "")
    assert talk.over
    assert "Cut a connection: the peer" in caplog.text


@both
@in_virtual_time
async def test_l35_a_client_that_catches_up_is_watched_no_more(kind: type[Wire]) -> None:
    talk, _ = await opened(kind, websocket_ping_interval=0)
    talk.wire.block()
    await asyncio.sleep(50)
    talk.wire.unblock()
    await asyncio.sleep(200)
    assert talk.wire.calls == []


# --- before the verdict ---


@both
@in_virtual_time
async def test_l40_no_verdict_in_time_is_503_and_the_call_is_cancelled(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "termserver")
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    await asyncio.sleep(19)
    assert not talk.wire.sent
    await asyncio.sleep(1.5)
    assert talk.status == 503
    assert isinstance(app.raised, asyncio.CancelledError)
    assert "no verdict on a WebSocket in time" in caplog.text
    assert talk.wire.calls[:1] == ["shut"]
    talk.wire.shut()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_l40_zero_lets_an_application_think_for_as_long_as_it_likes(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind, websocket_accept=0)
    await talk.receive(handshake())
    await asyncio.sleep(1_000)
    await app.send(accept())
    assert talk.switched.status == 101


@both
@in_virtual_time
async def test_a_client_that_shuts_its_side_before_the_verdict_has_left(kind: type[Wire]) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    talk.wire.shut()
    await turns()
    assert app.end == (1006, "")
    assert not talk.wire.sent
    assert talk.wire.calls == ["close"]
    assert talk.over


@both
@in_virtual_time
async def test_a_client_that_is_lost_before_the_verdict(kind: type[Wire]) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    talk.wire.lose()
    await turns()
    assert app.end == (1006, "")
    assert talk.over


@both
@in_virtual_time
async def test_w38_a_refusal_is_403_and_the_connection_ends(kind: type[Wire]) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    await app.send(socket_close())
    assert talk.status == 403
    await turns()
    assert app.end == (1006, "")
    talk.wire.shut()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_a_denial_may_take_longer_than_a_verdict(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    await app.send(denial_start(401))
    await app.send(denial_body(b"slowly, ", more_body=True))
    await asyncio.sleep(15)
    await app.send(denial_body(b"slowly", more_body=True))
    assert app.raised is None
    await app.send(denial_body())
    answer = read_answer(bytes(talk.wire.sent), b"GET", ended=True)
    assert (answer.status, answer.body, answer.whole) == (401, b"slowly, slowly", True)


@both
@in_virtual_time
async def test_a_denial_that_is_left_halfway_is_cut(kind: type[Wire]) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(denial_start(401))
        await send(denial_body(b"some", more_body=True))

    talk = Talk(app, kind)
    await talk.receive(handshake())
    assert b"some" in talk.wire.sent
    assert talk.wire.calls == ["abort"]
    assert talk.over


# --- handshakes that the server refuses by itself ---


@both
@pytest.mark.parametrize(
    ("config", "limits", "request_", "status"),
    [
        pytest.param({}, {}, handshake().replace(b"Version: 13", b"Version: 8"), 426, id="version"),
        pytest.param({}, {}, handshake().replace(b"dGhl", b"????"), 400, id="key"),
        pytest.param({"allowed_origins": ("https://a.example",)}, {}, handshake(b"Origin: https://b.example"), 403, id="origin"),
        pytest.param({"allowed_origins": ("https://a.example",)}, {}, handshake(b"Origin: HTTPS://A.example"), 101, id="allowed origin"),
        pytest.param({"allowed_origins": ("https://a.example",)}, {}, handshake(), 101, id="no origin"),
    ],
)
@in_virtual_time
async def test_handshakes_the_application_never_sees(
    kind: type[Wire], config: dict[str, Any], limits: dict[str, int], request_: bytes, status: int
) -> None:
    app = Puppet()
    talk = Talk(app, kind, config=Config(**config), limits=Limits(**limits))
    await talk.receive(request_)
    if status == 101:
        assert talk.switched.status == 101
        return
    assert talk.status == status
    assert app.scope == {}
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_sockets_count_as_calls_that_run(kind: type[Wire]) -> None:
    talk, _ = await opened(kind, limits=Limits(concurrency=1))
    talk.wire = talk.connect()
    await talk.receive(handshake())
    assert talk.status == 503


@both
@in_virtual_time
async def test_deflate_is_answered_unless_it_is_off(kind: type[Wire]) -> None:
    for on in (True, False):
        talk = Talk(Puppet(), kind, config=Config(websocket_deflate=on))
        await talk.receive(handshake(b"Sec-WebSocket-Extensions: permessage-deflate"))
        assert (talk.switched["sec-websocket-extensions"] is not None) is on


# --- the access log ---

LINE = "%(h)s %(m)s %(target)s %(s)s %(B)s %(T)s"


@both
@in_virtual_time
async def test_access_log_has_one_line_at_the_end_with_101_bytes_and_seconds(kind: type[Wire]) -> None:
    talk, app = await opened(kind, log=LINE)
    await app.send(socket_send("12345"))
    await app.send(socket_send(b"678"))
    await asyncio.sleep(15)
    assert talk.logged() == []
    await talk.receive(close(1000))
    [line] = talk.logged()
    assert line.split(" ", 1)[1] == "GET /socket 101 8 15"
    if kind is LoopWire:
        assert line.startswith(CLIENT[0])


@both
@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([socket_close()], "GET /socket 403 0 0"),
        ([denial_start(401), denial_body(b"12345")], "GET /socket 401 5 0"),
        ([], "GET /socket 500 0 0"),
    ],
    ids=["refused", "denied", "no verdict"],
)
@in_virtual_time
async def test_access_log_has_a_line_for_a_refusal(kind: type[Wire], messages: list[Message], line: str) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    talk = Talk(app, kind, log=LINE)
    await talk.receive(handshake())
    talk.wire.lose()
    await turns()
    assert [each.split(" ", 1)[1] for each in talk.logged()] == [line]


@both
@in_virtual_time
async def test_access_log_has_499_for_a_client_that_did_not_wait_for_the_verdict(kind: type[Wire]) -> None:
    talk = Talk(Puppet(accepts=False), kind, log=LINE)
    await talk.receive(handshake())
    await asyncio.sleep(3)
    talk.wire.lose()
    await turns()
    assert [each.split(" ", 1)[1] for each in talk.logged()] == ["GET /socket 499 0 3"]


@both
@in_virtual_time
async def test_daphne_s_access_log_has_a_line_for_each_step(kind: type[Wire]) -> None:
    app = Puppet(accepts=False, listens=False)
    talk = Talk(app, kind, log="daphne")
    steps = [["WSCONNECTING"], ["WSCONNECTING", "WSCONNECT"], ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]]
    await talk.receive(handshake())
    assert [line.split('"')[1].split()[0] for line in talk.logged()] == steps[0]
    await app.send(accept())
    assert [line.split('"')[1].split()[0] for line in talk.logged()] == steps[1]
    await talk.receive(close(1000))
    assert [line.split('"')[1].split()[0] for line in talk.logged()] == steps[2]
    assert all(line.endswith('/socket" - -') for line in talk.logged())


@both
@in_virtual_time
async def test_daphne_s_access_log_names_a_refusal(kind: type[Wire]) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind, log="daphne")
    await talk.receive(handshake())
    await app.send(socket_close())
    talk.wire.lose()
    await turns()
    assert [line.split('"')[1] for line in talk.logged()] == ["WSCONNECTING /socket", "WSREJECT /socket"]


# --- the server stops ---


class Fleet:
    """Some sockets of one server."""

    def __init__(self, kind: type[Wire], count: int, **options: Any) -> None:
        self.kind = kind
        self.apps: list[Puppet] = []
        self.talk = Talk(self.app, kind, **options)
        self.server = self.talk.server
        self.wires = [self.talk.wire, *(self.talk.connect() for _ in range(count - 1))]

    async def app(self, *call: Any) -> None:
        self.apps.append(Puppet())
        await self.apps[-1](*call)

    async def open(self) -> None:
        for wire in self.wires:
            wire.receive(handshake())
        await turns()

    @property
    def said_goodbye(self) -> list[bool]:
        return [bool(read_switched(bytes(wire.sent)).frames) for wire in self.wires]

    def farewells(self) -> list[Sent]:
        return [sent for wire in self.wires for sent in read_switched(bytes(wire.sent)).frames]

    async def answer(self) -> None:
        for wire, done in zip(self.wires, self.said_goodbye, strict=True):
            if done and wire.reading:
                wire.receive(close(1001))
        await turns()


@both
@pytest.mark.parametrize(
    ("configured", "restarting", "code"), [(1001, False, 1001), (1001, True, 1012), (1012, False, 1012)], ids=["stop", "restart", "option"]
)
@in_virtual_time
async def test_l46_stopping_closes_with_a_code_that_says_whether_to_come_back(
    kind: type[Wire], configured: int, code: int, *, restarting: bool
) -> None:
    fleet = Fleet(kind, 1, config=Config(websocket_stop_code=configured))
    await fleet.open()
    stopping = asyncio.ensure_future(fleet.server.stop(restarting=restarting))
    await asyncio.sleep(0.6)
    assert fleet.farewells() == [closed(code, b"the server stops")]
    await fleet.answer()
    await stopping
    assert fleet.server.stage is STOPPED
    assert fleet.apps[0].end == (1001, "")
    assert fleet.talk.over


@pytest.mark.parametrize(
    ("sockets", "graceful", "seconds"),
    [(0, 30, 0), (1, 30, 0.5), (2, 30, 1), (10, 30, 5), (20, 30, 10), (100, 30, 10), (20, 6, 2), (40, 0.003, 0.008)],
)
@in_virtual_time
async def test_l46_farewells_are_spread_over_a_third_of_the_grace_period_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch, sockets: int, graceful: float, seconds: float
) -> None:
    fleet = Fleet(LoopWire, max(sockets, 1), graceful=graceful)
    if sockets:
        await fleet.open()
    monkeypatch.setattr(module.random, "random", lambda: 1.0)
    stopping = asyncio.ensure_future(fleet.server.stop())
    await turns()
    assert fleet.server.farewell_seconds == pytest.approx(seconds)
    stopping.cancel()
    await asyncio.wait([stopping])


@both
@in_virtual_time
async def test_l46_each_socket_has_a_moment_of_its_own(kind: type[Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(kind, 20)
    await fleet.open()
    moments = iter(range(20))
    monkeypatch.setattr(module.random, "random", lambda: next(moments) / 20)
    stopping = asyncio.ensure_future(fleet.server.stop())
    for count in range(1, 21):
        await asyncio.sleep(0.25)
        assert sum(fleet.said_goodbye) == count
        await fleet.answer()
        await asyncio.sleep(0.25)
    await stopping
    assert all(app.end == (1001, "") for app in fleet.apps)


@both
@in_virtual_time
async def test_l46_a_socket_that_ends_before_its_moment_is_left_alone(kind: type[Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(kind, 2)
    await fleet.open()
    monkeypatch.setattr(module.random, "random", lambda: 0.5)
    stopping = asyncio.ensure_future(fleet.server.stop())
    await turns()
    fleet.wires[0].receive(close(1000))
    fleet.wires[1].lose()
    await stopping
    assert fleet.farewells() == [closed(1000)]
    await asyncio.sleep(20)
    assert fleet.farewells() == [closed(1000)]


@both
@in_virtual_time
async def test_handshakes_are_503_while_the_server_stops(kind: type[Wire]) -> None:
    fleet = Fleet(kind, 2)
    fleet.wires[0].receive(handshake())
    await turns()
    stopping = asyncio.ensure_future(fleet.server.stop())
    await turns()
    fleet.wires[1].receive(handshake())
    await turns()
    assert read_answer(bytes(fleet.wires[1].sent), b"GET", ended=True).status == 503
    fleet.wires[0].lose()
    fleet.wires[1].lose()
    await stopping
    assert len(fleet.apps) == 1


@both
@in_virtual_time
async def test_a_socket_that_is_accepted_while_the_server_stops_is_told_too(kind: type[Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind)
    await talk.receive(handshake())
    monkeypatch.setattr(module.random, "random", lambda: 0.5)
    stopping = asyncio.ensure_future(talk.server.stop())
    await asyncio.sleep(5)
    await app.send(accept())
    await asyncio.sleep(5.1)
    assert talk.frames == [closed(1001, b"the server stops")]
    await talk.receive(close(1001))
    await stopping
    assert app.end == (1001, "")


@both
@in_virtual_time
async def test_who_does_not_answer_the_farewell_is_cut_and_the_application_hears_of_it(kind: type[Wire]) -> None:
    fleet = Fleet(kind, 1)
    await fleet.open()
    begun = now()
    await fleet.server.stop()
    assert 10 <= now() - begun <= 11.5  # the farewell's moment, then L40
    assert fleet.apps[0].end == (1006, "")
    assert fleet.wires[0].calls == ["abort"]


@both
@in_virtual_time
async def test_at_the_end_of_the_grace_period_sockets_are_cut(kind: type[Wire]) -> None:
    fleet = Fleet(kind, 1, websocket_close=0)
    await fleet.open()
    begun = now()
    await fleet.server.stop()
    assert now() - begun == pytest.approx(25)  # what is left is the application's to end in
    assert fleet.apps[0].end == (1006, "")


@both
@in_virtual_time
async def test_a_call_that_does_not_end_at_all_is_cancelled(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, websocket_close=0, application_close=0)
    begun = now()
    await talk.server.stop()
    assert now() - begun == pytest.approx(30)
    assert isinstance(app.raised, asyncio.CancelledError)


@both
@in_virtual_time
async def test_a_transport_that_does_not_go_is_cut_again_and_left(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    talk, app = await opened(kind, goes=False)
    begun = now()
    await talk.server.stop()
    assert now() - begun <= 35
    assert set(talk.wire.calls) == {"abort"}
    assert talk.server.stage is STOPPED
    assert "1 connections and 1 application calls are left at the end of the grace period" in caplog.text
    assert isinstance(app.raised, asyncio.CancelledError)


@both
@in_virtual_time
async def test_no_verdict_until_the_grace_period_ends(kind: type[Wire]) -> None:
    app = Puppet(accepts=False)
    talk = Talk(app, kind, websocket_accept=0)
    await talk.receive(handshake())
    await talk.server.stop()
    assert app.end == (1006, "")
    assert talk.over


@both
@in_virtual_time
async def test_the_application_is_told_that_the_server_stops(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    event = app.scope["extensions"]["termserver.shutdown"]["event"]
    assert not event.is_set()
    stopping = asyncio.ensure_future(talk.server.stop())
    await turns()
    assert event.is_set()
    talk.wire.lose()
    await stopping


# --- what Twisted may ask for ---


@in_virtual_time
async def test_interfaces_are_kept_and_what_nobody_needs_is_harmless() -> None:
    talk, app = await opened()
    connection = talk.socket
    for interface in (IHalfCloseableProtocol, IPushProducer):
        verifyObject(interface, connection)
    assert IProtocol.providedBy(connection)
    connection.makeConnection(None)
    connection.stopProducing()
    connection.writeConnectionLost()
    connection.finished(connection.exchanges()[0])
    connection.upgrade(connection.exchanges()[0], [], 0)
    await app.send(socket_send("on"))
    assert talk.frames == [Sent(TEXT, b"on")]


@both
@in_virtual_time
async def test_callbacks_run_in_the_server_s_context_not_in_an_application_s(kind: type[Wire]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    found: list[str] = []
    original = talk.wire.transport.resumeProducing

    def resume() -> None:
        found.append(variable.get())
        original()

    await talk.receive(text("1"), text("2"), text("3"))

    async def end() -> None:
        variable.set("the application's")
        await app.send(socket_close())

    SocketSpy.watch(talk.socket, resume)
    await asyncio.create_task(end())
    await turns()
    assert found == ["nobody's"]


class SocketSpy:
    """Stands between a connection and its transport."""

    def __init__(self, transport: Any, resume: Callable[[], None]) -> None:
        self._transport = transport
        self.resumeProducing = resume

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @classmethod
    def watch(cls, connection: SocketConnection, resume: Callable[[], None]) -> None:
        connection.transport = cls(connection.transport, resume)


# --- what a review of these tests found ---


@in_virtual_time
async def test_l40_verdict_that_does_not_come_has_a_line_in_the_access_log() -> None:
    talk = Talk(Puppet(accepts=False, listens=False), log=LINE)
    await talk.receive(handshake())
    await asyncio.sleep(21)
    talk.wire.shut()
    await turns()
    assert [line.split(" ", 1)[1] for line in talk.logged()] == ["GET /socket 503 0 20"]


@in_virtual_time
async def test_l38_queue_is_full_again_when_what_was_held_has_been_read() -> None:
    talk, app = await opened(listens=False, limits=Limits(websocket_queue=4))
    await talk.receive(*[text("x") for _ in range(8)])
    for _ in range(2):
        await app.receive()
    await turns()
    assert talk.socket.exchanges()[0].full
    assert not talk.wire.reading
    for _ in range(6):
        await app.receive()
    await turns()
    assert talk.wire.reading


@in_virtual_time
async def test_close_behind_a_full_queue_waits_for_the_answers() -> None:
    talk, app = await opened(listens=False, limits=Limits(websocket_queue=4))
    await talk.receive(*[text(str(number)) for number in range(5)], close(1000))
    while (message := await app.receive())["type"] != "websocket.disconnect":
        await app.send(socket_send(message["text"]))
    await turns()
    assert [found.payload for found in talk.frames[:-1]] == [b"0", b"1", b"2", b"3", b"4"]


@in_virtual_time
async def test_l17_peer_that_does_not_go_is_cut_without_an_idle_limit_too() -> None:
    talk, _ = await opened(goes=False, linger_idle=0, linger_total=30)
    await talk.receive(frame(TEXT, b"x", mask=None))
    await asyncio.sleep(200)
    assert talk.wire.calls[:3] == ["shut", "close", "abort"]


def test_l47_departure_without_a_verdict_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def run() -> None:
        talk = Talk(Puppet(accepts=False, listens=False))
        await talk.receive(handshake())
        talk.wire.lose()
        await asyncio.sleep(12)
        assert caplog.records[-1].levelno == logging.WARNING

    caplog.set_level(logging.DEBUG, "termserver")
    run()


@in_virtual_time
async def test_the_socket_is_all_of_a_twisted_protocol() -> None:
    talk, _ = await opened()
    verifyObject(IProtocol, talk.socket)


@in_virtual_time
async def test_stop_with_a_verdict_outstanding_answers_503() -> None:
    talk = Talk(Puppet(accepts=False), log=LINE, websocket_accept=0)
    await talk.receive(handshake())
    began = now()
    await talk.server.stop()
    assert now() - began < 29
    assert bytes(talk.wire.sent).startswith(b"HTTP/1.1 503 ")
    assert [line.split(" ", 1)[1].rsplit(" ", 1)[0] for line in talk.logged()] == ["GET /socket 503 0"]


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://A.example:443", b"https://a.example"),
        ("http://a.example:80", b"http://a.example"),
        ("https://a.example:80", b"https://a.example:80"),
        ("null", b"null"),
    ],
)
def test_d6_origins_are_written_as_browsers_do(entry: str, origin: bytes) -> None:
    assert normal_origin(entry) == origin
