"""The frames of an HTTP/2 client: the preface, sizes, header blocks in pieces (RFC 9113 §3.4, §4, §6.10)."""

import pytest
from h2.settings import SettingCodes

from termserver.wire import h2frames as f
from termserver.wire.events import Body, Ending, Fault, Request
from wire.h2driving import (
    ACK,
    ANSWERED_EARLY,
    CLOSED,
    COMPRESSION_ERROR,
    FRAME_SIZE_ERROR,
    HALF_CLOSED,
    HELLO,
    IDLE,
    INITIAL_WINDOW_SIZE,
    LARGEST,
    LAST,
    OPEN,
    PASSED_OVER,
    PROTOCOL_ERROR,
    RESET_BY_US,
    SOME,
    Client,
    Sent,
    block,
    breaks,
    busy,
    continuation,
    data,
    every_way,
    feed,
    fields,
    frame,
    get,
    headers,
    ping,
    post,
    priority,
    reset,
    settings,
    window,
)

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
