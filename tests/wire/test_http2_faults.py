"""What breaks an HTTP/2 connection, what breaks a stream, what breaks nothing (RFC 9113 §5.1, §5.4, §6); spec attacks B11, B12."""

import pytest

from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Fault
from wire.h2driving import (
    ACK,
    ANSWERED_EARLY,
    CLOSED,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HALF_CLOSED,
    IDLE,
    LARGEST,
    LAST,
    NO_ERROR,
    OPEN,
    PASSED_OVER,
    PROTOCOL_ERROR,
    RESET_BY_CLIENT,
    RESET_BY_US,
    SOME,
    STREAM_CLOSED,
    Client,
    Sent,
    block,
    breaks,
    breaks_stream,
    busy,
    continuation,
    data,
    every_way,
    feed,
    fields,
    frame,
    get,
    headers,
    length,
    ping,
    post,
    priority,
    priority_update,
    reset,
    settings,
    window,
)

# ---------------------------------------------------------------------- 5.1, 6: what breaks a connection


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        pytest.param(0, PROTOCOL_ERROR, id="0"),
        pytest.param(IDLE, PROTOCOL_ERROR, id="idle"),
        pytest.param(101, PROTOCOL_ERROR, id="idle, far away"),
        pytest.param(LARGEST, PROTOCOL_ERROR, id="the last idle one"),
        pytest.param(2, PROTOCOL_ERROR, id="even"),
        pytest.param(102, PROTOCOL_ERROR, id="even and idle"),
        pytest.param(PASSED_OVER, PROTOCOL_ERROR, id="passed over"),
        pytest.param(CLOSED, STREAM_CLOSED, id="closed"),
        pytest.param(RESET_BY_CLIENT, STREAM_CLOSED, id="reset by the client"),
    ],
)
@pytest.mark.parametrize("payload", [b"", b"abc"])
def test_rfc9113_6_1_data_on_a_stream_that_takes_none(stream: int, code: int, payload: bytes) -> None:
    breaks(busy, data(stream, payload), code)
    breaks(busy, data(stream, payload, ended=True), code)


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        pytest.param(0, PROTOCOL_ERROR, id="0"),
        pytest.param(2, PROTOCOL_ERROR, id="even"),
        pytest.param(102, PROTOCOL_ERROR, id="even and idle"),
        pytest.param(PASSED_OVER, PROTOCOL_ERROR, id="passed over"),
        pytest.param(CLOSED, STREAM_CLOSED, id="closed"),
        pytest.param(RESET_BY_CLIENT, STREAM_CLOSED, id="reset by the client"),
    ],
)
def test_rfc9113_5_1_1_headers_on_a_stream_that_takes_none(stream: int, code: int) -> None:
    breaks(busy, get(stream), code)
    breaks(busy, post(stream), code)


@pytest.mark.parametrize("first", [3, 5, 7, 99])
def test_rfc9113_5_1_1_streams_below_the_first_one(first: int) -> None:
    for stream in {1, first - 2}:
        breaks(Client, get(first) + get(stream), PROTOCOL_ERROR, first)
        breaks(Client, get(first) + data(stream), PROTOCOL_ERROR, first)


@every_way
def test_rfc9113_5_1_1_numbers_that_grow(way: str) -> None:
    client = Client(way)
    client.send(*[get(stream) for stream in (3, 5, 99, 101, LARGEST)])
    assert client.requests == [3, 5, 99, 101, LARGEST]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        # 6.1, 6.2: padding
        pytest.param(frame(f.DATA, f.PADDED, OPEN), FRAME_SIZE_ERROR, id="DATA: no length of the padding"),
        pytest.param(frame(f.DATA, f.PADDED, OPEN, b"\1"), PROTOCOL_ERROR, id="DATA: padding as long as the payload"),
        pytest.param(frame(f.DATA, f.PADDED, OPEN, b"\4abc"), PROTOCOL_ERROR, id="DATA: padding over the text"),
        pytest.param(frame(f.DATA, f.PADDED, OPEN, b"\xffabc"), PROTOCOL_ERROR, id="DATA: more padding than payload"),
        pytest.param(headers(IDLE, b"", flags=f.PADDED), FRAME_SIZE_ERROR, id="HEADERS: no length of the padding"),
        pytest.param(headers(IDLE, b"\x05" + SOME[:4], flags=f.PADDED), PROTOCOL_ERROR, id="HEADERS: more padding than payload"),
        pytest.param(headers(IDLE, bytes(4), flags=f.WITH_PRIORITY), FRAME_SIZE_ERROR, id="HEADERS: too short for a priority"),
        pytest.param(headers(IDLE, b"\2" + bytes(6), flags=f.WITH_PRIORITY | f.PADDED), FRAME_SIZE_ERROR, id="HEADERS: that with padding"),
        pytest.param(
            headers(IDLE, IDLE.to_bytes(4, "big") + b"\0" + SOME, flags=f.WITH_PRIORITY), PROTOCOL_ERROR, id="HEADERS: depends on itself"
        ),
        pytest.param(
            headers(IDLE, (IDLE | 1 << 31).to_bytes(4, "big") + b"\0" + SOME, flags=f.WITH_PRIORITY),
            PROTOCOL_ERROR,
            id="HEADERS: depends on itself alone",
        ),
        # 6.3
        pytest.param(priority(0), PROTOCOL_ERROR, id="PRIORITY of 0"),
        pytest.param(priority(OPEN, size=4), FRAME_SIZE_ERROR, id="PRIORITY of 4 bytes"),
        pytest.param(priority(OPEN, size=6), FRAME_SIZE_ERROR, id="PRIORITY of 6 bytes"),
        pytest.param(priority(HALF_CLOSED, size=0), FRAME_SIZE_ERROR, id="PRIORITY of nothing"),
        pytest.param(priority(HALF_CLOSED, HALF_CLOSED), PROTOCOL_ERROR, id="PRIORITY: depends on itself"),
        pytest.param(priority(IDLE, IDLE), PROTOCOL_ERROR, id="PRIORITY: idle, depends on itself"),
        # 6.4
        pytest.param(reset(0), PROTOCOL_ERROR, id="RST_STREAM of 0"),
        pytest.param(reset(IDLE), PROTOCOL_ERROR, id="RST_STREAM of an idle stream"),
        pytest.param(reset(2), PROTOCOL_ERROR, id="RST_STREAM of an even stream"),
        pytest.param(frame(f.RST_STREAM, 0, OPEN, bytes(3)), FRAME_SIZE_ERROR, id="RST_STREAM of 3 bytes"),
        pytest.param(frame(f.RST_STREAM, 0, OPEN, bytes(5)), FRAME_SIZE_ERROR, id="RST_STREAM of 5 bytes"),
        # 6.5
        pytest.param(frame(f.SETTINGS, 0, OPEN), PROTOCOL_ERROR, id="SETTINGS of a stream"),
        pytest.param(frame(f.SETTINGS, f.ACK, OPEN), PROTOCOL_ERROR, id="SETTINGS acknowledged on a stream"),
        pytest.param(frame(f.SETTINGS, 0, 0, bytes(1)), FRAME_SIZE_ERROR, id="SETTINGS of 1 byte"),
        pytest.param(frame(f.SETTINGS, 0, 0, bytes(7)), FRAME_SIZE_ERROR, id="SETTINGS of 7 bytes"),
        pytest.param(frame(f.SETTINGS, f.ACK, 0, bytes(6)), FRAME_SIZE_ERROR, id="SETTINGS acknowledged with an entry"),
        pytest.param(settings((2, 2)), PROTOCOL_ERROR, id="ENABLE_PUSH 2"),
        pytest.param(settings((4, 1 << 31)), FLOW_CONTROL_ERROR, id="INITIAL_WINDOW_SIZE 2^31"),
        pytest.param(settings((4, 0xFFFFFFFF)), FLOW_CONTROL_ERROR, id="INITIAL_WINDOW_SIZE 2^32-1"),
        pytest.param(settings((5, 16_383)), PROTOCOL_ERROR, id="MAX_FRAME_SIZE 16383"),
        pytest.param(settings((5, 1 << 24)), PROTOCOL_ERROR, id="MAX_FRAME_SIZE 2^24"),
        pytest.param(settings((5, 0)), PROTOCOL_ERROR, id="MAX_FRAME_SIZE 0"),
        pytest.param(settings((8, 2)), PROTOCOL_ERROR, id="ENABLE_CONNECT_PROTOCOL 2"),
        pytest.param(settings((9, 2)), PROTOCOL_ERROR, id="NO_RFC7540_PRIORITIES 2"),
        pytest.param(settings((1, 0), (0xAAAA, 7), (2, 0xFFFFFFFF)), PROTOCOL_ERROR, id="the last of three"),
        # 6.6
        pytest.param(frame(f.PUSH_PROMISE, f.END_HEADERS, OPEN, b"\0\0\0\2" + SOME), PROTOCOL_ERROR, id="PUSH_PROMISE"),
        pytest.param(frame(f.PUSH_PROMISE, 0, 0), PROTOCOL_ERROR, id="PUSH_PROMISE of 0"),
        # 6.7
        pytest.param(frame(f.PING, 0, OPEN, bytes(8)), PROTOCOL_ERROR, id="PING of a stream"),
        pytest.param(frame(f.PING, f.ACK, IDLE, bytes(8)), PROTOCOL_ERROR, id="PING answered on a stream"),
        pytest.param(ping(bytes(7)), FRAME_SIZE_ERROR, id="PING of 7 bytes"),
        pytest.param(ping(bytes(9)), FRAME_SIZE_ERROR, id="PING of 9 bytes"),
        pytest.param(ping(b"", ack=True), FRAME_SIZE_ERROR, id="PING answered with nothing"),
        # 6.8
        pytest.param(frame(f.GOAWAY, 0, OPEN, bytes(8)), PROTOCOL_ERROR, id="GOAWAY of a stream"),
        pytest.param(frame(f.GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR, id="GOAWAY of 7 bytes"),
        # 6.9
        pytest.param(frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR, id="WINDOW_UPDATE of 3 bytes"),
        pytest.param(frame(f.WINDOW_UPDATE, 0, OPEN, b"\0\0\0\1\0"), FRAME_SIZE_ERROR, id="WINDOW_UPDATE of 5 bytes"),
        pytest.param(window(0, 0), PROTOCOL_ERROR, id="WINDOW_UPDATE +0"),
        pytest.param(window(0, 1 << 31), PROTOCOL_ERROR, id="WINDOW_UPDATE +0 and the reserved bit"),
        pytest.param(window(OPEN, 0), PROTOCOL_ERROR, id="WINDOW_UPDATE +0 of a stream"),
        pytest.param(window(IDLE, 1), PROTOCOL_ERROR, id="WINDOW_UPDATE of an idle stream"),
        pytest.param(window(2, 1), PROTOCOL_ERROR, id="WINDOW_UPDATE of an even stream"),
        pytest.param(window(0, LARGEST), FLOW_CONTROL_ERROR, id="WINDOW_UPDATE that overflows"),
        # RFC 9218, 7.1
        pytest.param(frame(f.PRIORITY_UPDATE, 0, OPEN, b"\0\0\0\1u=1"), PROTOCOL_ERROR, id="PRIORITY_UPDATE on a stream"),
        pytest.param(frame(f.PRIORITY_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR, id="PRIORITY_UPDATE of 3 bytes"),
        pytest.param(priority_update(0, b"u=1"), PROTOCOL_ERROR, id="PRIORITY_UPDATE of 0"),
        pytest.param(priority_update(2, b"u=1"), PROTOCOL_ERROR, id="PRIORITY_UPDATE of an even stream"),
    ],
)
def test_rfc9113_6_what_ends_the_connection(data: bytes, code: int) -> None:
    reason = breaks(busy, data, code)
    assert reason.isascii()


def test_rfc9113_5_4_1_the_applications_hear_that_the_connection_has_failed() -> None:
    client = feed(busy, data(OPEN, b"x"), window(0, 0))
    reason = "WINDOW_UPDATE of nothing"
    assert client.events == [
        Body(OPEN, b"x", ended=False),
        *[Aborted(stream, reason) for stream in (OPEN, HALF_CLOSED, LAST)],
        Fault(0, PROTOCOL_ERROR, reason),
    ]
    client.engine.start(OPEN, 200, [])
    client.engine.write(OPEN, b"", False)
    assert client.take() == []
    assert client.engine.end_of_input() == client.engine.close(NO_ERROR, "") == []
    client.engine.drain()
    client.engine.finish_drain()
    assert client.take() == []


def test_rfc9113_5_4_1_what_was_said_before_still_leaves() -> None:
    client = busy()
    client.respond(HALF_CLOSED, b"answer")
    client.send(ping(bytes(3)))
    assert client.answer(HALF_CLOSED).body == b"answer"
    assert client.sent[-1].kind == f.GOAWAY


# ---------------------------------------------------------------------- 5.1, 6: what breaks nothing


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(priority(IDLE), id="PRIORITY of an idle stream"),
        pytest.param(priority(OPEN, HALF_CLOSED) + priority(CLOSED, 3) + priority(2) + priority(RESET_BY_US), id="PRIORITY of any stream"),
        pytest.param(reset(CLOSED), id="RST_STREAM of a closed stream"),
        pytest.param(reset(RESET_BY_CLIENT), id="RST_STREAM twice"),
        pytest.param(reset(RESET_BY_US) + reset(ANSWERED_EARLY), id="RST_STREAM that crosses ours"),
        pytest.param(window(CLOSED, 1) + window(RESET_BY_CLIENT, LARGEST), id="WINDOW_UPDATE of a closed stream"),
        pytest.param(window(RESET_BY_US, 1) + window(ANSWERED_EARLY, LARGEST), id="WINDOW_UPDATE of a stream that we reset"),
        pytest.param(window(0, LARGEST - 65_535 + 2), id="WINDOW_UPDATE to the largest window"),
        pytest.param(window(OPEN, LARGEST - 65_535), id="WINDOW_UPDATE to a stream's largest window"),
        pytest.param(data(RESET_BY_US, b"x", ended=True) + data(ANSWERED_EARLY, b"xyz", padding=3), id="DATA on a stream that we reset"),
        pytest.param(headers(RESET_BY_US, [(b"a", b"b")]), id="trailers of a stream that we reset"),
        pytest.param(ping(ack=True), id="PING that nobody asked for"),
        pytest.param(data(OPEN), id="an empty DATA frame"),
        pytest.param(data(OPEN, padding=7), id="nothing but padding"),
        pytest.param(priority_update(OPEN, b"u=0") + priority_update(IDLE, b"") + priority_update(CLOSED, b"u=9, i"), id="PRIORITY_UPDATE"),
    ],
)
def test_rfc9113_5_1_what_may_come_at_any_time(data: bytes) -> None:
    client = feed(busy, data)
    assert (client.events, [each for each in client.sent if each.kind != f.WINDOW_UPDATE]) == ([], [])
    assert set(client.engine.streams) == {OPEN, HALF_CLOSED, LAST}
    assert client.works


@every_way
@pytest.mark.parametrize(
    "values",
    [
        [],
        [(1, 0)],
        [(1, 0xFFFFFFFF)],
        [(2, 0)],
        [(2, 1)],
        [(3, 0)],
        [(4, 0)],
        [(4, LARGEST)],
        [(5, 16_384)],
        [(5, (1 << 24) - 1)],
        [(6, 0)],
        [(8, 0), (8, 1)],
        [(9, 0), (9, 1)],
        [(0, 1), (7, 2), (0xFFFF, 0xFFFFFFFF)],
        [(1, 0), (1, 1), (1, 2), (4, 9), (4, 65_535)],
    ],
    ids=str,
)
def test_rfc9113_6_5_settings_are_acknowledged(way: str, values: list[tuple[int, int]]) -> None:
    client = busy(way)
    client.send(settings(*values))
    assert (client.events, client.take()) == ([], [ACK])
    client.send(settings((4, 65_535)))
    assert client.works


@every_way
def test_rfc9113_6_7_ping_is_answered(way: str) -> None:
    client = busy(way)
    client.send(ping(b"abcdefgh"), ping(bytes(8)))
    assert client.take() == [Sent(f.PING, f.ACK, 0, b"abcdefgh"), Sent(f.PING, f.ACK, 0, bytes(8))]


@every_way
@pytest.mark.parametrize("padding", [None, 0, 1, 30, 255])
@pytest.mark.parametrize("prioritized", [False, True])
def test_rfc9113_6_2_padding_and_priority_of_headers(way: str, padding: int | None, prioritized: bool) -> None:
    client = Client(way)
    payload, flags = SOME, 0
    if prioritized:
        payload, flags = b"\x80\0\0\0\xff" + payload, f.WITH_PRIORITY
    if padding is not None:
        payload, flags = bytes((padding,)) + payload + bytes(padding), flags | f.PADDED
    client.send(headers(1, payload, ended=False, flags=flags))
    assert client.requests == [1]


@every_way
@pytest.mark.parametrize(("payload", "padding"), [(b"", 0), (b"", 255), (b"abc", 0), (b"abc", 1), (b"abc", 255), (b"x" * 16_128, 255)])
def test_rfc9113_6_1_padding_of_data(way: str, payload: bytes, padding: int) -> None:
    client = Client(way)
    client.send(post(1), data(1, payload, padding=padding), data(1, payload, padding=padding, ended=True))
    assert client.body(1) == payload * 2
    assert client.has_ended(1)


# ---------------------------------------------------------------------- 5.4.2: what breaks a stream


@pytest.mark.parametrize(
    ("data", "stream", "code"),
    [
        pytest.param(data(HALF_CLOSED, b"x"), HALF_CLOSED, STREAM_CLOSED, id="DATA after the end"),
        pytest.param(data(HALF_CLOSED, ended=True), HALF_CLOSED, STREAM_CLOSED, id="the end twice"),
        pytest.param(headers(HALF_CLOSED, [(b"a", b"b")]), HALF_CLOSED, STREAM_CLOSED, id="trailers after the end"),
        pytest.param(get(HALF_CLOSED), HALF_CLOSED, STREAM_CLOSED, id="a request after the end"),
        pytest.param(window(OPEN, LARGEST), OPEN, FLOW_CONTROL_ERROR, id="a window that overflows"),
        pytest.param(window(HALF_CLOSED, LARGEST - 65_534), HALF_CLOSED, FLOW_CONTROL_ERROR, id="by one"),
        pytest.param(headers(OPEN, [(b"a", b"b")], ended=False), OPEN, PROTOCOL_ERROR, id="trailers that end nothing"),
        pytest.param(get(OPEN), OPEN, PROTOCOL_ERROR, id="a second request"),
        pytest.param(headers(OPEN, [(b":a", b"b")]), OPEN, PROTOCOL_ERROR, id="a pseudo-header field in the trailers"),
        pytest.param(headers(OPEN, [(b"A", b"b")]), OPEN, PROTOCOL_ERROR, id="an upper case trailer"),
        pytest.param(headers(OPEN, [(b"content-length", b"0")]), OPEN, PROTOCOL_ERROR, id="a forbidden trailer"),
        pytest.param(headers(OPEN, [(b"a", b"\n")]), OPEN, PROTOCOL_ERROR, id="a trailer with a line end"),
        pytest.param(
            b"".join(data(OPEN, bytes(16_384)) for _ in range(4)) + data(OPEN, b"x"), OPEN, FLOW_CONTROL_ERROR, id="over the window"
        ),
        pytest.param(
            b"".join(data(OPEN, bytes(16_384)) for _ in range(4)) + data(OPEN, padding=0), OPEN, FLOW_CONTROL_ERROR, id="padding counts"
        ),
    ],
)
def test_rfc9113_5_4_2_what_ends_a_stream(data: bytes, stream: int, code: int) -> None:
    assert breaks_stream(busy, data, stream, code).isascii()


BAD_HEADS = [
    pytest.param(fields()[1:], id="no :method"),
    pytest.param([*fields()[:1], *fields()[2:]], id="no :scheme"),
    pytest.param(fields()[:3], id="no :path"),
    pytest.param(fields(b"GET", b""), id="an empty :path"),
    pytest.param([*fields(), (b":path", b"/")], id="a second :path"),
    pytest.param([*fields(), (b":status", b"200")], id="an unknown pseudo-header field"),
    pytest.param([(b"a", b"b"), *fields()], id="a pseudo-header field behind a regular one"),
    pytest.param(fields(b"GET", b"/", (b"Upper", b"a")), id="upper case"),
    pytest.param(fields(b"GET", b"/", (b"", b"a")), id="an empty name"),
    pytest.param(fields(b"GET", b"/", (b"a", b"b\r\nc")), id="CRLF"),
    pytest.param(fields(b"GET", b"/", (b"a", b"\0")), id="NUL"),
    pytest.param(fields(b"GET", b"/", (b"a", b" b")), id="a leading blank"),
    pytest.param(fields(b"GET", b"/", (b"a", b"b\t")), id="a trailing blank"),
    pytest.param(fields(b"GET", b"/", (b"connection", b"close")), id="connection"),
    pytest.param(fields(b"GET", b"/", (b"keep-alive", b"5")), id="keep-alive"),
    pytest.param(fields(b"GET", b"/", (b"proxy-connection", b"close")), id="proxy-connection"),
    pytest.param(fields(b"GET", b"/", (b"transfer-encoding", b"chunked")), id="transfer-encoding"),
    pytest.param(fields(b"GET", b"/", (b"upgrade", b"websocket")), id="upgrade"),
    pytest.param(fields(b"GET", b"/", (b"te", b"gzip")), id="te: gzip"),
    pytest.param(fields(b"GET", b"/", (b"content-length", b"+1")), id="content-length: +1"),
    pytest.param(fields(b"GET", b"/", length(0), length(0)), id="two content-lengths"),
    pytest.param(fields(b"GET", b"/", (b"host", b"b")), id="another host"),
]


@pytest.mark.parametrize("what", BAD_HEADS)
@pytest.mark.parametrize("ended", [False, True])
def test_b11_b12_rfc9113_8_1_1_malformed_requests(what: list[tuple[bytes, bytes]], ended: bool) -> None:
    client = feed(Client, headers(1, what, ended=ended))
    assert client.requests == []
    breaks_stream(Client, headers(1, what, ended=ended), 1, PROTOCOL_ERROR)
    cut = block(what)
    breaks_stream(Client, headers(1, cut[:2], ended=ended, whole=False) + continuation(1, cut[2:]), 1, PROTOCOL_ERROR)
