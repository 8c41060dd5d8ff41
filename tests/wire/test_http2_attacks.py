"""What a hostile client does to the HTTP/2 engine: spec attacks C1 to C17, B13; spec limits L4 to L6, L9, L20 to L34.

Each limit is met exactly, which passes, and exceeded by one, which does not. The clock stands unless a test moves it.
"""

import time
import tracemalloc
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Fault, Rejected, Request, Trailers
from wire.driving import SLOWER
from wire.h2driving import (
    CONNECT,
    HELLO,
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
    ping,
    post,
    priority,
    priority_update,
    reset,
    settings,
    window,
)

CALM = ErrorCodes.ENHANCE_YOUR_CALM
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = (
    ErrorCodes.NO_ERROR,
    ErrorCodes.PROTOCOL_ERROR,
    ErrorCodes.INTERNAL_ERROR,
    ErrorCodes.FLOW_CONTROL_ERROR,
)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = ErrorCodes.STREAM_CLOSED, ErrorCodes.FRAME_SIZE_ERROR, ErrorCodes.REFUSED_STREAM
COMPRESSION_ERROR = ErrorCodes.COMPRESSION_ERROR
MIB = 1 << 20

every_way = pytest.mark.parametrize("way", WAYS)


def is_well(client: Client) -> bool:
    """Whether the connection goes on."""
    return client.goaways == [] and client.engine.ending is Ending.OPEN


def is_cut(client: Client, code: int) -> bool:
    """Whether the connection was ended with a code, and the applications were told."""
    fault = client.events[-1]
    return (
        [each for _, each in client.goaways] == [code]
        and client.engine.ending is Ending.LINGER
        and isinstance(fault, Fault)
        and (fault.stream, fault.code) == (0, code)
        and client.engine.streams == {}
    )


def numbers(count: int, first: int = 1) -> range:
    """Give the numbers of so many streams."""
    return range(first, first + 2 * count, 2)


# ---------------------------------------------------------------------- the clients' floods, at the limit and one above


def nth_reset(client: Client, i: int) -> bytes:
    client.engine.calls = 0
    return get(2 * i + 1) + reset(2 * i + 1)


def opened(client: Client, i: int, head: Callable[[int], bytes] = post) -> bytes:
    """Open a stream before the first frame of a flood."""
    return b"" if i else head(1)


def small(client: Client, i: int, size: int) -> bytes:
    """Send a little of a body that the application takes at once."""
    if i:
        client.engine.consumed(1, size)
    return opened(client, i) + data(1, bytes(size))


FLOODS = [
    pytest.param(nth_reset, 500, 10.0, id="C1 L21 rapid reset"),
    pytest.param(lambda client, i: opened(client, i) + reset(1), 500, 10.0, id="C1 L21 the same stream again and again"),
    pytest.param(lambda _, i: get(2 * i + 1) + data(2 * i + 1), 10, 10.0, id="C2 L22 DATA after the end"),
    pytest.param(lambda _, i: get(2 * i + 1) * 2, 10, 10.0, id="C2 L22 HEADERS after the end"),
    pytest.param(lambda _, i: get(2 * i + 1) + window(2 * i + 1, f.LARGEST_WINDOW), 10, 10.0, id="C2 L22 windows that overflow"),
    pytest.param(lambda _, i: post(2 * i + 1, (b"content-length", b"0")) + data(2 * i + 1, b"x"), 10, 10.0, id="C11 L22 lengths"),
    pytest.param(lambda _, i: get(2 * i + 1, (b"", b"x")), 10, 10.0, id="C13 L22 empty names"),
    pytest.param(lambda _, i: get(2 * i + 1, (b"te", b"gzip")), 10, 10.0, id="B12 L22 malformed heads"),
    pytest.param(lambda _, i: post(2 * i + 1) + headers(2 * i + 1, [(b":a", b"")]), 10, 10.0, id="C11 L22 malformed trailers"),
    pytest.param(lambda _, __: frame(0xFA, 0, 0), 10_000, 10.0, id="L23 unknown frames"),
    pytest.param(lambda _, __: ping(ack=True), 10_000, 10.0, id="L23 answers to no PING"),
    pytest.param(lambda _, __: priority_update(1, b"u=1"), 10_000, 10.0, id="L23 PRIORITY_UPDATE"),
    pytest.param(lambda _, __: f.SETTINGS_ACK, 9_998, 10.0, id="L23 acknowledgements"),
    pytest.param(lambda _, __: settings(), 13, 60.0, id="C12 L24 SETTINGS, beside the first one"),
    pytest.param(lambda _, __: ping(), 300, 60.0, id="C9 L25 PING"),
    pytest.param(lambda _, i: priority(1, 3 + 2 * i), 120, 60.0, id="C10 L26 PRIORITY"),
    pytest.param(lambda client, i: opened(client, i) + data(1, padding=0), 100, 10.0, id="C14 L28 padded empty DATA"),
    pytest.param(lambda client, i: opened(client, i) + data(1), 100, 10.0, id="C14 L28 empty DATA"),
    pytest.param(lambda client, i: opened(client, i) + data(1, b"x"), 100, 10.0, id="C14 L28 DATA of a byte"),
    pytest.param(lambda client, i: small(client, i, 255), 25_600, 10.0, id="C14 L28 DATA of 255 bytes"),
    pytest.param(
        lambda _, i: headers(2 * i + 1, b"", whole=False, ended=False) + continuation(2 * i + 1, block(fields())),
        100,
        10.0,
        id="C14 L28 empty HEADERS",
    ),
]


@pytest.mark.parametrize(("nth", "limit", "period"), FLOODS)
def test_floods_are_counted(nth: Callable[[Client, int], bytes], limit: int, period: float) -> None:
    off = {} if limit >= 9_000 else {"http2_overhead": 0}
    client = Client(http2_streams=0, **off)
    if limit >= 10_000:
        client.now += 10.0  # the greeting is forgotten by now
    for i in range(limit):
        client.send(nth(client, i))
    assert is_well(client)
    client.send(nth(client, limit))
    assert is_cut(client, CALM)


@pytest.mark.parametrize(("nth", "limit", "period"), FLOODS)
def test_what_is_counted_comes_back_with_time(nth: Callable[[Client, int], bytes], limit: int, period: float) -> None:
    client = Client(http2_streams=0)
    for i in range(min(2 * limit, 1_000)):
        client.now += period / limit * 1.05
        client.send(nth(client, i))
    assert is_well(client)


@every_way
def test_c1_l21_rapid_resets_in_any_pieces(way: str) -> None:
    client = Client(way)
    for i in range(500):
        client.send(nth_reset(client, i))
    assert is_well(client)
    assert len(client.requests) == 500
    client.send(nth_reset(client, 500))
    assert is_cut(client, CALM)
    assert len([each for each in client.events if isinstance(each, Aborted)]) == 501 - (1 in client.engine.streams)


def test_c1_l21_refill() -> None:
    client = Client()
    for i in range(500):
        client.send(nth_reset(client, i))
    client.now += 5.001
    for i in range(500, 750):
        client.send(nth_reset(client, i))
    assert is_well(client)
    client.send(nth_reset(client, 750))
    assert is_cut(client, CALM)


@pytest.mark.parametrize(
    ("limit", "nth"),
    [
        ("http2_resets", nth_reset),
        ("http2_faults", lambda _, i: get(2 * i + 1, (b"te", b"gzip"))),
        ("http2_overhead", lambda _, __: frame(0xFA, 0, 0)),
        ("http2_settings", lambda _, __: settings()),
        ("http2_pings", lambda _, __: ping()),
        ("http2_priorities", lambda _, __: priority(1)),
        ("http2_window_updates", lambda _, __: window(0, 1)),
    ],
)
def test_a_limit_of_0_is_none(limit: str, nth: Callable[[Client, int], bytes]) -> None:
    client = Client(**{"http2_overhead": 0, limit: 0})
    for i in range(700):
        client.send(nth(client, i))
    assert is_well(client)


# ---------------------------------------------------------------------- C1, L20: streams


@every_way
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_l20_concurrent_streams(way: str, limit: int) -> None:
    client = Client(way, http2_streams=limit)
    client.send(*[get(stream) for stream in numbers(limit)])
    assert client.resets == []
    above = 2 * limit + 1
    client.send(post(above), data(above, b"x"), headers(above, [(b"a", b"b")]))
    assert client.resets == [(above, REFUSED_STREAM)]
    assert (is_well(client), len(client.requests)) == (True, limit)
    client.respond(1)
    client.engine.calls -= 1
    client.send(get(above + 2), get(above + 4))
    assert client.requests[limit:] == [above + 2]
    assert client.resets == [(above, REFUSED_STREAM), (above + 4, REFUSED_STREAM)]


def test_c1_l20_applications_that_still_run_count() -> None:
    client = Client()
    for stream in numbers(100):
        client.send(get(stream), reset(stream))
    assert client.engine.streams == {}
    assert client.engine.calls == 100
    client.send(get(201))
    assert client.resets == [(201, REFUSED_STREAM)]
    client.engine.calls = 99  # as the owner counts them: one has ended
    client.send(get(203), get(205))
    assert client.requests[100:] == [203]
    assert client.resets == [(201, REFUSED_STREAM), (205, REFUSED_STREAM)]


def test_l20_refusals_are_no_faults_of_the_peer_but_overhead() -> None:
    client = Client(http2_streams=1)
    client.send(get(1), *[get(stream) for stream in numbers(1_000, 3)])
    assert is_well(client)
    assert len(client.resets) == 1_000
    client = Client(http2_streams=1, http2_overhead=100)
    client.send(get(1), *[get(stream) for stream in numbers(98, 3)])  # the greeting counts twice
    assert is_well(client)
    client.send(get(1_001))
    assert is_cut(client, CALM)


@every_way
def test_l20_a_refused_stream_keeps_the_table_in_step(way: str) -> None:
    client = Client(way, http2_streams=1)
    client.send(get(1), headers(3, b"\x82\x87\x84\x01\x01a\x40\x03x-a\x05first"))
    client.respond(1)
    client.engine.calls = 0
    client.send(headers(5, b"\x82\x87\x84\x01\x01a\xbe"))
    request = client.events[-1]
    assert isinstance(request, Request)
    assert request.headers == [(b"host", b"a"), (b"x-a", b"first")]


# ---------------------------------------------------------------------- C2: MadeYouReset


@pytest.mark.parametrize(
    ("bait", "code", "whole"),
    [
        pytest.param(window(1, 0), PROTOCOL_ERROR, True, id="1 WINDOW_UPDATE +0"),
        pytest.param(window(1, f.LARGEST_WINDOW), FLOW_CONTROL_ERROR, False, id="2 WINDOW_UPDATE that overflows"),
        pytest.param(priority(1, size=4), FRAME_SIZE_ERROR, True, id="3 PRIORITY of 4 bytes"),
        pytest.param(priority(1, 1), PROTOCOL_ERROR, True, id="4 PRIORITY on itself"),
        pytest.param(headers(1, [(b"a", b"b")]), STREAM_CLOSED, False, id="5 HEADERS"),
        pytest.param(data(1, b"x"), STREAM_CLOSED, False, id="6 DATA"),
    ],
)
@every_way
def test_c2_made_you_reset(way: str, bait: bytes, code: int, whole: bool) -> None:
    client = Client(way)
    client.send(get(1))
    client.begin(1)
    client.send(bait)
    assert client.engine.streams == {}
    if whole:
        assert is_cut(client, code)
    else:
        assert (client.resets, client.goaways) == ([(1, code)], [])
        fault = client.events[-1]
        assert isinstance(fault, Fault)
        assert (fault.stream, fault.code) == (1, code)


def test_l22_our_own_resets_do_not_count() -> None:
    client = Client(http2_streams=0)
    client.send(*[post(stream) for stream in numbers(90)])
    for stream in numbers(30):
        client.engine.reset(stream)
    for stream in numbers(30, 61):
        client.respond(stream)
    for stream in numbers(30, 121):
        client.engine.reject(stream, 503, "busy")
    client.send(*[data(stream, b"late" * 100) for stream in numbers(90)])
    assert is_well(client)


# ---------------------------------------------------------------------- C3, L27: CONTINUATION

SOME = block(fields())


@every_way
@pytest.mark.parametrize("limit", [1, 8])
def test_c3_l27_continuation_frames(way: str, limit: int) -> None:
    def flood(count: int) -> Client:
        client = Client(way, http2_continuations=limit)
        client.send(headers(1, SOME[:1], whole=False))
        client.send(*[continuation(1, SOME[i : i + 1], whole=False) for i in range(1, count)], continuation(1, SOME[count:]))
        return client

    assert flood(limit).requests == [1]
    above = flood(limit + 1)
    assert (above.requests, is_cut(above, CALM)) == ([], True)


def test_c3_l27_a_continuation_without_an_end() -> None:
    client = Client()
    client.send(headers(1, SOME, whole=False), *[continuation(1, b"", whole=False)] * 8)
    assert is_well(client)
    client.send(continuation(1, b"", whole=False))
    assert is_cut(client, CALM)
    assert not client.engine.in_head


@every_way
def test_c3_l27_the_size_of_a_header_block(way: str) -> None:
    def flood(size: int) -> Client:
        client = Client(way, header_bytes=0, field=0, http2_header_block=32_768)
        name = b"\x00\x01x\x7f" + bytes(((size & 0x7F) | 0x80, (size >> 7 & 0x7F) | 0x80, size >> 14))
        whole = SOME + name + b"y" * (size + 127)
        parts = [whole[start : start + 16_384] for start in range(0, len(whole), 16_384)]
        flags = [False] * (len(parts) - 1) + [True]
        client.send(
            headers(1, parts[0], whole=False), *[continuation(1, part, whole=end) for part, end in zip(parts[1:], flags[1:], strict=True)]
        )
        assert len(whole) == size + 127 + len(SOME) + 7
        return client

    exactly = 32_768 - 127 - len(SOME) - 7
    assert flood(exactly).requests == [1]
    above = flood(exactly + 1)
    assert (above.requests, is_cut(above, CALM)) == ([], True)


def test_c3_l27_off() -> None:
    client = Client(http2_continuations=0, http2_header_block=0, header_bytes=0, field=0)
    whole = SOME + b"\x00\x01x\x7f\x81\xfe\x03" + b"y" * 65_408
    client.send(headers(1, whole[:1], whole=False))
    client.send(*[continuation(1, whole[start : start + 1_000], whole=False) for start in range(1, len(whole), 1_000)])
    client.send(continuation(1, b""))
    assert client.requests == [1]


@every_way
def test_c14_l28_empty_continuations(way: str) -> None:
    client = Client(way, http2_continuations=0)
    client.send(headers(1, SOME, whole=False), *[continuation(1, b"", whole=False)] * 100)
    assert is_well(client)
    client.send(continuation(1, b"", whole=False))
    assert is_cut(client, CALM)


def test_l28_ends_are_never_counted() -> None:
    client = Client()
    for stream in numbers(400):
        client.send(headers(stream, SOME[:3], ended=False, whole=False), continuation(stream, SOME[3:]), data(stream, b"", ended=True))
        client.respond(stream)
        client.engine.calls = 0
    for stream in numbers(400, 1_001):
        client.send(headers(stream, b"", ended=True, whole=False), continuation(stream, SOME, whole=False), continuation(stream, b""))
        client.respond(stream)
        client.engine.calls = 0
    assert is_well(client)
    assert len(client.requests) == 800


@pytest.mark.parametrize(("size", "frames"), [(1, 100), (128, 200), (255, 25_600), (256, 30_000)])
def test_l28_small_data_overhead(size: int, frames: int) -> None:
    client = Client()
    client.send(post(1))
    for _ in range(min(frames, 1_000)):
        client.send(data(1, bytes(size)))
        client.engine.consumed(1, size)
    assert is_well(client)
    if frames <= 1_000:
        client.send(data(1, bytes(size)))
        assert is_cut(client, CALM)


def test_l28_small_data_comes_back_with_time() -> None:
    client = Client()
    client.send(post(1))
    for _ in range(1_000):
        client.now += 0.1  # 2560 bytes a second
        client.send(data(1, b"x"))
        client.engine.consumed(1, 1)
    assert is_well(client)


def test_l28_a_websockets_messages_are_small() -> None:
    client = Client()
    client.send(headers(1, CONNECT, ended=False))
    client.engine.upgrade(1, [])
    for _ in range(2_000):
        client.send(data(1, b"x"))
        client.engine.consumed(1, 1)
    assert is_well(client)
    assert len(client.body(1)) == 2_000
    client.send(*[data(1)] * 100)
    assert is_well(client)
    client.send(data(1))  # of nothing at all there is no need
    assert is_cut(client, CALM)


# ---------------------------------------------------------------------- C4 to C6, L4, L5: header compression


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4_000 + b"\xbe" * 40, id="C4 a big entry, many references"),
        pytest.param(b"\x40\x01x\x00" + b"\xbe" * 8_000, id="C5 an empty entry, many references"),
        pytest.param(b"\x40\x06cookie\x01x" + b"\xbe" * 8_000, id="C5 crumbs"),
        pytest.param(b"\x66\x01a" + b"\xbe" * 8_000, id="C5 Host"),
        pytest.param(b"\x82" * 401, id="C5 one of the static table"),
    ],
)
@pytest.mark.parametrize("trailers", [False, True])
def test_c4_c5_bombs(bomb: bytes, trailers: bool) -> None:
    client = Client()
    before = time.process_time()
    if trailers:
        client.send(post(1), headers(1, bomb))
    else:
        client.send(headers(1, SOME + bomb))
    assert is_cut(client, CALM)
    assert time.process_time() - before < 0.5 * SLOWER
    assert not client.has_ended(1)


@pytest.mark.parametrize("dropped", [b"x-a", b"x_a", b"proxy", b"cookie"])
def test_c5_l5_fields_are_counted_even_those_that_are_dropped(dropped: bytes) -> None:
    def some(count: int) -> Client:
        client = Client()
        client.send(get(1, *[(dropped, b"%d" % i) for i in range(count - 4)]))
        return client

    assert some(100).requests == [1]
    for count in (101, 400):
        client = some(count)
        assert (client.answer(1).status, client.requests, is_well(client)) == (431, [], True)
    assert is_cut(some(401), CALM)


def test_c5_l4_the_size_of_a_list() -> None:
    base = sum(len(name) + len(value) + 32 for name, value in fields())

    def some(size: int) -> Client:
        client = Client(field=0, http2_header_block=0, http2_continuations=0)
        left, more = size - base, []
        while left:
            each = min(left, 8_000) if left - 8_000 > 40 or left <= 8_000 else left - 100
            more.append((b"x-a", b"y" * (each - 35)))
            left -= each
        whole = block(fields(b"GET", b"/", *more), huffman=False)
        parts = [whole[start : start + 16_000] for start in range(0, len(whole), 16_000)]
        client.send(headers(1, parts[0], whole=False), *[continuation(1, part, whole=False) for part in parts[1:]], continuation(1, b""))
        return client

    assert some(32_768).requests == [1]
    for size in (32_769, 4 * 32_768):
        client = some(size)
        assert (client.answer(1).status, client.requests, is_well(client)) == (431, [], True)
    assert is_cut(some(4 * 32_768 + 1), CALM)


def test_c6_an_integer_that_does_not_end() -> None:
    client = Client()
    before = time.process_time()
    client.send(headers(1, b"\xff" * 16_384, whole=False), continuation(1, b"\xff" * 16_384))
    assert is_cut(client, COMPRESSION_ERROR)
    assert time.process_time() - before < 0.2 * SLOWER


@pytest.mark.parametrize(("update", "right"), [(b"\x20", True), (b"\x3f\xe1\x1f", True), (b"\x3f\xe2\x1f", False)])
def test_l31_the_table(update: bytes, right: bool) -> None:
    client = Client()
    client.send(headers(1, update + SOME))
    assert is_well(client) is right
    assert right or is_cut(client, COMPRESSION_ERROR)


def trailing(count: int, size: int) -> Client:
    """Send so many trailer fields of so many bytes."""
    client = Client(field=0)
    whole = block([(b"x-a", b"y" * (size - 3))] * count, huffman=False)
    client.send(post(1), data(1, b"x"), headers(1, whole[:9], whole=False), continuation(1, whole[9:16_000], whole=False))
    client.send(continuation(1, whole[16_000:]))
    return client


@pytest.mark.parametrize(("count", "size"), [(1, 3), (100, 10), (1, 16_384), (2, 8_192), (100, 163)])
def test_l6_trailers(count: int, size: int) -> None:
    client = trailing(count, size)
    assert client.events[-1] == Trailers(1, [(b"x-a", b"y" * (size - 3))] * count)


@pytest.mark.parametrize(("count", "size"), [(101, 3), (400, 10), (1, 16_385), (2, 8_193), (100, 164)])
def test_l6_too_many_or_too_large_trailers(count: int, size: int) -> None:
    client = trailing(count, size)
    assert (client.answer(1).status, client.answer(1).ended) == (431, True)
    assert [type(event) for event in client.events[-2:]] == [Aborted, Rejected]
    assert not client.has_ended(1)
    assert client.works


def test_l6_trailers_behind_a_response_that_has_begun() -> None:
    client = Client()
    client.send(post(1))
    client.begin(1)
    client.send(headers(1, [(b"x-a", b"y")] * 101))
    assert client.resets == [(1, INTERNAL_ERROR)]
    assert client.works


# ---------------------------------------------------------------------- L9: bodies


@every_way
def test_l9_a_body_that_is_too_large(way: str) -> None:
    client = Client(way, request_body=1_000)
    client.send(post(1), data(1, bytes(600)), data(1, bytes(400)))
    assert client.engine.streams
    client.send(data(1, b"x"))
    assert [type(event) for event in client.events[-2:]] == [Aborted, Rejected]
    assert (client.answer(1).status, client.answer(1).ended, client.answer(1).code) == (413, True, NO_ERROR)
    assert len(client.body(1)) == 1_000
    client.send(data(1, bytes(1_000), ended=True))
    assert client.works


@every_way
def test_l9_a_content_length_that_is_too_large(way: str) -> None:
    client = Client(way, request_body=1_000)
    client.send(post(1, (b"content-length", b"1000")), post(3, (b"content-length", b"1001")), data(3, bytes(500)))
    assert client.requests == [1]
    assert (client.answer(3).status, client.answer(3).code) == (413, NO_ERROR)
    assert client.body(3) == b""
    assert client.works


def test_l9_once_the_response_has_begun_it_is_cut() -> None:
    client = Client(request_body=1_000)
    client.send(post(1))
    client.begin(1)
    client.send(data(1, bytes(1_001)))
    assert client.resets == [(1, INTERNAL_ERROR)]


def test_l9_is_not_for_websockets() -> None:
    client = Client(request_body=1_000)
    client.send(headers(1, CONNECT, ended=False))
    client.engine.upgrade(1, [])
    client.send(data(1, bytes(600)), data(1, bytes(600)))
    assert len(client.body(1)) == 1_200


@every_way
@pytest.mark.parametrize("shut", ["window", "transport"])
def test_l9_a_413_that_waits_is_not_cut_by_what_is_still_coming(way: str, shut: str) -> None:
    client = Client(way, request_body=1_000)
    client.send(settings((4, 0 if shut == "window" else 65_535)), post(1))
    client.engine.sender.blocked = shut == "transport"
    client.send(data(1, bytes(1_001)), data(1, bytes(1_001)), data(1, bytes(1_001)))
    client.engine.sender.blocked = False
    client.send(window(1, 1_000))
    assert (client.answer(1).status, client.answer(1).ended, client.answer(1).code) == (413, True, NO_ERROR)
    assert len([event for event in client.events if isinstance(event, Aborted | Rejected)]) == 2


@every_way
@pytest.mark.parametrize("shut", ["window", "transport"])
def test_l9_a_413_before_the_body_that_waits_is_not_cut_by_it(way: str, shut: str) -> None:
    client = Client(way, request_body=1_000)
    client.send(settings((4, 0 if shut == "window" else 65_535)))
    client.engine.sender.blocked = shut == "transport"
    client.send(post(1, (b"content-length", b"1001")), data(1, bytes(500)), data(1, bytes(501), ended=True))
    client.engine.sender.blocked = False
    client.send(window(1, 1_000))
    assert [event for event in client.events if not isinstance(event, Body)] == [Rejected(413, "a body of more than 1000 bytes")]
    assert (client.answer(1).status, client.answer(1).ended) == (413, True)


# ---------------------------------------------------------------------- C8, L34: what waits


def test_l34_when_an_application_has_to_wait() -> None:
    client = Client()
    client.send(settings((4, 0)), get(1), get(3))
    sender = client.engine.sender
    for stream in (1, 3):
        client.begin(stream)
    client.engine.write(1, bytes(65_536), True)
    assert sender.full == []
    client.engine.write(1, b"x", True)
    assert sender.full == [1]
    client.engine.write(3, bytes(65_537), True)
    assert sender.full == [1, 3]
    sender.full.clear()
    client.send(window(1, 65_537 - 16_385))
    client.take()
    assert (sender.freed, client.engine.unsent(1)) == ([], 16_385)
    client.send(window(1, 1))
    client.take()
    assert (sender.freed, client.engine.unsent(1)) == ([1], 16_384)


def test_l34_all_streams_together() -> None:
    client = Client()
    client.send(settings((4, 0)), *[get(stream) for stream in numbers(7)])
    sender = client.engine.sender
    for stream in numbers(7):
        client.begin(stream)
    for stream in numbers(4):
        client.engine.write(stream, bytes(65_536), True)
    assert (sender.full, sender.waiting) == ([], 262_144)
    client.engine.write(9, bytes(16_384), True)  # so much everyone may
    assert sender.full == []
    client.engine.write(11, bytes(16_385), True)
    assert sender.full == [11]
    client.send(reset(1), reset(3))
    client.engine.write(13, bytes(16_385), True)
    assert sender.full == [11]


def test_l34_off() -> None:
    client = Client(response_buffer=0, http2_response_buffer=0)
    client.send(settings((4, 0)), get(1))
    client.begin(1)
    for _ in range(10):
        client.engine.write(1, bytes(MIB), True)
    assert client.engine.sender.full == []


def test_c8_what_waits_costs_no_more_than_the_bodies() -> None:
    client = Client()
    client.send(settings((4, 0)), *[get(stream) for stream in numbers(100)])
    body = bytes(10 * MIB)
    tracemalloc.start()
    for stream in numbers(100):
        client.respond(stream, body)
    client.take()
    assert client.engine.sender.waiting == 100 * len(body)
    client.send(*[window(stream, 1_000) for stream in numbers(100)])
    client.take()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert now < 2 * MIB * SLOWER
    assert peak < 10 * MIB


def test_c8_streams_without_a_window_cost_no_time() -> None:
    client = Client(http2_streams=1_000, http2_pings=0, http2_overhead=0)
    client.send(settings((4, 0)), *[get(stream) for stream in numbers(1_000)])
    for stream in numbers(1_000):
        client.respond(stream, bytes(100_000))
    client.take()
    before = time.process_time()
    for _ in range(1_000):
        client.send(ping())
        client.take()
    assert time.process_time() - before < 1 * SLOWER


def test_c8_a_window_of_one_byte_at_a_time() -> None:
    client = Client(http2_window_updates=0)
    client.send(settings((4, 0)), get(1))
    client.respond(1, bytes(10 * MIB))
    before = time.process_time()
    for _ in range(2_000):
        client.send(window(1, 1))
        client.engine.output()
    assert client.engine.unsent(1) == 10 * MIB - 2_000
    assert time.process_time() - before < 1 * SLOWER


# ---------------------------------------------------------------------- C9, L30: what is not read


@pytest.mark.parametrize(
    ("limits", "count"),
    [({}, 1_000), ({"http2_control_frames": 0}, 65_536 // 17), ({"http2_control_bytes": 0}, 1_000), ({"http2_control_frames": 3}, 3)],
)
def test_c9_l30_what_the_client_sets_off_and_does_not_read(limits: dict[str, int], count: int) -> None:
    client = Client(http2_pings=0, **limits)
    client.send(get(1))
    client.engine.sender.blocked = True
    client.send(ping() * count)
    assert client.engine.ending is Ending.OPEN
    events = client.send(ping())
    assert client.engine.ending is Ending.RESET
    assert [type(event) for event in events] == [Aborted, Fault]
    assert client.engine.streams == {}
    assert client.send(get(3)) == []


def test_l30_off() -> None:
    client = Client(http2_pings=0, http2_control_frames=0, http2_control_bytes=0)
    client.engine.sender.blocked = True
    client.send(ping() * 9_000)
    assert client.engine.ending is Ending.OPEN


def test_l30_counts_anew_once_the_client_has_read() -> None:
    client = Client(http2_pings=0)
    for _ in range(3):
        client.engine.sender.blocked = True
        client.send(ping() * 1_000)
        client.engine.sender.blocked = False
        assert len(client.take()) == 1_000
    assert client.engine.ending is Ending.OPEN


@pytest.mark.parametrize("bait", ["resets", "refusals", "settings"])
def test_l30_counts_whatever_we_are_made_to_say(bait: str) -> None:
    client = Client(http2_streams=1, http2_control_frames=10, http2_faults=0, http2_settings=0)
    client.send(get(1))
    client.engine.sender.blocked = True
    for i in range(11):
        assert client.engine.ending is Ending.OPEN
        each = {"resets": get(2 * i + 3, (b"te", b"x")), "refusals": get(2 * i + 3), "settings": settings()}[bait]
        client.send(each)
    assert client.engine.ending is Ending.RESET


# ---------------------------------------------------------------------- C12, L24, L29


@every_way
@pytest.mark.parametrize(("limit", "count", "well"), [(16, 16, True), (16, 17, False), (0, 1_000, True), (1, 2, False)])
def test_c12_l24_entries_of_settings(way: str, limit: int, count: int, well: bool) -> None:
    client = Client(way, http2_settings_entries=limit)
    client.send(settings(*[(0xF000 + i, i) for i in range(count)]))
    assert is_well(client) is well
    assert well or is_cut(client, CALM)


@every_way
@pytest.mark.parametrize(("streams", "frames"), [(0, 0), (1, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("on_stream", [False, True])
def test_l29_window_updates(way: str, streams: int, frames: int, on_stream: bool) -> None:
    client = Client(way)
    client.send(*[get(stream) for stream in numbers(streams)])
    for stream in numbers(frames):
        client.respond(stream)
    allowed = 5 + 2 * (streams + 10 * frames)
    target = 1 if on_stream and streams else 0
    client.send(*[window(target, 1)] * allowed)
    assert is_well(client)
    client.now += 1_000.0  # they are allowed for what we do, not for time
    client.send(window(target, 1))
    assert is_cut(client, CALM)


# ---------------------------------------------------------------------- C16, L33: what is remembered


def test_c16_l33_streams_that_we_ended() -> None:
    client = Client(http2_overhead=0)
    for stream in numbers(1_001):
        client.send(post(stream))
        client.engine.reset(stream)
        client.engine.calls = 0
    assert len(client.engine.streams) == 0
    client.send(*[data(stream, b"x") for stream in numbers(1_000, 3)])
    assert is_well(client)
    client.send(data(1, b"x"))
    assert is_cut(client, STREAM_CLOSED)


def test_c16_closed_streams_take_no_memory() -> None:
    client = Client(http2_overhead=0, http2_resets=0, http2_small_data=0)
    engine = client.engine

    def play(first: int, count: int) -> None:
        for stream in range(first, first + 8 * count, 8):  # with gaps
            for piece in (post(stream), data(stream, b"x"), get(stream + 2), reset(stream + 2)):
                engine.receive(piece, 1.0)
            engine.start(stream, 200, [])
            engine.write(stream, b"ok", False)
            engine.calls = 0
            engine.output()

    play(1, 1_100)
    tracemalloc.start()
    play(100_001, 1_500 // SLOWER)
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert is_well(Client(engine=engine, greet=False))
    assert now < MIB // 4


def test_c16_streams_that_were_passed_over() -> None:
    client = Client()
    client.send(*[get(stream) + reset(stream) for stream in range(1, 401, 4)])
    client.engine.calls = 0
    client.send(data(399))
    assert is_cut(client, PROTOCOL_ERROR)


# ---------------------------------------------------------------------- C7, L31: frames, windows


def test_c7_l31_a_frame_of_16_mib_is_not_awaited() -> None:
    client = Client()
    tracemalloc.start()
    for byte in f.HEAD.pack(0xFFFFFF << 8 | f.DATA, 0, 1):
        client.send(bytes((byte,)))
    assert is_cut(client, FRAME_SIZE_ERROR)
    for _ in range(100):
        client.send(bytes(65_536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB // 2 * SLOWER
    assert len(client.engine._reader._held) == 0


def test_l31_the_window_of_a_stream() -> None:
    client = Client()
    client.send(post(1), *[data(1, bytes(16_384))] * 4)
    assert client.resets == []
    client.send(data(1, b"x"))
    assert client.resets == [(1, FLOW_CONTROL_ERROR)]
    assert is_well(client)


def test_l31_the_window_of_a_connection() -> None:
    client = Client()
    for stream in numbers(16):
        client.send(post(stream), *[data(stream, bytes(16_384))] * 4)
    assert is_well(client)
    client.send(post(33), data(33, ended=True), post(35), data(35, b"x"))
    assert is_cut(client, FLOW_CONTROL_ERROR)


# ---------------------------------------------------------------------- C15, L32: what the connection's timers ask


def test_c15_l32_how_far_the_greeting_is() -> None:
    client = Client(greet=False)
    assert (client.engine.greeted, client.engine.settled) == (False, False)
    client.send(HELLO)
    assert (client.engine.greeted, client.engine.settled) == (True, False)
    events = client.engine.close(ErrorCodes.SETTINGS_TIMEOUT, "no acknowledgement")
    assert events == [Fault(0, ErrorCodes.SETTINGS_TIMEOUT, "no acknowledgement")]
    assert client.goaways == [(0, ErrorCodes.SETTINGS_TIMEOUT)]


# ---------------------------------------------------------------------- B13


@pytest.mark.parametrize("scheme", [b"https", b"http", b"HTTPS"])
def test_b13_the_scheme_is_the_transports_business(scheme: bytes) -> None:
    client = Client()
    client.send(headers(1, [(name, scheme if name == b":scheme" else value) for name, value in fields()]))
    request = client.events[-1]
    assert isinstance(request, Request)
    assert not hasattr(request, "scheme")


@pytest.mark.parametrize("path", [b"https://a/", b"//", b"a", b"*", b"/#a", b"/ "])
@every_way
def test_b13_absolute_form(way: str, path: bytes) -> None:
    client = Client(way)
    client.send(headers(1, fields(b"GET", path)))
    assert (client.requests == [1]) is (path == b"//")
    assert client.resets == ([] if path == b"//" else [(1, PROTOCOL_ERROR)])


# ---------------------------------------------------------------------- cost


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(lambda _: frame(0xFA, 0, 0), id="unknown"),
        pytest.param(lambda _: ping(), id="PING"),
        pytest.param(lambda i: get(2 * i + 1) + reset(2 * i + 1), id="resets"),
        pytest.param(lambda i: get(4 * i + 1) + reset(4 * i + 1), id="resets with gaps"),
        pytest.param(lambda i: get(2 * i + 1, (b"te", b"x")), id="faults"),
        pytest.param(lambda i: settings((4, i % 9)), id="SETTINGS"),
        pytest.param(lambda i: priority_update(2 * i + 1, b"u=1"), id="PRIORITY_UPDATE"),
        pytest.param(lambda _: window(0, 1), id="WINDOW_UPDATE"),
    ],
)
@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
def test_floods_cost_little(flood: Callable[[int], bytes], pieces: str) -> None:
    off = ("resets", "faults", "overhead", "settings", "pings", "window_updates", "control_frames", "control_bytes")
    client = Client(pieces, http2_streams=100_000, **{f"http2_{name}": 0 for name in off})
    flooding = b"".join(flood(i) for i in range(4_000 // SLOWER))
    before = time.process_time()
    for start in range(0, len(flooding), 65_536):
        client.send(flooding[start : start + 65_536])
        client.engine.output()
    assert time.process_time() - before < 2
    assert client.engine.ending is Ending.OPEN


def test_settings_that_change_a_thousand_windows_cost_little() -> None:
    client = Client(http2_streams=1_000)
    client.send(*[get(stream) for stream in numbers(1_000)])
    before = time.process_time()
    client.send(*[settings(*[(4, i) for i in range(16)]) for _ in range(13)])
    assert time.process_time() - before < 1 * SLOWER
    assert client.sent == [] or Sent(f.SETTINGS, f.ACK, 0) in client.sent
    assert is_well(client)


def test_e8_a_body_of_a_megabyte_in_single_bytes() -> None:
    client = Client("byte by byte")
    size = MIB // 4 // SLOWER
    before = time.process_time()
    client.send(post(1))
    for start in range(0, size, 16_384):
        client.send(data(1, bytes(min(16_384, size - start))))
        client.engine.consumed(1, min(16_384, size - start))
    assert time.process_time() - before < 4
    assert sum(len(event.data) for event in client.events if isinstance(event, Body)) == size
