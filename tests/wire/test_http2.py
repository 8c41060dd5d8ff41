"""The HTTP/2 engine: frames in, events and frames out. RFC 9113, RFC 8441, RFC 9218; spec attacks B10 to B13 and D10.

Every test with `way` is run with the bytes whole, one by one and in sevens: what comes of them has to be the same. What a hostile client
may not do is in `test_http2_attacks.py`.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import settings as laws
from hypothesis import strategies as st

from termserver.errors import InvalidMessage, UnexpectedMessage
from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Event, Fault, Rejected, Request, Trailers
from wire.h2driving import (
    CONNECT,
    HELLO,
    LARGEST,
    WAYS,
    Client,
    Sent,
    block,
    continuation,
    data,
    fields,
    frame,
    get,
    headers,
    make,
    ping,
    post,
    priority,
    priority_update,
    read_frames,
    reset,
    settings,
    window,
)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = (
    ErrorCodes.NO_ERROR,
    ErrorCodes.PROTOCOL_ERROR,
    ErrorCodes.INTERNAL_ERROR,
    ErrorCodes.FLOW_CONTROL_ERROR,
    ErrorCodes.STREAM_CLOSED,
    ErrorCodes.FRAME_SIZE_ERROR,
)
REFUSED_STREAM, COMPRESSION_ERROR, CANCEL = ErrorCodes.REFUSED_STREAM, ErrorCodes.COMPRESSION_ERROR, ErrorCodes.CANCEL
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_FRAME_SIZE
TE = (b"te", b"trailers")
EXPECT = (b"expect", b"100-continue")
DRAIN_PING = Sent(f.PING, 0, 0, b"draining")
ACK = Sent(f.SETTINGS, f.ACK, 0)

every_way = pytest.mark.parametrize("way", WAYS)


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


# Streams of a connection on which everything has happened.
OPEN, HALF_CLOSED, CLOSED, RESET_BY_CLIENT, RESET_BY_US, PASSED_OVER, ANSWERED_EARLY, LAST, IDLE = 1, 3, 5, 7, 9, 11, 13, 15, 17


def busy(way: str = "whole", **limits: int) -> Client:
    """Make a connection with a stream in every state (RFC 9113 §5.1)."""
    client = Client(way, **limits)
    client.send(post(OPEN), get(HALF_CLOSED), get(CLOSED), post(RESET_BY_CLIENT), reset(RESET_BY_CLIENT), post(RESET_BY_US))
    client.respond(CLOSED)
    client.engine.reset(RESET_BY_US)
    client.send(post(ANSWERED_EARLY), post(LAST))
    client.respond(ANSWERED_EARLY)
    client.take()
    assert client.resets == [(RESET_BY_US, INTERNAL_ERROR), (ANSWERED_EARLY, NO_ERROR)]
    assert set(client.engine.streams) == {OPEN, HALF_CLOSED, LAST}
    client.events.clear()
    client.sent.clear()
    return client


def feed(scene: Callable[[str], Client], *pieces: bytes) -> Client:
    """Feed bytes in every way they may come; give the client of one, the others had to be the same."""
    client = scene(WAYS[0])
    client.send(*pieces)
    client.take()
    for way in WAYS[1:]:
        other = scene(way)
        other.send(*pieces)
        other.take()
        assert (other.events, other.sent, other.engine.ending) == (client.events, client.sent, client.engine.ending), way
    return client


def breaks(scene: Callable[[str], Client], data: bytes, code: int, last: int = LAST) -> str:
    """See that bytes end the connection, that nothing is read behind them; give the reason."""
    client = feed(scene, data)
    assert client.goaways == [(last, code)]
    assert client.engine.ending is Ending.LINGER
    fault = client.events[-1]
    assert isinstance(fault, Fault)
    assert (fault.stream, fault.code) == (0, code)
    assert client.sent[-1].payload[8:].decode() == fault.reason
    assert client.engine.streams == {}
    behind = feed(scene, data, ping(), get(101))
    assert (behind.sent, behind.events) == (client.sent, client.events)
    assert behind.send(get(103)) == behind.take() == []
    return fault.reason


# ---------------------------------------------------------------------- 3.4: the preface


@every_way
def test_rfc9113_3_4_settings_are_the_first_thing_each_side_says(way: str) -> None:
    client = Client(way, greet=False)
    greeting = client.take()
    assert [each.kind for each in greeting] == [f.SETTINGS, f.WINDOW_UPDATE]
    assert (greeting[0].flags, greeting[0].stream) == (0, 0)
    assert dict(f.read_settings(greeting[0].payload)) == {
        INITIAL_WINDOW_SIZE: 65_536,
        SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        f.NO_RFC7540_PRIORITIES: 1,
        SettingCodes.MAX_CONCURRENT_STREAMS: 100,
        SettingCodes.MAX_HEADER_LIST_SIZE: 32_768,
    }
    assert greeting[1] == Sent(f.WINDOW_UPDATE, 0, 0, (1_048_576 - 65_535).to_bytes(4, "big"))
    assert not client.engine.greeted
    client.send(f.PREFACE)
    assert not client.engine.greeted
    client.send(settings())
    assert (client.engine.greeted, client.engine.settled) == (True, False)
    assert client.take() == [ACK]
    client.send(f.SETTINGS_ACK)
    assert (client.engine.settled, client.take(), client.events) == (True, [], [])
    client.send(f.SETTINGS_ACK)  # one more says nothing new
    assert client.works


@pytest.mark.parametrize(
    ("limits", "expected", "opened"),
    [
        (
            {"http2_streams": 0, "header_bytes": 0},
            {SettingCodes.MAX_CONCURRENT_STREAMS: None, SettingCodes.MAX_HEADER_LIST_SIZE: None},
            983_041,
        ),
        ({"body_buffer": 0}, {INITIAL_WINDOW_SIZE: LARGEST}, 983_041),
        ({"body_buffer": 1}, {INITIAL_WINDOW_SIZE: 1}, 983_041),
        ({"http2_window": 0}, {}, LARGEST - 65_535),
        ({"http2_window": 65_536}, {}, 1),
        ({"http2_window": 65_535}, {}, 0),
        ({"http2_window": 1}, {}, 0),
    ],
)
def test_rfc9113_6_5_2_limits_become_settings(limits: dict[str, int], expected: dict[int, int | None], opened: int) -> None:
    client = Client(greet=False, **limits)
    values = dict(f.read_settings(client.take()[0].payload))
    assert {name: values.get(name) for name in expected} == expected
    assert client.opened(0) == opened


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", id="HTTP/1"),
        pytest.param(f.PREFACE[:-1] + b"\r" + settings(), id="another last byte"),
        pytest.param(b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n" + settings(), id="another version"),
        pytest.param(settings() + bytes(16), id="no preface"),
        pytest.param(b"\r\n" + f.PREFACE, id="an empty line before it"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(30), id="TLS"),
        pytest.param(f.PREFACE + f.SETTINGS_ACK, id="an acknowledgement first"),
        pytest.param(f.PREFACE + ping(), id="PING first"),
        pytest.param(f.PREFACE + get(1), id="a request first"),
        pytest.param(f.PREFACE + window(0, 1), id="WINDOW_UPDATE first"),
        pytest.param(f.PREFACE + frame(0xFA, 0, 0), id="something unknown first"),
    ],
)
def test_rfc9113_3_4_anything_else_is_no_http2(data: bytes) -> None:
    client = feed(lambda way: Client(way, greet=False), data)
    assert client.goaways == [(0, PROTOCOL_ERROR)]
    assert client.engine.ending is Ending.LINGER
    assert [type(event) for event in client.events] == [Fault]
    assert not client.engine.greeted


@pytest.mark.parametrize("data", [b"G", b"PRX"])
def test_rfc9113_3_4_what_begins_like_no_preface_is_not_waited_for(data: bytes) -> None:
    client = Client(greet=False)
    client.send(data)
    assert client.goaways == [(0, PROTOCOL_ERROR)]


def test_rfc9113_3_4_preface_settings_and_request_in_one() -> None:
    client = feed(lambda way: Client(way, greet=False), HELLO, get(1))
    assert [type(event) for event in client.events] == [Request]
    assert client.sent[-1] == ACK


@every_way
def test_every_end_of_the_beginning_is_said(way: str) -> None:
    client = Client(way, greet=False)
    for i in range(len(f.PREFACE)):
        assert not client.engine.in_head or i
        client.send(f.PREFACE[i : i + 1])
    assert not client.engine.in_head


# ---------------------------------------------------------------------- 4.1, 4.2: frames


ALL_KINDS = [*range(10), f.PRIORITY_UPDATE, 0x0A, 0xFF]


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("stream", [0, OPEN, IDLE])
@pytest.mark.parametrize("size", [16_385, 1 << 20, 0xFFFFFF])
def test_rfc9113_4_2_a_frame_that_is_too_large_is_known_at_byte_9(kind: int, stream: int, size: int) -> None:
    client = busy()
    for byte in f.HEAD.pack(size << 8 | kind, 0xFF, stream)[:8]:
        client.send(bytes((byte,)))
        assert client.engine.ending is Ending.OPEN
    client.send(bytes((stream,)))
    assert client.goaways == [(LAST, FRAME_SIZE_ERROR)]
    assert len(client.engine._reader._held) == 0


@every_way
def test_rfc9113_4_2_the_largest_frame(way: str) -> None:
    client = Client(way)
    client.send(post(1), data(1, b"x" * 16_384))
    client.send(data(1, b"y" * 16_128, padding=255), frame(0xFA, 0, 0, bytes(16_384)))
    assert client.body(1) == b"x" * 16_384 + b"y" * 16_128
    assert client.engine.ending is Ending.OPEN


def test_rfc9113_4_2_nothing_but_a_part_of_a_frame_is_held() -> None:
    client = Client()
    client.send(post(1))
    whole = data(1, b"x" * 16_384)
    for i in range(0, len(whole) - 1, 1_000):
        client.send(whole[i : min(i + 1_000, len(whole) - 1)])
        assert len(client.engine._reader._held) == min(i + 1_000, len(whole) - 1)
    client.send(whole[-1:])
    assert len(client.engine._reader._held) == 0


@every_way
def test_rfc9113_4_1_reserved_bits_and_unknown_flags_are_ignored(way: str) -> None:
    client = Client(way)
    client.send(
        headers(1 | 1 << 31, fields(b"POST"), ended=False, flags=0xD2),
        frame(f.DATA, 0xF6, 1 | 1 << 31, b"abc"),
        frame(f.WINDOW_UPDATE, 0xFF, 1 | 1 << 31, b"\x80\0\0\1"),
        frame(f.PING, 0xFE, 1 << 31, bytes(8)),
        frame(f.SETTINGS, 0xFE, 0),
        frame(f.DATA, 0xF7, 1),
    )
    assert (client.requests, client.body(1), client.has_ended(1)) == ([1], b"abc", True)
    assert [(each.kind, each.flags) for each in client.take()] == [(f.PING, f.ACK), (f.SETTINGS, f.ACK)]


@every_way
@pytest.mark.parametrize("kind", [0x0A, 0x0B, 0x0C, 0x0F, 0x11, 0x42, 0xFF])
@pytest.mark.parametrize("stream", [0, 2, OPEN, HALF_CLOSED, CLOSED, PASSED_OVER, IDLE])
def test_rfc9113_5_5_unknown_frames_are_ignored(way: str, kind: int, stream: int) -> None:
    client = busy(way)
    client.send(frame(kind, 0xFF, stream, b"anything"), frame(kind, 0, stream))
    assert (client.events, client.take()) == ([], [])
    assert client.works


@pytest.mark.parametrize(
    ("held", "in_head"),
    [
        (b"", False),
        (get(1)[:1], True),
        (get(1)[:8], True),
        (get(1)[:-1], True),
        (data(1, b"abc")[:3], True),  # it might be one
        (data(1, b"abc")[:9], False),
        (data(1, b"abc")[:-1], False),
        (headers(1, block(fields())[:3], whole=False), True),
        (headers(1, block(fields())[:3], whole=False) + continuation(1, b"", whole=False), True),
        (headers(1, block(fields())[:3], whole=False) + continuation(1, block(fields())[3:]), False),
    ],
)
def test_whether_a_head_is_awaited(held: bytes, in_head: bool) -> None:
    client = Client()
    client.send(held)
    assert client.engine.in_head is in_head


# ---------------------------------------------------------------------- 4.3, 6.10: header blocks

SOME = block(fields(b"POST", b"/a", (b"x-a", b"1")))


@every_way
@pytest.mark.parametrize("cuts", [[0], [1], [len(SOME)], [0, 0, 0], [1, 2, 3], [5, 9, 12, 13, 14], [0, len(SOME), len(SOME)]], ids=str)
def test_rfc9113_6_10_a_block_in_pieces(way: str, cuts: list[int]) -> None:
    client = Client(way)
    parts = [SOME[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
    pieces = [continuation(1, part, whole=False) for part in parts[1:-1]]
    client.send(headers(1, parts[0], ended=False, whole=False), *pieces)
    assert client.events == []
    client.send(continuation(1, parts[-1]), data(1, b"x", ended=True))
    assert [type(event) for event in client.events] == [Request, Body]
    request = client.events[0]
    assert isinstance(request, Request)
    assert (request.method, request.path, request.headers, request.ended) == ("POST", b"/a", [(b"host", b"a"), (b"x-a", b"1")], False)


@every_way
def test_rfc9113_6_10_the_first_frame_says_whether_the_stream_ends(way: str) -> None:
    client = Client(way)
    client.send(headers(1, SOME[:5], ended=True, whole=False), continuation(1, SOME[5:]))
    client.send(headers(3, SOME[:5], ended=False, whole=False), frame(f.CONTINUATION, f.END_HEADERS | f.END_STREAM, 3, SOME[5:]))
    assert [event.ended for event in client.events if isinstance(event, Request)] == [True, False]


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(data(OPEN, b"x"), id="DATA"),
        pytest.param(data(IDLE, b"x"), id="DATA of the stream itself"),
        pytest.param(get(IDLE), id="HEADERS of the stream itself"),
        pytest.param(get(IDLE + 2), id="HEADERS"),
        pytest.param(priority(IDLE), id="PRIORITY"),
        pytest.param(reset(IDLE), id="RST_STREAM"),
        pytest.param(settings(), id="SETTINGS"),
        pytest.param(ping(), id="PING"),
        pytest.param(frame(f.GOAWAY, 0, 0, bytes(8)), id="GOAWAY"),
        pytest.param(window(0, 1), id="WINDOW_UPDATE"),
        pytest.param(frame(0xFA, 0, IDLE), id="unknown"),
        pytest.param(continuation(OPEN, b""), id="CONTINUATION of another stream"),
        pytest.param(continuation(0, b""), id="CONTINUATION of no stream"),
    ],
)
def test_rfc9113_4_3_nothing_comes_between(between: bytes) -> None:
    started = headers(IDLE, SOME[:5], whole=False)
    assert breaks(busy, started + between, PROTOCOL_ERROR) == "a header block is interrupted"
    assert breaks(busy, started + continuation(IDLE, SOME[5:7], whole=False) + between, PROTOCOL_ERROR) == "a header block is interrupted"


@pytest.mark.parametrize("stream", [0, 2, OPEN, HALF_CLOSED, CLOSED, IDLE])
def test_rfc9113_6_10_continuation_of_nothing(stream: int) -> None:
    assert breaks(busy, continuation(stream, SOME), PROTOCOL_ERROR) == "CONTINUATION of nothing"


@pytest.mark.parametrize("stream", [IDLE, OPEN, HALF_CLOSED, RESET_BY_US, ANSWERED_EARLY])
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"\xff\x80\x01", id="no such entry"),
        pytest.param(b"\x80", id="index 0"),
        pytest.param(b"\x00\x05ab", id="truncated"),
        pytest.param(b"\x82\x20", id="a size update behind a field"),
        pytest.param(b"\x3f\xe2\x1f", id="a table of 4097"),
        pytest.param(b"\x00\x81\xff\x00", id="Huffman code that is none"),
    ],
)
def test_rfc9113_4_3_a_block_that_cannot_be_decoded(stream: int, broken: bytes) -> None:
    breaks(busy, headers(stream, broken), COMPRESSION_ERROR, max(stream, LAST) if stream == IDLE else LAST)


@every_way
@pytest.mark.parametrize("stream", [RESET_BY_US, ANSWERED_EARLY, HALF_CLOSED, OPEN], ids=str)
def test_rfc9113_4_3_the_table_is_kept_in_step_with_blocks_nobody_wants(way: str, stream: int) -> None:
    client = busy(way)
    client.send(headers(stream, b"\x40\x03x-a\x05first", ended=True))
    client.send(headers(IDLE, b"\x82\x87\x84\x01\x01a\xbe"))  # nothing but the last field comes from the table
    request = client.events[-1]
    assert isinstance(request, Request)
    assert request.headers == [(b"host", b"a"), (b"x-a", b"first")]
    assert client.engine.ending is Ending.OPEN


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


def breaks_stream(scene: Callable[[str], Client], data: bytes, stream: int, code: int) -> str:
    """See that bytes end a stream and nothing else; give the reason."""
    client = feed(scene, data)
    assert client.resets == [(stream, code)]
    fault = client.events[-1]
    assert isinstance(fault, Fault)
    assert (fault.stream, fault.code) == (stream, code)
    assert stream not in client.engine.streams
    client.engine.start(stream, 200, [])
    client.engine.write(stream, b"nobody", False)
    assert client.take() == []
    client.send(window(stream, 1), headers(stream, [(b"a", b"b")]))  # what crossed our RST_STREAM
    assert client.goaways == []
    assert client.works
    return fault.reason


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


# ---------------------------------------------------------------------- 8.1: requests


@every_way
def test_rfc9113_8_3_a_request(way: str) -> None:
    client = Client(way)
    client.send(headers(1, [*fields(b"PUT", b"/a%20b?c=d", (b"x", b"y")), (b"cookie", b"1"), (b"cookie", b"2")]))
    assert client.events == [
        Request(
            1,
            "PUT",
            b"/a%20b?c=d",
            b"/a%20b",
            b"c=d",
            [(b"host", b"a"), (b"x", b"y"), (b"cookie", b"1"), (b"cookie", b"2")],
            "2",
            ended=True,
            upgrade=None,
        )
    ]


@every_way
@pytest.mark.parametrize(
    ("parts", "trailers"),
    [
        ([b""], False),
        ([b"abc"], False),
        ([b"a", b"b", b""], False),
        ([b"x" * 16_384, b"y"], False),
        ([b"abc"], True),
        ([], True),
        ([b"a", b""], True),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_rfc9113_8_1_a_body(way: str, parts: list[bytes], trailers: bool, declared: bool) -> None:
    client = Client(way)
    size = sum(map(len, parts))
    client.send(post(1, length(size)) if declared else post(1))
    client.send(*[data(1, part, ended=not trailers and i == len(parts) - 1) for i, part in enumerate(parts)])
    assert client.has_ended(1) is not trailers
    if trailers:
        client.send(headers(1, [(b"a", b"b"), (b"c", b"")]))
        assert client.events[-1] == Trailers(1, [(b"a", b"b"), (b"c", b"")])
    assert client.body(1) == b"".join(parts)
    assert client.resets == []
    client.respond(1)
    assert (client.answer(1).body, client.answer(1).code) == (b"ok", None)


@every_way
def test_rfc9113_8_1_an_empty_trailer_section_is_an_end(way: str) -> None:
    client = Client(way)
    client.send(post(1), headers(1, b""))
    assert client.events[-1] == Body(1, b"", ended=True)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("declared", "sizes"), [(3, [4]), (3, [1, 3]), (0, [1]), (1, [16_384])], ids=["too long", "too long in parts", "none", "much too long"]
)
def test_c17_rfc9113_8_1_1_more_data_than_content_length(declared: int, sizes: list[int], ended: bool) -> None:
    frames = [data(1, bytes(size), ended=ended and i == len(sizes) - 1) for i, size in enumerate(sizes)]
    breaks_stream(Client, post(1, length(declared)) + b"".join(frames), 1, PROTOCOL_ERROR)
    client = feed(Client, post(1, length(declared)), *frames)
    assert not client.has_ended(1)
    assert len(client.body(1)) <= declared


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(data(1, b"ab", ended=True), id="DATA"),
        pytest.param(data(1, b"ab") + data(1, ended=True), id="empty DATA"),
        pytest.param(data(1, b"ab") + headers(1, [(b"a", b"b")]), id="trailers"),
        pytest.param(data(1, b"ab", ended=True, padding=1), id="padding is no content"),
        pytest.param(headers(1, b""), id="empty trailers"),
    ],
)
def test_c17_rfc9113_8_1_1_less_data_than_content_length(ending: bytes) -> None:
    breaks_stream(Client, post(1, length(3)) + ending, 1, PROTOCOL_ERROR)
    assert not feed(Client, post(1, length(3)), ending).has_ended(1)


def test_c17_rfc9113_8_1_1_a_request_that_has_a_content_length_and_no_body() -> None:
    assert feed(Client, headers(1, fields(b"POST", b"/", length(3)))).requests == []
    breaks_stream(Client, headers(1, fields(b"POST", b"/", length(3))), 1, PROTOCOL_ERROR)
    assert feed(Client, headers(1, fields(b"POST", b"/", length(0)))).requests == [1]


@every_way
def test_the_client_resets_a_stream(way: str) -> None:
    client = Client(way)
    client.send(post(1), data(1, b"x"), reset(1), get(3), reset(3))
    assert client.aborted(1) == client.aborted(3) == ["the client reset the stream"]
    assert client.engine.streams == {}
    client.respond(1)
    assert client.take() == []
    assert client.works


# ---------------------------------------------------------------------- 5.2, 6.9: flow control inwards


@every_way
def test_rfc9113_6_9_a_window_is_given_back_as_the_application_takes_the_bytes(way: str) -> None:
    client = Client(way)
    client.send(post(1), *[data(1, bytes(16_384)) for _ in range(4)])
    assert client.take() == []
    client.engine.consumed(1, 32_768)
    client.engine.consumed(1, 0)
    assert client.opened(1) == 0  # a frame for each few bytes would cost more than it gives
    client.engine.consumed(1, 1)
    assert client.opened(1) == 32_769
    client.engine.consumed(1, 32_767)
    client.send(data(1, bytes(16_384)), data(1, bytes(16_384)), data(1, b"x"))
    assert client.resets == []
    client.send(data(1, b"x"))
    assert client.resets == [(1, FLOW_CONTROL_ERROR)]


@every_way
def test_rfc9113_6_9_the_connections_window_is_given_back_too(way: str) -> None:
    client = Client(way, http2_window=100_000)
    client.send(post(1), *[data(1, bytes(16_384)) for _ in range(3)])
    client.engine.consumed(1, 49_152)
    assert client.opened(0) == 0
    client.send(data(1, bytes(1_697)))  # now more than the half of it is used up, and most of that was taken
    assert client.opened(0) == 0
    client.engine.consumed(1, 1_697)
    assert client.opened(0) == 50_849


@pytest.mark.parametrize("length", [10, 70_000, 1_000_000])
@pytest.mark.parametrize("buffer", [1, 2, 100, 65_535, 65_536, 1 << 20])
def test_rfc9113_6_9_no_body_is_ever_stuck(buffer: int, length: int) -> None:
    client = Client(body_buffer=buffer, http2_window=65_535, http2_small_data=0, http2_overhead=0)
    client.send(post(1))
    left, stream, connection, received = min(length, buffer * 400), buffer, 65_535, 0
    while left:
        size = min(left, stream + client.opened(1), connection + client.opened(0), 16_384)
        assert size > 0
        client.send(data(1, bytes(size), ended=size == left))
        client.engine.consumed(1, size)
        left, stream, connection, received = left - size, stream - size, connection - size, received + size
    assert len(client.body(1)) == received
    assert client.resets == []


@every_way
@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(data(1, ended=True), id="the end"),
        pytest.param(headers(1, [(b"a", b"b")]), id="trailers"),
        pytest.param(reset(1), id="a reset"),
        pytest.param(headers(1, [(b":a", b"b")]), id="a fault"),
        pytest.param(b"", id="an early answer"),
    ],
)
def test_rfc9113_5_2_a_stream_that_ends_gives_back_what_it_holds_of_the_connections_window(way: str, ending: bytes) -> None:
    client = Client(way, http2_window=65_535)
    client.send(post(1), data(1, bytes(16_384)), data(1, bytes(16_384)), data(1, bytes(100)), ending)
    if not ending:
        client.respond(1)
    assert client.opened(0) == 32_868
    client.engine.consumed(1, 32_868)
    assert (client.opened(0), client.opened(1)) == (32_868, 0)


@every_way
@pytest.mark.parametrize("stream", [RESET_BY_US, ANSWERED_EARLY, HALF_CLOSED])
def test_rfc9113_5_1_data_that_is_ignored_does_not_use_up_the_connections_window(way: str, stream: int) -> None:
    client = busy(way, http2_window=65_535)
    for _ in range(24):
        client.send(data(stream, bytes(8_192)))  # on the half-closed one that is a fault, and then it is reset by us
    assert client.body(stream) == b""
    assert abs(client.opened(0) - 24 * 8_192) <= 32_768
    assert client.engine.ending is Ending.OPEN


@every_way
def test_rfc9113_6_9_1_padding_counts_and_is_given_back(way: str) -> None:
    client = Client(way, http2_window=65_535)
    for _ in range(40):
        client.send(post(1) if not client.requests else b"", data(1, bytes(8_000), padding=200))
        client.engine.consumed(1, 8_000)
    assert client.resets == client.goaways == []
    assert abs(client.opened(1) - 40 * 8_201) <= 32_768
    assert abs(client.opened(0) - 40 * 8_201) <= 32_768


@every_way
def test_rfc9113_6_9_1_padding_alone_does_not_shut_a_stream_for_ever(way: str) -> None:
    client = Client(way)
    client.send(post(1))
    for _ in range(255):  # of 256 bytes each: all that the window has room for
        client.send(data(1, padding=255))
        client.now += 1.0
    assert client.resets == client.goaways == []
    assert client.opened(1) > 0  # else there is nothing that the application could take, and nothing that the client could send


@every_way
@pytest.mark.parametrize("buffer", [1_000, 65_535, 65_536, 200_000])
def test_rfc9113_6_5_3_our_window_counts_from_its_acknowledgement(way: str, buffer: int) -> None:
    client = Client(way, greet=False, body_buffer=buffer)
    client.send(HELLO, post(1), *[data(1, bytes(16_384))] * 3, data(1, bytes(16_383)))
    assert len(client.body(1)) == 65_535
    client.send(f.SETTINGS_ACK)  # the window of the open stream changes with it, and may be negative now
    assert client.resets == []
    more = max(buffer - 65_535, 0)
    client.send(*[data(1, bytes(16_384))] * (more // 16_384), data(1, bytes(more % 16_384)) if more else b"")
    assert client.resets == []
    client.send(data(1, b"x"))
    assert client.resets == [(1, FLOW_CONTROL_ERROR)]


@every_way
def test_rfc9113_6_9_2_a_negative_window_of_ours_is_worked_off(way: str) -> None:
    client = Client(way, greet=False, body_buffer=1_000)
    client.send(HELLO, post(1), get(3), *[data(1, bytes(16_384))] * 2, f.SETTINGS_ACK)
    client.engine.consumed(1, 32_768)
    assert client.opened(1) == 32_768
    client.send(data(1, bytes(1_000)))
    assert client.resets == []
    client.send(data(1, b"x"))
    assert client.resets == [(1, FLOW_CONTROL_ERROR)]


@every_way
def test_rfc9113_6_9_1_over_the_connections_window(way: str) -> None:
    client = Client(way, body_buffer=1 << 20, http2_window=65_535)
    client.send(post(1), *[data(1, bytes(16_384))] * 3, data(1, bytes(16_383)))
    assert client.goaways == []
    client.send(data(1, b"x"))
    assert client.goaways == [(1, FLOW_CONTROL_ERROR)]


# ---------------------------------------------------------------------- responses


@every_way
def test_a_whole_response_is_two_frames(way: str) -> None:
    client = Client(way)
    for stream in (1, 3):
        client.send(get(stream))
        client.respond(stream, b"hello", 200, (b"content-type", b"text/plain"))
        assert [(each.kind, each.flags, each.stream) for each in client.take()] == [
            (f.HEADERS, f.END_HEADERS, stream),
            (f.DATA, f.END_STREAM, stream),
        ]
        assert client.answer(stream).heads == [[(b":status", b"200"), (b"content-length", b"5"), (b"content-type", b"text/plain")]]
        assert client.answer(stream).body == b"hello"
    assert client.engine.streams == {}
    assert (client.engine.sender.sent, client.engine.sender.data_frames) == (10, 2)


@pytest.mark.parametrize("stream", [1, 3, 5])
def test_rfc7541_4_2_the_first_block_of_ours_says_that_there_is_no_table(stream: int) -> None:
    client = Client()
    client.send(get(1), get(3), get(5))
    for each in [stream, *{1, 3, 5} - {stream}]:
        client.respond(each)
    blocks = [sent.payload[0] for sent in client.take() if sent.kind == f.HEADERS]
    assert blocks[0] == 0x20
    assert 0x20 not in blocks[1:]


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("first", ["whole", "interim", "chunks", "refusal", "trailers", "upgrade"])
def test_rfc7541_4_2_whatever_is_first(first: str, blocked: bool) -> None:
    client = Client()
    client.send(get(1), headers(3, CONNECT, ended=False), get(5, TE), get(7))
    engine = client.engine
    engine.sender.blocked = blocked
    if first == "whole":
        client.respond(1)
    elif first == "interim":
        engine.interim(1, 103, [(b"link", b"</a>")])
    elif first == "chunks":
        client.begin(1)
    elif first == "refusal":
        engine.reject(1, 503, "busy")
    elif first == "trailers":
        engine.start(5, 200, [], trailers=True)
        engine.write(5, b"", False)
        engine.trailers(5, [(b"a", b"b")], more=False)
    else:
        engine.upgrade(3, [])
    client.respond(7)
    engine.sender.blocked = False
    client.send(get(9))
    client.respond(9)
    blocks = [sent.payload[:1] for sent in client.take() if sent.kind == f.HEADERS]
    assert blocks[0] == b"\x20"
    assert b"\x20" not in blocks[1:]


@every_way
def test_a_response_without_a_length_is_given_one(way: str) -> None:
    client = Client(way)
    client.send(get(1), get(3))
    client.respond(1, b"hello", length=False)
    client.respond(3, b"", length=False)
    assert (client.answer(1).field(b"content-length"), client.answer(1).body) == ([b"5"], b"hello")
    assert (client.answer(3).field(b"content-length"), client.answer(3).ended) == ([b"0"], True)
    assert [each.kind for each in client.sent if each.stream == 3] == [f.HEADERS]


@every_way
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("parts", [[b"a"], [b"", b"a"], [b"a", b""], [b"a", b"b" * 20_000, b"c"], [b"", b""], [b"x" * 40_000]], ids=len)
def test_a_response_in_chunks(way: str, parts: list[bytes], declared: bool) -> None:
    client = Client(way)
    client.send(get(1))
    whole = b"".join(parts)
    client.engine.start(1, 200, [length(len(whole))] if declared else [])
    for part in parts:
        client.engine.write(1, part, True)
    assert not client.answer(1).ended
    client.engine.write(1, b"", False)
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (whole, True, None)
    assert answer.field(b"content-length") == ([b"%d" % len(whole)] if declared else [])
    assert client.engine.streams == {}


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"body"], [b"bo", b"dy"], [b"", b"body", b""]], ids=str)
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304), (b"HEAD", 204), (b"HEAD", 304)]
)
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("trailers", [False, True])
def test_b10_rfc9110_6_4_1_no_body_whatever_the_application_writes(
    method: bytes, status: int, parts: list[bytes], declared: bool, blocked: bool, trailers: bool
) -> None:
    client = Client()
    client.send(headers(1, fields(method, b"/", TE)))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.start(1, status, [length(4)] if declared else [], trailers=trailers)
    for part in parts[:-1]:
        engine.write(1, part, True)
    engine.write(1, parts[-1], False)
    if trailers:
        engine.trailers(1, [(b"a", b"b")], more=False)
    engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.status, answer.body, answer.ended, answer.code) == (status, b"", True, None)
    assert [each.kind for each in client.sent] == [f.HEADERS]
    if status == 204:  # RFC 9110 §8.6
        assert answer.field(b"content-length") == []
    elif declared:
        assert answer.field(b"content-length") == [b"4"]
    assert client.works


def test_rfc9110_8_6_a_head_has_the_length_that_a_get_would_have() -> None:
    client = Client()
    client.send(headers(1, fields(b"HEAD")), headers(3, fields(b"HEAD")), headers(5, fields(b"HEAD")))
    client.respond(1, b"hello", length=False)
    client.respond(3, b"", length=False)
    client.begin(5)
    assert client.answer(1).field(b"content-length") == [b"5"]
    assert client.answer(3).field(b"content-length") == client.answer(5).field(b"content-length") == []


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("before", [[], [b"ab"], [b"ab", b"c"]], ids=str)
@pytest.mark.parametrize("more", [False, True])
def test_b10_more_than_content_length(before: list[bytes], more: bool, blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    client.engine.sender.blocked = blocked
    client.engine.start(1, 200, [length(3)])
    for part in before:
        client.engine.write(1, part, True)
    with pytest.raises(InvalidMessage, match="longer than its content-length"):
        client.engine.write(1, b"abcdef"[len(b"".join(before)) :], more)
    client.engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (b"abc", True, None)
    assert client.works


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"ab"], [b"a", b"b"], [b"ab", b""]], ids=str)
def test_b10_less_than_content_length(parts: list[bytes], blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    client.engine.sender.blocked = blocked
    client.engine.start(1, 200, [length(3)])
    for part in parts[:-1]:
        client.engine.write(1, part, True)
    with pytest.raises(InvalidMessage, match="bytes short of its content-length"):
        client.engine.write(1, parts[-1], False)
    client.engine.sender.blocked = False
    assert (client.answer(1).ended, client.answer(1).code) == (False, INTERNAL_ERROR)
    assert client.works


def test_b5_a_head_that_may_not_be_said() -> None:
    client = Client()
    client.send(get(1))
    for bad in [[(b"a", b"b\r\nc: d")], [(b"a b", b"c")], [(b"a", b"\0")]]:
        with pytest.raises(InvalidMessage):
            client.engine.start(1, 200, bad)
        with pytest.raises(InvalidMessage):
            client.engine.interim(1, 103, bad)
    assert client.take() == []
    client.respond(1)
    assert client.answer(1).status == 200


@pytest.mark.parametrize("size", [16_384, 16_385, 40_000, 100_000])
def test_rfc9113_4_3_big_heads_of_ours(size: int) -> None:
    client = Client()
    client.send(get(1), get(3, TE), get(5))
    client.respond(1, b"ok", 200, (b"x", b"y" * size))
    client.engine.start(3, 200, [], trailers=True)
    client.engine.write(3, b"body", False)
    client.engine.trailers(3, [(b"x", b"y" * size)], more=False)
    client.respond(5, b"ok", 200, (b"x", b"y" * size))
    for stream in (1, 3, 5):
        assert client.answer(stream).field(b"x") == [b"y" * size]
        assert client.answer(stream).ended
    assert f.CONTINUATION in {each.kind for each in client.sent}
    assert client.works


# ---------------------------------------------------------------------- trailers out


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("parts", [[b""], [b"a"], [b"a", b"b"], [b"a", b""], [b"x" * 50_000]], ids=len)
@pytest.mark.parametrize("wanted", [False, True])
def test_rfc9113_8_1_trailers_out_for_those_who_take_them(parts: list[bytes], wanted: bool, blocked: bool) -> None:
    client = Client()
    client.send(get(1, *[TE] * wanted))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.start(1, 200, [], trailers=True)
    for part in parts[:-1]:
        engine.write(1, part, True)
    engine.write(1, parts[-1], False)
    assert not client.answer(1).ended
    engine.trailers(1, [(b"X-First", b"1 ")], more=True)
    engine.trailers(1, [(b"x-second", b"2")], more=False)
    engine.sender.blocked = False
    answer = client.answer(1)
    assert (answer.body, answer.ended, answer.code) == (b"".join(parts), True, None)
    assert answer.heads[1:] == ([[(b"x-first", b"1"), (b"x-second", b"2")]] if wanted else [])
    assert client.engine.streams == {}
    assert client.works


@pytest.mark.parametrize("declared", [False, True])
def test_rfc9113_8_1_trailers_that_are_none(declared: bool) -> None:
    client = Client()
    client.send(get(1, TE))
    client.engine.start(1, 200, [length(4)] if declared else [], trailers=True)
    client.engine.write(1, b"body", False)
    client.engine.trailers(1, [], more=False)
    assert (client.answer(1).body, client.answer(1).ended, len(client.answer(1).heads)) == (b"body", True, 1)


@pytest.mark.parametrize("bad", [[(b"content-length", b"1")], [(b"a", b"\n")], [(b"transfer-encoding", b"chunked")]], ids=str)
def test_rfc9110_6_5_1_trailers_that_may_not_be_said(bad: list[tuple[bytes, bytes]]) -> None:
    client = Client()
    client.send(get(1, TE))
    client.engine.start(1, 200, [], trailers=True)
    client.engine.write(1, b"body", False)
    with pytest.raises(InvalidMessage):
        client.engine.trailers(1, bad, more=False)
    assert not client.answer(1).ended
    client.engine.trailers(1, [(b"a", b"b")], more=False)
    assert client.answer(1).ended


# ---------------------------------------------------------------------- 1xx, Expect


@pytest.mark.parametrize("blocked", [False, True])
def test_rfc9113_8_1_interim_responses(blocked: bool) -> None:
    client = Client()
    client.send(get(1))
    engine = client.engine
    engine.sender.blocked = blocked
    engine.interim(1, 103, [(b"link", b"</a>")])
    engine.interim(1, 103, [])
    engine.start(1, 200, [])
    engine.interim(1, 102, [])  # the head is still held back
    engine.write(1, b"ok", False)
    engine.interim(1, 103, [])
    engine.sender.blocked = False
    answer = client.answer(1)
    assert answer.interims == [103, 103, 102]
    assert (answer.heads[0], answer.status, answer.body) == ([(b":status", b"103"), (b"link", b"</a>")], 200, b"ok")
    assert not [each for each in client.sent if each.kind == f.HEADERS and each.flags & f.END_STREAM]


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_rfc9113_8_1_interim_responses_before_one_without_a_body(method: bytes, blocked: bool) -> None:
    client = Client()
    client.send(headers(1, fields(method)))
    client.engine.sender.blocked = blocked
    client.engine.interim(1, 103, [])
    client.engine.interim(1, 103, [])
    client.respond(1, b"", length=False)
    client.engine.sender.blocked = False
    assert (client.answer(1).interims, client.answer(1).status, client.answer(1).ended) == ([103, 103], 200, True)


def test_no_interim_response_comes_after_the_final_head() -> None:
    client = Client()
    client.send(get(1))
    client.begin(1)
    client.take()
    client.engine.interim(1, 103, [])
    client.engine.interim(99, 103, [])
    assert client.take() == []


@every_way
def test_rfc9110_10_1_1_expect_is_answered_once_the_application_reads(way: str) -> None:
    client = Client(way)
    client.send(post(1, EXPECT))
    assert client.take() == []
    client.engine.wants_continue(1)
    client.engine.wants_continue(1)
    client.engine.wants_continue(99)
    assert client.answer(1).interims == [100]
    client.send(data(1, b"x", ended=True))
    client.respond(1)
    assert (client.answer(1).interims, client.answer(1).status) == ([100], 200)


@every_way
@pytest.mark.parametrize("sent", [data(1, b"x"), data(1, b"x", ended=True), data(1, ended=True)])
def test_rfc9110_10_1_1_no_100_when_the_body_is_here(way: str, sent: bytes) -> None:
    client = Client(way)
    client.send(post(1, EXPECT), sent, post(3))
    client.engine.wants_continue(1)
    client.engine.wants_continue(3)
    assert client.take() == []


def test_rfc9110_10_1_1_no_100_after_the_final_head() -> None:
    client = Client()
    client.send(post(1, EXPECT))
    client.begin(1)
    client.engine.wants_continue(1)
    assert client.answer(1).interims == []


# ---------------------------------------------------------------------- early answers


@every_way
def test_rfc9113_8_1_an_early_answer(way: str) -> None:
    client = Client(way)
    client.send(post(1), data(1, b"x"))
    client.respond(1, b"enough")
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).code) == (b"enough", True, NO_ERROR)
    assert client.sent[-1] == Sent(f.RST_STREAM, 0, 1, bytes(4))
    client.events.clear()
    client.send(data(1, bytes(16_384)), data(1, b"y"), window(1, 5), headers(1, [(b"a", b"b")]))
    assert (client.events, client.goaways) == ([], [])
    assert client.works


@every_way
@pytest.mark.parametrize("response", ["chunks", "no content", "trailers", "rejected"])
def test_rfc9113_8_1_every_kind_of_early_answer(way: str, response: str) -> None:
    client = Client(way)
    client.send(post(1, TE), data(1, b"x"))
    engine = client.engine
    if response == "chunks":
        client.begin(1)
        engine.write(1, b"x", False)
    elif response == "no content":
        client.respond(1, b"", 204, length=False)
    elif response == "trailers":
        engine.start(1, 200, [], trailers=True)
        engine.write(1, b"x", False)
        engine.trailers(1, [(b"a", b"b")], more=False)
    else:
        assert engine.reject(1, 408, "slow") == Rejected(408, "slow")
    assert (client.answer(1).ended, client.answer(1).code) == (True, NO_ERROR)
    client.send(data(1, b"late", ended=True))
    assert client.works


def test_rfc9113_8_1_an_answer_that_waits_is_still_early() -> None:
    client = Client()
    client.send(settings((4, 0)), post(1))
    client.respond(1, b"wait")
    client.send(data(1, b"x"))
    assert (client.answer(1).ended, client.answer(1).code) == (False, None)
    client.send(window(1, 4))
    assert (client.answer(1).body, client.answer(1).code) == (b"wait", NO_ERROR)


def test_an_answer_that_waits_until_the_request_is_whole_is_not_early() -> None:
    client = Client()
    client.send(settings((4, 0)), post(1))
    client.respond(1, b"wait")
    client.send(data(1, b"x", ended=True), window(1, 4))
    assert (client.answer(1).body, client.answer(1).code) == (b"wait", None)


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("request_fields", "status"),
    [
        pytest.param(fields(b"BREW"), 501, id="an unknown method"),
        pytest.param([(b":method", b"CONNECT"), (b":authority", b"a:1")], 501, id="CONNECT"),
        pytest.param(fields(b"GET", b"/", (b"expect", b"more")), 417, id="an unknown expectation"),
        pytest.param([each for each in fields() if each[0] != b":authority"], 400, id="no authority"),
        pytest.param(fields(b"GET", b"/" + b"x" * 9_000), 414, id="a long path"),
        pytest.param(fields(b"GET", b"/", (b"a", b"x" * 9_000)), 431, id="a long field"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_requests_that_are_refused_with_a_status(request_fields: list[tuple[bytes, bytes]], status: int, ended: bool) -> None:
    client = feed(Client, headers(1, request_fields, ended=ended))
    assert [type(event) for event in client.events] == [Rejected]
    assert client.events[0].status == status
    answer = client.answer(1)
    assert (answer.status, answer.ended, answer.code) == (status, True, None if ended else NO_ERROR)
    assert answer.field(b"content-type") == [b"text/plain"]
    assert answer.field(b"content-length") == [b"%d" % len(answer.body)]
    assert client.engine.calls == 0
    assert client.works


def test_a_refusal_of_head_has_no_body() -> None:
    client = feed(Client, headers(1, fields(b"HEAD", b"/", (b"expect", b"more"))))
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).ended) == (417, b"", True)


@pytest.mark.parametrize("started", [False, True])
def test_reject(started: bool) -> None:
    client = Client()
    client.send(get(1), get(3), get(5), get(7))
    engine = client.engine
    if started:  # a head that is held back is forgotten
        for stream in (1, 3, 5):
            engine.start(stream, 200, [length(5)], trailers=True)
    assert engine.reject(1, 503, "busy") == Rejected(503, "busy")
    engine.reject(3, 503, "busy", [(b"x", b"y")])
    engine.reject(5, 504, "slow")
    assert client.answer(1).field(b"retry-after") == [b"1"]
    assert (client.answer(3).field(b"retry-after"), client.answer(3).field(b"x")) == ([], [b"y"])
    assert (client.answer(5).status, client.answer(5).field(b"retry-after"), client.answer(5).ended) == (504, [], True)
    client.begin(7)
    engine.reject(7, 500, "late")
    assert (client.answer(7).status, client.answer(7).ended, client.answer(7).code) == (200, False, INTERNAL_ERROR)
    assert engine.reject(99, 500, "gone") == Rejected(500, "gone")
    assert client.works


# ---------------------------------------------------------------------- commands


def test_commands_on_streams_that_are_gone_do_nothing() -> None:
    client = Client()
    client.send(post(1), reset(1), get(3))
    client.respond(3)
    client.take()
    engine = client.engine
    for stream in (1, 3, 5, 2, 0):
        engine.start(stream, 200, [(b"not even", b"looked at")])
        engine.write(stream, b"x", True)
        engine.write(stream, b"x", False)
        engine.trailers(stream, [], more=False)
        engine.interim(stream, 103, [])
        engine.wants_continue(stream)
        engine.consumed(stream, 10)
        engine.reset(stream)
        engine.reject(stream, 500, "gone")
        assert engine.unsent(stream) == 0
    assert client.take() == []
    assert client.works


def test_commands_out_of_order() -> None:
    client = Client()
    client.send(get(1, TE), get(3, TE), get(5))
    engine = client.engine
    with pytest.raises(UnexpectedMessage):
        engine.write(1, b"", True)
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage, match=r"expected 'http\.response\.body', the application sent 'http\.response\.start'"):
        engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.write(1, b"x", True)
    with pytest.raises(UnexpectedMessage):
        engine.start(1, 200, [])
    with pytest.raises(UnexpectedMessage):
        engine.trailers(1, [], more=False)
    engine.write(1, b"y", False)

    engine.start(3, 200, [], trailers=True)
    engine.write(3, b"x", False)
    with pytest.raises(UnexpectedMessage):
        engine.write(3, b"x", False)
    engine.trailers(3, [], more=True)
    with pytest.raises(UnexpectedMessage):
        engine.write(3, b"x", False)
    engine.trailers(3, [(b"a", b"b")], more=False)

    client.send(settings((4, 0)))
    client.respond(5, b"waits")
    for late in (lambda: engine.write(5, b"x", True), lambda: engine.start(5, 200, []), lambda: engine.trailers(5, [], more=False)):
        with pytest.raises(UnexpectedMessage):
            late()
    client.send(window(5, 100))
    assert [client.answer(stream).body for stream in (1, 3, 5)] == [b"xy", b"x", b"waits"]


def test_reset() -> None:
    client = Client()
    client.send(post(1), post(3), get(5))
    client.engine.reset(1)
    client.engine.reset(1)
    client.engine.reset(3, CANCEL)
    client.begin(5)
    client.engine.reset(5)
    assert client.resets == [(1, INTERNAL_ERROR), (3, CANCEL), (5, INTERNAL_ERROR)]
    client.send(data(1, b"x"), data(3, b"x", ended=True))
    assert client.goaways == []
    assert client.works


@every_way
def test_end_of_input(way: str) -> None:
    client = busy(way)
    events = client.engine.end_of_input()
    assert events == [Aborted(stream, "the client left") for stream in (OPEN, HALF_CLOSED, LAST)]
    assert client.engine.ending is Ending.CLOSE
    assert (client.engine.end_of_input(), client.send(ping()), client.take()) == ([], [], [])


@every_way
def test_close(way: str) -> None:
    client = busy(way)
    events = client.engine.close(ErrorCodes.SETTINGS_TIMEOUT, "too slow")
    assert events == [
        *[Aborted(stream, "too slow") for stream in (OPEN, HALF_CLOSED, LAST)],
        Fault(0, ErrorCodes.SETTINGS_TIMEOUT, "too slow"),
    ]
    assert client.goaways == [(LAST, ErrorCodes.SETTINGS_TIMEOUT)]
    assert client.engine.ending is Ending.LINGER
    assert (client.engine.close(NO_ERROR, "again"), client.take()) == ([], [])


# ---------------------------------------------------------------------- 5.2, 6.9: flow control outwards


@every_way
@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("first", [0, 1, 100, 65_535])
def test_rfc9113_6_9_what_does_not_fit_waits_and_arrives_in_order(way: str, first: int, size: int) -> None:
    client = Client(way)
    client.send(settings((4, first)), get(1), get(3, TE))
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    client.respond(1, body)
    assert len(client.answer(1).body) == min(size, first)
    assert client.engine.unsent(1) == size - min(size, first)
    client.engine.start(3, 200, [], trailers=True)
    for start in range(0, size, 10_000):
        client.engine.write(3, body[start : start + 10_000], True)
    client.engine.write(3, b"", False)
    client.engine.trailers(3, [(b"a", b"b")], more=False)
    client.send(settings((4, 65_535)))
    while client.engine.streams:
        client.send(*[window(stream, 40_000) for stream in (0, 1, 3)])
        client.take()
    for stream in (1, 3):
        assert (client.answer(stream).body, client.answer(stream).ended) == (body, True)
    assert client.answer(3).heads[-1] == [(b"a", b"b")]
    assert client.engine.sender.waiting == 0
    assert client.engine.sender.sent == 2 * size


@every_way
def test_rfc9113_6_9_1_no_window_no_byte_but_empty_frames_pass(way: str) -> None:
    client = Client(way)
    client.send(settings((4, 0)), get(1), get(3), get(5))
    client.respond(1, b"")
    client.begin(3)
    client.engine.write(3, b"", False)
    client.respond(5, b"x")
    client.take()
    assert client.answer(1).ended
    assert client.answer(3).ended
    assert [each.kind for each in client.sent if each.stream == 5] == [f.HEADERS]


@every_way
def test_rfc9113_6_9_2_the_clients_initial_window_changes_open_streams(way: str) -> None:
    client = Client(way)
    client.send(get(1), get(3), window(3, 10))
    client.begin(1)
    client.begin(3)
    for stream in (1, 3):
        client.engine.write(stream, b"x" * 50, True)
    client.take()
    client.send(settings((4, 20)))  # streams have used 50 of it: -30 and -20
    for stream in (1, 3):
        client.engine.write(stream, b"y" * 100, True)
    client.take()
    assert [len(client.answer(stream).body) for stream in (1, 3)] == [50, 50]
    client.send(window(1, 30), window(3, 21))
    client.take()
    assert [len(client.answer(stream).body) for stream in (1, 3)] == [50, 51]
    client.send(settings((4, 25)))
    client.take()
    assert [len(client.answer(stream).body) for stream in (1, 3)] == [55, 56]
    client.send(settings((4, 1_000)))
    client.take()
    assert [len(client.answer(stream).body) for stream in (1, 3)] == [150, 150]
    client.send(get(5))
    client.respond(5, bytes(1_001))
    assert len(client.answer(5).body) == 1_000


def test_rfc9113_6_9_2_a_stream_with_a_negative_window_can_still_end() -> None:
    client = Client()
    client.send(get(1))
    client.begin(1)
    client.engine.write(1, b"x" * 50, True)
    client.send(settings((4, 0)))
    client.engine.write(1, b"", False)
    assert (client.answer(1).body, client.answer(1).ended) == (b"x" * 50, True)


def test_rfc9113_6_9_2_a_change_that_makes_a_window_too_large() -> None:
    def scene(way: str) -> Client:
        client = Client(way)
        client.send(get(1), window(1, LARGEST - 65_535))
        return client

    assert breaks(scene, settings((4, 65_536)), FLOW_CONTROL_ERROR, 1) == "a stream's window is too large"


def test_rfc9113_6_9_the_connections_window_is_shared() -> None:
    client = Client()
    client.send(settings((4, 1 << 20)), get(1), get(3))
    client.respond(1, bytes(60_000))
    client.respond(3, bytes(60_000))
    client.take()
    assert sum(len(client.answer(stream).body) for stream in (1, 3)) == 65_535
    assert client.engine.sender.window == 0
    client.send(window(0, 10))
    client.take()
    assert sum(len(client.answer(stream).body) for stream in (1, 3)) == 65_545
    client.send(window(0, 1 << 20))
    client.take()
    assert [client.answer(stream).ended for stream in (1, 3)] == [True, True]


def test_rfc9113_6_9_a_stream_without_a_window_does_not_hold_up_the_others() -> None:
    client = Client()
    client.send(get(1), get(3))
    client.respond(1, bytes(70_000))
    client.take()
    client.send(window(0, 1_000))
    client.respond(3, b"small")
    assert client.answer(3).body == b"small"
    assert not client.answer(1).ended


@pytest.mark.parametrize("sizes", [[20_000], [10, 10, 10], [16_384] * 5, [1, 16_383, 16_385, 50_000]], ids=str)
def test_what_is_written_while_the_transport_is_full_comes_after_it(sizes: list[int]) -> None:
    client = Client()
    client.send(get(1), get(3), window(0, 1 << 20), window(1, 1 << 20))
    engine, body = client.engine, b"".join(bytes((i,)) * size for i, size in enumerate(sizes))
    engine.sender.blocked = True
    engine.start(1, 200, [])
    for i, size in enumerate(sizes):
        engine.write(1, bytes((i,)) * size, True)
    engine.write(1, b"", False)
    client.respond(3)
    client.send(ping())
    assert (engine.output(), engine.sender.has_output, engine.unsent(1)) == (b"", False, sum(sizes))
    engine.sender.blocked = False
    assert engine.sender.has_output
    assert (client.answer(1).body, client.answer(1).ended) == (body, True)
    assert (client.answer(3).body, client.answer(3).ended) == (b"ok", True)
    assert engine.streams == {}
    assert not engine.sender.has_output


def test_what_is_written_between_the_release_and_the_next_output_keeps_its_order() -> None:
    client = Client()
    client.send(get(1), get(3, TE), get(5))
    engine = client.engine
    engine.sender.blocked = True
    for stream in (1, 3):
        engine.start(stream, 200, [], trailers=stream == 3)
        engine.write(stream, b"a", True)
    engine.interim(5, 103, [])
    engine.sender.blocked = False
    engine.write(1, b"b", False)
    engine.write(3, b"b", False)
    engine.trailers(3, [(b"a", b"b")], more=False)
    client.respond(5)
    assert [client.answer(stream).body for stream in (1, 3, 5)] == [b"ab", b"ab", b"ok"]
    assert client.answer(3).heads[-1] == [(b"a", b"b")]


def test_a_turn_is_bounded() -> None:
    client = Client()
    client.send(window(0, 1 << 24), settings((4, 1 << 24)), get(1), get(3))
    client.take()
    client.respond(1, bytes(1 << 20))
    first = client.engine.output()
    assert 131_072 <= len(first) < 131_072 + 20_000
    client.begin(3)
    written = 0
    while written < 300_000:  # small writes are bounded too
        client.engine.write(3, bytes(1_000), True)
        written += 1_000
    out = [first]
    while more := client.engine.output():
        assert len(more) < 131_072 + 2 * 17_000
        out.append(more)
    sizes = [len(each.payload) for each in read_frames(b"".join(out)) if each.kind == f.DATA]
    assert sum(sizes) == (1 << 20) + 300_000


def test_what_waits_is_dropped_when_the_client_resets() -> None:
    client = Client()
    client.send(settings((4, 0)), get(1), get(3))
    client.respond(1, bytes(100_000))
    client.respond(3, bytes(1_000))
    assert (client.engine.sender.waiting, client.engine.sender.full) == (101_000, [1])
    client.take()
    client.sent.clear()
    client.send(reset(1), reset(3), window(0, 1), settings((4, 65_535)))
    assert (client.engine.sender.waiting, client.engine.sender.freed) == (0, [1])
    assert client.take() == [ACK]


# ---------------------------------------------------------------------- RFC 9218: priorities


def urgency(value: bytes) -> tuple[bytes, bytes]:
    return (b"priority", value)


def order(client: Client) -> list[int]:
    """Give the streams of the DATA frames, in their order."""
    client.take()
    return [each.stream for each in client.sent if each.kind == f.DATA and each.payload]


def shut(*requests: bytes, streams: Iterable[int], size: int = 40_000) -> Client:
    """Make a client with responses that wait for the connection's window."""
    client = Client()
    client.send(settings((4, 1 << 20)), *requests)
    client.engine.sender.blocked = True
    for stream in streams:
        client.respond(stream, bytes(size))
    client.send(window(0, 1 << 24))
    return client


def test_rfc9218_10_equally_urgent_responses_take_turns() -> None:
    client = shut(get(1), get(3), get(5), streams=(1, 3, 5))
    client.engine.sender.blocked = False
    assert order(client) == [1, 3, 5, 1, 3, 5, 1, 3, 5]


def test_rfc9218_10_the_turn_goes_on_where_it_was() -> None:
    client = shut(get(1), get(3), get(5), streams=(1, 3, 5), size=100_000)
    client.engine.sender.blocked = False
    assert order(client) == [1, 3, 5] * 7


def test_rfc9218_4_1_the_most_urgent_first() -> None:
    requests = [get(1, urgency(b"u=7")), get(3), get(5, urgency(b"i, u=0")), get(7, urgency(b"u=3")), get(9, urgency(b"u=9"))]
    client = shut(*requests, streams=(1, 3, 5, 7, 9), size=20_000)
    client.engine.sender.blocked = False
    assert order(client) == [5, 5, 3, 7, 9, 3, 7, 9, 1, 1]


def test_rfc9218_7_1_priority_update_of_an_open_stream() -> None:
    client = shut(get(1), get(3, urgency(b"u=5")), streams=(1, 3), size=20_000)
    client.send(priority_update(3, b"u=1"))
    client.engine.sender.blocked = False
    assert order(client) == [3, 3, 1, 1]


def test_rfc9218_7_1_priority_update_before_the_stream_opens() -> None:
    client = shut(
        priority_update(5, b"u=0"),
        priority_update(3, b"u=1"),
        priority_update(3, b"u=6"),
        get(1),
        get(3),
        get(5, urgency(b"u=7")),  # what the frame says goes
        streams=(1, 3, 5),
        size=20_000,
    )
    client.engine.sender.blocked = False
    assert order(client) == [5, 5, 1, 1, 3, 3]


def test_rfc9218_7_1_priority_updates_of_streams_that_never_open_are_not_kept_for_ever() -> None:
    client = Client(http2_streams=3)
    for stream in range(1, 1_001, 2):
        client.send(priority_update(stream, b"u=1"))
        assert len(client.engine._priorities) <= 3
    assert client.works


def test_rfc9218_10_urgent_ones_without_a_window_let_others_pass() -> None:
    client = Client()
    client.send(get(1, urgency(b"u=0")), get(3, urgency(b"u=7")), window(0, 100_000))
    client.respond(1, bytes(70_000))
    client.respond(3, bytes(100))
    assert len(client.answer(1).body) == 65_535
    assert client.answer(3).ended


# ---------------------------------------------------------------------- 6.8: GOAWAY


@every_way
def test_rfc9113_6_8_a_drain_has_two_steps(way: str) -> None:
    client = Client(way)
    client.send(post(1))
    engine = client.engine
    assert not engine.draining
    engine.finish_drain()  # none has begun
    engine.drain()
    engine.drain()
    assert engine.draining
    assert client.take() == [DRAIN_PING, Sent(f.GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4))]
    client.send(post(3), ping(b"draining"), ping(b"another!", ack=True))  # what was on its way is served
    assert engine.draining
    client.take()
    client.send(ping(b"draining", ack=True))
    assert not engine.draining
    assert client.take() == [Sent(f.GOAWAY, 0, 0, b"\0\0\0\3" + bytes(4))]
    client.send(get(5), post(7), data(7, b"x", ended=True))
    assert client.resets == [(5, REFUSED_STREAM), (7, REFUSED_STREAM)]
    assert client.requests == [1, 3]
    client.send(data(1, b"x", ended=True), data(3, b"x", ended=True), ping())
    assert client.has_ended(1)
    client.respond(1)
    assert engine.ending is Ending.OPEN
    client.respond(3)
    assert engine.ending is Ending.LINGER
    assert [client.answer(stream).body for stream in (1, 3)] == [b"ok", b"ok"]
    engine.finish_drain()
    assert (client.take(), client.send(ping())) == ([], [])


def test_rfc9113_6_8_a_drain_without_streams() -> None:
    client = Client()
    client.engine.drain()
    assert client.engine.ending is Ending.OPEN
    client.engine.finish_drain()
    assert client.engine.ending is Ending.LINGER
    assert client.goaways == [(LARGEST, NO_ERROR), (0, NO_ERROR)]


@pytest.mark.parametrize("end", ["a client's reset", "a reset", "a fault"])
def test_rfc9113_6_8_the_last_stream_may_end_in_any_way(end: str) -> None:
    client = Client()
    client.send(post(1))
    client.engine.drain()
    client.engine.finish_drain()
    if end == "a client's reset":
        client.send(reset(1))
    elif end == "a reset":
        client.engine.reset(1)
    else:
        client.send(get(1))
    assert client.engine.ending is Ending.LINGER


def test_rfc9113_6_8_a_response_that_waits_is_not_cut_by_a_drain() -> None:
    client = Client()
    client.send(get(1))
    client.respond(1, bytes(100_000))
    client.engine.drain()
    client.engine.finish_drain()
    client.take()
    assert client.engine.ending is Ending.OPEN
    client.send(window(0, 100_000), window(1, 100_000))
    assert len(client.answer(1).body) == 100_000
    assert client.engine.ending is Ending.LINGER


@every_way
@pytest.mark.parametrize("payload", [bytes(8), LARGEST.to_bytes(4, "big") + b"\0\0\0\2bye", b"\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_rfc9113_6_8_the_client_says_goaway(way: str, payload: bytes) -> None:
    client = busy(way)
    client.send(frame(f.GOAWAY, 0, 0, payload), frame(f.GOAWAY, 0, 0, payload))
    assert client.engine.draining
    assert client.goaways == [(LARGEST, NO_ERROR)]
    client.send(data(OPEN, b"x", ended=True), ping(b"draining", ack=True))
    assert client.events == [Body(OPEN, b"x", ended=True)]
    for stream in (OPEN, HALF_CLOSED, LAST):
        client.respond(stream)
    assert client.goaways == [(LARGEST, NO_ERROR), (LAST, NO_ERROR)]
    assert client.engine.ending is Ending.LINGER


@every_way
def test_l16_requests_per_connection(way: str) -> None:
    client = Client(way, requests_per_connection=3)
    client.send(get(1), get(3))
    assert client.goaways == []
    client.send(get(5))
    assert client.goaways == [(LARGEST, NO_ERROR)]
    client.send(get(7))
    assert (client.requests, client.engine.opened) == ([1, 3, 5, 7], 4)
    client.send(ping(b"draining", ack=True))
    assert client.goaways[1:] == [(7, NO_ERROR)]


# ---------------------------------------------------------------------- RFC 8441: WebSockets


@every_way
def test_rfc8441_5_a_tunnel(way: str) -> None:
    client = Client(way)
    client.send(headers(1, [*CONNECT, (b"sec-websocket-version", b"13")], ended=False))
    request = client.events[-1]
    assert isinstance(request, Request)
    assert (request.method, request.upgrade, request.path, request.ended) == ("CONNECT", b"websocket", b"/", False)
    client.engine.upgrade(1, [(b"Sec-WebSocket-Protocol", b" chat ")])
    assert client.take() == [Sent(f.HEADERS, f.END_HEADERS, 1, client.sent[-1].payload)]
    assert client.answer(1).heads == [[(b":status", b"200"), (b"sec-websocket-protocol", b"chat")]]
    client.send(data(1, b"in"), data(1, b"more", padding=3))
    client.engine.write(1, b"out", True)
    client.engine.write(1, b"", True)
    client.engine.write(1, bytes(100_000), True)
    assert client.body(1) == b"inmore"
    assert client.answer(1).body == b"out" + bytes(65_532)
    client.send(window(0, 100_000), window(1, 100_000), data(1, ended=True))
    assert client.events[-1] == Body(1, b"", ended=True)
    client.engine.write(1, b"bye", False)
    assert (client.answer(1).body[100_003:], client.answer(1).ended, client.answer(1).code) == (b"bye", True, None)
    assert client.works


@every_way
def test_rfc8441_5_the_server_ends_a_tunnel(way: str) -> None:
    client = Client(way)
    client.send(headers(1, CONNECT, ended=False))
    client.engine.upgrade(1, [])
    client.engine.write(1, b"bye", False)
    assert (client.answer(1).body, client.answer(1).ended) == (b"bye", True)
    client.send(data(1, b"late"), data(1, ended=True))
    assert client.works


@every_way
def test_rfc8441_5_a_tunnel_that_is_refused(way: str) -> None:
    client = Client(way)
    client.send(headers(1, CONNECT, ended=False))
    client.respond(1, b"no", 403)
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).code) == (403, b"no", NO_ERROR)
    assert client.works


def test_rfc8441_5_a_tunnel_is_cut() -> None:
    client = Client()
    client.send(headers(1, CONNECT, ended=False), headers(3, CONNECT, ended=False))
    for stream in (1, 3):
        client.engine.upgrade(stream, [])
    client.engine.reset(1, CANCEL)
    client.engine.reject(3, 500, "late")
    assert client.resets == [(1, CANCEL), (3, INTERNAL_ERROR)]
    assert client.works


def test_rfc8441_5_what_a_tunnel_opens_with_waits_for_the_transport() -> None:
    client = Client()
    client.send(headers(1, CONNECT, ended=False))
    client.engine.sender.blocked = True
    client.engine.upgrade(1, [])
    client.engine.write(1, b"first", True)
    assert client.take() == []
    client.engine.sender.blocked = False
    assert (client.answer(1).status, client.answer(1).body, client.answer(1).ended) == (200, b"first", False)


@pytest.mark.parametrize(
    ("what", "ended"),
    [
        pytest.param(CONNECT, True, id="closed at once"),
        pytest.param([*CONNECT, length(0)], False, id="a content-length"),
        pytest.param([*CONNECT, length(5)], False, id="a body"),
        pytest.param([(b":method", b"GET"), *CONNECT[1:]], False, id="GET"),
        pytest.param([each for each in CONNECT if each[0] != b":path"], False, id="no :path"),
        pytest.param([each for each in CONNECT if each[0] != b":scheme"], False, id="no :scheme"),
        pytest.param([each for each in CONNECT if each[0] != b":authority"], False, id="no :authority"),
        pytest.param([*CONNECT, (b"upgrade", b"websocket")], False, id="upgrade"),
        pytest.param([*CONNECT, (b"connection", b"upgrade")], False, id="connection"),
        pytest.param([*CONNECT, (b":protocol", b"websocket")], False, id="two protocols"),
    ],
)
def test_d10_rfc8441_4_malformed_extended_connect(what: list[tuple[bytes, bytes]], ended: bool) -> None:
    assert feed(Client, headers(1, what, ended=ended)).requests == []
    breaks_stream(Client, headers(1, what, ended=ended), 1, PROTOCOL_ERROR)


def test_rfc8441_4_another_protocol_is_not_served() -> None:
    client = Client()
    client.send(headers(1, [CONNECT[0], (b":protocol", b"connect-udp"), *CONNECT[2:]], ended=False))
    assert (client.answer(1).status, client.requests) == (501, [])


def test_rfc8441_5_a_tunnel_has_no_trailers() -> None:
    def scene(way: str) -> Client:
        client = Client(way)
        client.send(headers(1, CONNECT, ended=False))
        client.engine.upgrade(1, [])
        client.take()
        client.sent.clear()
        return client

    breaks_stream(scene, headers(1, [(b"a", b"b")]), 1, PROTOCOL_ERROR)


# ---------------------------------------------------------------------- RFC 7540, 3.2: from HTTP/1


def adopted(way: str = "whole", *values: tuple[int, int], is_head: bool = False) -> Client:
    """Make a client whose first request came by HTTP/1, and that says hello after it."""
    client = Client(way, greet=False)
    client.engine.adopt(f.settings(values)[9:], is_head=is_head)
    return client


@every_way
def test_rfc7540_3_2_the_request_is_stream_1(way: str) -> None:
    client = adopted(way)
    assert (client.events, client.requests, client.engine.opened) == ([], [], 1)
    client.respond(1, b"before the preface")
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).code) == (b"before the preface", True, None)
    assert [each.kind for each in client.sent] == [f.SETTINGS, f.WINDOW_UPDATE, f.HEADERS, f.DATA]
    client.send(HELLO, f.SETTINGS_ACK)
    assert client.works


@every_way
def test_rfc7540_3_2_its_settings_are_the_clients(way: str) -> None:
    client = adopted(way, (4, 5), (3, 7), (0xFFFF, 1))
    client.respond(1, b"hello, you")
    assert client.answer(1).body == b"hello"
    client.send(f.PREFACE, settings((4, 10)))
    assert (client.answer(1).body, client.answer(1).ended) == (b"hello, you", True)


@every_way
def test_rfc7540_3_2_head(way: str) -> None:
    client = adopted(way, is_head=True)
    client.respond(1, b"hello", length=False)
    assert (client.answer(1).body, client.answer(1).ended, client.answer(1).field(b"content-length")) == (b"", True, [b"5"])


@pytest.mark.parametrize(("value", "code"), [((4, 1 << 31), FLOW_CONTROL_ERROR), ((5, 1), PROTOCOL_ERROR), ((2, 2), PROTOCOL_ERROR)])
def test_rfc7540_3_2_settings_that_may_not_be(value: tuple[int, int], code: int) -> None:
    client = adopted("whole", value)
    assert (client.goaways, client.engine.ending, client.engine.streams) == ([(0, code)], Ending.LINGER, {})
    assert client.send(HELLO) == []


@every_way
@pytest.mark.parametrize("late", [data(1, b"x"), data(1, ended=True), get(1), headers(1, [(b"a", b"b")])])
def test_rfc7540_3_2_the_request_is_whole(way: str, late: bytes) -> None:
    client = adopted(way)
    client.send(HELLO, late)
    assert client.resets == [(1, STREAM_CLOSED)]
    assert client.works


@every_way
def test_rfc7540_3_2_the_next_stream_is_3(way: str) -> None:
    client = adopted(way)
    client.send(HELLO, get(3))
    client.respond(1)
    client.respond(3)
    assert [client.answer(stream).body for stream in (1, 3)] == [b"ok", b"ok"]
    client.send(get(1))
    assert client.goaways == [(3, STREAM_CLOSED)]


@every_way
def test_rfc7540_3_2_what_follows_is_the_preface(way: str) -> None:
    client = adopted(way)
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.goaways == [(1, PROTOCOL_ERROR)]
    assert client.aborted(1)


# ---------------------------------------------------------------------- laws

STREAM_NUMBERS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, LARGEST])
SOME_FRAMES = st.one_of(
    st.sampled_from([1, 3, 5, 7]).map(get),
    st.sampled_from([1, 3, 5, 7]).map(post),
    st.builds(data, STREAM_NUMBERS, st.sampled_from([b"", b"x", bytes(300), bytes(16_384)]), ended=st.booleans()),
    st.builds(data, STREAM_NUMBERS, st.binary(max_size=5), padding=st.integers(0, 255)),
    st.builds(
        headers,
        STREAM_NUMBERS,
        st.sampled_from([SOME, SOME[:9], b"", b"\xbe", block([(b"a", b"b")])]),
        ended=st.booleans(),
        whole=st.booleans(),
    ),
    st.builds(continuation, STREAM_NUMBERS, st.sampled_from([b"", SOME[9:]]), whole=st.booleans()),
    st.builds(reset, STREAM_NUMBERS),
    st.builds(window, STREAM_NUMBERS, st.sampled_from([0, 1, 1_000, LARGEST])),
    st.builds(ping, st.sampled_from([b"12345678", b"draining", b""]), ack=st.booleans()),
    st.builds(priority, STREAM_NUMBERS, STREAM_NUMBERS),
    st.builds(priority_update, STREAM_NUMBERS, st.sampled_from([b"u=0", b"", b"\xff"])),
    st.builds(lambda name, value: settings((name, value)), st.integers(0, 10), st.sampled_from([0, 1, 16_384, 65_535, LARGEST, 1 << 31])),
    st.builds(frame, st.integers(0, 20), st.integers(0, 255), STREAM_NUMBERS, st.binary(max_size=10)),
    st.binary(max_size=12),
)
COMMANDS: dict[str, Callable[[Client, int], object]] = {
    "respond": lambda client, stream: client.respond(stream, b"hello" * 5_000),
    "begin": lambda client, stream: client.begin(stream),
    "write": lambda client, stream: client.engine.write(stream, bytes(20_000), True),
    "end": lambda client, stream: client.engine.write(stream, b"", False),
    "trailing": lambda client, stream: client.engine.start(stream, 200, [], trailers=True),
    "trailers": lambda client, stream: client.engine.trailers(stream, [(b"a", b"b")], more=False),
    "interim": lambda client, stream: client.engine.interim(stream, 103, []),
    "consumed": lambda client, stream: client.engine.consumed(stream, 10),
    "reject": lambda client, stream: client.engine.reject(stream, 503, "no"),
    "reset": lambda client, stream: client.engine.reset(stream),
    "block": lambda client, _: setattr(client.engine.sender, "blocked", True),
    "release": lambda client, _: setattr(client.engine.sender, "blocked", False),
    "drain": lambda client, _: client.engine.drain(),
    "finish drain": lambda client, _: client.engine.finish_drain(),
}
STEPS = st.one_of(SOME_FRAMES, SOME_FRAMES, st.tuples(st.sampled_from(sorted(COMMANDS)), st.sampled_from([1, 3, 5, 7])))


def play(way: str, steps: list[bytes | tuple[str, int]]) -> tuple[list[Event], bytes, Ending]:
    """Play what client and application do; see that all that is sent has its order."""
    client = Client(way)
    out = b""
    for step in steps:
        if isinstance(step, bytes):
            client.send(step)
        else:
            with suppress(UnexpectedMessage, InvalidMessage):
                COMMANDS[step[0]](client, step[1])
        while more := client.engine.output():
            out += more
    client.engine.sender.blocked = False
    out += client.engine.output()
    reader = Client(greet=False)
    for each in read_frames(out):
        reader._read(each)
    if client.engine.ending is Ending.OPEN:
        assert len(client.engine._reader._held) < 16_384 + 9
    return client.events, out, client.engine.ending


@laws(max_examples=150)
@given(st.lists(STEPS, max_size=25))
def test_no_input_raises_any_split_gives_the_same_and_nothing_is_sent_behind_an_end(steps: list[bytes | tuple[str, int]]) -> None:
    whole = play("whole", steps)
    assert play("byte by byte", steps) == whole


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_arbitrary_bytes(pieces: list[bytes], greeted: bool) -> None:
    client = Client(greet=greeted)
    client.send(*pieces)
    client.take()
    assert client.requests == []


# ---------------------------------------------------------------------- a client nobody here wrote


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_the_h2_package_understands_us(count: int, size: int) -> None:
    engine, theirs = make(), H2Connection(H2Configuration(client_side=True))
    theirs.initiate_connection()
    sizes: dict[int, int] = {}
    bodies: dict[int, int] = {}
    statuses: dict[int, bytes] = {}
    for i in range(count):
        stream = 2 * i + 1
        theirs.send_headers(stream, fields(b"POST", b"/%d" % i), end_stream=False)
        theirs.send_data(stream, bytes(100), end_stream=True)
    ended: set[int] = set()
    for _ in range(2_000):
        out = theirs.data_to_send()
        for event in engine.receive(out, 1.0):
            if isinstance(event, Body):
                sizes[event.stream] = sizes.get(event.stream, 0) + len(event.data)
                engine.consumed(event.stream, len(event.data))
                engine.start(event.stream, 200, [(b"content-length", b"%d" % size)])
                engine.write(event.stream, bytes(size), False)
        back = engine.output()
        if not out and not back:
            break
        for heard in theirs.receive_data(back):
            if isinstance(heard, ResponseReceived):
                statuses[heard.stream_id] = dict(heard.headers)[b":status"]
            elif isinstance(heard, DataReceived):
                bodies[heard.stream_id] = bodies.get(heard.stream_id, 0) + len(heard.data)
                theirs.acknowledge_received_data(heard.flow_controlled_length, heard.stream_id)
            elif isinstance(heard, StreamEnded):
                ended.add(heard.stream_id)
    numbers = {2 * i + 1 for i in range(count)}
    assert ended == numbers
    assert sizes == dict.fromkeys(numbers, 100)
    assert statuses == dict.fromkeys(numbers, b"200")
    assert bodies == (dict.fromkeys(numbers, size) if size else {})
    assert engine.streams == {}
