"""The HTTP/1 engine: one exchange at a time, framing both ways, endings.

RFC 9112; spec attacks A10 to A20, B10, E8; spec limits L7 to L11, L16, L17.
"""

import time
from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from termserver.config import Limits
from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire.events import Aborted, Awaiting, Body, Ending, Fields, Preface, Rejected, Request, Trailers
from termserver.wire.h2frames import PREFACE
from termserver.wire.head import HeadParser
from termserver.wire.http1 import DefaultFields, Http1
from wire.driving import NEXT, SLOWER, Driver, Outcome, byte_by_byte, chunked, engine, feed_every_way, request, say

GET = request()
GET_10 = request(line=b"GET / HTTP/1.0")
HEAD = request(line=b"HEAD / HTTP/1.1")
KEPT_10 = request(b"Connection: keep-alive\r\n", line=b"GET / HTTP/1.0")
UPGRADE = request(b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n")
OK = b"HTTP/1.1 200 OK\r\n"


def post(body: bytes = b"hello", lines: bytes = b"", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return request(b"Content-Length: %d\r\n%b" % (length, lines), line=b"POST / HTTP/1.1", body=body)


def after(data: bytes, **limits: int) -> Http1:
    """Give an engine that has taken `data`."""
    http = engine(**limits)
    http.receive(data)
    return http


def respond(http: Http1, *parts: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = (), trailers: bool = False) -> bytes:
    """Answer with the parts as messages of a body; what goes out."""
    http.start(0, status, headers, trailers=trailers)
    for part in parts[:-1]:
        http.write(0, part, True)
    http.write(0, parts[-1], False)
    return http.output()


# ---------------------------------------------------------------------- responses: framing


def test_rfc9112_6_a_whole_body_has_its_length() -> None:
    assert respond(after(GET), b"hello") == OK + b"content-length: 5\r\n\r\nhello"
    assert respond(after(GET), b"") == OK + b"content-length: 0\r\n\r\n"


def test_rfc9112_6_a_body_in_parts_is_chunked() -> None:
    http = after(GET)
    assert (
        respond(http, b"hello", b"", b"x" * 17, b"")
        == OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
    )
    assert http.ending is Ending.OPEN


def test_rfc9112_6_a_body_in_parts_of_a_length_that_is_said() -> None:
    got = respond(after(GET), b"he", b"", b"llo", headers=((b"Content-Length", b"5"),))
    assert got == OK + b"content-length: 5\r\n\r\nhello"


def test_rfc9112_6_http_1_0_gets_its_body_until_close() -> None:
    http = after(KEPT_10)
    assert respond(http, b"he", b"llo") == OK + b"connection: close\r\n\r\nhello"
    assert http.ending is Ending.CLOSE


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"5"),)])
def test_rfc9112_9_3_http_1_0_keeps_a_connection_on_request(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    http = after(KEPT_10)
    assert respond(http, b"hello", headers=headers) == OK + b"content-length: 5\r\nconnection: keep-alive\r\n\r\nhello"
    assert http.ending is Ending.OPEN
    assert len(http.receive(GET)) == 1


def test_rfc9112_9_3_http_1_0_closes() -> None:
    http = after(GET_10)
    assert respond(http, b"hello") == OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello"
    assert http.ending is Ending.CLOSE
    assert http.receive(GET) == []


@pytest.mark.parametrize("value", [b"close", b"Close", b"te, close"])
def test_rfc9112_9_6_the_client_closes(value: bytes) -> None:
    http = after(request(b"Connection: %b\r\n" % value))
    assert respond(http, b"hello") == OK + b"content-length: 5\r\nconnection: close\r\n\r\nhello"
    assert http.ending is Ending.CLOSE


def test_rfc9112_9_6_the_application_closes() -> None:
    http = after(GET)
    assert (
        respond(http, b"a", headers=((b"Connection", b"close"), (b"content-length", b"1")))
        == OK + b"content-length: 1\r\nconnection: close\r\n\r\na"
    )
    assert http.ending is Ending.CLOSE


def test_rfc9112_9_6_bytes_behind_the_last_request_are_never_parsed() -> None:
    http = after(request(b"Connection: close\r\n") + NEXT)
    respond(http, b"a")
    assert http.ending is Ending.LINGER  # a plain close might destroy the answer on its way
    assert not http.has_input
    assert http.receive(NEXT) == []
    assert http.output() == b""


@pytest.mark.parametrize("data", [HEAD, request(line=b"HEAD / HTTP/1.0"), request(b"Connection: keep-alive\r\n", line=b"HEAD / HTTP/1.0")])
@pytest.mark.parametrize("parts", [[b"hello"], [b"he", b"llo"], [b""]])
def test_b10_head_has_no_body(data: bytes, parts: list[bytes]) -> None:
    got = respond(after(data), *parts)
    head, body = got.split(b"\r\n\r\n")
    assert body == b""
    assert (b"content-length: 5" in head) is (parts == [b"hello"])  # what a GET would have had, if it is known
    assert b"transfer-encoding" not in head


def test_b10_head_keeps_the_length_that_is_said() -> None:
    http = after(HEAD)
    assert respond(http, b"", headers=((b"content-length", b"99"),)) == OK + b"content-length: 99\r\n\r\n"
    assert http.ending is Ending.OPEN
    assert len(http.receive(GET)) == 1


@pytest.mark.parametrize("data", [GET, HEAD])
@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("parts", [[b"hello"], [b"he", b"llo"], [b""]])
def test_b10_204_and_304_have_no_body(data: bytes, status: int, parts: list[bytes]) -> None:
    http = after(data)
    got = respond(http, *parts, status=status)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert got.endswith(b"\r\n\r\n")
    assert b"content-length" not in got
    assert b"transfer-encoding" not in got
    assert http.ending is Ending.OPEN


def test_rfc9110_8_6_lengths_of_204_and_304() -> None:
    assert b"content-length" not in respond(after(GET), b"", status=204, headers=((b"content-length", b"0"),))
    assert b"content-length: 7\r\n" in respond(after(GET), b"", status=304, headers=((b"content-length", b"7"),))
    assert b"content-length" not in respond(after(HEAD), b"", status=204, headers=((b"content-length", b"0"),))


@pytest.mark.parametrize("parts", [[b"hello!"], [b"hel", b"lo!"], [b"hello", b"!"], [b"hello", b"", b"!!"]])
def test_b10_more_bytes_than_said(parts: list[bytes]) -> None:
    http = after(GET)
    with pytest.raises(InvalidMessage, match=r"longer than its content-length"):
        respond(http, *parts, headers=((b"content-length", b"5"),))
    assert http.output() == OK + b"content-length: 5\r\n\r\nhello"
    assert http.ending is Ending.OPEN  # the client has a good response; the application is told
    assert len(http.receive(GET)) == 1


@pytest.mark.parametrize("parts", [[b"hell"], [b"hel", b"l"], [b""], [b"", b""]])
def test_b10_fewer_bytes_than_said(parts: list[bytes]) -> None:
    http = after(GET + NEXT)
    with pytest.raises(InvalidMessage, match="short of its content-length"):
        respond(http, *parts, headers=((b"content-length", b"5"),))
    assert http.ending is Ending.RESET
    assert not http.has_input


def test_default_fields() -> None:
    defaults = DefaultFields(b"srv")
    http = Http1(HeadParser(Limits()), Limits(), defaults)
    defaults.set_date(b"now")
    for headers, lines in [
        ((), b"date: now\r\nserver: srv\r\n"),
        (((b"Date", b"d"),), b"Date: d\r\nserver: srv\r\n"),
        (((b"Server", b"s"),), b"Server: s\r\ndate: now\r\n"),
        (((b"server", b"s"), (b"date", b"d")), b"server: s\r\ndate: d\r\n"),
    ]:
        http.receive(GET)
        fields = sorted(lines.split(b"\r\n"))
        got = respond(http, b"", headers=headers)
        assert sorted(got.removeprefix(OK).removesuffix(b"\r\n\r\n").replace(b"content-length: 0", b"").split(b"\r\n")) == fields
        http.receive(GET)
        length = ((b"content-length", b"1"),)
        assert b"\r\n\r\na" in respond(http, b"a", headers=headers + length)
    http.receive(b"bad\n")
    assert b"\r\ndate: now\r\nserver: srv\r\nconnection: close\r\n\r\n" in http.output()


def test_no_server_field_no_date() -> None:
    assert DefaultFields(b"").both == b""
    assert DefaultFields().both == b"server: termserver\r\n"


@pytest.mark.parametrize("data", [GET, HEAD, GET_10, KEPT_10, request(b"Connection: close\r\n"), post()])
@pytest.mark.parametrize("length", [None, b"5"])
@pytest.mark.parametrize("parts", [[b"hello"], [b"he", b"llo"], [b"hello", b""]])
@pytest.mark.parametrize("trailers", [False, True])
def test_the_short_way_says_what_the_long_way_says(data: bytes, length: bytes | None, parts: list[bytes], trailers: bool) -> None:
    """However it is framed, h11's client reads the same."""
    http = after(data)
    headers = () if length is None else ((b"content-length", length),)
    out = respond(http, *parts, headers=headers, trailers=trailers)
    if trailers:
        http.trailers(0, [(b"x", b"y")], more=False)
        out += http.output()
    client = h11.Connection(our_role=h11.CLIENT)
    client.send(h11.Request(method="HEAD" if data is HEAD else "GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(out)
    if http.ending is not Ending.OPEN:
        client.receive_data(b"")
    events = []
    while not events or type(events[-1]) is not h11.EndOfMessage:
        events.append(client.next_event())
    body = b"".join(bytes(event.data) for event in events if isinstance(event, h11.Data))
    assert body == (b"" if data is HEAD else b"hello")
    assert client.trailing_data[0] == b""
    assert (client.their_state is h11.MUST_CLOSE or client.their_state is h11.CLOSED) is (http.ending is not Ending.OPEN)


# ---------------------------------------------------------------------- trailers, interim responses, files


def test_rfc9112_7_1_2_trailers_for_a_client_that_takes_them() -> None:
    http = after(request(b"TE: trailers\r\nConnection: TE\r\n"))
    assert respond(http, b"a", trailers=True) == OK + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    http.trailers(0, [(b"X", b"y")], more=True)
    assert http.output() == b"X: y\r\n"
    http.trailers(0, [(b"Z", b"w")], more=False)
    assert http.output() == b"Z: w\r\n\r\n"
    assert http.ending is Ending.OPEN
    assert len(http.receive(GET)) == 1


@pytest.mark.parametrize(
    ("data", "tail"),
    [
        pytest.param(GET, b"\r\n", id="no te"),
        pytest.param(request(b"TE: gzip\r\n"), b"\r\n", id="another te"),
        pytest.param(request(b"TE: trailers\r\n", line=b"GET / HTTP/1.0"), b"", id="HTTP/1.0"),
        pytest.param(request(b"TE: trailers\r\n", line=b"HEAD / HTTP/1.1"), b"", id="HEAD"),
    ],
)
def test_rfc9110_6_5_trailers_for_a_client_that_does_not(data: bytes, tail: bytes) -> None:
    http = after(data)
    respond(http, b"a", trailers=True)
    http.trailers(0, [(b"x", b"y")], more=False)
    assert http.output() == tail


def test_trailers_behind_a_body_of_a_length_are_left_out() -> None:
    http = after(request(b"TE: trailers\r\n"))
    respond(http, b"a", headers=((b"content-length", b"1"),), trailers=True)
    http.trailers(0, [(b"x", b"y")], more=False)
    assert http.output() == b""
    assert len(http.receive(GET)) == 1


def test_trailers_on_a_connection_that_closes() -> None:
    http = after(request(b"TE: trailers\r\nConnection: close\r\n"))
    respond(http, b"a", trailers=True)
    http.trailers(0, [(b"x", b"y")], more=False)
    assert http.output() == b"x: y\r\n\r\n"
    assert http.ending is Ending.CLOSE


def test_b5_bad_trailers_write_nothing() -> None:
    http = after(request(b"TE: trailers\r\n"))
    respond(http, b"a", trailers=True)
    with pytest.raises(InvalidMessage):
        http.trailers(0, [(b"x", b"a\r\nb: c")], more=False)
    assert http.output() == b""
    http.trailers(0, [], more=False)
    assert http.output() == b"\r\n"


def test_early_hints() -> None:
    http = after(GET)
    http.interim(0, 103, [(b"link", b"</a>")])
    assert http.output() == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    http.start(0, 200, [])
    http.interim(0, 103, [])  # the final head is held back: there is still time
    assert http.output() == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    with pytest.raises(InvalidMessage):
        http.interim(0, 103, [(b"link", b"a\r\nb: c")])
    http.write(0, b"a", True)
    http.output()
    http.interim(0, 103, [])
    assert http.output() == b""


def test_rfc9110_15_2_http_1_0_gets_no_interim_response() -> None:
    http = after(GET_10)
    http.interim(0, 103, [(b"link", b"</a>")])
    assert http.output() == b""


@pytest.mark.parametrize(
    ("data", "more", "headers", "before", "behind"),
    [
        pytest.param(GET, False, (), OK + b"content-length: 5\r\n\r\n", b"", id="whole"),
        pytest.param(GET, True, (), OK + b"transfer-encoding: chunked\r\n\r\n5\r\n", b"\r\n0\r\n\r\n", id="more"),
        pytest.param(GET, True, ((b"content-length", b"5"),), OK + b"content-length: 5\r\n\r\n", b"", id="of a length"),
        pytest.param(GET_10, True, (), OK + b"connection: close\r\n\r\n", b"", id="until close"),
    ],
)
def test_files(data: bytes, more: bool, headers: tuple[tuple[bytes, bytes], ...], before: bytes, behind: bytes) -> None:
    http = after(data)
    http.start(0, 200, headers)
    assert http.begin_file(0, 5, more=more)
    assert http.output() == before
    http.end_file(0, 5)
    http.write(0, b"", False)
    assert http.output() == behind


@pytest.mark.parametrize(("data", "status"), [(HEAD, 200), (GET, 304)])
def test_b10_no_file_where_there_is_no_body(data: bytes, status: int) -> None:
    http = after(data)
    http.start(0, status, [])
    assert not http.begin_file(0, 5, more=False)
    http.write(0, b"", False)
    got = http.output()
    assert got.endswith(b"\r\n\r\n")
    assert (b"content-length: 5" in got) is (status == 200)


def test_an_empty_file_is_no_chunk() -> None:
    http = after(GET)
    http.start(0, 200, [])
    http.write(0, b"a", True)
    http.output()
    assert http.begin_file(0, 0, more=True)
    http.end_file(0, 0)
    http.write(0, b"", False)
    assert http.output() == b"0\r\n\r\n"


def test_b10_a_file_longer_than_said() -> None:
    http = after(GET)
    http.start(0, 200, [(b"content-length", b"4")])
    with pytest.raises(InvalidMessage, match="1 bytes longer"):
        http.begin_file(0, 5, more=False)


# ---------------------------------------------------------------------- messages out of order


def test_messages_out_of_order() -> None:
    http = engine()
    for say_it in (lambda: http.start(0, 200, []), lambda: http.write(0, b"", False), lambda: http.trailers(0, [], more=False)):
        with pytest.raises(UnexpectedMessage):
            say_it()
    http.receive(GET)
    with pytest.raises(UnexpectedMessage):
        http.write(0, b"", False)
    http.start(0, 200, [])
    with pytest.raises(UnexpectedMessage):
        http.start(0, 200, [])
    with pytest.raises(UnexpectedMessage):
        http.trailers(0, [], more=False)
    http.write(0, b"", False)
    http.output()
    with pytest.raises(UnexpectedMessage):
        http.write(0, b"", False)
    assert http.output() == b""


# ---------------------------------------------------------------------- Expect


def test_rfc9110_10_1_1_100_when_the_application_reads() -> None:
    http = after(post(b"", b"Expect: 100-continue\r\n", length=5))
    assert http.output() == b""
    for _ in range(2):
        http.wants_continue(0)
    assert http.output() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert http.receive(b"hello") == [Body(0, b"hello", ended=True)]
    assert respond(http, b"a") == OK + b"content-length: 1\r\n\r\na"
    assert http.ending is Ending.OPEN


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a17_a_final_status_ahead_of_100_closes(framing: bytes) -> None:
    http = after(request(framing + b"Expect: 100-continue\r\n", line=b"PUT / HTTP/1.1"))
    assert respond(http, b"no", status=403) == b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
    assert http.ending is Ending.LINGER
    assert http.receive(b"hello" + NEXT) == []
    http.wants_continue(0)
    assert http.output() == b""


def test_rfc9110_10_1_1_no_100_once_the_body_comes() -> None:
    http = after(post(b"", b"Expect: 100-continue\r\n", length=5))
    http.receive(b"h")
    http.wants_continue(0)
    assert http.output() == b""
    assert b"connection" not in respond(http, b"early")  # the client sends on: the body's end is known
    http.receive(b"ello")
    assert len(http.receive(GET)) == 1


def test_rfc9110_10_1_1_no_100_to_http_1_0() -> None:
    http = after(request(b"Content-Length: 5\r\nExpect: 100-continue\r\n", line=b"POST / HTTP/1.0"))
    http.wants_continue(0)
    assert http.output() == b""


def test_a17_no_100_behind_the_final_head() -> None:
    http = after(post(b"", b"Expect: 100-continue\r\n", length=5))
    http.start(0, 200, [])
    http.write(0, b"a", True)
    assert b"connection: close" in http.output()
    http.wants_continue(0)
    assert http.output() == b""


# ---------------------------------------------------------------------- bodies


@pytest.mark.parametrize("data", [post(b"hello"), chunked(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), chunked(b"5\r\nhello\r\n0;x\r\n\r\n")])
def test_bodies(data: bytes) -> None:
    outcome = feed_every_way(engine, data + NEXT, say)
    assert [(got.request.target, got.body, got.whole) for got in outcome.got] == [(b"/", b"hello", True), (b"/next", b"", True)]


def test_trailers_of_a_request() -> None:
    outcome = feed_every_way(engine, chunked(b"1\r\na\r\n0\r\nX: y\r\nZ_: dropped\r\n\r\n"), say)
    assert [(got.body, got.trailers, got.whole) for got in outcome.got] == [(b"a", [(b"x", b"y")], True)]
    http = after(chunked(b""))
    assert http.receive(b"0\r\nX: y\r\n\r\n") == [Body(0, b"", ended=False), Trailers(0, [(b"x", b"y")])]


@pytest.mark.parametrize(
    "body", [b"3\r\nabcXX", b"g\r\n", b"5;a\nb\r\n", b"1\r\na\r\n0\r\nHost: a\r\n\r\n", b"1\r\na\r\n0\r\nX: y\n\r\n\r\n"]
)
def test_a10_a_broken_body_is_never_ended(body: bytes) -> None:
    outcome = feed_every_way(engine, chunked(body), say)
    assert (outcome.status, outcome.got, outcome.ending) == (400, [], Ending.LINGER)
    http = after(chunked(b""))
    events = http.receive(body)
    assert [type(event) for event in events] == [Aborted, Rejected]
    assert b"HTTP/1.1 400 " in http.output()


def test_a10_a_broken_body_of_a_request_whose_response_has_begun() -> None:
    http = after(chunked(b""))
    http.start(0, 200, [])
    http.write(0, b"a", True)
    http.output()
    assert [type(event) for event in http.receive(b"g\r\n")] == [Aborted, Rejected]
    assert http.output() == b""
    assert http.ending is Ending.RESET


def test_a10_a_broken_body_of_a_request_that_is_answered() -> None:
    http = after(chunked(b""))
    respond(http, b"a")
    assert [type(event) for event in http.receive(b"g\r\n")] == [Rejected]
    assert http.output() == b""
    assert http.ending is Ending.LINGER


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
def test_a16_a_body_is_a_body_whatever_the_method(method: bytes) -> None:
    data = request(b"Content-Length: %d\r\n" % len(NEXT), line=method + b" / HTTP/1.1", body=NEXT)
    outcome = feed_every_way(engine, data, say)
    assert [(got.request.method.encode(), got.body) for got in outcome.got] == [(method, NEXT)]


def test_l9_a_length_over_the_limit_never_reaches_the_application() -> None:
    def make() -> Http1:
        return engine(request_body=5)

    assert feed_every_way(make, post(b"hello"), say).status is None
    outcome = feed_every_way(make, post(b"hello!"), say)
    assert (outcome.status, outcome.got, outcome.ending) == (413, [], Ending.LINGER)
    assert outcome.output.endswith(b"\r\n\r\nContent Too Large\n")


def test_l9_a_chunked_body_over_the_limit() -> None:
    def make() -> Http1:
        return engine(request_body=5)

    assert feed_every_way(make, chunked(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), say).status is None
    outcome = feed_every_way(make, chunked(b"2\r\nhe\r\n3\r\nllo\r\n1\r\n!\r\n0\r\n\r\n"), say)
    assert (outcome.status, outcome.got) == (413, [])


def test_b10_no_error_has_a_body_for_head() -> None:
    def make() -> Http1:
        return engine(request_body=5)

    outcome = feed_every_way(make, request(b"Content-Length: 6\r\n", line=b"HEAD / HTTP/1.1", body=b"hello!"))
    assert (
        outcome.output == b"HTTP/1.1 413 Content Too Large\r\ncontent-type: text/plain\r\ncontent-length: 18\r\nconnection: close\r\n\r\n"
    )
    http = after(HEAD)
    http.reject(0, 503, "busy")
    assert http.output().endswith(b"\r\nretry-after: 1\r\nconnection: close\r\n\r\n")
    http = after(HEAD)
    respond(http, b"")
    http.receive(b"x\n")  # of no method that is known
    assert http.output().endswith(b"\r\n\r\nBad Request\n")


def test_l10_reading_stops_until_the_application_takes_the_body() -> None:
    http = after(post(b"x" * 7, length=100), body_buffer=8)
    assert http.wants_data
    http.receive(b"x")
    assert not http.wants_data
    http.consumed(0, 1)
    assert http.wants_data
    unlimited = after(post(b"x" * 100_000, length=200_000), body_buffer=0)
    assert unlimited.wants_data


@pytest.mark.parametrize("rest", [0, 10])
def test_l10_what_the_application_left_unread_holds_nothing_up(rest: int) -> None:
    http = after(post(b"x" * 8, length=8 + rest), body_buffer=8)
    assert http.wants_data is (rest == 0)  # all of it is here: what comes now is of a later request
    respond(http, b"enough")
    assert http.wants_data
    http.receive(b"x" * rest)
    assert http.wants_data
    assert len(http.receive(GET)) == 1


def test_l11_reading_stops_at_pipelined_bytes() -> None:
    http = after(GET + b"x" * 7, pipeline_buffer=8)
    assert http.wants_data
    http.receive(b"x")
    assert not http.wants_data
    unlimited = after(GET + b"x" * 100_000, pipeline_buffer=0)
    assert unlimited.wants_data


@pytest.mark.parametrize("data", [post(b"he", length=5), chunked(b"2\r\nhe\r\n3\r\nl")])
def test_a18_an_early_answer_waits_for_the_rest_of_the_body(data: bytes) -> None:
    http = after(data)
    assert respond(http, b"a") == OK + b"content-length: 1\r\n\r\na"
    assert http.awaiting is Awaiting.DISCARD
    rest = b"llo" if data.startswith(b"POST") and b"Content-Length" in data else b"lo\r\n0\r\nX: y\r\n\r\n"
    assert http.receive(rest + NEXT) == []  # nobody wants it any more
    assert http.has_input
    assert [event.target for event in http.receive(b"") if type(event) is Request] == [b"/next"]


def test_l17_a_length_too_long_to_discard_closes() -> None:
    http = after(post(b"", length=9), discarded_body=8)
    assert b"connection: close\r\n" in respond(http, b"a")
    assert http.ending is Ending.LINGER
    http = after(post(b"x", length=9), discarded_body=8)
    assert b"connection: close\r\n" not in respond(http, b"a")
    assert http.receive(b"x" * 8 + NEXT) == []
    assert http.ending is Ending.OPEN
    assert http.has_input


def test_l17_chunks_are_discarded_up_to_the_limit() -> None:
    http = after(chunked(b""), discarded_body=8)
    respond(http, b"a")
    http.receive(b"8\r\nxxxxxxxx\r\n")
    assert http.ending is Ending.OPEN
    http.receive(b"1\r\nx\r\n0\r\n\r\n" + NEXT)
    assert http.ending is Ending.LINGER
    assert not http.has_input
    unlimited = after(chunked(b""), discarded_body=0)
    respond(unlimited, b"a")
    unlimited.receive(b"8\r\nxxxxxxxx\r\n0\r\n\r\n" + NEXT)
    assert unlimited.has_input


def test_a18_a_response_that_closes_discards_nothing() -> None:
    http = after(post(b"he", b"Connection: close\r\n", length=5))
    respond(http, b"a")
    assert http.ending is Ending.LINGER


# ---------------------------------------------------------------------- one request at a time


def test_a19_one_request_at_a_time() -> None:
    http = engine()
    assert len(http.receive(GET + NEXT * 2)) == 1
    assert not http.has_input
    assert http.receive(b"") == []
    for _ in range(2):
        respond(http, b"a")
        assert http.has_input
        assert len(http.receive(b"")) == 1
    respond(http, b"a")
    assert not http.has_input
    assert http.awaiting is Awaiting.REQUEST


def test_a19_a_pipeline_is_answered_in_order() -> None:
    data = b"".join(request(line=b"GET /%d HTTP/1.1" % n) for n in range(20)) + post(b"body") + NEXT
    outcome = feed_every_way(engine, data, say)
    assert [got.request.target for got in outcome.got] == [b"/%d" % n for n in range(20)] + [b"/", b"/next"]
    assert outcome.output.count(OK) == 22


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_a20_a_valid_request_then_garbage(garbage: bytes) -> None:
    outcome = feed_every_way(engine, GET + garbage, say)
    assert [got.request.target for got in outcome.got] == [b"/"]
    assert outcome.status in {400, 505}
    assert outcome.output.startswith(OK)
    assert outcome.output.count(b"HTTP/1.1 ") == 2
    assert outcome.ending is Ending.LINGER


def test_l7_one_empty_line_ahead() -> None:
    assert feed_every_way(engine, b"\r\n" + GET, say).status is None
    assert feed_every_way(engine, b"\r\n" + GET + b"\r\n" + NEXT, say).status is None
    assert feed_every_way(engine, b"\r\n\r\n" + GET, say).status == 400
    assert feed_every_way(engine, b"\r\n\r\n", say).status == 400
    assert feed_every_way(engine, b"\r\n\r", say).status == 400
    assert feed_every_way(engine, GET + b"\r\n\r\n" + NEXT, say).status == 400
    assert feed_every_way(engine, b"\r\n \r\n" + GET, say).status == 400


def test_nothing_is_nothing() -> None:
    http = engine()
    for data in (b"", b"\r\n", b"", GET[:5], b"", GET[5:-1], b""):
        assert http.receive(data) == []
    assert len(http.receive(GET[-1:])) == 1
    assert http.receive(b"") == []


def test_l16_requests_of_a_connection() -> None:
    http = engine(requests_per_connection=2)
    http.receive(GET + GET + NEXT)
    assert b"connection: close" not in respond(http, b"a", headers=((b"content-length", b"1"),))
    http.receive(b"")
    assert b"connection: close" in respond(http, b"a", headers=((b"content-length", b"1"),))
    assert http.ending is Ending.LINGER


@pytest.mark.parametrize(
    ("fed", "awaiting"),
    [
        (b"", Awaiting.REQUEST),
        (b"G", Awaiting.HEAD),
        (GET[:-1], Awaiting.HEAD),
        (GET, Awaiting.APPLICATION),
        (post(b"a", length=2), Awaiting.BODY),
        (chunked(b""), Awaiting.BODY),
        (post(b"ab"), Awaiting.APPLICATION),
        (UPGRADE[:-1], Awaiting.HEAD),
        (UPGRADE, Awaiting.VERDICT),
        (UPGRADE + b"\x81", Awaiting.VERDICT),
        (request(b"Upgrade: h2c\r\nConnection: Upgrade\r\n"), Awaiting.APPLICATION),
        (request(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", line=b"GET / HTTP/1.0"), Awaiting.APPLICATION),
    ],
)
def test_what_a_connection_waits_for(fed: bytes, awaiting: Awaiting) -> None:
    assert after(fed).awaiting is awaiting


# ---------------------------------------------------------------------- upgrades

UPGRADED: Fields = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", b"x"), (b"X-Own", b"y")]
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\nX-Own: y\r\n"
BEHIND = [b"", b"\x81", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", NEXT, b"\r\n\r\n"]  # frames, for all that is known here


@pytest.mark.parametrize("behind", BEHIND)
def test_rfc9110_7_8_what_comes_behind_an_upgrade_is_the_next_protocols(behind: bytes) -> None:
    for pieces in ([UPGRADE + behind], [UPGRADE, behind], byte_by_byte(UPGRADE + behind)):
        driver = Driver(engine())
        got = driver.feed(*pieces).got
        assert [(one.request.upgrade, one.request.ended) for one in got] == [(b"websocket", True)]
        http = driver.http
        assert (http.output(), http.has_input, http.ending) == (b"", False, Ending.OPEN)
        assert http.upgrade(0, UPGRADED) == behind
        assert http.output() == SWITCHING + b"\r\n"
        assert http.ending is Ending.SWITCHED


def test_rfc9110_7_8_an_engine_that_has_switched_reads_and_writes_nothing() -> None:
    http = after(UPGRADE + b"\x81")
    http.upgrade(0, UPGRADED)
    http.output()
    assert http.receive(GET) == []
    assert http.end_of_input() == []
    http.drain()
    http.reject(0, 408, "slow")
    http.interim(0, 103, [])
    with pytest.raises(UnexpectedMessage):
        http.start(0, 200, [])
    assert (http.output(), http.has_input, http.ending) == (b"", False, Ending.SWITCHED)
    assert http.awaiting is Awaiting.APPLICATION


def test_default_fields_of_an_upgrade() -> None:
    http = engine(server=b"me")
    http._defaults.set_date(b"now")
    http.receive(UPGRADE)
    http.upgrade(0, UPGRADED)
    assert http.output() == SWITCHING + b"date: now\r\nserver: me\r\n\r\n"


@pytest.mark.parametrize(
    ("own", "default"),
    [((b"Date", b"then"), b"server: me\r\n"), ((b"Server", b"own"), b"date: now\r\n")],
    ids=["date", "server"],
)
def test_default_fields_of_an_upgrade_give_way(own: tuple[bytes, bytes], default: bytes) -> None:
    http = engine(server=b"me")
    http._defaults.set_date(b"now")
    http.receive(UPGRADE)
    http.upgrade(0, [*UPGRADED, own])
    assert http.output() == SWITCHING + own[0] + b": " + own[1] + b"\r\n" + default + b"\r\n"


def test_a_pipelined_upgrade_waits_for_its_turn() -> None:
    http = after(GET + UPGRADE + b"\x81")
    respond(http, b"a")
    assert http.ending is Ending.OPEN
    [event] = http.receive(b"")
    assert type(event) is Request
    assert event.upgrade == b"websocket"
    assert http.upgrade(0, UPGRADED) == b"\x81"


@pytest.mark.parametrize(
    ("behind", "ending"),
    [(b"", Ending.CLOSE), (b"\x81\x80\x00\x00\x00\x00", Ending.LINGER), (NEXT, Ending.LINGER)],
    ids=["nothing", "frames", "a request"],
)
@pytest.mark.parametrize("parts", [[b"no"], [b"n", b"o"]], ids=["whole", "in parts"])
@pytest.mark.parametrize("status", [200, 403])
def test_an_upgrade_that_is_answered_otherwise_is_the_last_request(status: int, parts: list[bytes], behind: bytes, ending: Ending) -> None:
    http = after(UPGRADE + behind)
    out = respond(http, *parts, status=status)
    assert out.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in out
    assert (http.ending, http.has_input, http.receive(NEXT)) == (ending, False, [])
    assert http.output() == b""


@pytest.mark.parametrize("behind", BEHIND)
def test_rfc9110_15_5_22_a_refusal_with_fields(behind: bytes) -> None:
    http = after(UPGRADE + behind)
    fields = [(b"sec-websocket-version", b"13"), (b"upgrade", b"websocket")]
    assert http.reject(0, 426, "why", fields) == Rejected(426, "why")
    assert http.output() == (
        b"HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\ncontent-length: 17\r\n"
        b"sec-websocket-version: 13\r\nupgrade: websocket\r\nconnection: close, upgrade\r\n\r\nUpgrade Required\n"
    )
    assert (http.ending, http.has_input) == (Ending.LINGER, False)
    assert http.receive(NEXT) == []


@pytest.mark.parametrize(
    ("status", "fields", "lines"),
    [(503, [], b"retry-after: 1\r\n"), (503, [(b"retry-after", b"9")], b"retry-after: 9\r\n"), (400, [], b"")],
)
def test_fields_of_a_refusal_take_the_place_of_the_usual(status: int, fields: Fields, lines: bytes) -> None:
    http = after(UPGRADE)
    http.reject(0, status, "why", fields)
    head = http.output().partition(b"\r\n\r\n")[0] + b"\r\n"
    assert head.partition(b"content-length: ")[2].partition(b"\r\n")[2] == lines + b"connection: close\r\n"


def test_the_client_leaves_before_the_verdict() -> None:
    http = after(UPGRADE)
    assert http.end_of_input() == []  # it may have shut its sending side only
    assert (http.ending, http.awaiting) == (Ending.OPEN, Awaiting.VERDICT)
    assert http.upgrade(0, UPGRADED) == b""


def test_drain_before_the_verdict() -> None:
    http = after(UPGRADE)
    http.drain()
    assert (http.ending, http.awaiting) == (Ending.OPEN, Awaiting.VERDICT)
    assert http.upgrade(0, UPGRADED) == b""
    assert http.ending is Ending.SWITCHED


def test_the_verdict_is_given_with_the_start_of_a_response() -> None:
    http = after(UPGRADE)
    http.start(0, 403, [])
    assert http.awaiting is Awaiting.APPLICATION


def test_l11_what_comes_behind_an_upgrade_is_bounded() -> None:
    http = after(UPGRADE, pipeline_buffer=8)
    assert http.wants_data
    http.receive(b"\x81" * 8)
    assert not http.wants_data
    assert http.upgrade(0, UPGRADED) == b"\x81" * 8


# ---------------------------------------------------------------------- endings


@pytest.mark.parametrize("fed", [b"", b"GET", GET, post(b"", length=5)])
def test_drain_lets_a_request_come_or_end(fed: bytes) -> None:
    http = after(fed)
    http.drain()
    assert http.ending is Ending.OPEN


def test_drain_closes_what_is_idle() -> None:
    http = after(GET)
    respond(http, b"a")
    http.drain()
    assert http.ending is Ending.LINGER


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"1"),)])
@pytest.mark.parametrize("drained", ["before", "between", "in the body"])
def test_drain_lets_the_running_response_be_the_last(headers: tuple[tuple[bytes, bytes], ...], drained: str) -> None:
    http = after(GET + NEXT)
    if drained == "before":
        http.drain()
    http.start(0, 200, headers)
    if drained == "between":
        http.drain()
    if drained == "in the body":
        http.write(0, b"", True)
        http.drain()
    http.write(0, b"a", False)
    assert (b"connection: close\r\n" in http.output()) is (drained != "in the body")
    assert http.ending is Ending.LINGER
    assert not http.has_input


def test_drain_in_the_middle_of_a_head_answers_that_request() -> None:
    http = after(GET[:9])
    http.drain()
    assert len(http.receive(GET[9:])) == 1
    assert b"connection: close\r\n" in respond(http, b"a")
    assert http.ending is Ending.LINGER


def test_drain_while_a_body_is_discarded() -> None:
    http = after(post(b"he", length=5))
    respond(http, b"a")
    http.drain()
    assert http.receive(b"llo") == []
    assert http.ending is Ending.LINGER


def test_drain_after_the_end_changes_nothing() -> None:
    http = after(GET)
    http.reset(0)
    http.drain()
    assert http.ending is Ending.RESET


@pytest.mark.parametrize("fed", [b"", b"GET / HT", b"\r\n"])
def test_rfc9112_8_end_of_input_without_a_request(fed: bytes) -> None:
    http = after(fed)
    assert http.end_of_input() == []
    assert http.ending is Ending.CLOSE
    assert http.output() == b""


@pytest.mark.parametrize("data", [GET, KEPT_10, post(b"hello")])
@pytest.mark.parametrize("headers", [(), ((b"content-length", b"1"),)])
def test_rfc9112_8_end_of_input_behind_a_whole_request(data: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    http = after(data)
    assert http.end_of_input() == []
    assert http.end_of_input() == []
    assert http.ending is Ending.OPEN
    assert http.awaiting is Awaiting.APPLICATION
    assert b"connection: close\r\n" in respond(http, b"a", headers=headers)
    assert http.ending is Ending.CLOSE


@pytest.mark.parametrize("data", [post(b"he", length=5), chunked(b""), chunked(b"0\r\n"), chunked(b"5\r\nhello\r\n")])
@pytest.mark.parametrize("started", [False, True])
def test_a12_end_of_input_in_the_middle_of_a_body(data: bytes, started: bool) -> None:
    http = after(data)
    if started:
        http.start(0, 200, [])
        http.write(0, b"a", True)
    assert [type(event) for event in http.end_of_input()] == [Aborted]
    ending = Ending.RESET if started else Ending.CLOSE  # a reset would destroy earlier answers that are on their way
    assert http.ending is ending
    http.output()
    assert http.end_of_input() == []
    http.reject(0, 500, "the application raised")
    assert (http.output(), http.ending) == (b"", ending)


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"1"),)])
def test_rfc9112_8_end_of_input_behind_a_pipeline(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    http = after(GET + post(b"hello") + NEXT)
    assert http.end_of_input() == []
    assert b"connection: close" not in respond(http, b"a", headers=headers)
    assert [type(event) for event in http.receive(b"")] == [Request, Body]
    assert b"connection: close" not in respond(http, b"a", headers=headers)
    assert [type(event) for event in http.receive(b"")] == [Request]
    assert b"connection: close" in respond(http, b"a", headers=headers)
    assert http.ending is Ending.CLOSE


@pytest.mark.parametrize(
    ("rest", "events", "ending"),
    [
        pytest.param(NEXT[:-1], [], Ending.CLOSE, id="part of a head"),
        pytest.param(b"\r\n", [], Ending.CLOSE, id="an empty line"),
        pytest.param(post(b"he", length=5), [Request, Body, Aborted], Ending.CLOSE, id="part of a body"),
        pytest.param(chunked(b""), [Request, Aborted], Ending.CLOSE, id="no body"),
        pytest.param(b"\x00", [Rejected], Ending.LINGER, id="garbage"),
    ],
)
def test_rfc9112_8_end_of_input_behind_a_pipeline_that_is_cut(rest: bytes, events: list[type], ending: Ending) -> None:
    http = after(GET + rest)
    assert http.end_of_input() == []
    respond(http, b"a")
    assert [type(event) for event in http.receive(b"")] == events
    assert http.ending is ending
    assert not http.has_input


def test_end_of_input_while_a_body_is_discarded() -> None:
    http = after(post(b"he", length=5))
    respond(http, b"a")
    assert http.end_of_input() == []
    assert http.ending is Ending.CLOSE


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda http: http.reset(0), id="reset"),
        pytest.param(lambda http: http.reject(0, 408, "slow"), id="reject"),
        pytest.param(lambda http: http.receive(b"\x00"), id="refusal"),
    ],
)
@pytest.mark.parametrize("fed", [b"", GET])
def test_the_end_is_the_end(fed: bytes, end: Callable[[Http1], object]) -> None:
    http = after(fed)
    end(http)
    if http.ending is Ending.OPEN:
        return  # the byte waits for its turn
    ending = http.ending
    http.output()
    assert http.receive(GET) == []
    assert http.end_of_input() == []
    assert http.receive(GET) == []
    http.reject(0, 408, "slow")
    http.drain()
    assert (http.output(), http.ending, http.has_input) == (b"", ending, False)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, b"Bad Request"), (408, b"Request Timeout"), (431, b"Request Header Fields Too Large"), (500, b"Internal Server Error")],
)
@pytest.mark.parametrize("fed", [b"", b"GET /", GET, post(b"", length=5)])
def test_reject(fed: bytes, status: int, reason: bytes) -> None:
    http = after(fed)
    assert http.reject(0, status, "why") == Rejected(status, "why")
    assert http.output() == b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b\n" % (
        status,
        reason,
        len(reason) + 1,
        reason,
    )
    assert http.ending is Ending.LINGER


def test_reject_in_place_of_a_head_that_is_held_back() -> None:
    http = after(GET)
    http.start(0, 200, [(b"x", b"y")])
    http.reject(0, 504, "slow")
    assert http.output().startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("trailers", [False, True])
def test_reject_cuts_a_response_that_has_begun(trailers: bool) -> None:
    http = after(GET)
    http.start(0, 200, [], trailers=trailers)
    http.write(0, b"a", not trailers)
    http.output()
    http.reject(0, 504, "slow")
    assert (http.output(), http.ending) == (b"", Ending.RESET)


def test_reject_of_a_body_that_is_discarded_says_nothing_more() -> None:
    http = after(post(b"he", length=5))
    respond(http, b"a")
    http.reject(0, 408, "slow")
    assert (http.output(), http.ending) == (b"", Ending.LINGER)


def test_reset() -> None:
    http = after(GET + NEXT)
    http.start(0, 200, [])
    http.write(0, b"a", True)
    http.output()
    http.reset(0)
    assert (http.ending, http.has_input, http.output()) == (Ending.RESET, False, b"")


# ---------------------------------------------------------------------- laws

BITS = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [
            GET,
            NEXT,
            HEAD,
            GET_10,
            KEPT_10,
            post(),
            post(b"he", length=5),
            chunked(b"2\r\nhe\r\n0\r\n\r\n"),
            chunked(b""),
            chunked(b"1\r\na\r\n0\r\nX: y\r\n\r\n"),
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n",
            b"Host: a\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"X: y\r\n",
            b"0\r\n\r\n",
            b"5;a\r\nhello\r\n",
            b" ",
            b":",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
            b"FOO / HTTP/1.1\r\n",
            b"GET / HTTP/2.0\r\n",
            b"x" * 200,
        ]
    ),
)
STREAMS = st.lists(BITS, max_size=8).map(b"".join)
SMALL = {
    "request_line": 64,
    "field": 48,
    "header_bytes": 120,
    "header_count": 4,
    "trailer_bytes": 32,
    "chunk_line": 16,
    "chunk_extensions": 24,
    "discarded_body": 16,
    "pipeline_buffer": 64,
    "body_buffer": 16,
}


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(c, len(data)) for c in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def essence(outcome: Outcome) -> tuple[object, ...]:
    """What does not depend on how bytes came. Of several faults in one head, it may be another that is found first."""
    answered = outcome.output if outcome.status is None else outcome.output[: outcome.output.rfind(b"HTTP/1.1 ")]
    ends = Ending.LINGER if outcome.ending is Ending.CLOSE else outcome.ending  # whether bytes came behind the end is chance
    return outcome.heads, [got.aborted for got in outcome.got], outcome.status is None, answered, ends


@pytest.mark.parametrize("limits", [{}, SMALL], ids=["usual limits", "small limits"])
@pytest.mark.parametrize("answer", [None, say], ids=["unanswered", "answered"])
@given(STREAMS, st.lists(st.integers(0, 400), max_size=6))
def test_any_split_gives_the_same(
    limits: dict[str, int], answer: Callable[[Http1, Request], None] | None, data: bytes, cuts: list[int]
) -> None:
    whole, parts, single = (Driver(engine(**limits), answer).feed(*pieces) for pieces in ([data], cut(data, cuts), byte_by_byte(data)))
    assert essence(whole) == essence(parts) == essence(single)


@given(
    st.lists(
        st.one_of(BITS, st.sampled_from(["start", "body", "more", "trailers", "reject", "reset", "drain", "end", "continue", "hint"])),
        max_size=14,
    )
)
def test_no_input_raises_and_no_buffer_outgrows_its_limit(steps: list[bytes | str]) -> None:
    http = engine(**SMALL)
    commands: dict[str, Callable[[], object]] = {
        "start": lambda: http.start(0, 200, [], trailers=False),
        "body": lambda: http.write(0, b"a", False),
        "more": lambda: http.write(0, b"a", True),
        "trailers": lambda: http.trailers(0, [], more=False),
        "reject": lambda: http.reject(0, 408, "slow"),
        "reset": lambda: http.reset(0),
        "drain": http.drain,
        "end": http.end_of_input,
        "continue": lambda: http.wants_continue(0),
        "hint": lambda: http.interim(0, 103, []),
    }
    for step in steps:
        if isinstance(step, str):
            try:
                commands[step]()
            except (InvalidMessage, UnexpectedMessage):
                continue
            continue
        for piece in byte_by_byte(step):  # a connection reads only while the engine wants data
            if not http.wants_data:
                break
            events = http.receive(piece)
            assert sum(type(event) is Request for event in events) <= 1
            for event in events:
                if type(event) is Body:
                    http.consumed(0, len(event.data))
        assert len(http._held) <= SMALL["pipeline_buffer"]
        assert http._partial is None or len(http._partial._data) <= SMALL["request_line"] + SMALL["header_bytes"] + 8
        assert http._chunks is None or len(http._chunks._held) <= 48


@given(st.integers(1, 300), st.integers(0, 3))
def test_what_is_read_of_an_answer_is_what_was_said(size: int, parts: int) -> None:
    http = after(GET)
    data = bytes(range(256)) * 2
    pieces = [data[:size], *[data[size : size + 5]] * parts, b""]
    out = respond(http, *pieces)
    body, out = b"", out.partition(b"\r\n\r\n")[2]
    while not out.startswith(b"0\r\n"):
        length, _, out = out.partition(b"\r\n")
        body, out = body + out[: int(length, 16)], out[int(length, 16) + 2 :]
    assert (body, out) == (b"".join(pieces), b"0\r\n\r\n")


# ---------------------------------------------------------------------- cost

MEGABYTE = 500_000 // SLOWER  # half of one: on a busy machine every step takes longer


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(post(b"x" * MEGABYTE), id="a body"),
        pytest.param(chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (MEGABYTE, b"x" * MEGABYTE)), id="one chunk"),
        pytest.param(chunked(b"1\r\nx\r\n" * (MEGABYTE // 6) + b"0\r\n\r\n"), id="chunks of one byte"),
        pytest.param(GET * (MEGABYTE // len(GET)), id="requests"),
    ],
)
def test_e8_a_megabyte_in_single_bytes_costs_less_than_five_seconds(data: bytes) -> None:
    """`process_time` is this process's own CPU: other work on the machine does not count."""
    before = time.process_time()
    outcome = Driver(engine(), lambda http, _: (http.start(0, 200, []), http.write(0, b"", False))[1]).feed(*byte_by_byte(data))
    assert time.process_time() - before < 5
    assert outcome.status is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(b"X: " + b"x" * 8_000 + b"\x10\r\n"), id="a long value and a control byte"),
        pytest.param(request(b"x" * 8_000 + b"\x10: y\r\n"), id="a long name and a control byte"),
        pytest.param(request(b"Content-Length: " + b"1" * 8_000 + b"\r\n"), id="a long length"),
        pytest.param(request(b"Transfer-Encoding: " + b"," * 8_000 + b"\r\n"), id="a list of nothing"),
        pytest.param(request(b"Connection: " + b", \t" * 2_500 + b"\r\n"), id="a list of blanks"),
        pytest.param(request(host=b"Host: " + b"a:" * 4_000 + b"\r\n"), id="a host of ports"),
        pytest.param(request(host=b"Host: " + b"%41" * 2_600 + b"@\r\n"), id="a host of escapes"),
        pytest.param(chunked(b"1" + b";a" * 500 + b"\x00\r\n"), id="extensions and a control byte"),
        pytest.param(chunked(b"0\r\n" + b"X: " + b" " * 16_000 + b"\x00\r\n\r\n"), id="a trailer of blanks"),
    ],
)
def test_e8_no_input_is_looked_at_twice(data: bytes) -> None:
    before = time.process_time()
    for _ in range(20):
        Driver(engine()).feed(data)
    assert time.process_time() - before < 1 * SLOWER


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(chunked(b"0\r\nX: " + b"x" * 16_000), id="a trailer section"),
        pytest.param(chunked(b"1;" + b"x" * 1_000), id="a chunk extension"),
        pytest.param(GET + b"x" * 65_000, id="what comes behind a request"),
        pytest.param(b"\r\nGET /" + b"x" * 8_000, id="a target"),
    ],
)
def test_e8_what_is_held_costs_little_in_single_bytes(data: bytes) -> None:
    before = time.process_time()
    Driver(engine()).feed(*byte_by_byte(data))
    assert time.process_time() - before < 2 * SLOWER


# ---------------------------------------------------------------------- what is no HTTP


def test_tls_handshake_is_named_in_the_log() -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(33))
    [rejected] = engine().receive(hello)
    assert isinstance(rejected, Rejected)
    assert (rejected.status, rejected.reason) == (400, "a TLS handshake on a port that speaks plain HTTP")


# ---------------------------------------------------------------------- RFC 9113 §3.3: prior knowledge of HTTP/2


def knowing() -> Http1:
    """Make an engine whose owner speaks HTTP/2."""
    limits = Limits()
    return Http1(HeadParser(limits), limits, DefaultFields(b""), speaks_http2=True)


@pytest.mark.parametrize("rest", [b"", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"])
def test_rfc9113_3_3_the_preface_ends_http1(rest: bytes) -> None:
    http = knowing()
    assert http.receive(PREFACE + rest) == [Preface(PREFACE + rest)]
    assert http.ending is Ending.SWITCHED
    assert http.output() == b""


def test_rfc9113_3_3_the_preface_may_come_byte_by_byte() -> None:
    http = knowing()
    assert http.awaiting is Awaiting.REQUEST
    for byte in PREFACE[:-1]:
        assert http.receive(bytes([byte])) == []
        assert http.awaiting is Awaiting.HEAD
    assert http.receive(PREFACE[-1:]) == [Preface(PREFACE)]


@pytest.mark.parametrize("head", [GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_rfc9113_3_3_anything_else_is_http1(head: bytes) -> None:
    whole, pieces = knowing(), knowing()
    [request] = whole.receive(head)
    assert [event for byte in byte_by_byte(head) for event in pieces.receive(byte)] == [request]


def test_rfc9113_3_3_only_the_first_bytes_are_a_preface() -> None:
    http = knowing()
    http.receive(GET)
    http.start(0, 200, [])
    http.write(0, b"", False)
    [rejected] = http.receive(PREFACE)
    assert isinstance(rejected, Rejected)
    assert http.ending is Ending.LINGER


def test_a_client_that_leaves_within_the_preface_is_gone() -> None:
    http = knowing()
    http.receive(PREFACE[:5])
    assert http.end_of_input() == []
    assert http.ending is Ending.CLOSE
