"""One client's HTTP/2 connection: a scope and a call a stream, back pressure of streams and of the transport, ends, what is logged."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from fakes import (
    App,
    Log,
    Message,
    Receive,
    Send,
    body,
    in_loop,
    in_virtual_time,
    now,
    path_of,
    sender,
    start,
    trailers,
    turns,
    zero_copy,
)
from net.h2talk import (
    CALM,
    INTERNAL_ERROR,
    LINE,
    NO_ERROR,
    PROTOCOL_ERROR,
    Puppet,
    Talk,
    TlsWire,
    both,
    client_of,
    stop_clocks,
    talked,
)
from net.wires import LoopWire, Wire
from termserver.config import Config, Limits, Logging, Proxy, Tcp, Timeouts
from termserver.errors import ClientDisconnected
from termserver.net.ports import Ports
from termserver.net.server import STOPPED, Server
from termserver.wire import h2frames as f
from wire.h2driving import HELLO, LARGEST, data, fields, frame, get, headers, ping, post, reset, window

hello = sender(start(200, [(b"content-length", b"5")]), body(b"hello"))
SMALL_WINDOW = (SettingCodes.INITIAL_WINDOW_SIZE, 1_000)
NO_WINDOW = (SettingCodes.INITIAL_WINDOW_SIZE, 0)
WIDE = (SettingCodes.INITIAL_WINDOW_SIZE, LARGEST)
STREAM_FAULT = data(1, b"late")  # behind the end of a request (spec attacks C2)


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "over_a_real_socket" not in request.node.name:
        stop_clocks(monkeypatch)


async def pour(call: Any, size: int = 65_536) -> "asyncio.Task[None]":
    """Let a call begin a response and send one large part of it."""
    await call.send(start())
    return asyncio.ensure_future(call.send(body(b"x" * size, more_body=True)))


# --- a call a stream ---


@in_virtual_time
async def test_interfaces_are_kept() -> None:
    talk = await talked(hello)
    for interface in (IProtocol, IHalfCloseableProtocol, IPushProducer):
        assert verifyObject(interface, talk.connection)


@both
@in_virtual_time
async def test_every_stream_is_a_call_of_its_own(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(headers(1, fields(b"GET", b"/a?x=1")), headers(3, fields(b"PUT", b"/b%20c"), ended=False))
    first, second = puppet.calls
    assert [(each.scope["method"], each.scope["path"], each.scope["query_string"]) for each in puppet] == [
        ("GET", "/a", b"x=1"),
        ("PUT", "/b c", b""),
    ]
    assert second.scope["raw_path"] == b"/b%20c"
    assert all(each.scope["http_version"] == "2" for each in puppet)
    assert first.scope is not second.scope
    await second.send(start(201))
    await second.send(body(b"second"))
    await first.send(start(202))
    await first.send(body(b"first"))
    assert (talk.status(1), talk.answer(1).body) == (0, b"")  # it leaves at the end of the loop's turn
    await turns()
    assert (talk.status(1), talk.answer(1).body) == (202, b"first")
    assert (talk.status(3), talk.answer(3).body) == (201, b"second")
    for call in puppet:
        await call.finish()
    assert talk.server.running == 0


@in_virtual_time
async def test_scopes_share_no_state_but_begin_with_the_lifespan_s() -> None:
    puppet = Puppet()
    talk = Talk(puppet)
    talk.server.state["shared"] = shared = object()
    await talk.greet()
    await talk.send(get(1), get(3))
    first, second = puppet.calls
    assert first.scope["state"]["shared"] is shared
    first.scope["state"]["own"] = 1
    assert "own" not in second.scope["state"]
    for call in puppet:
        await call.finish()


@in_virtual_time
async def test_scope_s_extensions_are_those_of_http_1() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(get(1))
    assert set(puppet[0].scope["extensions"]) == {
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
        "termserver.shutdown",
    }
    await puppet[0].finish()


@in_virtual_time
async def test_rfc9113_8_2_3_cookies_are_one_field_and_the_host_is_first() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(get(1, (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")))
    assert puppet[0].scope["headers"][0] == (b"host", b"a")
    assert sorted(puppet[0].scope["headers"][1:]) == [(b"accept", b"*/*"), (b"cookie", b"a=1; b=2")]
    await puppet[0].finish()


@both
@pytest.mark.parametrize(("trusted", "host"), [(("*",), "203.0.113.1"), (("10.0.0.1",), None)], ids=["trusted", "a stranger"])
@in_virtual_time
async def test_b13_a_proxy_s_word_about_a_stream_is_taken_if_it_is_trusted(
    kind: type[Wire], trusted: tuple[str, ...], host: str | None
) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, config=Config(proxy=Proxy(headers=True, trusted=trusted)))
    await talk.send(get(1, (b"x-forwarded-for", b"203.0.113.1"), (b"x-forwarded-proto", b"https")))
    scope = puppet[0].scope
    assert scope["scheme"] == ("https" if host else "http")
    if host:
        assert scope["client"][0] == host
    await puppet[0].finish()


@in_virtual_time
async def test_call_runs_in_the_server_s_context_not_in_that_of_another_stream() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    seen: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("mine")
        await hello(scope, receive, send)

    talk = await talked(app)
    await talk.send(get(1), get(3))
    await talk.send(get(5))
    assert seen == ["", "", ""]


@both
@in_virtual_time
async def test_body_reaches_its_own_stream_and_trailers_come_with_its_end(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(post(1), post(3), data(1, b"one "), data(3, b"other"), data(1, b"two"))
    await talk.send(data(3, b"", ended=True), headers(1, [(b"digest", b"x")]))
    first, second = puppet.calls
    assert (first.body, second.body) == (b"one two", b"other")
    assert [message["more_body"] for message in (first.heard[-1], second.heard[-1])] == [False, False]
    assert first.heard[-1]["trailers"] == [(b"digest", b"x")]
    talk.wire.lose()
    await turns()
    for call in puppet:
        assert call.left
        await call.finish()
    assert talk.over


@in_virtual_time
async def test_stream_that_is_reset_in_the_same_turn_is_no_call() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(post(1), data(1, b"body"), reset(1), get(3))
    assert [call.scope["method"] for call in puppet] == ["GET"]
    await puppet[0].finish()


@in_virtual_time
async def test_what_applications_say_in_one_turn_leaves_in_one_write() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(get(1), get(3), get(5))
    await turns()
    writes: list[bytes] = []
    talk.wire.transport.write = writes.append
    for call in puppet:
        await call.send(start(200, [(b"content-length", b"2")]))
        await call.send(body(b"ok"))
    assert writes == []
    await turns()
    assert len(writes) == 1
    for call in puppet:
        await call.finish()


# --- what applications may say ---


@both
@in_virtual_time
async def test_early_hints_come_before_the_head(kind: type[Wire]) -> None:
    talk = await talked(sender({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}, start(200), body(b"x")), kind)
    await talk.send(get(1))
    assert (talk.answer().interims, talk.status()) == ([103], 200)
    assert talk.answer().field(b"link") == [b"</a>; rel=preload"]


@both
@pytest.mark.parametrize("takes", [True, False])
@in_virtual_time
async def test_rfc9110_6_5_1_trailers_go_to_who_takes_them(kind: type[Wire], *, takes: bool) -> None:
    talk = await talked(sender(start(200, trailers=True), body(b"x"), trailers((b"digest", b"y"))), kind)
    await talk.send(get(1, *[(b"te", b"trailers")] * takes))
    assert (talk.answer().body, talk.answer().ended) == (b"x", True)
    assert talk.answer().field(b"digest") == ([b"y"] if takes else [])


@both
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@in_loop  # a thread reads it, in its own time
async def test_file_is_read_and_framed(kind: type[Wire], method: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := bytes(range(256)) * 1_000)
    sent: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(path_of(path))
        sent.append(True)

    talk = await talked(app, kind, WIDE)
    await talk.send(window(0, 1_000_000), headers(1, fields(method)))
    while not sent:
        await asyncio.sleep(0.001)
    await turns()
    assert (talk.status(), talk.answer().ended) == (200, True)
    assert talk.answer().body == (content if method == b"GET" else b"")


@in_loop  # a thread reads it, in its own time
async def test_opened_file_is_sent_from_where_it_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    sent: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(200))
        with path.open("rb") as file:
            await send(zero_copy(file, offset=2, count=5, more_body=True))
        await send(body(b"end"))
        sent.append(True)

    talk = await talked(app)
    await talk.send(get(1))
    while not sent:
        await asyncio.sleep(0.001)
    await turns()
    assert (talk.answer().body, talk.answer().ended) == (b"23456end", True)


@in_loop  # a thread reads it, in its own time
async def test_file_for_a_client_that_has_reset_its_stream_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    raised: list[BaseException] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(200))
        try:
            await send(path_of(path))
        except BaseException as error:
            raised.append(error)
            raise

    talk = await talked(app)
    await talk.send(get(1))
    while len(talk.answer().body) < 65_535:
        await asyncio.sleep(0.001)
    await talk.send(reset(1))
    while not raised:
        await asyncio.sleep(0.001)
    assert isinstance(raised[0], ClientDisconnected)
    await turns()
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_rfc9110_10_1_1_continue_is_said_when_the_application_reads(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(post(1, (b"expect", b"100-continue")))
    assert talk.answer().heads == []
    reading = asyncio.ensure_future(puppet[0].receive())
    await turns()
    assert talk.answer().interims == [100]
    await talk.send(data(1, b"body", ended=True))
    assert (await reading)["body"] == b"body"
    await puppet[0].finish()


# --- applications that fail ---


@both
@pytest.mark.parametrize(
    "app", [sender(), sender({"type": "nonsense"}), sender(body(b"no head"))], ids=["says nothing", "nonsense", "no head"]
)
@in_virtual_time
async def test_failure_before_the_response_is_500(kind: type[Wire], app: App, caplog: pytest.LogCaptureFixture) -> None:
    talk = await talked(app, kind)
    await talk.send(get(1))
    assert (talk.status(), talk.answer().ended, talk.answer().code) == (500, True, None)
    assert talk.server.running == 0
    assert len(Log(caplog).errors) == 1
    await talk.send(ping())
    assert talk.wire.calls == []  # the connection goes on


@both
@pytest.mark.parametrize("ends", ["raises", "returns"])
@in_virtual_time
async def test_failure_after_the_start_is_internal_error(kind: type[Wire], ends: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"part", more_body=True))
        if ends == "raises":
            raise ValueError(ends)

    talk = await talked(app, kind)
    await talk.send(get(1))
    assert (talk.status(), talk.answer().ended, talk.answer().code) == (200, False, INTERNAL_ERROR)
    assert talk.connection.engine.streams == {}
    assert len(Log(caplog).errors) == 1
    await talk.send(get(3))
    assert talk.status(3) == 200  # the connection goes on


@in_virtual_time
async def test_b10_body_shorter_than_its_length_is_cut_where_the_client_sees_it() -> None:
    talk = await talked(sender(start(200, [(b"content-length", b"5")]), body(b"1234")))
    await talk.send(get(1))
    assert (talk.answer().ended, talk.answer().code) == (False, INTERNAL_ERROR)


@both
@in_virtual_time
async def test_rfc9113_8_1_answer_before_the_body_ends_it_without_an_error(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    await talk.send(post(1), data(1, b"part"))
    assert (talk.status(), talk.answer().ended, talk.answer().code) == (200, True, NO_ERROR)
    await talk.send(data(1, b"late"), get(3))
    assert talk.status(3) == 200


# --- clients that leave ---


@both
@in_virtual_time
async def test_rst_stream_is_a_disconnect_at_once(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(post(1), post(3))
    await talk.send(reset(1))
    assert [call.left for call in puppet] == [True, False]
    assert puppet[0].heard == [{"type": "http.disconnect"}]
    assert not puppet[0].over
    assert len(talk.server.departures) == 1
    await puppet[0].finish()
    assert not talk.server.departures
    await talk.send(data(3, b"x", ended=True))
    assert puppet[1].body == b"x"
    await puppet[1].send(start(200))
    await puppet[1].send(body(b"ok"))
    await puppet[1].finish()
    assert (talk.status(3), talk.answer(1).heads) == (200, [])
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_l47_what_runs_on_after_a_reset_is_cancelled(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    since = now()
    await talk.send(reset(1))
    await asyncio.sleep(9.5)
    assert not puppet[0].over
    await asyncio.sleep(1)
    assert isinstance(puppet[0].raised, asyncio.CancelledError)
    assert 10 <= puppet[0].cancelled_at[0] - since < 10.5
    assert talk.server.running == 0
    assert talk.connection.outlets == {}


@in_virtual_time
async def test_l47_call_that_cannot_be_cancelled_is_counted_and_counts_as_a_stream() -> None:
    puppet = Puppet(holds_on=True)
    talk = await talked(puppet, limits=Limits(http2_streams=1), keep_alive=0)
    await talk.send(get(1))
    try:
        await talk.send(reset(1))
        await asyncio.sleep(16)
        assert talk.server.departures.stuck == 1
        await talk.send(get(3))
        assert talk.answer(3).code == ErrorCodes.REFUSED_STREAM
    finally:
        await puppet[0].finish()
    await talk.send(get(5))
    assert len(puppet.calls) == 2
    await puppet[1].finish()


@both
@in_virtual_time
async def test_sending_to_a_stream_that_was_reset_raises(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"x", more_body=True))
    await talk.send(reset(1))
    with pytest.raises(OSError, match="left"):
        await puppet[0].send(body(b"y"))
    await puppet[0].finish()


@both
@in_virtual_time
async def test_c1_calls_of_streams_that_were_reset_count(kind: type[Wire]) -> None:
    """Spec limits L20."""
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(http2_streams=3))
    await talk.send(get(1), get(3), get(5))
    await talk.send(reset(1), reset(3), get(7))
    assert (talk.answer(7).code, len(puppet.calls)) == (ErrorCodes.REFUSED_STREAM, 3)
    await puppet[0].finish()
    await talk.send(get(9), get(11))
    assert (talk.answer(9).code, len(puppet.calls)) == (None, 4)
    assert talk.answer(11).code == ErrorCodes.REFUSED_STREAM
    for call in puppet:
        await call.finish()
    assert talk.server.running == 0


@both
@in_virtual_time
async def test_c2_stream_that_the_client_broke_is_cancelled_at_once(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1), get(3))
    await talk.send(STREAM_FAULT)
    assert talk.answer(1).code == ErrorCodes.STREAM_CLOSED
    assert [call.over for call in puppet] == [True, False]
    assert isinstance(puppet[0].raised, asyncio.CancelledError)
    assert any("STREAM_CLOSED" in line for line in log.lines(logging.INFO))
    assert log.quiet
    await puppet[1].finish()


@in_virtual_time
async def test_c17_body_that_is_not_as_long_as_it_said_never_ends_well() -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet)
    await talk.send(post(1, (b"content-length", b"5")), data(1, b"1234"))
    await talk.send(data(1, b"", ended=True))
    assert talk.answer(1).code == PROTOCOL_ERROR
    assert all(message["type"] == "http.disconnect" or message["more_body"] for message in puppet[0].heard)
    assert puppet[0].over


@in_virtual_time
async def test_c2_malformed_head_never_reaches_the_application(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(get(1, (b"connection", b"close")))
    assert (talk.answer(1).code, puppet.calls) == (PROTOCOL_ERROR, [])
    assert any("PROTOCOL_ERROR" in line for line in log.lines(logging.INFO))


@in_virtual_time
async def test_refusal_of_the_server_s_own_is_logged_and_no_call(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet, limits=Limits(request_body=3))
    await talk.send(post(1, (b"content-length", b"4")))
    assert (talk.status(), puppet.calls) == (413, [])
    assert any("413" in line for line in log.lines(logging.INFO))


@in_virtual_time
async def test_l9_body_over_the_limit_is_413_and_a_disconnect() -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, limits=Limits(request_body=3))
    await talk.send(post(1), data(1, b"123"))
    await talk.send(data(1, b"4"))
    assert (talk.status(), talk.answer().ended) == (413, True)
    assert puppet[0].left
    await puppet[0].finish()


@both
@in_virtual_time
async def test_connection_lost_with_many_streams_tells_every_call(kind: type[Wire]) -> None:
    listening, silent = Puppet(listens=True), Puppet()

    async def app(scope: Message, *call: Any) -> None:
        await (listening if scope["path"] == "/listens" else silent)(scope, *call)

    talk = await talked(app, kind)
    await talk.send(
        *[headers(number, fields(b"POST", b"/listens" if number % 4 == 1 else b"/"), ended=False) for number in range(1, 41, 2)]
    )
    assert len(listening.calls) == len(silent.calls) == 10
    writing = await pour(silent[0], 100_000)
    await turns()
    assert not writing.done()
    talk.wire.lose()
    await turns()
    assert all(call.left for call in listening)
    assert isinstance(writing.exception(), ClientDisconnected)
    assert len(talk.server.departures) == 20
    assert not talk.server.connections
    for call in listening:
        await call.finish()
    await asyncio.sleep(10.5)
    assert all(isinstance(call.raised, asyncio.CancelledError) for call in silent)
    assert talk.over


@both
@in_virtual_time
async def test_client_that_shuts_its_side_has_left(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    talk.wire.shut()
    await turns()
    assert puppet[0].left
    assert talk.wire.calls == ["close"]
    await puppet[0].finish()
    assert talk.over


@both
@in_virtual_time
async def test_call_that_goes_on_after_its_response_is_watched_once_the_client_is_gone(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"done"))
    await turns()
    assert talk.answer().ended
    assert (len(talk.connection.outlets), talk.server.running) == (1, 1)
    talk.wire.lose()
    await asyncio.sleep(10.5)
    assert isinstance(puppet[0].raised, asyncio.CancelledError)
    assert talk.over


# --- back pressure ---


@both
@in_virtual_time
async def test_l10_window_goes_back_for_what_the_application_took(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(post(1), *[data(1, b"x" * 16_384)] * 3)
    assert talk.client.opened(1) == 0
    assert len((await puppet[0].receive())["body"]) == 49_152
    await turns()
    assert talk.client.opened(1) == 49_152
    await puppet[0].finish()


@in_virtual_time
async def test_l10_more_than_the_window_breaks_the_stream() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    await talk.send(post(1), *[data(1, b"x" * 16_384)] * 4)
    assert talk.answer().code is None
    await talk.send(data(1, b"x"))
    assert talk.answer().code == ErrorCodes.FLOW_CONTROL_ERROR
    assert puppet[0].over


@both
@in_virtual_time
async def test_l34_send_waits_for_the_stream_s_window_and_for_no_other_stream_s(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, SMALL_WINDOW)
    await talk.send(get(1), get(3))
    slow, quick = await pour(puppet[0], 66_537), await pour(puppet[1], 500)
    await turns()
    assert (slow.done(), quick.done()) == (False, True)
    assert (len(talk.answer(1).body), len(talk.answer(3).body)) == (1_000, 500)
    await talk.send(window(1, 49_000))
    assert not slow.done()
    await talk.send(window(1, 500))  # what waits is down to 16 KiB
    assert slow.done()
    assert len(talk.answer(1).body) == 50_500
    for call in puppet:
        await call.finish()


@in_virtual_time
async def test_l34_as_much_as_the_limit_may_wait() -> None:
    puppet = Puppet()
    talk = await talked(puppet, LoopWire, NO_WINDOW)
    await talk.send(get(1), get(3))
    first, second = await pour(puppet[0], 65_536), await pour(puppet[1], 65_537)
    await turns()
    assert (first.done(), second.done()) == (True, False)
    await talk.send(reset(3))
    assert isinstance(second.exception(), ClientDisconnected)
    for call in puppet:
        await call.finish()


@in_virtual_time
async def test_l34_all_streams_together_have_a_limit_and_each_a_little() -> None:
    puppet = Puppet()
    talk = await talked(puppet, LoopWire, NO_WINDOW, limits=Limits(http2_response_buffer=100_000))
    await talk.send(*[get(number) for number in (1, 3, 5, 7)])
    tasks = [await pour(call, size) for call, size in zip(puppet, (50_000, 50_000, 16_384, 16_385), strict=True)]
    await turns()
    assert [task.done() for task in tasks] == [True, True, True, False]
    await talk.send(window(7, 1))
    assert tasks[3].done()
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l34_last_part_is_sent_to_its_end_though_the_application_did_not_wait(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, NO_WINDOW)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    sending = asyncio.ensure_future(puppet[0].send(body(b"x" * 65_537)))
    await turns()
    assert not sending.done()
    sending.cancel()
    await puppet[0].finish()
    assert talk.server.running == 0
    await talk.send(window(1, 60_000), window(0, 2))
    await talk.send(window(1, 10_000))
    assert (len(talk.answer().body), talk.answer().ended) == (65_537, True)


@both
@in_virtual_time
async def test_connection_s_window_holds_everybody_up(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, WIDE)
    await talk.send(get(1), get(3))
    tasks = [await pour(call, 140_000) for call in puppet]
    await turns()
    assert [task.done() for task in tasks] == [False, False]
    assert len(talk.answer(1).body) + len(talk.answer(3).body) == 65_535
    await talk.send(window(0, LARGEST - 65_535))
    assert [task.done() for task in tasks] == [True, True]
    assert len(talk.answer(1).body) == len(talk.answer(3).body) == 140_000
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_full_transport_holds_all_streams_up(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, WIDE)
    await talk.send(window(0, 1_000_000), get(1), get(3))
    talk.wire.block()
    talk.wire.block()  # Twisted's transports say so at every write
    before = len(talk.wire.sent)
    tasks = [await pour(call, 65_537) for call in puppet]
    small = asyncio.ensure_future(puppet[0].send(body(b"y", more_body=True)))
    await turns()
    assert [task.done() for task in (*tasks, small)] == [False, False, False]
    assert len(talk.wire.sent) == before  # everything waits where it is counted
    talk.wire.unblock()
    await turns()
    assert [task.done() for task in (*tasks, small)] == [True, True, True]
    assert (len(talk.answer(1).body), len(talk.answer(3).body)) == (65_538, 65_537)
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_full_transport_that_is_lost_lets_everybody_go(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1), get(3))
    talk.wire.block()
    tasks = [await pour(call, 65_537) for call in puppet]
    await turns()
    assert [task.done() for task in tasks] == [False, False]
    talk.wire.lose()
    await turns()
    assert all(isinstance(task.exception(), ClientDisconnected) for task in tasks)
    for call in puppet:
        await call.finish()
    assert talk.over


@both
@in_loop  # a thread reads it, in its own time
async def test_file_waits_for_its_window(kind: type[Wire], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := bytes(range(256)) * 2_000)
    sent: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(path_of(path))
        sent.append(True)

    talk = await talked(app, kind)
    await talk.send(get(1))
    while not talk.connection.engine.sender.waiting > 65_536:
        await asyncio.sleep(0.001)
    await turns()
    assert talk.connection.engine.sender.waiting < 400_000
    assert (len(talk.answer().body), sent) == (65_535, [])
    await talk.send(window(0, 1_000_000), window(1, 1_000_000))
    while not sent:
        await asyncio.sleep(0.001)
    await turns()
    assert talk.answer().body == content


# --- how many ---


@both
@in_virtual_time
async def test_concurrency_limit_is_503(kind: type[Wire], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(concurrency=2))
    await talk.send(get(1), get(3), get(5))
    assert (len(puppet.calls), talk.status(1), talk.status(5)) == (2, 0, 503)
    assert talk.answer(5).field(b"retry-after") == [b"1"]
    assert any("503" in line for line in log.lines(logging.INFO))
    await puppet[0].finish()
    await talk.send(get(7))
    assert len(puppet.calls) == 3
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_rfc9113_5_1_2_more_streams_than_allowed_are_refused(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(http2_streams=2))
    await talk.send(get(1), get(3), get(5))
    assert (len(puppet.calls), talk.answer(5).code) == (2, ErrorCodes.REFUSED_STREAM)
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l16_requests_of_a_connection(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, limits=Limits(requests_per_connection=2))
    await talk.send(get(1))
    assert talk.codes == []
    await talk.send(get(3))
    assert talk.client.goaways == [(f.LAST_STREAM, NO_ERROR)]
    assert talk.answer(3).ended
    await talk.send(ping(b"draining", ack=True))
    assert talk.client.goaways[-1] == (3, NO_ERROR)
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_l16_client_that_answers_no_ping_is_told_which_was_the_last(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, limits=Limits(requests_per_connection=1))
    await talk.send(get(1))
    await asyncio.sleep(1.5)
    assert talk.client.goaways == [(f.LAST_STREAM, NO_ERROR), (1, NO_ERROR)]
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_l20_calls_that_go_on_after_their_response_count_for_less(kind: type[Wire]) -> None:
    """Eight of them for one stream: HTTP/1 has as many of a connection."""
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(http2_streams=2))
    for number in range(1, 17, 2):
        await talk.send(get(number))
        await puppet.calls[-1].send(start(200))
        await puppet.calls[-1].send(body(b"done"))
        await turns()
    assert (len(puppet.calls), talk.server.running) == (8, 8)
    await talk.send(get(17), get(19))
    assert (len(puppet.calls), talk.answer(19).code) == (9, ErrorCodes.REFUSED_STREAM)
    for call in puppet:
        await call.finish()


@both
@in_virtual_time
async def test_l16_age_of_a_connection(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, connection_age=20)
    await asyncio.sleep(20)
    await talk.send(get(1))
    assert talk.codes == []
    await asyncio.sleep(1)
    await talk.send(get(3))
    assert (talk.status(3), talk.codes) == (200, [NO_ERROR])
    await asyncio.sleep(1.5)
    assert talk.client.goaways == [(f.LAST_STREAM, NO_ERROR), (3, NO_ERROR)]


# --- faults of the connection ---


@both
@in_virtual_time
async def test_rfc9113_5_4_1_broken_connection_ends_with_goaway_and_tells_its_calls(
    kind: type[Wire], caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(caplog)
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(post(1), get(3))
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.client.goaways == [(3, ErrorCodes.FRAME_SIZE_ERROR)]
    assert talk.wire.calls == ["shut"]  # not closed: that would be a reset, which destroys the GOAWAY on its way
    assert [call.left for call in puppet] == [True, True]
    assert any("FRAME_SIZE_ERROR" in line for line in log.lines(logging.INFO))
    await talk.send(get(5))  # what still comes is passed over
    assert len(puppet.calls) == 2
    talk.wire.shut()
    await turns()
    for call in puppet:
        await call.finish()
    assert talk.wire.calls == ["shut", "close"]
    assert talk.over
    assert log.quiet


@in_virtual_time
async def test_broken_tls_connection_is_closed() -> None:
    talk = await talked(hello, TlsWire)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.codes == [ErrorCodes.FRAME_SIZE_ERROR]
    assert talk.wire.calls == ["close"]
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_goaway_of_a_broken_connection_leaves_once_the_transport_has_room(kind: type[Wire]) -> None:
    """A client that is slow to read is told why as well (RFC 9113 §5.4.1)."""
    talk = await talked(hello, kind)
    talk.wire.waiting = 100_000
    talk.wire.block()
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.wire.calls == []
    talk.wire.unblock()
    await turns()
    assert talk.codes == [ErrorCodes.FRAME_SIZE_ERROR]
    assert talk.wire.calls == ["shut"]


@both
@in_virtual_time
async def test_broken_connection_whose_transport_is_full_waits_for_room_to_close(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    talk.wire.waiting = 100_000
    talk.wire.block()
    await talk.send(frame(f.PING, 0, 0, b"short"))
    assert talk.wire.calls == []
    talk.wire.unblock()
    assert talk.wire.calls == ["shut"]
    talk.wire.shut()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_client_that_leaves_a_full_transport(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    talk.wire.waiting = 100_000
    talk.wire.block()
    talk.wire.shut()
    assert talk.wire.calls == ["close"]
    talk.wire.unblock()
    await turns()
    assert talk.over


@both
@in_virtual_time
async def test_l30_client_that_sets_off_answers_and_reads_none_is_cut(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind, limits=Limits(http2_control_bytes=170))
    await talk.send(get(1))
    talk.wire.block()
    await talk.send(*[ping()] * 10)
    assert talk.wire.calls == []
    await talk.send(ping())
    assert talk.wire.calls == ["abort"]
    await puppet[0].finish()
    assert puppet[0].left
    assert talk.over


@both
@in_virtual_time
async def test_c9_ping_flood_is_enhance_your_calm(kind: type[Wire]) -> None:
    talk = await talked(hello, kind, limits=Limits(http2_pings=3))
    await talk.send(*[ping()] * 3)
    assert talk.codes == []
    await talk.send(ping())
    assert talk.codes == [CALM]


@both
@in_virtual_time
async def test_c1_rapid_reset_is_enhance_your_calm(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, limits=Limits(http2_resets=5))
    for number in range(1, 11, 2):
        await talk.send(get(number), reset(number))
    assert (talk.codes, puppet.calls) == ([], [])
    await talk.send(get(11), reset(11))
    assert talk.codes == [CALM]


# --- the server stops ---


async def begin_stop(talk: Talk) -> "asyncio.Task[None]":
    stopping = asyncio.ensure_future(talk.server.stop())
    await turns()
    return stopping


@both
@in_virtual_time
async def test_rfc9113_6_8_drain_takes_two_steps(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    stopping = await begin_stop(talk)
    talk.client.take()
    last = [(each.kind, each.flags) for each in talk.client.sent][-2:]
    assert last == [(f.PING, 0), (f.GOAWAY, 0)]
    assert talk.client.goaways == [(f.LAST_STREAM, NO_ERROR)]
    await talk.send(get(3))  # it was on its way
    assert len(puppet.calls) == 2
    await talk.send(ping(b"draining", ack=True))
    assert talk.client.goaways[-1] == (3, NO_ERROR)
    await talk.send(get(5))
    assert talk.answer(5).code == ErrorCodes.REFUSED_STREAM
    for call in puppet:
        await call.send(start(200))
        await call.send(body(b"done"))
        await call.finish()
    assert (talk.answer(1).body, talk.answer(3).body) == (b"done", b"done")
    assert talk.wire.calls == ["shut"]
    assert not stopping.done()
    talk.wire.shut()
    await stopping
    assert talk.server.stage is STOPPED
    assert talk.over


@both
@in_virtual_time
async def test_rfc9113_6_8_second_step_comes_by_itself_after_a_second(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    since = now()
    stopping = await begin_stop(talk)
    await asyncio.sleep(0.9)
    assert len(talk.codes) == 1
    await asyncio.sleep(0.5)
    assert talk.client.goaways == [(f.LAST_STREAM, NO_ERROR), (0, NO_ERROR)]
    await stopping  # the client does not go away: it has a second to do so, and one to take note of our close
    assert now() - since < 5
    assert talk.over


@both
@in_virtual_time
async def test_l45_what_runs_at_the_end_of_the_grace_period_is_told_then_cancelled(kind: type[Wire]) -> None:
    listening, silent = Puppet(listens=True), Puppet()

    async def app(scope: Message, *call: Any) -> None:
        await (listening if scope["path"] == "/listens" else silent)(scope, *call)

    talk = await talked(app, kind, graceful=30, application_cancel=5)
    await talk.send(headers(1, fields(b"GET", b"/listens")), get(3))
    since = now()
    stopping = await begin_stop(talk)
    await asyncio.sleep(24)
    assert (listening[0].left, silent[0].over) == (False, False)
    await asyncio.sleep(2)
    assert (listening[0].left, silent[0].over) == (True, False)
    listening[0].done.set()
    await stopping
    assert isinstance(silent[0].raised, asyncio.CancelledError)
    assert 30 <= silent[0].cancelled_at[0] - since < 31
    assert talk.wire.calls[-1] == "abort"
    assert talk.over


@both
@in_virtual_time
async def test_application_that_is_told_may_still_answer(kind: type[Wire]) -> None:
    puppet = Puppet(listens=True)
    talk = await talked(puppet, kind)
    await talk.send(get(1))
    stopping = await begin_stop(talk)
    await asyncio.sleep(26)
    assert puppet[0].left
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"bye"))
    await puppet[0].finish()
    assert talk.answer().body == b"bye"
    await stopping
    assert talk.over


@both
@in_virtual_time
async def test_stop_while_a_client_speaks_to_nobody(kind: type[Wire]) -> None:
    talk = await talked(hello, kind)
    await talk.send(frame(f.PING, 0, 0, b"short"))
    stopping = await begin_stop(talk)  # it is ending already
    assert talk.codes == [ErrorCodes.FRAME_SIZE_ERROR]
    talk.wire.shut()
    await stopping
    assert talk.over


@both
@in_virtual_time
async def test_client_s_goaway_lets_what_it_asked_for_end(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind)
    await talk.send(get(1), f.goaway(0, NO_ERROR))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"still"))
    await puppet[0].finish()
    assert talk.answer().body == b"still"


@pytest.mark.parametrize("busy", [False, True])
@in_virtual_time
async def test_l42_idle_connections_are_shed_those_first_that_waited_longest(*, busy: bool) -> None:
    puppet = Puppet()
    talk = await talked(puppet, limits=Limits(connections=2))
    first, second = talk.client, client_of(LoopWire(talk.server, goes=True))
    await asyncio.sleep(1)
    second.send(HELLO, f.SETTINGS_ACK)
    if busy:
        await talk.send(get(1))
    talk.server._tick(now())
    assert [[code for _, code in each.goaways] for each in (first, second)] == ([[], [NO_ERROR]] if busy else [[NO_ERROR], []])
    for call in puppet:
        await call.finish()


@in_virtual_time
async def test_l42_those_that_are_told_to_go_make_room() -> None:
    """However long they take to go, nobody else has to in their place."""
    talk = await talked(Puppet(), limits=Limits(connections=2))
    second = client_of(LoopWire(talk.server, goes=True))
    second.send(HELLO, f.SETTINGS_ACK)
    for _ in range(4):
        talk.server._tick(now())
    assert sorted([talk.codes, [code for _, code in second.goaways]]) == [[], [NO_ERROR]]


@in_virtual_time
async def test_connection_with_a_call_is_not_idle() -> None:
    puppet = Puppet()
    talk = await talked(puppet)
    connection = talk.connection
    assert connection.idle_since is not None
    await talk.send(get(1))
    assert connection.idle_since is None
    await talk.send(reset(1))
    assert connection.idle_since is None  # it still works for this client
    await puppet[0].finish()
    assert connection.idle_since is not None
    talk.wire.shut()
    assert connection.idle_since is None


# --- the access log ---


@both
@in_virtual_time
async def test_access_log_has_a_line_a_stream(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, log=LINE)
    await talk.send(get(1), headers(3, fields(b"HEAD", b"/h?q")), post(5))
    for call, status in zip(puppet, (200, 404, 201), strict=True):
        await call.send(start(status))
        await call.send(body(b"12345"))
    assert talk.logged() == ["GET / 200 5 0", "HEAD /h?q 404 0 0", "POST / 201 5 0"]
    for call in puppet:
        await call.finish()
    assert len(talk.logged()) == 3


@in_virtual_time
async def test_access_log_knows_client_and_version() -> None:
    talk = await talked(hello, log='%(h)s "%(r)s" %(s)s')
    await talk.send(get(1))
    talk.logged()
    assert talk.sink.lines == ['192.0.2.1 "GET / HTTP/2" 200']


@both
@in_virtual_time
async def test_access_log_has_seconds_from_the_head_to_the_end(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, log=LINE)
    await talk.send(get(1))
    await asyncio.sleep(3)
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"x"))
    await puppet[0].finish()
    assert talk.logged() == ["GET / 200 1 3"]


@both
@in_virtual_time
async def test_access_log_has_499_for_a_stream_that_the_client_reset(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, log=LINE)
    await talk.send(get(1))
    await talk.send(reset(1))
    assert talk.logged() == ["GET / 499 0 0"]
    await puppet[0].finish()
    assert talk.logged() == ["GET / 499 0 0"]


@both
@in_virtual_time
async def test_access_log_has_one_line_for_a_client_that_resets_then_leaves(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, log=LINE)
    await talk.send(get(1))
    await talk.send(reset(1))
    talk.wire.lose()
    await turns()
    assert talk.logged() == ["GET / 499 0 0"]
    await puppet[0].finish()


@both
@in_virtual_time
async def test_access_log_has_one_line_for_a_response_that_the_client_left(kind: type[Wire]) -> None:
    puppet = Puppet()
    talk = await talked(puppet, kind, log=LINE)
    await talk.send(get(1))
    await puppet[0].send(start(200))
    await puppet[0].send(body(b"123", more_body=True))
    talk.wire.lose()
    await turns()
    assert talk.logged() == ["GET / 200 3 0"]
    await puppet[0].finish()


@both
@in_virtual_time
async def test_access_log_has_500_for_an_application_that_raises(kind: type[Wire]) -> None:
    talk = await talked(sender({"type": "nonsense"}), kind, log=LINE)
    await talk.send(get(1))
    assert talk.logged() == ["GET / 500 0 0"]


@in_virtual_time
async def test_hpack_s_own_log_writes_no_cookies(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    talk = await talked(hello)
    await talk.send(get(1, (b"cookie", b"secret")))
    assert "secret" not in caplog.text


# --- over a real socket ---


@asynccontextmanager
async def serving(app: App, **timeouts: Any) -> AsyncIterator[tuple[Server, Any]]:
    server = Server(
        Config(bind=(Tcp("127.0.0.1", 0),), timeouts=Timeouts(**timeouts), logging=Logging(access_log=None), lifespan="off"), app
    )
    ports = Ports(server.config, None)
    await server.start(ports)
    try:
        yield server, ports.addresses[0]
    finally:
        await server.stop()


class Caller:
    """The h2 package's client on a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.bodies: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    def ask(self, number: int, method: str = "GET", *, ended: bool = True) -> None:
        self.h2.send_headers(number, [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/")], end_stream=ended)
        self.bodies[number] = bytearray()
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> bytes:
        """Take what comes, and open the windows again."""
        piece = await self.reader.read(65_536)
        for event in self.h2.receive_data(piece) if piece else ():
            if isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
        self.writer.write(self.h2.data_to_send())
        return piece


@in_loop
async def test_large_responses_and_a_large_request_over_a_real_socket(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content := bytes(range(256)) * 8_000)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            await send(start(200))
            await send(body(b"%d" % size))
        else:
            await send(start(200))
            await send(path_of(path))

    async with serving(app) as (_, address):
        caller = Caller(*await asyncio.open_connection(*address))
        for number in (1, 3, 5):
            caller.ask(number)
        caller.ask(7, "POST", ended=False)
        left = 1_000_000
        while caller.ended != {1, 3, 5, 7}:
            while left and (size := min(left, caller.h2.local_flow_control_window(7), 16_384)):
                caller.h2.send_data(7, b"x" * size, end_stream=size == left)
                left -= size
            caller.writer.write(caller.h2.data_to_send())
            await caller.read()
        assert all(caller.bodies[number] == content for number in (1, 3, 5))
        assert caller.bodies[7] == b"1000000"
        caller.writer.close()


@in_loop
async def test_reset_client_is_noticed_over_a_real_socket() -> None:
    puppet = Puppet(listens=True)
    async with serving(puppet) as (server, address):
        caller = Caller(*await asyncio.open_connection(*address))
        caller.ask(1)
        caller.ask(3)
        while len(puppet.calls) < 2:
            await caller.read()
        caller.writer.transport.abort()
        while server.connections:
            await asyncio.sleep(0.001)
        await turns()
        assert [call.left for call in puppet] == [True, True]
        for call in puppet:
            await call.finish()
        assert server.running == 0


@in_loop
async def test_drain_ends_an_idle_connection_over_a_real_socket() -> None:
    async with serving(hello) as (server, address):
        caller = Caller(*await asyncio.open_connection(*address))
        caller.ask(1)
        while 1 not in caller.ended:
            await caller.read()
        stopping = asyncio.ensure_future(server.stop())
        while await caller.read():  # it answers our ping: the second step needs no second
            pass
        assert caller.h2.state_machine.state.name == "CLOSED"
        caller.writer.close()
        await stopping
        assert not server.connections
