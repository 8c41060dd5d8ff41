"""A stream as exchanges and WebSockets see it: WebSockets over HTTP/2 (RFC 8441), both ways, both kinds of transport, virtual time."""

import asyncio
import logging
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from twisted.internet.interfaces import IPushProducer, ITransport
from zope.interface.verify import verifyObject

from fakes import (
    Log,
    Message,
    Receive,
    Send,
    accept,
    denial_body,
    denial_start,
    in_virtual_time,
    now,
    socket_close,
    socket_send,
    turns,
)
from net.h2talk import (
    CANCEL,
    LINE,
    NO_ERROR,
    PROTOCOL_ERROR,
    SOCKET,
    SocketPuppet,
    TlsWire,
    both,
    client_of,
    opened,
    stop_clocks,
    talked,
)
from net.wires import LoopWire, Wire
from termserver.config import Config, Limits
from termserver.errors import ClientDisconnected
from termserver.net.streams import StreamOutlet, StreamTransport
from termserver.net.websocket import SocketConnection
from termserver.wire.h2frames import SETTINGS_ACK
from wire.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Sent, close, deflated, frame, inflated
from wire.h2driving import CONNECT, HELLO, data, get, headers, ping, reset, window

NO_WINDOW = (SettingCodes.INITIAL_WINDOW_SIZE, 0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)


def text(message: str) -> bytes:
    return frame(TEXT, message.encode())


def closed(code: int, reason: bytes = b"") -> Sent:
    return Sent(CLOSE, code.to_bytes(2, "big") + reason)


def transport_of(talk: Any, stream: int = 1) -> StreamTransport:
    """Give the transport of a WebSocket's stream."""
    transport = talk.connection.outlets[stream].transport
    assert isinstance(transport, StreamTransport)
    return transport


# --- RFC 8441 §4 and §5: the handshake ---


@in_virtual_time
async def test_interfaces_are_kept() -> None:
    talk, _ = await opened()
    assert verifyObject(ITransport, transport_of(talk))
    assert verifyObject(IPushProducer, transport_of(talk))


@both
@in_virtual_time
async def test_rfc8441_5_acceptance_is_200_and_the_stream_is_a_socket_s(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    answer = talk.answer()
    assert (talk.status(), answer.ended) == (200, False)
    for name in (b"upgrade", b"connection", b"sec-websocket-accept", b"content-length"):
        assert answer.field(name) == []
    assert (app.scope["type"], app.scope["http_version"], app.scope["scheme"], app.scope["path"]) == ("websocket", "2", "ws", "/socket")
    assert app.scope["headers"][0] == (b"host", b"a")
    assert set(app.scope["extensions"]) == {"websocket.http.response", "termserver.shutdown"}
    await talk.say(text("hello"), frame(TEXT, b"in ", fin=False), frame(CONT, b"parts"), frame(PING, b"p"))
    assert app.texts == ["hello", "in parts"]
    await app.send(socket_send("answer"))
    await app.send(socket_send(b"bytes"))
    await turns()
    assert talk.frames() == [Sent(PONG, b"p"), Sent(TEXT, b"answer"), Sent(BINARY, b"bytes")]
    assert sum(isinstance(each, SocketConnection) for each in talk.server.connections) == 1


@in_virtual_time
async def test_tls_extension_reaches_a_socket_s_application() -> None:
    _, app = await opened(TlsWire)
    assert app.scope["scheme"] == "wss"
    assert app.scope["extensions"]["tls"] == {"tls_version": 0x0304}


@both
@in_virtual_time
async def test_socket_and_requests_share_a_connection(kind: type[Wire]) -> None:
    socket = SocketPuppet()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await socket(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    talk = await talked(app, kind)
    await talk.open(1)
    await talk.send(data(1, text("first")[:4]), get(3), data(1, text("first")[4:]))
    assert (talk.answer(3).body, socket.texts) == (b"hello", ["first"])


@both
@in_virtual_time
async def test_every_stream_s_socket_has_an_engine_of_its_own(kind: type[Wire]) -> None:
    apps: list[SocketPuppet] = []

    async def app(*call: Any) -> None:
        apps.append(SocketPuppet())
        await apps[-1](*call)

    talk = await talked(app, kind)
    await talk.open(1)
    await talk.open(3)
    await talk.send(data(1, text("half")[:4]), data(3, text("other")), data(1, text("half")[4:]))
    assert [each.texts for each in apps] == [["half"], ["other"]]
    await talk.say(close(1000))
    assert (apps[0].end, apps[1].end) == ((1000, ""), None)
    await talk.say(text("goes on"), stream=3)
    assert apps[1].texts == ["other", "goes on"]


@both
@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
@in_virtual_time
async def test_frames_may_be_cut_anywhere(kind: type[Wire], size: int) -> None:
    talk, app = await opened(kind)
    stream = b"".join([text("hello"), frame(TEXT, b"x" * 300), frame(PING, b"p"), text("\N{EURO SIGN}")])
    await talk.send(*[data(1, stream[at : at + size]) for at in range(0, len(stream), size)])
    assert app.texts == ["hello", "x" * 300, "\N{EURO SIGN}"]
    assert talk.frames() == [Sent(PONG, b"p")]


@both
@in_virtual_time
async def test_padding_is_no_part_of_a_frame(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.send(data(1, text("hello")[:3], padding=20), data(1, text("hello")[3:], padding=0))
    assert app.texts == ["hello"]


@both
@in_virtual_time
async def test_what_comes_before_the_verdict_is_frames_too(kind: type[Wire]) -> None:
    """A client should wait for the verdict (RFC 6455 §4.1), but its bytes must not be lost: what follows them would mean something else."""
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind)
    await talk.open()
    await talk.say(text("early")[:3])
    await app.send(accept())
    await talk.say(text("early")[3:])
    assert (await asyncio.wait_for(app.receive(), 1))["text"] == "early"


@both
@in_virtual_time
async def test_subprotocol_and_fields_of_the_acceptance_are_in_the_answer(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind)
    await talk.open(1, (b"sec-websocket-protocol", b"a, b"))
    assert app.scope["subprotocols"] == ["a", "b"]
    await app.send(accept(subprotocol="b", headers=[(b"X-Own", b"1")]))
    await turns()
    assert talk.answer().field(b"sec-websocket-protocol") == [b"b"]
    assert talk.answer().field(b"x-own") == [b"1"]


@both
@in_virtual_time
async def test_rfc7692_deflate_is_agreed_upon_unless_it_is_off(kind: type[Wire]) -> None:
    for on in (True, False):
        app = SocketPuppet()
        talk = await talked(app, kind, config=Config(websocket_deflate=on))
        await talk.open(1, (b"sec-websocket-extensions", b"permessage-deflate"))
        assert bool(talk.answer().field(b"sec-websocket-extensions")) is on
        if on:
            await talk.say(frame(TEXT, deflated(b"squeezed"), rsv=4))
            assert app.texts == ["squeezed"]
            await app.send(socket_send("y" * 5_000))
            await turns()
            [sent] = talk.frames()
            assert (sent.compressed, inflated(sent.payload)) == (True, b"y" * 5_000)


# --- refusals ---


@both
@in_virtual_time
async def test_close_before_the_acceptance_is_403(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False)
    talk = await talked(app, kind)
    await talk.open()
    await app.send(socket_close())
    await turns()
    assert (talk.status(), talk.answer().code, app.end) == (403, NO_ERROR, (1006, ""))
    assert talk.server.running == 0
    assert talk.connection.engine.streams == {}


@both
@in_virtual_time
async def test_denial_is_a_response_of_the_application_s_own(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False)
    talk = await talked(app, kind)
    await talk.open()
    await app.send(denial_start(401, [(b"www-authenticate", b"Basic")]))
    await app.send(denial_body(b"who ", more_body=True))
    await app.send(denial_body(b"are you?"))
    await turns()
    assert (talk.status(), talk.answer().body, talk.answer().ended) == (401, b"who are you?", True)
    assert talk.answer().field(b"www-authenticate") == [b"Basic"]
    await talk.send(ping())
    assert talk.wire.calls == []


@both
@in_virtual_time
async def test_large_denial_waits_for_the_window(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind, NO_WINDOW)
    await talk.open()
    await app.send(denial_start(401))
    sending = asyncio.ensure_future(app.send(denial_body(b"x" * 65_537, more_body=True)))
    await turns()
    assert not sending.done()
    await talk.send(window(1, 65_535))
    assert sending.done()


@both
@pytest.mark.parametrize("raises", [True, False])
@in_virtual_time
async def test_application_without_a_verdict_is_500(kind: type[Wire], caplog: pytest.LogCaptureFixture, *, raises: bool) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if raises:
            raise ValueError("on purpose")

    talk = await talked(app, kind)
    await talk.open()
    assert talk.status() == 500
    assert len(Log(caplog).errors) == 1


@both
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([(b"sec-websocket-version", b"8")], 400, id="another version"),
        pytest.param([], 400, id="no version"),
        pytest.param([(b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"a b")], 400, id="no token"),
    ],
)
@in_virtual_time
async def test_d5_handshake_that_is_wrong_never_reaches_the_application(
    kind: type[Wire], fields: list[tuple[bytes, bytes]], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(caplog)
    app = SocketPuppet()
    talk = await talked(app, kind)
    await talk.send(headers(1, [*CONNECT, *fields], ended=False))
    assert (talk.status(), app.scope) == (status, {})
    assert any(str(status) in line for line in log.lines(logging.INFO))
    assert talk.connection.outlets == {}


@both
@in_virtual_time
async def test_d6_origin_that_is_not_allowed_is_403(kind: type[Wire]) -> None:
    app = SocketPuppet()
    talk = await talked(app, kind, config=Config(allowed_origins=("https://good.example",)))
    await talk.open(1, (b"origin", b"https://evil.example"))
    assert (talk.status(1), app.scope) == (403, {})
    await talk.open(3, (b"origin", b"https://good.example"))
    assert talk.status(3) == 200


@both
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*SOCKET, (b"content-length", b"0")], id="a length"),
        pytest.param([field for field in SOCKET if field[0] != b":authority"], id="no authority"),
        pytest.param([(name, b"GET" if name == b":method" else value) for name, value in SOCKET], id="GET"),
    ],
)
@in_virtual_time
async def test_d10_malformed_extended_connect_is_a_protocol_error(kind: type[Wire], fields: list[tuple[bytes, bytes]]) -> None:
    app = SocketPuppet()
    talk = await talked(app, kind)
    await talk.send(headers(1, fields, ended=False))
    assert (talk.answer().code, app.scope) == (PROTOCOL_ERROR, {})


@in_virtual_time
async def test_d10_extended_connect_that_is_whole_at_once_is_a_protocol_error() -> None:
    app = SocketPuppet()
    talk = await talked(app)
    await talk.send(headers(1, SOCKET))
    assert (talk.answer().code, app.scope) == (PROTOCOL_ERROR, {})


@both
@in_virtual_time
async def test_concurrency_limit_is_503(kind: type[Wire]) -> None:
    talk = await talked(SocketPuppet(), kind, limits=Limits(concurrency=1))
    await talk.open(1)
    await talk.open(3)
    assert (talk.status(1), talk.status(3)) == (200, 503)


# --- clients that do not wait for the verdict ---


@both
@in_virtual_time
async def test_reset_before_the_verdict_is_1006(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False)
    talk = await talked(app, kind)
    await talk.open()
    await talk.send(reset(1))
    assert app.end == (1006, "")
    assert talk.server.running == 0
    assert talk.connection.outlets == {}


@both
@in_virtual_time
async def test_verdict_on_a_stream_that_was_reset_goes_nowhere(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind)
    await talk.open()
    await talk.send(reset(1))
    await app.send(accept())
    await turns()
    assert (talk.answer().heads, talk.wire.calls) == ([], [])
    app.done.set()
    await turns()
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_end_stream_before_the_verdict_is_1006_and_ends_the_stream(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False)
    talk = await talked(app, kind)
    await talk.open()
    await talk.send(data(1, b"", ended=True))
    assert app.end == (1006, "")
    assert talk.server.running == 0
    assert talk.connection.engine.streams == {}  # else it counts for the limit of streams, and keeps the connection from being idle
    assert talk.answer().ended or talk.answer().code is not None


# --- RFC 6455 §7: ends ---


@both
@in_virtual_time
async def test_rfc6455_7_client_s_close_is_answered_and_ends_the_stream(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.say(close(1000, b"bye"))
    assert app.end == (1000, "bye")
    assert talk.frames() == [closed(1000)] or talk.frames() == [closed(1000, b"bye")]
    assert talk.answer().ended
    assert talk.connection.outlets == {}
    assert talk.connection.engine.streams == {}
    assert len(talk.server.connections) == 1
    assert talk.wire.calls == []


@both
@in_virtual_time
async def test_rfc6455_7_server_s_close_waits_for_the_client_s(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close(3_000, reason="enough"))
    await turns()
    assert (talk.frames(), talk.answer().ended) == ([closed(3_000, b"enough")], False)
    await talk.say(text("crossing"), close(3_000))
    assert talk.answer().ended
    assert app.end == (3_000, "")
    assert talk.connection.engine.streams == {}
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_l40_close_that_is_not_answered_is_cut(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await app.send(socket_close())
    await asyncio.sleep(9)
    assert talk.answer().code is None
    await asyncio.sleep(2)
    assert talk.answer().code == CANCEL
    assert app.end == (1006, "")
    assert len(talk.server.connections) == 1


@both
@in_virtual_time
async def test_rfc8441_5_end_stream_without_a_close_is_1006(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.say(text("last"), ended=True)
    assert (app.texts, app.end) == (["last"], (1006, ""))
    assert (talk.answer().ended, talk.answer().code) == (True, None)
    assert talk.connection.engine.streams == {}
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_rfc8441_5_reset_is_a_lost_connection(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await talk.say(text("last"))
    await talk.send(reset(1))
    assert (app.texts, app.end) == (["last"], (1006, ""))
    assert talk.connection.outlets == {}
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_lost_connection_is_1006_for_every_socket(kind: type[Wire]) -> None:
    apps: list[SocketPuppet] = []

    async def app(*call: Any) -> None:
        apps.append(SocketPuppet())
        await apps[-1](*call)

    talk = await talked(app, kind)
    await talk.open(1)
    await talk.open(3)
    talk.wire.lose()
    await turns()
    assert [each.end for each in apps] == [(1006, "")] * 2
    assert talk.over


@both
@in_virtual_time
async def test_stream_that_the_client_broke_ends_its_socket_at_once(kind: type[Wire]) -> None:
    """Spec attacks C2."""
    talk, app = await opened(kind, listens=False)
    await talk.send(window(1, 0x7FFFFFFF))
    assert talk.answer().code == ErrorCodes.FLOW_CONTROL_ERROR
    assert isinstance(app.raised, asyncio.CancelledError)
    assert talk.connection.outlets == {}
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_d4_broken_frame_is_1002_then_the_end_of_the_stream(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    talk, app = await opened(kind)
    await talk.say(frame(TEXT, b"unmasked", mask=None))
    assert [each.code for each in talk.frames()] == [1002]
    assert talk.answer().ended
    assert app.end is not None
    assert talk.connection.engine.streams == {}
    assert any("1002" in line for line in log.lines(logging.INFO))
    await talk.send(ping())
    assert talk.wire.calls == []  # the connection is as good as ever


@both
@in_virtual_time
async def test_d1_message_over_the_limit_is_1009(kind: type[Wire]) -> None:
    talk, app = await opened(kind, limits=Limits(websocket_message=100))
    await talk.say(frame(TEXT, b"x" * 100))
    assert app.texts == ["x" * 100]
    await talk.say(frame(TEXT, b"x" * 101))
    assert [each.code for each in talk.frames()] == [1009]


@both
@in_virtual_time
async def test_application_that_raises_is_1011(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        raise ValueError("on purpose")

    talk = await talked(app, kind)
    await talk.open()
    assert [each.code for each in talk.frames()] == [1011]
    assert len(Log(caplog).errors) == 1
    assert len(talk.connection.outlets) == 1
    await talk.say(close(1011))
    assert talk.answer().ended
    assert talk.connection.outlets == {}


@both
@in_virtual_time
async def test_application_that_returns_is_1000(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False)
    app.done.set()
    await turns()
    assert talk.frames() == [closed(1000)]
    await talk.send(reset(1))  # it does not wait for our answer to its own
    assert talk.connection.outlets == {}
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_l20_application_that_outlives_its_stream_counts(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(http2_streams=1))
    await talk.send(reset(1))
    assert list(talk.connection.outlets) == [1]
    assert len(talk.server.departures) == 1
    await talk.open(3)
    assert talk.answer(3).code == ErrorCodes.REFUSED_STREAM
    app.done.set()
    await turns()
    assert talk.connection.outlets == {}
    await talk.open(5)
    assert talk.status(5) == 200
    app.done.set()


@both
@in_virtual_time
async def test_l47_application_that_does_not_listen_is_cancelled(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False)
    await talk.send(reset(1))
    await app.send(socket_send("nobody"))  # silent at first
    await asyncio.sleep(3)
    with pytest.raises(ClientDisconnected):
        await app.send(socket_send("nobody"))
    await asyncio.sleep(8)
    assert isinstance(app.raised, asyncio.CancelledError)
    assert talk.connection.outlets == {}


# --- back pressure ---


@both
@in_virtual_time
async def test_l38_full_queue_shuts_the_window(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=2))
    await talk.say(text("1"), text("2"), text("3"))
    transport = transport_of(talk)
    before = talk.client.opened(1)
    await talk.say(frame(TEXT, b"x" * 40_000))
    assert talk.client.opened(1) == before
    assert sum(map(len, transport._held)) >= 40_000  # no more than its window
    messages = [await app.receive() for _ in range(3)]
    await turns()
    assert [message["text"] for message in messages] == ["1", "2", "3"]
    assert (await app.receive())["text"] == "x" * 40_000
    await turns()
    assert talk.client.opened(1) > before + 40_000
    assert transport._held == []
    app.done.set()


@both
@in_virtual_time
async def test_end_behind_what_nobody_reads_comes_in_its_turn(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False, limits=Limits(websocket_queue=1))
    await talk.say(text("1"), text("2"))
    await talk.say(text("3"))
    await talk.send(data(1, b"", ended=True))
    heard = []
    while not heard or heard[-1]["type"] == "websocket.receive":
        heard.append(await asyncio.wait_for(app.receive(), 60))
        await turns()
    assert [message.get("text") for message in heard[:-1]] == ["1", "2", "3"]
    assert heard[-1]["code"] == 1006
    app.done.set()
    await turns()
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_l34_send_waits_for_the_window(kind: type[Wire]) -> None:
    talk, app = await opened(kind, NO_WINDOW, listens=False)
    sending = asyncio.ensure_future(app.send(socket_send(b"x" * 70_000)))
    await turns()
    assert not sending.done()
    assert transport_of(talk).unacknowledged() > 70_000
    await talk.send(window(1, 50_000))
    assert not sending.done()
    await talk.send(window(1, 10_000))
    assert sending.done()
    await talk.send(window(1, 20_000), window(0, 20_000))
    assert talk.frames() == [Sent(BINARY, b"x" * 70_000)]
    app.done.set()


@both
@in_virtual_time
async def test_d8_send_to_a_stream_that_is_reset_meanwhile_goes_on(kind: type[Wire]) -> None:
    talk, app = await opened(kind, NO_WINDOW, listens=False)
    sending = asyncio.ensure_future(app.send(socket_send(b"x" * 70_000)))
    await turns()
    assert not sending.done()
    await talk.send(reset(1))
    assert sending.done()
    app.done.set()
    await turns()
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_full_transport_holds_sockets_up(kind: type[Wire]) -> None:
    talk, app = await opened(kind, listens=False)
    talk.wire.block()
    sending = asyncio.ensure_future(app.send(socket_send(b"x" * 70_000)))
    await turns()
    assert not sending.done()
    assert talk.frames() == []
    await talk.send(window(1, 70_000), window(0, 70_000))
    talk.wire.unblock()
    await turns()
    assert sending.done()
    assert talk.frames() == [Sent(BINARY, b"x" * 70_000)]
    app.done.set()


@both
@in_virtual_time
async def test_close_behind_what_the_client_has_not_taken_comes_last(kind: type[Wire]) -> None:
    talk, app = await opened(kind, NO_WINDOW, listens=False)
    await app.send(socket_send(b"x" * 1_000))
    await app.send(socket_close())
    await turns()
    await talk.say(close(1000))
    assert (talk.answer().body, talk.answer().ended) == (b"", False)
    await talk.send(window(1, 2_000))
    assert talk.frames() == [Sent(BINARY, b"x" * 1_000), closed(1000)]
    assert talk.answer().ended
    app.done.set()


@both
@in_virtual_time
async def test_l35_socket_whose_client_does_not_read_is_cut(kind: type[Wire]) -> None:
    talk, app = await opened(kind, NO_WINDOW, listens=False, websocket_ping_interval=0)
    sending = asyncio.ensure_future(app.send(socket_send(b"x" * 70_000)))
    await asyncio.sleep(59)
    assert talk.answer().code is None
    await asyncio.sleep(3)
    assert talk.answer().code == CANCEL
    assert sending.done()
    assert len(talk.server.connections) == 1
    app.done.set()


# --- heartbeat ---


@both
@in_virtual_time
async def test_l39_silent_client_is_pinged_and_given_up(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    await asyncio.sleep(20.5)
    assert [each.opcode for each in talk.frames()] == [PING]
    await talk.say(frame(PONG, talk.frames()[0].payload))
    await asyncio.sleep(20.5)
    assert [each.opcode for each in talk.frames()] == [PING, PING]
    await asyncio.sleep(31)
    assert [each.opcode for each in talk.frames()][-1] == CLOSE
    assert talk.frames()[-1].code == 1011
    assert talk.answer().code == CANCEL
    assert app.end == (1006, "")
    assert talk.server.running == 0
    assert talk.codes == []


@both
@in_virtual_time
async def test_l13_and_l14_are_not_for_sockets(kind: type[Wire]) -> None:
    talk, app = await opened(kind, websocket_ping_interval=0)
    await asyncio.sleep(1_000)
    assert talk.answer().code is None
    await talk.say(text("hello"))
    assert app.texts == ["hello"]


@both
@in_virtual_time
async def test_l28_small_messages_are_no_flood(kind: type[Wire]) -> None:
    talk, app = await opened(kind, limits=Limits(http2_small_data=300))
    for _ in range(20):
        await talk.say(text("a"))
    assert (app.texts, talk.codes) == (["a"] * 20, [])


@both
@in_virtual_time
async def test_l53_socket_that_is_too_old_is_closed(kind: type[Wire]) -> None:
    talk, _ = await opened(kind, websocket_age=30, websocket_ping_interval=0)
    await asyncio.sleep(31)
    assert talk.frames() == [closed(1000, b"open for too long")]


# --- the verdict in time ---


@both
@in_virtual_time
async def test_l40_verdict_has_its_time(kind: type[Wire]) -> None:
    """The client has nothing to send until then: the rate of its body is not looked at (spec limits L14)."""
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind)
    await talk.open()
    await asyncio.sleep(19)
    await app.send(accept())
    await turns()
    assert (talk.status(), talk.answer().code) == (200, None)
    app.done.set()


@both
@in_virtual_time
async def test_l40_no_verdict_is_503_and_the_call_is_cancelled(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind, body_rate=0, body_idle=0)
    await talk.open()
    await asyncio.sleep(19)
    assert talk.status() == 0
    await asyncio.sleep(2)
    assert talk.status() == 503
    assert isinstance(app.raised, asyncio.CancelledError)
    assert talk.server.running == 0
    assert talk.connection.outlets == {}
    assert talk.connection.engine.streams == {}


# --- the server stops ---


@both
@pytest.mark.parametrize(("restarting", "code"), [(False, 1001), (True, 1012)])
@in_virtual_time
async def test_l46_sockets_are_told_to_go(kind: type[Wire], code: int, *, restarting: bool) -> None:
    talk, app = await opened(kind)
    stopping = asyncio.ensure_future(talk.server.stop(restarting=restarting))
    await turns()
    assert talk.codes == [NO_ERROR]
    while not talk.frames():
        await asyncio.sleep(0.1)
    assert [each.code for each in talk.frames()] == [code]
    await talk.say(close(code))
    assert app.end == (code, "")
    assert talk.answer().ended
    await asyncio.sleep(1.5)
    talk.wire.shut()
    await stopping
    assert talk.over


@both
@in_virtual_time
async def test_socket_that_does_not_heed_the_farewell_is_cut(kind: type[Wire]) -> None:
    talk, app = await opened(kind)
    since = now()
    stopping = asyncio.ensure_future(talk.server.stop())
    await stopping
    assert now() - since < 40
    assert app.end == (1006, "")
    assert talk.over


@both
@in_virtual_time
async def test_socket_that_is_left_at_the_end_of_the_grace_period_is_cut(kind: type[Wire]) -> None:
    talk, app = await opened(kind, websocket_close=0, websocket_ping_interval=0)
    stopping = asyncio.ensure_future(talk.server.stop())
    await asyncio.sleep(24)
    assert (talk.answer().code, app.end) == (None, None)
    await asyncio.sleep(2)
    assert (talk.answer().code, app.end) == (CANCEL, (1006, ""))
    await stopping
    assert talk.over


@in_virtual_time
async def test_l42_streams_are_no_connections() -> None:
    talk = await talked(SocketPuppet(), limits=Limits(connections=3))
    other = client_of(LoopWire(talk.server, goes=True))
    other.send(HELLO, SETTINGS_ACK)
    for number in (1, 3, 5):
        await talk.open(number)
    assert len(talk.server.connections) == 5
    talk.server._tick(now())
    assert other.goaways == []
    for number in (1, 3, 5):
        await talk.say(close(1000), stream=number)
    talk.server._tick(now())
    assert other.goaways == []


@both
@in_virtual_time
async def test_handshake_while_the_server_stops_is_503(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    stopping = asyncio.ensure_future(talk.server.stop())
    await turns()
    await talk.open(3)
    assert talk.status(3) == 503
    await stopping


@both
@in_virtual_time
async def test_socket_without_a_verdict_is_refused_at_the_end(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False)
    talk = await talked(app, kind, websocket_accept=0, body_rate=0, body_idle=0)
    await talk.open()
    stopping = asyncio.ensure_future(talk.server.stop())
    await asyncio.sleep(26)
    assert (talk.status(), app.end) == (503, (1006, ""))
    await stopping
    assert talk.over


@both
@in_virtual_time
async def test_denial_under_way_may_be_completed_at_the_end(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind, body_rate=0, body_idle=0)
    await talk.open()
    await app.send(denial_start(401))
    stopping = asyncio.ensure_future(talk.server.stop())
    await asyncio.sleep(26)
    await app.send(denial_body(b"no"))
    app.done.set()
    await turns()
    assert (talk.status(), talk.answer().body) == (401, b"no")
    await stopping


# --- the access log ---


@both
@in_virtual_time
async def test_access_log_has_one_line_at_the_end_of_a_socket(kind: type[Wire]) -> None:
    """With the status that was sent: 200, as RFC 8441 §5 has it, for there is no 101 in HTTP/2 (RFC 9113 §8.6)."""
    talk, app = await opened(kind, log=LINE)
    await app.send(socket_send("12345"))
    await app.send(socket_send(b"678"))
    await asyncio.sleep(15)
    assert talk.logged() == []
    await talk.say(close(1000))
    assert talk.logged() == ["CONNECT /socket 200 8 15"]


@both
@in_virtual_time
async def test_access_log_has_one_line_for_a_socket_that_is_reset(kind: type[Wire]) -> None:
    talk, app = await opened(kind, log=LINE, listens=False)
    await talk.send(reset(1))
    talk.wire.lose()
    await turns()
    assert len(talk.logged()) == 1
    app.done.set()


@both
@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([socket_close()], "CONNECT /socket 403 0 0"),
        ([denial_start(401), denial_body(b"12345")], "CONNECT /socket 401 5 0"),
        ([], "CONNECT /socket 500 0 0"),
    ],
    ids=["refused", "denied", "no verdict"],
)
@in_virtual_time
async def test_access_log_has_a_line_for_a_refusal(kind: type[Wire], messages: list[Message], line: str) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    talk = await talked(app, kind, log=LINE)
    await talk.open()
    talk.wire.lose()
    await turns()
    assert talk.logged() == [line]


@both
@in_virtual_time
async def test_access_log_has_503_for_a_verdict_that_did_not_come(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind, log=LINE, body_rate=0, body_idle=0)
    await talk.open()
    await asyncio.sleep(21)
    [line] = talk.logged()
    assert line.startswith("CONNECT /socket 503 0 20")
    talk.wire.lose()
    await turns()
    assert len(talk.logged()) == 1


@both
@in_virtual_time
async def test_daphne_s_access_log_has_a_line_for_each_step(kind: type[Wire]) -> None:
    app = SocketPuppet(accepts=False, listens=False)
    talk = await talked(app, kind, log="daphne")

    def steps() -> list[str]:
        talk.logged()
        return [line.split('"')[1].split()[0] for line in talk.sink.lines]

    await talk.open()
    assert steps() == ["WSCONNECTING"]
    await app.send(accept())
    assert steps() == ["WSCONNECTING", "WSCONNECT"]
    await talk.say(close(1000))
    assert steps() == ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]
    app.done.set()


# --- the transport itself ---


@in_virtual_time
async def test_transport_knows_its_addresses() -> None:
    talk, _ = await opened()
    transport = transport_of(talk)
    assert transport.getPeer() == talk.wire.transport.getPeer()
    assert transport.getHost() == talk.wire.transport.getHost()


@both
@in_virtual_time
async def test_transport_sends_nothing_behind_its_end(kind: type[Wire]) -> None:
    talk, _ = await opened(kind)
    transport = transport_of(talk)
    transport.writeSequence([frame(PONG, b"1", mask=None), frame(PONG, b"2", mask=None)])
    transport.stopProducing()
    assert transport.disconnecting
    transport.write(b"late")
    transport.loseConnection()
    await turns()
    assert talk.frames() == [Sent(PONG, b"1"), Sent(PONG, b"2")]
    assert talk.answer().ended


@both
@in_virtual_time
async def test_transport_without_a_producer_is_held_and_released_all_the_same(kind: type[Wire]) -> None:
    talk, app = await opened(kind, NO_WINDOW, listens=False)
    transport = transport_of(talk)
    transport.unregisterProducer()
    sending = asyncio.ensure_future(app.send(socket_send(b"x" * 70_000)))
    await turns()
    assert sending.done()
    await talk.send(window(1, 60_000))
    await talk.send(window(1, 20_000), window(0, 20_000))
    assert talk.frames() == [Sent(BINARY, b"x" * 70_000)]
    app.done.set()


@in_virtual_time
async def test_bytes_for_a_transport_that_is_lost_go_nowhere() -> None:
    talk, app = await opened()
    transport = transport_of(talk)
    transport.lose()
    transport.lose()
    assert app.end is None
    await turns()
    assert app.end == (1006, "")
    assert talk.connection.outlets == {}
    talk.connection.left(1)  # whoever is left already need not be looked for


# --- files: there is no way past the frames ---


@in_virtual_time
async def test_no_file_goes_past_the_frames() -> None:
    outlet = StreamOutlet(object(), 1)  # type: ignore[arg-type]
    assert not outlet.sends_files
    with pytest.raises(NotImplementedError):
        outlet.begin_file(1, more=False)
    with pytest.raises(NotImplementedError):
        outlet.end_file(1)
    with pytest.raises(NotImplementedError):
        await outlet.send_file(0, 0, 1)
