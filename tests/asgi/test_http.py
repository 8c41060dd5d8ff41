"""What an application may say and hears in one HTTP request, and what the client sees of it (ASGI www 2.5; rows of the ASGI table)."""

import asyncio
import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import (
    GET,
    HEAD,
    TAKES_TRAILERS,
    Log,
    Message,
    Receive,
    Send,
    Talk,
    body,
    in_loop,
    path_of,
    sender,
    start,
    trailers,
    turns,
    zero_copy,
)
from termserver.config import Limits
from termserver.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage
from termserver.wire.events import Ending

GET_10 = b"GET / HTTP/1.0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
DISCONNECT = {"type": "http.disconnect"}


def request(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


# ---------------------------------------------------------------------- the usual request


@in_loop
async def test_a1_the_application_is_called_once_with_scope_receive_and_send(log: Log) -> None:
    calls = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        calls.append((scope["type"], await receive()))
        await send(start(headers=[(b"content-type", b"text/plain")]))
        await send(body(b"hello"))

    talk = Talk()
    answer = await talk.run(app)
    assert calls == [("http", request())]
    assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
    assert answer[b"content-type"] == b"text/plain"
    assert talk.outlet.calls == ["finished", "returned"]
    assert talk.exchange.sent == 5
    assert talk.engine.ending is Ending.OPEN
    assert log.quiet


@in_loop
async def test_a4_send_waits_while_the_client_does_not_read_and_goes_on_when_it_does() -> None:
    talk = Talk()
    steps = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"one", more_body=True))
        steps.append("one")
        await send(body(b"two", more_body=True))
        steps.append("two")
        await send(body())

    talk.outlet.writable = False
    task = talk.begin(app)
    await turns()
    assert steps == []
    assert talk.exchange.waiting_for == "send"
    talk.outlet.writable = True
    await task
    assert steps == ["one", "two"]
    assert talk.answer().body == b"onetwo"


@in_loop
async def test_a4_the_start_leaves_nothing_to_wait_for() -> None:
    talk = Talk()
    talk.outlet.writable = False
    await talk.send(start())
    assert talk.exchange.begun
    assert not talk.outlet.sent  # W17: the head leaves with the first of the body


@in_loop
async def test_w14_w17_head_and_whole_body_leave_together_with_a_length() -> None:
    answer = await Talk().run(sender(start(), body(b"abc")))
    assert answer[b"content-length"] == b"3"
    assert answer[b"transfer-encoding"] is None


# ---------------------------------------------------------------------- request bodies


@in_loop
async def test_w15_w16_a_body_in_parts_has_more_body_until_the_last() -> None:
    talk = Talk(POST)
    talk.push(b"abc")
    assert await talk.receive() == request(b"abc", more=True)
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    assert talk.exchange.waiting_for == "receive"
    talk.push(b"def")
    assert await waiting == request(b"def")
    assert talk.exchange.waiting_for == "other"


@in_loop
async def test_w16_parts_that_came_while_nobody_asked_come_as_one() -> None:
    talk = Talk(POST)
    for byte in b"abcdef":
        talk.push(bytes([byte]))
    assert await talk.receive() == request(b"abcdef")


@in_loop
async def test_w15_inbound_chunks_are_decoded() -> None:
    talk = Talk(CHUNKED + b"3\r\nabc\r\n3;x=1\r\ndef\r\n0\r\n\r\n")
    assert await talk.receive() == request(b"abcdef")


@in_loop
async def test_w16_the_last_part_may_be_empty() -> None:
    talk = Talk(CHUNKED + b"3\r\nabc\r\n")
    assert await talk.receive() == request(b"abc", more=True)
    talk.push(b"0\r\n\r\n")
    assert await talk.receive() == request()


@in_loop
async def test_trailers_of_the_request_come_with_its_last_message() -> None:
    talk = Talk(CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert await talk.receive() == {**request(b"abc"), "trailers": [(b"x-sum", b"1")]}


@in_loop
async def test_taking_body_bytes_gives_back_credit_and_resumes_reading() -> None:
    talk = Talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n", limits=Limits(body_buffer=10))
    talk.push(b"x" * 20)
    assert not talk.engine.wants_data
    assert await talk.receive() == request(b"x" * 20, more=True)
    assert talk.engine.wants_data
    assert talk.outlet.calls == ["resume_reading"]


@in_loop
async def test_100_continue_is_sent_when_the_application_asks_for_the_body() -> None:
    talk = Talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
    waiting = asyncio.ensure_future(talk.receive())
    assert not talk.outlet.sent
    await turns()
    assert talk.outlet.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    talk.push(b"x")
    assert await waiting == request(b"x")


@in_loop
async def test_r17_of_two_receive_calls_a_cancelled_one_leaves_the_other_waiting() -> None:
    talk = Talk(POST)
    first, second = asyncio.ensure_future(talk.receive()), asyncio.ensure_future(talk.receive())
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    assert not second.done()
    assert talk.exchange.waiting_for == "receive"
    talk.push(b"abcdef")
    assert await second == request(b"abcdef")


@in_loop
async def test_r17_of_two_receive_calls_each_gets_a_message_of_its_own() -> None:
    talk = Talk(POST)
    calls = [asyncio.ensure_future(talk.receive()), asyncio.ensure_future(talk.receive())]
    await turns()
    talk.push(b"abc")
    await turns()
    assert [call.done() for call in calls] == [True, False]
    talk.push(b"def")
    assert [await call for call in calls] == [request(b"abc", more=True), request(b"def")]


@in_loop
async def test_a_receive_call_cancelled_in_the_turn_of_its_news_loses_nothing() -> None:
    talk = Talk(POST)
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.push(b"abc")
    waiting.cancel()
    talk.push(b"def")
    await turns()
    assert await talk.receive() == request(b"abcdef")


# ---------------------------------------------------------------------- disconnects


@pytest.mark.parametrize("sent", [GET, POST, POST + b"abcdef"], ids=["no body", "body to come", "whole body"])
@in_loop
async def test_w24_receive_gives_disconnect_again_and_again(sent: bytes) -> None:
    talk = Talk(sent)
    await sender(start(), body(b"done"))({}, talk.receive, talk.send)
    assert [await talk.receive() for _ in range(3)] == [DISCONNECT] * 3


@in_loop
async def test_w24_a_receive_that_waits_gets_the_disconnect_when_the_response_is_complete() -> None:
    talk = Talk()
    assert await talk.receive() == request()
    waiting = asyncio.ensure_future(talk.receive())
    await talk.send(start())
    await turns()
    assert not waiting.done()
    await talk.send(body())
    assert await waiting == DISCONNECT


@in_loop
async def test_w24_every_receive_that_waits_hears_that_the_client_left() -> None:
    talk = Talk()
    await talk.receive()
    waiting = [asyncio.ensure_future(talk.receive()) for _ in range(3)]
    await turns()
    talk.lose()
    assert [await call for call in waiting] == [DISCONNECT] * 3
    assert [await talk.receive() for _ in range(2)] == [DISCONNECT] * 2


@in_loop
async def test_body_parts_held_at_the_loss_are_handed_out_before_the_disconnect() -> None:
    talk = Talk(POST + b"abc")
    talk.lose()
    assert await talk.receive() == request(b"abc", more=True)
    assert await talk.receive() == DISCONNECT
    assert await talk.receive() == DISCONNECT


@in_loop
async def test_a_whole_body_held_at_the_loss_is_handed_out_whole() -> None:
    talk = Talk(POST + b"abcdef")
    talk.lose()
    assert await talk.receive() == request(b"abcdef")
    assert await talk.receive() == DISCONNECT


@in_loop
async def test_r20_end_of_input_in_the_body_is_a_disconnect_and_never_the_end_of_the_body() -> None:
    talk = Talk(POST + b"abc")
    assert await talk.receive() == request(b"abc", more=True)
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.shut()
    assert await waiting == DISCONNECT


@in_loop
async def test_r20_a_client_that_shut_its_side_after_the_request_gets_its_response() -> None:
    talk = Talk(POST + b"abcdef")
    talk.shut()
    answer = await talk.run(sender(start(), body(b"here")))
    assert (answer.body, answer.whole) == (b"here", True)


@in_loop
async def test_told_of_a_disconnect_an_application_can_still_answer() -> None:
    talk = Talk()
    await talk.receive()
    waiting = asyncio.ensure_future(talk.receive())
    await turns()
    talk.exchange.tell_disconnect()
    assert await waiting == DISCONNECT
    answer = await talk.run(sender(start(), body(b"good-bye")))
    assert (answer.body, answer.whole) == (b"good-bye", True)


@in_loop
async def test_w20_send_raises_an_oserror_once_begun_and_nobody_listens() -> None:
    talk = Talk()
    await talk.send(start())
    talk.lose()
    for message in (body(b"x", more_body=True), body(), zero_copy(0), path_of("/"), {"type": "http.response.early_hint", "links": []}):
        with pytest.raises(OSError, match="left") as raised:
            await talk.send(message)
        assert raised.type is ClientDisconnected


@in_loop
async def test_w20_a_response_that_has_not_begun_at_the_loss_may_begin() -> None:
    talk = Talk()
    talk.lose()
    await talk.send(start(503))
    assert talk.exchange.status == 503
    with pytest.raises(ClientDisconnected):
        await talk.send(body())
    assert not talk.outlet.sent


@in_loop
async def test_w20_send_is_silent_while_somebody_waits_in_receive_and_then_raises() -> None:
    talk = Talk()
    await talk.receive()
    await talk.send(start())
    heard = []

    async def listen() -> None:
        heard.append(await talk.receive())

    listening = asyncio.ensure_future(listen())
    await turns()
    talk.lose()
    await talk.send(body(b"nobody reads this", more_body=True))
    assert listening.done()  # a silent send lets others run: a loop of them must not keep the listener from its message
    assert heard == [DISCONNECT]
    with pytest.raises(ClientDisconnected):
        await talk.send(body(b"nor this", more_body=True))


@in_loop
async def test_w20_send_that_waits_for_room_raises_when_the_client_is_lost() -> None:
    talk = Talk()
    talk.outlet.writable = False
    await talk.send(start())
    sending = asyncio.ensure_future(talk.send(body(b"x", more_body=True)))
    await turns()
    assert not sending.done()
    talk.lose()
    with pytest.raises(ClientDisconnected):
        await sending


@in_loop
async def test_w20_send_that_waits_for_room_is_silent_where_somebody_waits_in_receive() -> None:
    talk = Talk()
    await talk.receive()
    talk.outlet.writable = False
    await talk.send(start())
    sending = asyncio.ensure_future(talk.send(body(b"x", more_body=True)))
    listening = asyncio.ensure_future(talk.receive())
    await turns()
    talk.lose()
    await sending
    assert await listening == DISCONNECT


@in_loop
async def test_w20_a_response_that_was_complete_at_the_loss_raises_nothing() -> None:
    talk = Talk()
    talk.outlet.writable = False
    await talk.send(start())
    sending = asyncio.ensure_future(talk.send(body(b"x")))
    await turns()
    talk.lose()
    await sending
    await talk.send(body(b"ignored"))


@in_loop
async def test_a11_w21_the_exception_of_a_departed_client_is_no_error_when_it_comes_back(log: Log) -> None:
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start())
        while True:
            await send(body(b"x", more_body=True))
            await asyncio.sleep(0)

    task = talk.begin(app)
    await turns()
    talk.lose()
    await task
    assert log.quiet
    assert talk.outlet.calls == ["returned"]
    assert not talk.exchange.done  # the connection writes the access line of what was not finished


@in_loop
async def test_w21_wrapped_in_another_exception_it_is_no_error_either(log: Log) -> None:
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start())
        talk.lose()
        async with asyncio.TaskGroup() as group:
            group.create_task(send(body()))  # type: ignore[arg-type]

    await talk.run(app)
    assert log.quiet
    assert len(log.lines(logging.INFO)) == 1
    assert not talk.exchange.done


@in_loop
async def test_an_application_that_returns_after_its_client_left_is_no_error(log: Log) -> None:
    talk = Talk()
    talk.lose()
    await talk.run(sender())
    assert log.quiet
    assert talk.outlet.calls == ["returned"]


@in_loop
async def test_the_exception_of_another_requests_client_is_this_applications_fault(log: Log) -> None:
    other = Talk()
    await other.send(start())
    other.lose()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await other.send(body())

    answer = await Talk().run(app)
    assert (answer.status, answer.whole) == (500, True)
    assert len(log.errors) == log.tracebacks == 1


# ---------------------------------------------------------------------- faults of the application


class Weird(BaseException):
    """Neither an Exception nor one of Python's own."""


FAULTS = [
    pytest.param(ValueError("no"), id="exception"),
    pytest.param(SystemExit(3), id="sys.exit"),
    pytest.param(asyncio.CancelledError(), id="a cancellation that nobody asked for"),
    pytest.param(Weird(), id="base exception"),
    pytest.param(BaseExceptionGroup("several", [Weird()]), id="group"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param([], 500, id="nothing said"),
        pytest.param([start()], 0, id="after start"),
        pytest.param([start(headers=[(b"content-length", b"9")]), body(b"abc", more_body=True)], 200, id="in a body of known length"),
        pytest.param([start(), body(b"abc", more_body=True)], 200, id="in a chunked body"),
        pytest.param([start(trailers=True), body(b"abc")], 200, id="before the trailers"),
    ],
)
@in_loop
async def test_r16_an_exception_is_500_before_the_start_and_a_visible_cut_after_it(
    fault: BaseException, said: list[Message], status: int, log: Log
) -> None:
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await sender(*said)(scope, receive, send)
        raise fault

    answer = await talk.run(app)
    assert answer.status == status
    assert answer.whole is (status == 500)
    assert talk.engine.ending is (Ending.LINGER if status == 500 else Ending.RESET)
    assert len(log.errors) == log.tracebacks == 1
    assert talk.outlet.calls == ["finished", "returned"]
    assert talk.exchange.done


@in_loop
async def test_r16_an_exception_after_the_response_is_logged_and_harms_nobody(log: Log) -> None:
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await sender(start(), body(b"good"))(scope, receive, send)
        raise ValueError

    answer = await talk.run(app)
    assert (answer.status, answer.body, answer.whole) == (200, b"good", True)
    assert talk.engine.ending is Ending.OPEN
    assert len(log.errors) == log.tracebacks == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_the_interpreters_own_exceptions_pass(error: type[BaseException], log: Log) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise error

    talk = Talk()
    with pytest.raises(error):
        talk.exchange.run(app, {}).send(None)
    assert not talk.exchange.running  # a stop must not wait for it
    assert talk.exchange.done
    assert log.quiet


@pytest.mark.parametrize(
    ("said", "status", "ending"),
    [
        pytest.param([], 500, Ending.LINGER, id="nothing"),
        pytest.param([start()], 0, Ending.RESET, id="start only"),
        pytest.param([start(), body(b"x", more_body=True)], 200, Ending.RESET, id="part of the body"),
        pytest.param([start(trailers=True), body(b"x")], 200, Ending.RESET, id="no trailers"),
    ],
)
@in_loop
async def test_a9_a_return_without_a_whole_response_is_500_or_a_cut(said: list[Message], status: int, ending: Ending, log: Log) -> None:
    talk = Talk()
    answer = await talk.run(sender(*said))
    assert (answer.status, answer.whole) == (status, status == 500)
    assert talk.engine.ending is ending
    assert len(log.errors) == 1
    assert not log.tracebacks
    assert talk.exchange.status == status or said


@in_loop
async def test_a_cancelled_call_is_answered_and_not_logged_again(log: Log) -> None:
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    task = talk.begin(app)
    await turns()
    assert talk.exchange.waiting_for == "other"
    task.cancel()
    await task
    assert talk.answer().status == 500
    assert log.quiet  # whoever cancelled it says why


START, LENGTH_3 = start(), start(headers=[(b"content-length", b"3")])
INVALID = [
    pytest.param([{}], "type", id="no type"),
    pytest.param([{"type": "http.response.nonsense"}], "nonsense", id="unknown type"),
    pytest.param([{"type": None}], "None", id="type is None"),
    pytest.param([{"type": ["http.response.body"]}], "type", id="type is a list"),
    pytest.param([["type"]], "message", id="a list"),
    pytest.param([None], "message", id="None"),
    pytest.param([{"type": "websocket.accept"}], "websocket", id="of another protocol"),
    pytest.param([{"type": "http.response.start"}], "status", id="no status"),
    pytest.param([start("200")], "status", id="status is text"),  # type: ignore[arg-type]
    pytest.param([start(True)], "status", id="status is a bool"),
    pytest.param([start(199)], "status", id="status is interim"),
    pytest.param([start(1000)], "status", id="status has four digits"),
    pytest.param([start(headers=None)], "headers", id="headers are None"),
    pytest.param([start(headers=[("x-a", b"b")])], "header name", id="name is text"),
    pytest.param([start(headers=[(b"x-a", "b")])], "headers", id="value is text"),
    pytest.param([start(headers=[(b"x-a", 1)])], "headers", id="value is a number"),
    pytest.param([start(headers=[(b"x-a",)])], "headers", id="a pair of one"),
    pytest.param([start(headers=[(b"x a", b"b")])], "header name", id="name with a blank"),
    pytest.param([start(headers=[(b"", b"b")])], "header name", id="empty name"),
    pytest.param([start(headers=[(b":status", b"200")])], "header name", id="pseudo header"),
    pytest.param([start(headers=[(b"x-a\r\nx-b", b"b")])], "header name", id="split in a name"),
    pytest.param([start(headers=[(b"x-a", b"b\r\nset-cookie: c")])], "x-a", id="split in a value"),
    pytest.param([start(headers=[(b"x-a", b"b\nc")])], "x-a", id="bare LF in a value"),
    pytest.param([start(headers=[(b"x-a", b"\0")])], "x-a", id="NUL in a value"),
    pytest.param([start(headers=[(b"content-length", b"-1")])], "content-length", id="negative length"),
    pytest.param([start(headers=[(b"content-length", b"1"), (b"content-length", b"2")])], "content-length", id="two lengths"),
    pytest.param([START, body("text")], "byte string", id="body is text"),
    pytest.param([START, body(None)], "byte string", id="body is None"),
    pytest.param([START, body([1])], "byte string", id="body is a list"),
    pytest.param([{"type": "http.response.early_hint"}], "links", id="hint without links"),
    pytest.param([{"type": "http.response.early_hint", "links": None}], "links", id="links are None"),
    pytest.param([{"type": "http.response.early_hint", "links": ["</a>"]}], "header", id="link is text"),
    pytest.param([{"type": "http.response.early_hint", "links": [b"a\r\nb: c"]}], "trailer|field|link", id="split in a link"),
    pytest.param([START, {"type": "http.response.pathsend"}], "path", id="pathsend without path"),
    pytest.param([START, path_of("relative")], "absolute", id="relative path"),
    pytest.param([START, {"type": "http.response.pathsend", "path": b"/x"}], "absolute", id="path is bytes"),
    pytest.param([START, path_of("/\0")], "path", id="path with NUL"),
    pytest.param([START, {"type": "http.response.zerocopysend"}], "file", id="zerocopysend without file"),
    pytest.param([START, zero_copy(None)], "descriptor", id="file is None"),
    pytest.param([START, zero_copy(io.BytesIO())], "descriptor", id="file is in memory"),
    pytest.param([START, zero_copy(-1)], "descriptor", id="descriptor is closed"),
]
UNEXPECTED = [
    pytest.param([body()], id="body before start"),
    pytest.param([START, START], id="start twice"),
    pytest.param([START, body(more_body=True), START], id="start in the body"),
    pytest.param([{"type": "http.response.trailers"}], id="trailers before start"),
    pytest.param([start(trailers=True), {"type": "http.response.trailers"}], id="trailers before the body"),
    pytest.param([START, body(more_body=True), {"type": "http.response.trailers"}], id="trailers in the body"),
    pytest.param([start(trailers=True), body(), body()], id="body instead of trailers"),
    pytest.param([path_of("/")], id="pathsend before start"),
    pytest.param([START, body(more_body=True), path_of("/")], id="pathsend in the body"),
    pytest.param([zero_copy(0)], id="zerocopysend before start"),
    pytest.param([start(trailers=True), body(), zero_copy(0)], id="zerocopysend instead of trailers"),
]


@pytest.mark.parametrize(("messages", "complaint"), INVALID)
@in_loop
async def test_a7_an_invalid_message_raises_out_of_send_and_writes_nothing_of_it(messages: list[Any], complaint: str, log: Log) -> None:
    raised = []
    talk = Talk()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception as error:
                raised.append((message, error, len(talk.outlet.sent)))
                raise

    answer = await talk.run(app)
    ((message, error, sent),) = raised
    assert type(error) is InvalidMessage
    assert isinstance(error, ValueError)
    assert any(part in str(error) for part in complaint.split("|"))
    assert message is messages[-1]
    assert not sent
    assert (answer.status, answer.whole) == ((500, True) if len(messages) == 1 else (0, False))
    assert len(log.errors) == log.tracebacks == 1


@pytest.mark.parametrize("messages", UNEXPECTED)
@in_loop
async def test_a7_a_message_out_of_order_raises_out_of_send(messages: list[Message], log: Log) -> None:
    talk = Talk()
    for message in messages[:-1]:
        await talk.send(message)
    with pytest.raises(UnexpectedMessage, match=r"expected .* sent"):
        await talk.send(messages[-1])
    answer = await talk.run(sender(messages[-1]))
    assert (answer.status == 500) is (len(messages) == 1)
    assert len(log.errors) == log.tracebacks == 1


@in_loop
async def test_a7_an_application_that_catches_what_it_did_may_go_on() -> None:
    talk = Talk()
    for message in (start(headers=[("x", b"y")]), body(), start(99), {"type": "nonsense"}):
        with pytest.raises((InvalidMessage, UnexpectedMessage)):
            await talk.send(message)
    answer = await talk.run(sender(start(404), body(b"found it out")))
    assert (answer.status, answer.body, answer.whole) == (404, b"found it out", True)


@in_loop
async def test_a8_additional_keys_do_no_harm() -> None:
    answer = await Talk().run(sender(start(x=1), body(b"a", more_body=True, x=object()), body(b"b", y=None)))
    assert (answer.body, answer.whole) == (b"ab", True)


@in_loop
async def test_a8_absent_keys_have_their_defaults() -> None:
    answer = await Talk().run(sender({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}))
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)


@pytest.mark.parametrize(
    "data",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]],
    ids=["bytes", "bytearray", "memoryview", "memoryview with steps"],
)
@in_loop
async def test_body_bytes_of_any_kind(data: object) -> None:
    assert (await Talk().run(sender(start(), body(data)))).body == b"abc"


@in_loop
async def test_w23_messages_after_the_response_are_ignored(log: Log) -> None:
    talk = Talk()
    answer = await talk.run(
        sender(start(), body(b"all"), body(b"more"), start(), {"type": "nonsense"}, path_of("/"), {"type": "http.response.trailers"})
    )
    assert (answer.body, answer.whole) == (b"all", True)
    assert log.quiet
    assert talk.outlet.calls == ["finished", "returned"]


@in_loop
async def test_b10_more_than_content_length_raises_and_only_that_much_is_written(log: Log) -> None:
    talk = Talk()
    answer = await talk.run(sender(LENGTH_3, body(b"ab", more_body=True), body(b"cd")))
    assert (answer.body, answer.whole) == (b"abc", True)
    assert talk.engine.ending is Ending.OPEN
    assert len(log.errors) == log.tracebacks == 1


@in_loop
async def test_b10_less_than_content_length_raises_and_is_cut(log: Log) -> None:
    talk = Talk()
    answer = await talk.run(sender(LENGTH_3, body(b"ab")))
    assert (answer.body, answer.whole) == (b"ab", False)
    assert talk.engine.ending is Ending.RESET
    assert len(log.errors) == log.tracebacks == 1


@in_loop
async def test_b10_an_application_that_catches_it_can_say_no_more() -> None:
    talk = Talk()
    await talk.send(LENGTH_3)
    with pytest.raises(InvalidMessage, match="longer"):
        await talk.send(body(b"abcd", more_body=True))
    await talk.send(body(b"ignored"))
    assert talk.answer().body == b"abc"


# ---------------------------------------------------------------------- framing


@in_loop
async def test_w15_a_body_of_unknown_length_is_chunked() -> None:
    answer = await Talk().run(sender(start(), body(b"a", more_body=True), body(b"", more_body=True), body(b"b")))
    assert answer[b"transfer-encoding"] == b"chunked"
    assert (answer.body, answer.whole) == (b"ab", True)


@in_loop
async def test_w15_on_http_1_0_a_body_of_unknown_length_ends_with_the_connection() -> None:
    talk = Talk(GET_10)
    answer = await talk.run(sender(start(), body(b"a", more_body=True), body(b"b")))
    assert answer[b"transfer-encoding"] is None
    assert (answer.body, answer.whole) == (b"ab", True)
    assert talk.engine.ending is Ending.CLOSE


@in_loop
async def test_r16_on_http_1_0_a_body_that_ends_with_the_connection_is_cut_not_closed() -> None:
    talk = Talk(GET_10)
    answer = await talk.run(sender(start(), body(b"a", more_body=True)))
    assert not answer.whole
    assert talk.engine.ending is Ending.RESET


@pytest.mark.parametrize("value", [b"chunked", b"gzip, chunked", b"identity"])
@in_loop
async def test_w18_transfer_encoding_of_the_application_is_ignored(value: bytes) -> None:
    answer = await Talk().run(sender(start(headers=[(b"Transfer-Encoding", value)]), body(b"abc")))
    assert answer[b"transfer-encoding"] is None
    assert (answer[b"content-length"], answer.body) == (b"3", b"abc")


@in_loop
async def test_w19_headers_keep_order_and_repetition() -> None:
    headers = [(b"set-cookie", b"b=1"), (b"x-first", b"1"), (b"set-cookie", b"a=2")]
    answer = await Talk().run(sender(start(headers=headers), body()))
    assert answer.headers[:3] == headers


@pytest.mark.parametrize("kind", [tuple, iter], ids=["tuple", "iterator"])
@in_loop
async def test_headers_come_as_any_iterable_of_pairs(kind: Callable[[list[Any]], object]) -> None:
    answer = await Talk().run(sender(start(headers=kind([[b"x-a", b"1"], (b"x-b", b"2")])), body()))
    assert answer.headers[:2] == [(b"x-a", b"1"), (b"x-b", b"2")]


@pytest.mark.parametrize(("sent", "status"), [(HEAD, 200), (GET, 204), (GET, 304)])
@pytest.mark.parametrize("more", [False, True], ids=["at once", "in parts"])
@in_loop
async def test_w25_no_body_for_head_204_304(sent: bytes, status: int, more: bool) -> None:
    talk = Talk(sent)
    messages = [body(b"abc", more_body=True), body(b"def")] if more else [body(b"abc")]
    answer = await talk.run(sender(start(status), *messages))
    assert talk.outlet.sent.endswith(b"\r\n\r\n")
    assert (answer.status, answer.body, answer.whole) == (status, b"", True)
    assert talk.engine.ending is Ending.OPEN


# ---------------------------------------------------------------------- trailers, early hints


@in_loop
async def test_trailers_follow_the_body_where_the_client_takes_them() -> None:
    talk = Talk(TAKES_TRAILERS)
    answer = await talk.run(
        sender(
            start(headers=[(b"trailer", b"x-sum")], trailers=True),
            body(b"abc"),
            trailers((b"x-sum", b"1"), more_trailers=True),
            trailers((b"x-more", b"2")),
        )
    )
    assert answer.trailers == [(b"x-sum", b"1"), (b"x-more", b"2")]
    assert (answer.body, answer.whole) == (b"abc", True)
    assert talk.outlet.calls == ["finished", "returned"]


@in_loop
async def test_trailers_are_awaited_but_not_sent_where_the_client_does_not_take_them() -> None:
    talk = Talk()
    await talk.send(start(trailers=True))
    await talk.send(body(b"abc"))
    assert not talk.exchange.done
    answer = await talk.run(sender(trailers((b"x-sum", b"1"))))
    assert answer.trailers == []
    assert (answer.body, answer.whole) == (b"abc", True)


@pytest.mark.parametrize("field", [(b":status", b"200"), (b"a b", b"c"), (b"a", b"b\r\nc"), ("a", b"b"), (b"a", "b")])
@in_loop
async def test_trailers_that_are_no_fields_raise(field: tuple[object, object]) -> None:
    talk = Talk(TAKES_TRAILERS)
    await talk.send(start(trailers=True))
    await talk.send(body(b"abc"))
    with pytest.raises(InvalidMessage):
        await talk.send(trailers(field))
    assert (await talk.run(sender(trailers((b"x", b"y"))))).trailers == [(b"x", b"y")]


def hint(*links: bytes) -> Message:
    return {"type": "http.response.early_hint", "links": links}


@in_loop
async def test_early_hints_go_out_at_once_before_and_after_the_start() -> None:
    talk = Talk()
    await talk.send(hint(b"</a>; rel=preload", b"</b>; rel=preload"))
    assert talk.outlet.sent.startswith(b"HTTP/1.1 103 ")
    answer = await talk.run(sender(start(), hint(b"</c>"), body(b"abc")))
    assert answer.interim == [(103, [(b"link", b"</a>; rel=preload"), (b"link", b"</b>; rel=preload")]), (103, [(b"link", b"</c>")])]
    assert (answer.status, answer.body, answer.whole) == (200, b"abc", True)


@in_loop
async def test_early_hints_after_the_head_is_out_and_on_http_1_0_are_left_out() -> None:
    answer = await Talk().run(sender(start(), body(b"a", more_body=True), hint(b"</a>"), body()))
    assert (answer.interim, answer.whole) == ([], True)
    answer = await Talk(GET_10).run(sender(hint(b"</a>"), start(), body()))
    assert (answer.interim, answer.whole) == ([], True)


@in_loop
async def test_an_exception_after_early_hints_is_still_500() -> None:
    answer = await Talk().run(sender(hint(b"</a>")))
    assert [status for status, _ in answer.interim] == [103]
    assert (answer.status, answer.whole) == (500, True)


# ---------------------------------------------------------------------- laws


HEADERS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([b"x-a", b"Set-Cookie", b"content-type", b"connection", b"transfer-encoding", b"date", b"server"]),
            st.sampled_from([b"close", b"chunked", b"a b", b""]),
        ),
        st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"1", b"2", b"5", b"+1"])),
        st.tuples(st.binary(max_size=4) | st.text(max_size=2), st.binary(max_size=4) | st.text(max_size=2)),
    ),
    max_size=3,
)
ANY = st.none() | st.booleans() | st.integers() | st.binary(max_size=5) | st.text(max_size=3) | st.lists(st.binary(max_size=3), max_size=2)
MESSAGES = st.lists(
    st.one_of(
        st.builds(start, st.sampled_from([200, 200, 204, 304, 404, 100, 1000]), HEADERS, trailers=st.booleans()),
        st.builds(body, st.sampled_from([b"", b"a", b"bc"]), more_body=st.booleans()),
        st.builds(hint, st.binary(max_size=3)),
        st.builds(trailers, st.tuples(st.sampled_from([b"x-t", b"", b"\r"]), st.binary(max_size=3)), more_trailers=st.booleans()),
        st.builds(zero_copy, st.integers(-1, -1), more_body=st.booleans()),
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    [
                        "http.response.start",
                        "http.response.body",
                        "http.response.trailers",
                        "http.response.early_hint",
                        "http.response.zerocopysend",
                        "x",
                    ]
                )
            },
            optional={
                "status": ANY,
                "headers": ANY,
                "trailers": ANY,
                "body": ANY,
                "more_body": ANY,
                "links": ANY,
                "file": st.none() | st.binary(max_size=2),
                "offset": ANY,
                "count": ANY,
                "more_trailers": ANY,
            },
        ),
        st.just("the client leaves"),
    ),
    max_size=7,
)


@settings(max_examples=400, deadline=None)
@given(sent=st.sampled_from([GET, GET_10, HEAD, POST, TAKES_TRAILERS]), messages=MESSAGES)
@in_loop
async def test_law_no_messages_put_malformed_http_on_the_wire_or_raise_what_is_not_named(sent: bytes, messages: list[Any]) -> None:
    talk = Talk(sent)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            if message == "the client leaves":
                talk.lose()
                continue
            with contextlib.suppress(InvalidMessage, UnexpectedMessage, ClientDisconnected):
                await send(message)

    logging.disable(logging.CRITICAL)
    try:
        answer = await talk.run(app)
    finally:
        logging.disable(logging.NOTSET)
    assert talk.outlet.calls[-1] == "returned"
    if "the client leaves" not in messages:
        assert talk.exchange.done
        assert answer.whole or talk.engine.ending is Ending.RESET
