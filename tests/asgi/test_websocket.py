"""What an application may say and hears on a WebSocket, and what the client sees of it (ASGI www 2.5; rows W26 to W39 of the table)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fakes import (
    ACCEPT,
    Log,
    Message,
    Receive,
    Send,
    SocketTalk,
    accept,
    denial_body,
    denial_start,
    in_virtual_time,
    now,
    sender,
    socket_close,
    socket_send,
    turns,
)
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Ending
from wire.frames import BINARY, CLOSE, TEXT, Sent, close, frame

CONNECT = {"type": "websocket.connect"}


def heard(data: str | bytes) -> Message:
    return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}


def disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def text(data: bytes) -> bytes:
    return frame(TEXT, data)


def closed(code: int, reason: bytes = b"") -> Sent:
    """Give the Close frame that the client reads."""
    return Sent(CLOSE, code.to_bytes(2, "big") + reason)


async def opened(*fields: bytes, queue_limit: int = 16) -> SocketTalk:
    talk = SocketTalk(*fields, queue_limit=queue_limit)
    await talk.open()
    return talk


async def blocks(receive: Receive) -> bool:
    """Whether a call of `receive()` finds nothing."""
    waiting = asyncio.ensure_future(receive())
    await turns()
    done = waiting.done()
    waiting.cancel()
    return not done


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


# ---------------------------------------------------------------------- the usual socket


@in_virtual_time
async def test_w31_the_application_is_connected_first_accepts_talks_and_closes(log: Log) -> None:
    calls: list[object] = []

    async def echo(scope: Message, receive: Receive, send: Send) -> None:
        calls.append(scope["type"])
        while (message := await receive())["type"] != "websocket.disconnect":
            calls.append(message)
            if message == CONNECT:
                await send(accept())
            else:
                await send(socket_send("got " + message["text"]))
        calls.append(message)

    talk = SocketTalk()
    task = talk.begin(echo)
    await turns()
    assert talk.outlet.calls == ["upgrade 0"]
    assert talk.exchange.waiting_for == "receive"
    talk.push(text(b"one"), text(b"two"))
    await turns()
    talk.push(close(1000, b"bye"))
    await task
    assert calls == ["websocket", CONNECT, heard("one"), heard("two"), disconnect(1000, "bye")]
    switched = talk.switched()
    assert (switched.status, switched["sec-websocket-accept"]) == (101, ACCEPT)
    assert switched.frames == [Sent(TEXT, b"got one"), Sent(TEXT, b"got two"), closed(1000, b"bye")]
    assert talk.outlet.calls == ["upgrade 0", "returned"]
    assert not talk.exchange.running
    assert log.quiet


@in_virtual_time
async def test_w31_the_handshake_waits_for_the_verdict() -> None:
    talk = SocketTalk()
    assert await talk.receive() == CONNECT
    assert not talk.outlet.sent
    assert not talk.exchange.begun
    assert await blocks(talk.receive)
    await talk.send(accept())
    assert talk.exchange.begun
    assert talk.exchange.status == 101
    assert talk.switched().status == 101


@in_virtual_time
async def test_w31_an_application_may_accept_without_asking() -> None:
    talk = SocketTalk()
    await talk.send(accept())
    assert await talk.receive() == CONNECT
    talk.push(text(b"x"))
    assert await talk.receive() == heard("x")


@in_virtual_time
async def test_a13_what_is_done_to_a_message_is_not_seen_by_the_next_socket() -> None:
    first = SocketTalk()
    (await first.receive())["mine"] = 1
    assert await SocketTalk().receive() == CONNECT


# ---------------------------------------------------------------------- accept


@in_virtual_time
async def test_w32_accept_sends_its_headers_in_order() -> None:
    talk = SocketTalk()
    await talk.send(accept(headers=[(b"X-B", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), [b"x-a", b"3"]]))
    own = [field for field in talk.switched().headers if field[0] in {"x-a", "x-b", "set-cookie"}]
    assert own == [("x-b", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-a", "3")]


@in_virtual_time
async def test_w32_accept_chooses_a_subprotocol() -> None:
    talk = SocketTalk(b"Sec-WebSocket-Protocol: soap, wamp")
    assert talk.opening.subprotocols == ["soap", "wamp"]
    await talk.send(accept(subprotocol="wamp"))
    assert talk.switched()["sec-websocket-protocol"] == "wamp"


@pytest.mark.parametrize("more", [{}, {"subprotocol": None}, {"headers": None}, {"headers": ()}, {"headers": []}, {"extra": object()}])
@in_virtual_time
async def test_w32_a8_what_accept_may_leave_out_or_add(more: Message) -> None:
    talk = SocketTalk(b"Sec-WebSocket-Protocol: soap")
    await talk.send(accept(**more))
    assert talk.switched().status == 101
    assert talk.switched()["sec-websocket-protocol"] is None


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"subprotocol": "other"}, id="not offered"),
        pytest.param({"subprotocol": b"soap"}, id="bytes"),
        pytest.param({"subprotocol": ""}, id="empty"),
        pytest.param({"subprotocol": 1}, id="number"),
        pytest.param({"headers": [(b"Sec-WebSocket-Protocol", b"soap")]}, id="subprotocol as a header"),
        pytest.param({"headers": [(b"sec-websocket-accept", b"x")]}, id="accept value"),
        pytest.param({"headers": [(b"sec-websocket-extensions", b"x")]}, id="extensions"),
        pytest.param({"headers": [("x-a", "1")]}, id="text headers"),
        pytest.param({"headers": [(b"x-a", b"1\r\nx-b: 2")]}, id="two lines"),
        pytest.param({"headers": [(b"x a", b"1")]}, id="no token"),
        pytest.param({"headers": [(b"x-a",)]}, id="half a header"),
        pytest.param({"headers": 1}, id="no headers"),
    ],
)
@in_virtual_time
async def test_w32_a7_an_accept_that_cannot_be_sent_raises_and_may_be_repeated(more: Message) -> None:
    talk = SocketTalk(b"Sec-WebSocket-Protocol: soap")
    with pytest.raises(InvalidMessage):
        await talk.send(accept(**more))
    assert not talk.outlet.sent
    assert not talk.exchange.begun
    await talk.send(accept(subprotocol="soap"))
    assert talk.switched()["sec-websocket-protocol"] == "soap"


@in_virtual_time
async def test_framing_fields_of_the_application_are_left_out() -> None:
    talk = SocketTalk()
    await talk.send(accept(headers=[(b"content-length", b"5"), (b"transfer-encoding", b"chunked"), (b"connection", b"close")]))
    assert {"content-length", "transfer-encoding"}.isdisjoint(dict(talk.switched().headers))
    assert talk.switched()["connection"] == "Upgrade"


@in_virtual_time
async def test_the_deflate_window_that_was_negotiated_goes_with_the_acceptance() -> None:
    talk = SocketTalk(b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10")
    await talk.send(accept())
    assert talk.outlet.calls == ["upgrade 10"]
    assert "server_max_window_bits=10" in str(talk.switched()["sec-websocket-extensions"])


# ---------------------------------------------------------------------- receive


@in_virtual_time
async def test_w34_receive_has_one_of_text_and_bytes_and_empty_messages_are_messages() -> None:
    talk = await opened()
    talk.push(text(b"caf\xc3\xa9"), frame(BINARY, b"\x00\xff"), text(b""), frame(BINARY))
    assert [await talk.receive() for _ in range(4)] == [heard("café"), heard(b"\x00\xff"), heard(""), heard(b"")]


@in_virtual_time
async def test_w27_fragments_arrive_as_one_message() -> None:
    talk = await opened()
    talk.push(frame(TEXT, b"on", fin=False))
    assert await blocks(talk.receive)
    talk.push(frame(0, b"e"))
    assert await talk.receive() == heard("one")


@in_virtual_time
async def test_a_receive_that_waits_gets_the_message_when_it_comes() -> None:
    talk = await opened()
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    assert talk.exchange.waiting_for == "receive"
    talk.push(text(b"x"))
    assert await waiting == heard("x")
    assert talk.exchange.waiting_for == "other"


@in_virtual_time
async def test_of_two_receive_calls_each_gets_a_message_of_its_own() -> None:
    talk = await opened()
    calls = [asyncio.ensure_future(talk.receive()) for _ in range(2)]
    await turns()
    talk.push(text(b"one"))
    await turns()
    assert [call.done() for call in calls] == [True, False]
    talk.push(text(b"two"))
    assert [await call for call in calls] == [heard("one"), heard("two")]


@in_virtual_time
async def test_of_two_receive_calls_a_cancelled_one_leaves_the_other_waiting() -> None:
    talk = await opened()
    first, second = asyncio.ensure_future(talk.receive()), asyncio.ensure_future(talk.receive())
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    assert talk.exchange.waiting_for == "receive"
    talk.push(text(b"x"))
    assert await second == heard("x")


@in_virtual_time
async def test_a_receive_call_cancelled_in_the_turn_of_its_news_loses_nothing() -> None:
    talk = await opened()
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.push(text(b"one"))
    waiting.cancel()
    talk.push(text(b"two"))
    await turns()
    assert waiting.cancelled()
    assert [await talk.receive() for _ in range(2)] == [heard("one"), heard("two")]


@in_virtual_time
async def test_messages_and_a_time_out_again_and_again_lose_nothing() -> None:
    """Channels and many others wait for a message with a time-out, in a loop."""
    talk = await opened()
    found: list[str] = []
    for number in range(20):
        asyncio.get_running_loop().call_later(number * 0.07, talk.push, text(b"%d" % number))
    while len(found) < 20:
        try:
            async with asyncio.timeout(0.05):
                found.append((await talk.receive())["text"])
        except TimeoutError:
            continue
    assert found == [str(number) for number in range(20)]


# ---------------------------------------------------------------------- the queue


@in_virtual_time
async def test_l38_a_full_queue_stops_the_reading_which_goes_on_at_half() -> None:
    talk = await opened(queue_limit=4)
    talk.push(*[text(b"%d" % number) for number in range(3)])
    assert not talk.exchange.full
    talk.push(text(b"3"))
    assert talk.exchange.full
    assert talk.exchange.held
    resumed = []
    for _ in range(4):
        await talk.receive()
        resumed.append(talk.outlet.calls.count("resume_reading"))
    assert resumed == [0, 1, 2, 3]  # from the half on, until the connection says that it is not held any more


@in_virtual_time
async def test_l38_nobody_is_asked_to_read_on_who_has_not_stopped() -> None:
    talk = await opened(queue_limit=4)
    talk.push(*[text(b"x") for _ in range(3)])
    for _ in range(3):
        await talk.receive()
    assert "resume_reading" not in talk.outlet.calls


@in_virtual_time
async def test_l38_a_queue_of_one() -> None:
    talk = await opened(queue_limit=1)
    talk.push(text(b"x"))
    assert talk.exchange.held
    assert await talk.receive() == heard("x")
    assert "resume_reading" in talk.outlet.calls


@in_virtual_time
async def test_l38_zero_is_no_limit() -> None:
    talk = await opened(queue_limit=0)
    for _ in range(1_000):
        talk.push(text(b"x"))
    assert not talk.exchange.full
    assert not talk.exchange.held


# ---------------------------------------------------------------------- send


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        pytest.param(socket_send("café"), Sent(TEXT, "café".encode()), id="text"),
        pytest.param(socket_send(b"\x00\xff"), Sent(BINARY, b"\x00\xff"), id="bytes"),
        pytest.param(socket_send(""), Sent(TEXT, b""), id="empty text"),
        pytest.param(socket_send(b""), Sent(BINARY, b""), id="empty bytes"),
        pytest.param(socket_send("x", bytes=None), Sent(TEXT, b"x"), id="text, bytes None"),
        pytest.param(socket_send(b"x", text=None), Sent(BINARY, b"x"), id="bytes, text None"),
        pytest.param(socket_send(bytearray(b"x")), Sent(BINARY, b"x"), id="bytearray"),
        pytest.param(socket_send(memoryview(b"xyz")[1:]), Sent(BINARY, b"yz"), id="memoryview"),
        pytest.param(socket_send("x", more=1, compress=True), Sent(TEXT, b"x"), id="A8: further keys"),
    ],
)
@in_virtual_time
async def test_w35_send_has_one_of_text_and_bytes_and_empty_values_are_messages(message: Message, sent: Sent) -> None:
    talk = await opened()
    await talk.send(message)
    assert talk.frames == [sent]


@in_virtual_time
async def test_what_was_sent_is_counted() -> None:
    talk = await opened()
    await talk.send(socket_send("abc"))
    await talk.send(socket_send(b"de"))
    assert talk.exchange.sent == 5


class Text(str):
    """A string of an application's own kind, as Django's safe strings are."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Data(bytes):
    """The same of bytes."""


@pytest.mark.parametrize(
    ("message", "sent"),
    [(socket_send(Text("café")), Sent(TEXT, "café".encode())), (socket_send(Data(b"x")), Sent(BINARY, b"x"))],
    ids=["text", "bytes"],
)
@in_virtual_time
async def test_w35_kinds_of_string_of_the_application_s_own_are_strings(message: Message, sent: Sent) -> None:
    talk = await opened()
    await talk.send(message)
    assert talk.frames == [sent]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(socket_send(), id="neither"),
        pytest.param(socket_send(text=None, bytes=None), id="both None"),
        pytest.param(socket_send("a", bytes=b"b"), id="both"),
        pytest.param(socket_send("", bytes=b""), id="both empty"),
        pytest.param(socket_send(text=b"a"), id="bytes as text"),
        pytest.param(socket_send(bytes="a"), id="text as bytes"),
        pytest.param(socket_send(text=3), id="number as text"),
        pytest.param(socket_send(bytes=3), id="number as bytes"),
        pytest.param(socket_send(bytes=[1]), id="list as bytes"),
        pytest.param(socket_send(text={"a": 1}), id="dict as text"),
        pytest.param(socket_send("\ud800"), id="lone surrogate"),
        pytest.param(socket_send(Text("a"), bytes=b"b"), id="both, one of a kind of its own"),
    ],
)
@in_virtual_time
async def test_w35_a7_a_send_that_cannot_be_sent_raises_and_harms_nothing(message: Message) -> None:
    talk = await opened()
    with pytest.raises(InvalidMessage):
        await talk.send(message)
    assert talk.frames == []
    assert talk.exchange.sent == 0
    await talk.send(socket_send("on"))
    assert talk.frames == [Sent(TEXT, b"on")]


@pytest.mark.parametrize(
    "message",
    [None, 3, "websocket.send", [], {}, {"type": None}, {"type": 3}, {"type": ["websocket.send"]}, {"type": "http.response.start"},
     {"type": "websocket.receive"}, {"type": "websocket.sending"}, {"type": ""}],
)  # fmt: skip
@pytest.mark.parametrize("accepted", [False, True])
@in_virtual_time
async def test_a7_an_unknown_message_raises(message: Any, *, accepted: bool) -> None:
    talk = SocketTalk()
    if accepted:
        await talk.open()
    with pytest.raises(InvalidMessage, match="with a type"):
        await talk.send(message)
    assert talk.exchange.begun is accepted


@pytest.mark.parametrize(
    ("before", "message", "expected"),
    [
        pytest.param([], socket_send("x"), "websocket.accept", id="send before accept"),
        pytest.param([], socket_send(), "websocket.accept", id="bad send before accept"),
        pytest.param([], denial_body(b"x"), "websocket.accept", id="body before its start"),
        pytest.param([accept()], accept(), "websocket.send", id="accept twice"),
        pytest.param([accept()], denial_start(), "websocket.send", id="denial after accept"),
        pytest.param([accept()], denial_body(), "websocket.send", id="body after accept"),
        pytest.param([denial_start()], accept(), "websocket.http.response.body", id="accept after a denial"),
        pytest.param([denial_start()], socket_send("x"), "websocket.http.response.body", id="send after a denial"),
        pytest.param([denial_start()], socket_close(), "websocket.http.response.body", id="close after a denial"),
        pytest.param([denial_start()], denial_start(), "websocket.http.response.body", id="denial twice"),
        pytest.param(
            [denial_start(), denial_body(b"x", more_body=True)], denial_start(), "websocket.http.response.body", id="start after body"
        ),
        pytest.param([denial_start(), denial_body(b"x", more_body=True)], socket_close(), "websocket.http.response.body", id="close in it"),
        pytest.param([accept(), socket_close()], accept(), "nothing", id="accept after close"),
        pytest.param([accept(), socket_close()], denial_start(), "nothing", id="denial after close"),
    ],
)
@in_virtual_time
async def test_a7_messages_out_of_order_raise_and_say_what_was_expected(before: list[Message], message: Message, expected: str) -> None:
    talk = SocketTalk()
    for each in before:
        await talk.send(each)
    sent = bytes(talk.outlet.sent)
    with pytest.raises(UnexpectedMessage, match=f"expected '{expected}.* sent '{message['type']}'"):
        await talk.send(message)
    assert talk.outlet.sent == sent


@in_virtual_time
async def test_a4_send_waits_while_the_client_does_not_read_and_goes_on_when_it_does() -> None:
    talk = await opened()
    steps: list[str] = []

    async def speak() -> None:
        for word in ("one", "two"):
            await talk.send(socket_send(word))
            steps.append(word)

    talk.outlet.writable = False
    speaking = asyncio.ensure_future(speak())
    await turns()
    assert steps == []
    assert talk.exchange.waiting_for == "send"
    talk.outlet.writable = True
    await speaking
    assert steps == ["one", "two"]
    assert talk.exchange.waiting_for == "other"


@in_virtual_time
async def test_a4_a_send_that_waits_ends_when_the_client_is_lost() -> None:
    talk = await opened()
    talk.outlet.writable = False
    sending = asyncio.ensure_future(talk.send(socket_send("x")))
    await turns()
    assert not sending.done()
    talk.lose()
    await sending  # the loss is told by `websocket.disconnect` first
    assert await talk.receive() == disconnect(1006)


@in_virtual_time
async def test_a_cancelled_send_waits_no_more_but_was_sent() -> None:
    talk = await opened()
    talk.outlet.writable = False
    sending = asyncio.ensure_future(talk.send(socket_send("x")))
    await turns()
    sending.cancel()
    await turns()
    assert sending.cancelled()
    assert talk.exchange.waiting_for == "other"
    assert talk.frames == [Sent(TEXT, b"x")]


# ---------------------------------------------------------------------- close


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        pytest.param(socket_close(), closed(1000), id="no code"),
        pytest.param(socket_close(None), closed(1000), id="None"),
        pytest.param(socket_close(1000), closed(1000), id="1000"),
        pytest.param(socket_close(1001, reason=None), closed(1001), id="1001, no reason"),
        pytest.param(socket_close(1012), closed(1012), id="1012"),
        pytest.param(socket_close(3000, reason=""), closed(3000), id="3000, empty reason"),
        pytest.param(socket_close(4999, reason="genug"), closed(4999, b"genug"), id="4999 and a reason"),
        pytest.param(socket_close(1011, reason="é" * 61), closed(1011, "é".encode() * 61), id="122 bytes"),
        pytest.param(socket_close(1014, reason="x" * 123), closed(1014, b"x" * 123), id="123 bytes"),
        pytest.param(socket_close(4000, reason="a\ud800b"), closed(4000, b"a?b"), id="a surrogate is replaced"),
        pytest.param(socket_close(4000, more=1), closed(4000), id="A8: further keys"),
    ],
)
@in_virtual_time
async def test_w39_close_sends_its_code_and_reason(message: Message, sent: Sent) -> None:
    talk = await opened()
    await talk.send(message)
    assert talk.frames == [sent]


@pytest.mark.parametrize(
    "message",
    [
        *[socket_close(code) for code in (0, -1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1 << 70, True, 1000.0, "1000", b"", [])],
        socket_close(4000, reason="x" * 124),
        socket_close(4000, reason="é" * 62),
        socket_close(4000, reason="\U0001f600" * 31),
        socket_close(4000, reason=b"bytes"),
        socket_close(4000, reason=3),
    ],
    ids=lambda message: f"{message.get('code')!r} {message.get('reason', '')!r:.10}",
)
@in_virtual_time
async def test_w39_a7_a_close_that_cannot_be_sent_raises_and_the_socket_stays_open(message: Message) -> None:
    talk = await opened()
    with pytest.raises(InvalidMessage, match=r"close (code|reason) is"):
        await talk.send(message)
    await talk.send(socket_send("on"))
    assert talk.frames == [Sent(TEXT, b"on")]


@in_virtual_time
async def test_w36_after_its_own_close_the_application_hears_the_disconnect() -> None:
    talk = await opened()
    await talk.send(socket_close(4001, reason="enough"))
    assert await blocks(talk.receive)
    talk.push(close(4001, b"enough"))
    assert await talk.receive() == disconnect(4001, "enough")
    assert await blocks(talk.receive)


@in_virtual_time
async def test_what_comes_after_the_close_is_not_heard() -> None:
    talk = await opened()
    await talk.send(socket_close())
    talk.push(text(b"late"), text(b"later"))
    assert await blocks(talk.receive)
    talk.push(text(b"last"), close(1000))
    assert await talk.receive() == disconnect(1000)


@in_virtual_time
async def test_send_and_close_after_the_own_close_are_silent_however_late() -> None:
    talk = await opened()
    await talk.send(socket_close(4000))
    await asyncio.sleep(60)
    for message in (socket_send("x"), socket_send(b"x"), socket_close(4001), socket_close(), socket_send()):
        await talk.send(message)
    assert talk.frames == [closed(4000)]
    assert not talk.exchange.done


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        pytest.param(close(), 1005, "", id="no code"),
        pytest.param(close(1000), 1000, "", id="1000"),
        pytest.param(close(1001, b"tab closed"), 1001, "tab closed", id="going away"),
        pytest.param(close(4321, "später".encode()), 4321, "später", id="own code"),
        pytest.param(frame(TEXT, b"x", mask=None), 1006, "a frame that is not masked", id="protocol broken"),
        pytest.param(text(b"\xff"), 1006, "text that is not UTF-8", id="no UTF-8"),
    ],
)
@in_virtual_time
async def test_w36_w37_disconnect_has_the_code_and_reason_of_the_client_s_close(sent: bytes, code: int, reason: str) -> None:
    talk = await opened()
    talk.push(sent)
    assert talk.exchange.done
    assert await talk.receive() == disconnect(code, reason)


@in_virtual_time
async def test_w36_a_socket_lost_without_a_close_frame_is_1006() -> None:
    talk = await opened()
    talk.lose()
    assert await talk.receive() == disconnect(1006)


@pytest.mark.parametrize("lost", [False, True], ids=["closed", "lost"])
@in_virtual_time
async def test_w36_disconnect_comes_once_behind_every_message_and_then_nothing(*, lost: bool) -> None:
    talk = await opened()
    talk.push(text(b"one"), text(b"two"))
    if lost:
        talk.lose()
    else:
        talk.push(close(1000))
        talk.lose()  # and the connection after it
    talk.lose()
    assert [await talk.receive() for _ in range(3)] == [heard("one"), heard("two"), disconnect(1006 if lost else 1000)]
    assert await blocks(talk.receive)


@in_virtual_time
async def test_w36_of_two_that_wait_one_hears_the_disconnect() -> None:
    talk = await opened()
    calls = [asyncio.ensure_future(talk.receive()) for _ in range(2)]
    await turns()
    talk.lose()
    await turns()
    assert sorted(call.done() for call in calls) == [False, True]
    for call in calls:
        call.cancel()


@in_virtual_time
async def test_what_is_fed_after_the_end_is_dropped() -> None:
    talk = await opened()
    talk.lose()
    talk.exchange.feed(["too late"])
    assert await talk.receive() == disconnect(1006)
    assert await blocks(talk.receive)


# ---------------------------------------------------------------------- sending to a client that has left


@in_virtual_time
async def test_w33_send_is_silent_for_two_seconds_after_the_loss_then_raises_an_oserror() -> None:
    talk = await opened()
    await talk.send(socket_send("x"))
    sent = bytes(talk.outlet.sent)
    talk.lose()
    for _ in range(19):
        await talk.send(socket_send("y"))
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.2)
    for message in (socket_send("y"), socket_close(), accept(), socket_send(), {"type": "nonsense"}, None):
        with pytest.raises(OSError, match="left") as raised:
            await talk.send(message)  # type: ignore[arg-type]
        assert raised.type is ClientDisconnected
    assert talk.outlet.sent == sent
    assert talk.exchange.sent == 1


@pytest.mark.parametrize("message", [socket_send("x"), socket_send(), socket_close(), accept(), denial_start(), {"type": "nonsense"}, None])
@in_virtual_time
async def test_w33_any_message_is_silent_in_the_grace(message: Any) -> None:
    talk = await opened()
    talk.push(close(1000))
    await talk.send(message)
    assert talk.frames == [closed(1000)]


@in_virtual_time
async def test_w33_silent_sends_give_up_a_turn_so_that_the_application_hears_the_disconnect() -> None:
    talk = await opened()
    order: list[str] = []

    async def listen() -> None:
        order.append((await talk.receive())["type"])

    listening = asyncio.ensure_future(listen())
    await turns()
    talk.lose()
    for _ in range(5):
        await talk.send(socket_send("x"))
        order.append("sent")
    assert order.index("websocket.disconnect") <= 1
    await listening


@in_virtual_time
async def test_w33_after_a_hundred_silent_sends_they_are_slowed_down() -> None:
    talk = await opened()
    talk.lose()
    begun, took = now(), []

    async def talk_on() -> None:
        for _ in range(10_000):
            await talk.send(socket_send("x"))
            took.append(now() - begun)

    with pytest.raises(ClientDisconnected):
        await talk_on()
    assert took[99] == 0
    assert took[100] > 0
    assert len(took) <= 201
    assert 2.0 <= now() - begun < 2.1


@in_virtual_time
async def test_channels_3_a_consumer_that_answers_late_still_runs_its_disconnect(log: Log) -> None:
    """What Channels does: handlers run one after the other, and `disconnect()` comes when the message is dispatched."""
    left: list[Message] = []

    async def consumer(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(accept())
        while (message := await receive())["type"] != "websocket.disconnect":
            await asyncio.sleep(1.5)  # the client leaves meanwhile
            await send(socket_send(message["text"]))
        left.append(message)

    talk = SocketTalk()
    task = talk.begin(consumer)
    await turns()
    talk.push(text(b"question"))
    await asyncio.sleep(0.5)
    talk.lose()
    await task
    assert left == [disconnect(1006)]
    assert log.quiet


@in_virtual_time
async def test_w33_an_application_that_only_talks_ends(log: Log) -> None:
    async def talker(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        while True:
            await send(socket_send("tick"))
            await asyncio.sleep(0.1)

    talk = SocketTalk()
    task = talk.begin(talker)
    await asyncio.sleep(1)
    talk.lose()
    begun = now()
    await task
    assert 1.9 < now() - begun < 2.2
    assert log.quiet  # A11: what send() raised comes back and is nobody's fault


# ---------------------------------------------------------------------- refusing


@in_virtual_time
async def test_w38_close_before_accept_is_403() -> None:
    talk = SocketTalk()
    assert await talk.receive() == CONNECT
    await talk.send(socket_close(4000, reason="not you"))
    answer = talk.answer()
    assert (answer.status, answer.whole) == (403, True)
    assert talk.exchange.status == 403
    assert talk.outlet.calls == ["finished"]
    assert talk.exchange.done
    assert await talk.receive() == disconnect(1006)
    assert await blocks(talk.receive)


@pytest.mark.parametrize("message", [socket_close(), socket_close(1), socket_close(reason=3)])
@in_virtual_time
async def test_w38_before_accept_code_and_reason_go_nowhere(message: Message) -> None:
    talk = SocketTalk()
    await talk.send(message)
    assert talk.answer().status == 403


@in_virtual_time
async def test_a_refused_client_is_told_that_the_connection_ends() -> None:
    talk = SocketTalk()
    await talk.send(socket_close())
    assert talk.answer()[b"connection"] == b"close"
    assert talk.engine.ending is Ending.CLOSE


@in_virtual_time
async def test_denial_response_is_streamed(log: Log) -> None:
    talk = SocketTalk()
    await talk.send(denial_start(401, [(b"content-type", b"text/html"), (b"www-authenticate", b"Basic")], trailers=True))
    assert not talk.outlet.sent  # as in HTTP, the head leaves with the first of the body
    assert (talk.exchange.begun, talk.exchange.status) == (True, 401)
    await talk.send(denial_body(b"first,", more_body=True))
    assert b"first," in talk.outlet.sent
    await talk.send(denial_body(b"", more_body=True))
    assert not talk.exchange.done
    await talk.send(denial_body(b" last", extra=1))
    answer = talk.answer()
    assert (answer.status, answer.body, answer.whole) == (401, b"first, last", True)
    assert answer[b"www-authenticate"] == b"Basic"
    assert talk.exchange.sent == len(b"first, last")
    assert talk.outlet.calls == ["finished"]
    assert await talk.receive() == CONNECT
    assert await talk.receive() == disconnect(1006)
    await talk.send(denial_body(b"more"))  # W23: after the end, nothing
    assert talk.answer().body == b"first, last"
    assert log.quiet


@pytest.mark.parametrize("message", [denial_body(), {"type": "websocket.http.response.body"}, denial_body(b"", more_body=False)])
@in_virtual_time
async def test_denial_response_without_a_body(message: Message) -> None:
    talk = SocketTalk()
    await sender(denial_start(302, [(b"location", b"/login")]), message)({}, talk.receive, talk.send)
    answer = talk.answer()
    assert (answer.status, answer.body, answer.whole, answer[b"location"]) == (302, b"", True, b"/login")


@in_virtual_time
async def test_denial_response_keeps_its_content_length() -> None:
    talk = SocketTalk()
    await sender(denial_start(403, [(b"content-length", b"3")]), denial_body(b"abc"))({}, talk.receive, talk.send)
    answer = talk.answer()
    assert (answer.body, answer.whole, answer[b"content-length"]) == (b"abc", True, b"3")


@pytest.mark.parametrize(
    ("body", "received", "ending"),
    [
        pytest.param(denial_body(b"abcdefg"), b"abcde", Ending.CLOSE, id="too long"),
        pytest.param(denial_body(b"abcdefg", more_body=True), b"abcde", Ending.CLOSE, id="too long, and more to come"),
        pytest.param(denial_body(b"ab"), b"ab", Ending.RESET, id="too short"),
    ],
)
@in_virtual_time
async def test_a_content_length_that_is_not_kept_raises_and_is_not_broken(body: Message, received: bytes, ending: Ending, log: Log) -> None:
    talk = SocketTalk()
    raised: list[Exception] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(denial_start(403, [(b"content-length", b"5")]))
        try:
            await send(body)
        except InvalidMessage as error:
            raised.append(error)
        await send(denial_body(b"more"))  # it is over: silent

    await talk.run(app)
    assert len(raised) == 1
    assert talk.answer().body == received
    assert talk.engine.ending is ending
    assert talk.outlet.calls == ["finished", "returned"]
    assert log.quiet


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"type": "websocket.http.response.start", "headers": []}, id="no status"),
        pytest.param(denial_start("401"), id="status as text"),
        pytest.param(denial_start(99), id="status of two digits"),
        pytest.param(denial_start(101), id="101 is accept's"),
        pytest.param(denial_start(None), id="status None"),
        pytest.param(denial_start(headers=[("a", "b")]), id="text headers"),
        pytest.param(denial_start(headers=[(b"a", b"b\r\nc: d")]), id="two lines"),
        pytest.param(denial_start(headers=7), id="no headers"),
    ],
)
@in_virtual_time
async def test_a7_a_denial_that_cannot_be_sent_raises_and_may_be_repeated(message: Message) -> None:
    talk = SocketTalk()
    with pytest.raises(InvalidMessage):
        await talk.send(message)
    assert not talk.exchange.begun
    await talk.send(denial_start(headers=None))
    await talk.send(denial_body(b"x"))
    assert (talk.answer().status, talk.answer().body) == (401, b"x")


@pytest.mark.parametrize("data", ["text", None, 3, bytearray(b"x"), [b"x"]], ids=repr)
@in_virtual_time
async def test_a7_a_denial_body_of_another_type_raises_and_may_be_repeated(data: object) -> None:
    talk = SocketTalk()
    await talk.send(denial_start())
    with pytest.raises(InvalidMessage, match="byte string"):
        await talk.send(denial_body(data))
    await talk.send(denial_body(b"x"))
    assert (talk.answer().body, talk.answer().whole) == (b"x", True)


@in_virtual_time
async def test_a4_a_denial_waits_for_a_client_that_does_not_read() -> None:
    talk = SocketTalk()
    talk.outlet.writable = False
    app = sender(denial_start(), denial_body(b"x", more_body=True), denial_body(b"y"))
    sending = asyncio.ensure_future(app({}, talk.receive, talk.send))
    await turns()
    assert not sending.done()
    assert talk.exchange.waiting_for == "send"
    talk.outlet.writable = True
    await sending
    assert talk.answer().body == b"xy"


# ---------------------------------------------------------------------- an application that returns or raises


@pytest.mark.parametrize(
    ("messages", "status", "errors"),
    [
        pytest.param([], 500, 1, id="without a verdict"),
        pytest.param([denial_start()], 0, 1, id="after the start of a denial"),
        pytest.param([denial_start(), denial_body(b"some", more_body=True)], 401, 1, id="in a denial"),
        pytest.param([denial_start(), denial_body(b"all")], 401, 0, id="after a denial"),
        pytest.param([socket_close()], 403, 0, id="after a refusal"),
    ],
)
@in_virtual_time
async def test_a9_returning_before_acceptance(messages: list[Message], status: int, errors: int, log: Log) -> None:
    talk = SocketTalk()
    await talk.run(sender(*messages))
    answer = talk.answer()
    assert answer.status == status
    assert answer.whole is (not errors or status == 500)
    if errors and messages:
        assert talk.engine.ending is Ending.RESET  # the client can tell that it is cut
    assert len(log.errors) == errors
    assert all("without a verdict on a WebSocket: /socket" in line for line in log.errors)
    assert talk.outlet.calls == ["finished", "returned"]
    assert talk.exchange.done
    assert await talk.receive() == CONNECT


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        pytest.param([], 500, id="without a verdict"),
        pytest.param([denial_start()], 0, id="after the start of a denial"),
        pytest.param([denial_start(), denial_body(b"some", more_body=True)], 401, id="in a denial"),
        pytest.param([denial_start(), denial_body(b"all")], 401, id="after a denial"),
        pytest.param([socket_close()], 403, id="after a refusal"),
    ],
)
@in_virtual_time
async def test_a9_raising_before_acceptance(messages: list[Message], status: int, log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await sender(*messages)(scope, receive, send)
        raise ValueError("on purpose")

    talk = SocketTalk()
    await talk.run(app)
    assert talk.answer().status == status
    assert talk.exchange.status == (status or 401)  # a start that was cut is what it said all the same
    assert log.errors == ["Exception in the application: WebSocket /socket"]
    assert talk.outlet.calls == ["finished", "returned"]


@in_virtual_time
async def test_w28_returning_while_open_closes_with_1000(log: Log) -> None:
    talk = SocketTalk()
    await talk.run(sender(accept(), socket_send("x")))
    assert talk.frames == [Sent(TEXT, b"x"), closed(1000)]
    assert log.quiet


@in_virtual_time
async def test_w28_raising_while_open_closes_with_1011(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        raise ValueError("on purpose")

    talk = SocketTalk()
    await talk.run(app)
    assert talk.frames == [closed(1011)]
    assert log.errors == ["Exception in the application: WebSocket /socket"]
    assert log.tracebacks == 1


@pytest.mark.parametrize("fault", [None, ValueError("on purpose")], ids=["returns", "raises"])
@in_virtual_time
async def test_after_its_own_close_an_application_ends_as_it_likes(fault: Exception | None, log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        await send(socket_close(4000))
        if fault is not None:
            raise fault

    talk = SocketTalk()
    await talk.run(app)
    assert talk.frames == [closed(4000)]
    assert log.tracebacks == (fault is not None)


@in_virtual_time
async def test_a_fault_of_the_application_s_own_send_is_reported(log: Log) -> None:
    talk = SocketTalk()
    await talk.run(sender(accept(), socket_send()))
    assert talk.frames == [closed(1011)]
    assert log.tracebacks == 1


@in_virtual_time
async def test_a11_client_disconnected_coming_back_is_no_error(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        await asyncio.sleep(10)
        await send(socket_send("x"))

    talk = SocketTalk()
    task = talk.begin(app)
    await asyncio.sleep(1)
    talk.push(close(1001))
    await task
    assert log.quiet
    assert talk.frames == [closed(1001)]


@in_virtual_time
async def test_client_disconnected_of_somebody_else_is_an_error(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        raise ClientDisconnected("another socket's client")

    talk = SocketTalk()
    await talk.run(app)
    assert talk.frames == [closed(1011)]
    assert log.tracebacks == 1


@in_virtual_time
async def test_an_exception_after_the_loss_is_one_line(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        await asyncio.sleep(1)
        raise KeyError("missing")

    talk = SocketTalk()
    task = talk.begin(app)
    await turns()
    talk.lose()
    await task
    assert log.lines(20) == ["The application raised after its client had left: KeyError: 'missing'"]
    assert log.quiet


@in_virtual_time
async def test_a_cancelled_call_closes_with_1011_and_is_no_error(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        await asyncio.sleep(1_000)

    talk = SocketTalk()
    task = talk.begin(app)
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert talk.frames == [closed(1011)]
    assert log.quiet
    assert not talk.exchange.running


@in_virtual_time
async def test_cancelled_error_that_nobody_asked_for_is_an_error(log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        raise asyncio.CancelledError

    talk = SocketTalk()
    await talk.run(app)
    assert talk.frames == [closed(1011)]
    assert log.tracebacks == 1


@pytest.mark.parametrize(("messages", "end"), [([], 500), ([accept()], 1011), ([accept(), socket_close(4000)], 4000)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_the_interpreter_s_own_exceptions_go_on(error: type[BaseException], messages: list[Message], end: int) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await sender(*messages)(scope, receive, send)
        raise error

    @in_virtual_time
    async def main() -> None:
        talk = SocketTalk()
        running = talk.exchange.run(app, {})
        with pytest.raises(error):
            await running
        assert talk.exchange.running is False
        assert talk.outlet.calls[-1] == "returned"
        assert (talk.frames[-1].code if messages else talk.answer().status) == end

    main()


@pytest.mark.parametrize("error", [None, ValueError("on purpose")], ids=["returns", "raises"])
@in_virtual_time
async def test_an_application_that_ends_after_the_end_ends_nothing(error: Exception | None, log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(accept())
        while (await receive())["type"] != "websocket.disconnect":
            pass
        if error is not None:
            raise error

    talk = SocketTalk()
    task = talk.begin(app)
    await turns()
    talk.push(close(1000))
    await task
    assert talk.frames == [closed(1000)]
    assert log.tracebacks == (error is not None)


# ---------------------------------------------------------------------- told that it is too late


async def _verdict(_talk: SocketTalk) -> None:
    pass


async def _refusing(talk: SocketTalk) -> None:
    await talk.send(denial_start())


async def _refusal(talk: SocketTalk) -> None:
    await talk.send(denial_start())
    await talk.send(denial_body(b"x", more_body=True))


async def _open(talk: SocketTalk) -> None:
    await talk.send(accept())


async def _closing(talk: SocketTalk) -> None:
    await talk.send(accept())
    await talk.send(socket_close())


@pytest.mark.parametrize(
    ("reach", "told"),
    [(_verdict, True), (_refusing, False), (_refusal, False), (_open, False), (_closing, False)],
    ids=["verdict", "refusing", "refusal", "open", "closing"],
)
@in_virtual_time
async def test_tell_disconnect_reaches_an_application_without_a_verdict_only(
    reach: Callable[[SocketTalk], Any], log: Log, *, told: bool
) -> None:
    talk = SocketTalk()
    await talk.receive()
    await reach(talk)
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.exchange.tell_disconnect()
    await turns()
    assert waiting.done() is told
    assert talk.exchange.done is told
    if told:
        assert await waiting == disconnect(1006)
    waiting.cancel()


@in_virtual_time
async def test_a_verdict_that_comes_too_late_is_silent(log: Log) -> None:
    talk = SocketTalk()
    await talk.receive()
    talk.exchange.tell_disconnect()
    await talk.send(accept())
    await talk.send(socket_send("x"))
    assert not talk.outlet.sent
    assert talk.exchange.done


@in_virtual_time
async def test_a_denial_under_way_goes_on_after_it_was_told() -> None:
    talk = SocketTalk()
    await talk.send(denial_start())
    talk.exchange.tell_disconnect()
    await talk.send(denial_body(b"whole"))
    assert (talk.answer().body, talk.answer().whole) == (b"whole", True)


@in_virtual_time
async def test_a_client_that_leaves_before_the_verdict(log: Log) -> None:
    talk = SocketTalk()
    messages: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        messages.extend([await receive(), await receive()])
        await send(socket_close())

    task = talk.begin(app)
    await turns()
    talk.lose()
    await task
    assert messages == [CONNECT, disconnect(1006)]
    assert not talk.outlet.sent
    assert log.quiet
