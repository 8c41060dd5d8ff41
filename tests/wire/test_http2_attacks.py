"""What a hostile client does to the HTTP/2 engine: spec attacks B11 to B13, C1 to C3, C9 to C15; spec limits L20 to L30, L32.

Each limit is met exactly, which passes, and exceeded by one, which does not. The clock stands unless a test moves it. What the floods may
cost, and what is held, is in `test_http2_bounds.py`.
"""

import tracemalloc
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Ending, Fault, Request, Trailers
from wire.driving import SLOWER
from wire.h2driving import (
    CONNECT,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HELLO,
    LARGEST,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Client,
    block,
    continuation,
    data,
    every_way,
    fields,
    frame,
    get,
    headers,
    is_cut,
    is_well,
    length,
    numbers,
    ping,
    post,
    priority,
    priority_update,
    reset,
    settings,
    window,
)

MIB = 1 << 20
SOME = block(fields())

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


def late(client: Client, i: int, piece: bytes) -> bytes:
    """Send on a stream that we reset."""
    if not i:
        client.send(post(1))
        client.engine.reset(1)
    return piece


def refused(client: Client, i: int) -> bytes:
    """Open a stream where there is no room for one."""
    client.engine.calls = 1 << 30
    return get(2 * i + 1)


def dropped(client: Client, i: int) -> bytes:
    """Send more of a body that is too large, while the answer waits."""
    return data(1, b"x") if i else settings((4, 0)) + post(1, (b"content-length", b"1001")) + data(1, b"x")


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
    pytest.param(lambda client, i: late(client, i, data(1, b"x")), 10_000, 10.0, id="L23 DATA on a stream that we reset"),
    pytest.param(lambda client, i: late(client, i, data(1)), 10_000, 10.0, id="L23 empty DATA on a stream that we reset"),
    pytest.param(lambda client, i: late(client, i, headers(1, b"\x82")), 10_000, 10.0, id="L23 HEADERS on a stream that we reset"),
    pytest.param(lambda client, i: late(client, i, reset(1)), 500, 10.0, id="L21 RST_STREAM on a stream that we reset"),
    pytest.param(lambda client, i: opened(client, i, get) + reset(1), 500, 10.0, id="L21 RST_STREAM on a closed stream"),
    pytest.param(lambda client, i: refused(client, i) + reset(2 * i + 1), 500, 10.0, id="L21 L20 reset what was refused"),
    pytest.param(lambda _, i: headers(2 * i + 1, fields(b"POST", b"/", length(1))), 10, 10.0, id="C17 L22 a length, and no body"),
    pytest.param(lambda _, i: get(2 * i + 1, (b"a", b"b\r\nc: d")), 10, 10.0, id="B11 L22 line ends in a value"),
    pytest.param(lambda _, i: headers(2 * i + 1, CONNECT), 10, 10.0, id="D10 L22 tunnels that are closed at once"),
    pytest.param(lambda client, i: opened(client, i) + headers(2 * i + 3, [*CONNECT, length(0)]), 10, 10.0, id="D10 L22 bodies of tunnels"),
    pytest.param(lambda _, __: settings(), 13, 60.0, id="C12 L24 SETTINGS, beside the first one"),
    pytest.param(lambda _, __: ping(), 300, 60.0, id="C9 L25 PING"),
    pytest.param(lambda _, i: priority(1, 3 + 2 * i), 120, 60.0, id="C10 L26 PRIORITY"),
    pytest.param(lambda client, i: opened(client, i) + data(1, padding=0), 100, 10.0, id="C14 L28 padded empty DATA"),
    pytest.param(lambda client, i: opened(client, i) + data(1), 100, 10.0, id="C14 L28 empty DATA"),
    pytest.param(lambda client, i: opened(client, i) + data(1, b"x"), 101, 10.0, id="C14 L28 DATA of a byte, beside the first"),
    pytest.param(lambda client, i: small(client, i, 255), 25_601, 10.0, id="C14 L28 DATA of 255 bytes, beside the first"),
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
    assert is_cut(client, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(("nth", "limit", "period"), FLOODS)
def test_floods_are_answered_with_little_and_leave_nothing(nth: Callable[[Client, int], bytes], limit: int, period: float) -> None:
    client = Client(http2_streams=0, **({} if limit >= 9_000 else {"http2_overhead": 0}))
    engine = client.engine
    received = answered = 0
    tracemalloc.start()
    for i in range(limit + 100):
        piece = nth(client, i)
        engine.receive(piece, client.now)
        answer = engine.output()
        received, answered = received + len(piece), answered + len(answer)
    cut = engine.ending
    for _ in range(100):  # what still comes is neither kept nor answered
        engine.receive(ping() * 100, client.now)
        answered += len(engine.output())
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (cut, engine.ending, engine.streams) == (Ending.LINGER, Ending.LINGER, {})
    assert most < MIB // 4 * SLOWER
    assert answered < received + 100  # nothing is amplified; a GOAWAY has its reason


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
    assert is_cut(client, ENHANCE_YOUR_CALM)
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
    assert is_cut(client, ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(
    ("limit", "nth"),
    [
        ("http2_resets", nth_reset),
        ("http2_faults", lambda _, i: get(2 * i + 1) + data(2 * i + 1)),
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
        client.engine.calls = 0
    assert is_well(client)


def test_l23_dropped_bodies_are_overhead() -> None:
    client = Client(request_body=1_000, http2_overhead=12)
    client.now += 10.0  # the greeting is forgotten by now
    for i in range(11):  # beside the settings that it begins with
        client.send(dropped(client, i))
    assert is_well(client)
    client.send(dropped(client, 11))
    assert is_cut(client, ENHANCE_YOUR_CALM)


def test_l23_a_client_that_leaves_again_and_again() -> None:
    client = Client(http2_overhead=12)  # two of it the greeting has used up
    for _ in range(10):
        client.send(frame(f.GOAWAY, 0, 0, bytes(8)))
    assert client.goaways == [(LARGEST, NO_ERROR)]  # one answer to all of them
    client.send(frame(f.GOAWAY, 0, 0, bytes(8)))
    assert client.goaways[1:] == [(0, ENHANCE_YOUR_CALM)]


def test_l23_what_moves_a_request_forward_is_no_overhead() -> None:
    client = Client(http2_overhead=2)  # that much the greeting has used up
    for stream in numbers(1_000):
        client.send(post(stream), data(stream, bytes(300)), data(stream, b"", ended=True), window(0, 2))
        client.engine.consumed(stream, 300)
        client.respond(stream)
        client.engine.calls = 0
        client.take()
    client.send(post(2_001), data(2_001, b"x"), headers(2_001, [(b"a", b"b")]))
    client.respond(2_001)
    assert (is_well(client), len(client.requests), client.answer(2_001).ended) == (True, 1_001, True)
    client.send(ping())
    assert is_cut(client, ENHANCE_YOUR_CALM)


def test_c10_priority_frames_change_nothing() -> None:
    client = Client()
    client.send(settings((4, 1 << 20)), get(1), get(3), get(5), priority(1, 5), priority(3, 1), priority(5, 0))
    client.engine.sender.blocked = True
    for stream in (1, 3, 5):
        client.respond(stream, bytes(40_000))
    client.send(window(0, 1 << 20), priority(5, 3))
    client.engine.sender.blocked = False
    assert [each.stream for each in client.take() if each.kind == f.DATA] == [1, 3, 5] * 3
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
    assert is_cut(client, ENHANCE_YOUR_CALM)


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
    assert (above.requests, is_cut(above, ENHANCE_YOUR_CALM)) == ([], True)


def test_c3_l27_a_continuation_without_an_end() -> None:
    client = Client()
    client.send(headers(1, SOME, whole=False), *[continuation(1, b"", whole=False)] * 8)
    assert is_well(client)
    client.send(continuation(1, b"", whole=False))
    assert is_cut(client, ENHANCE_YOUR_CALM)
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
    assert (above.requests, is_cut(above, ENHANCE_YOUR_CALM)) == ([], True)


@pytest.mark.parametrize("frames", [1, 2])
def test_c3_l27_a_header_block_that_may_be_smaller_than_a_frame(frames: int) -> None:
    def flood(size: int) -> Client:
        client = Client(http2_header_block=1_000)
        rest = size - len(SOME) - 6 - 127
        whole = SOME + b"\x00\x01x\x7f" + bytes((rest & 0x7F | 0x80, rest >> 7)) + b"y" * (rest + 127)  # RFC 7541 §5.1
        assert len(whole) == size
        client.send(headers(1, whole) if frames == 1 else headers(1, whole[:-9], whole=False) + continuation(1, whole[-9:]))
        return client

    assert flood(1_000).requests == [1]
    above = flood(1_001)
    assert (above.requests, is_cut(above, ENHANCE_YOUR_CALM)) == ([], True)


def test_c3_a_header_block_that_does_not_end_holds_little() -> None:
    client = Client()
    tracemalloc.start()
    client.send(headers(1, bytes(3_000), whole=False), *[continuation(1, bytes(3_500), whole=False)] * 8)
    held, _ = tracemalloc.get_traced_memory()
    assert (is_well(client), client.engine.in_head) == (True, True)
    client.send(continuation(1, bytes(3_500), whole=False), *[continuation(1, bytes(16_384), whole=False)] * 100)
    after, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert is_cut(client, ENHANCE_YOUR_CALM)
    assert held < 40_000 * SLOWER
    assert after < 20_000 * SLOWER
    assert most < 2 * MIB * SLOWER  # what was sent is one piece of 1.6 MB here
    assert sum(len(each.payload) for each in client.sent) < 100


def test_c3_l12_the_head_is_awaited_until_it_is_whole() -> None:
    client = Client()
    client.send(headers(1, SOME[:3], whole=False))
    assert client.engine.in_head
    for i in range(3, 8):
        client.send(continuation(1, SOME[i : i + 1], whole=False))
        assert client.engine.in_head
    client.send(continuation(1, SOME[8:]))
    assert (client.engine.in_head, client.requests) == (False, [1])


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
    assert is_cut(client, ENHANCE_YOUR_CALM)


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
    client.send(post(1), data(1, b"x"))  # the first one of a stream is free
    client.engine.consumed(1, 1)
    for _ in range(min(frames, 1_000)):
        client.send(data(1, bytes(size)))
        client.engine.consumed(1, size)
    assert is_well(client)
    if frames <= 1_000:
        client.send(data(1, bytes(size)))
        assert is_cut(client, ENHANCE_YOUR_CALM)


def test_l28_a_small_body_whose_end_comes_apart() -> None:
    """As httpx and others send it."""
    client = Client()
    for stream in numbers(500):
        client.send(post(stream), data(stream, b"{}"), data(stream, ended=True))
        client.engine.consumed(stream, 2)
        client.respond(stream)
        client.take()
    assert is_well(client)


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
    assert is_cut(client, ENHANCE_YOUR_CALM)


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
    assert well or is_cut(client, ENHANCE_YOUR_CALM)


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
    assert is_cut(client, ENHANCE_YOUR_CALM)


# ---------------------------------------------------------------------- C15, L32: what the connection's timers ask


def test_c15_l32_how_far_the_greeting_is() -> None:
    client = Client(greet=False)
    assert (client.engine.greeted, client.engine.settled) == (False, False)
    client.send(HELLO)
    assert (client.engine.greeted, client.engine.settled) == (True, False)
    events = client.engine.close(ErrorCodes.SETTINGS_TIMEOUT, "no acknowledgement")
    assert events == [Fault(0, ErrorCodes.SETTINGS_TIMEOUT, "no acknowledgement")]
    assert client.goaways == [(0, ErrorCodes.SETTINGS_TIMEOUT)]


def test_c15_l32_a_preface_that_drips() -> None:
    client = Client(greet=False)
    for byte in HELLO[:-1]:
        client.send(bytes((byte,)))
        assert (client.engine.greeted, client.engine.settled, client.events) == (False, False, [])
    client.send(HELLO[-1:])
    assert client.engine.greeted


@every_way
def test_c15_l32_requests_do_not_stand_for_an_acknowledgement(way: str) -> None:
    client = Client(way, greet=False)
    client.send(HELLO, get(1), ping(), settings())
    assert (client.requests, client.engine.settled) == ([1], False)
    client.send(f.SETTINGS_ACK)
    assert client.engine.settled


# ---------------------------------------------------------------------- B11, B12: fields that no request may have

FORBIDDEN = [*range(9), *range(10, 32), 127]


@pytest.mark.parametrize("byte", FORBIDDEN, ids=hex)
@pytest.mark.parametrize("place", [b"%ca", b"a%cb", b"a%c"], ids=["first", "inside", "last"])
@pytest.mark.parametrize("huffman", [False, True])
def test_b11_rfc9113_8_2_1_a_byte_that_no_value_may_have(byte: int, place: bytes, huffman: bool) -> None:
    client = Client()
    bad = (b"x-a", place % byte)
    client.send(headers(1, block(fields(b"GET", b"/", bad), huffman=huffman)), post(3), headers(3, block([bad], huffman=huffman)))
    assert client.resets == [(1, PROTOCOL_ERROR), (3, PROTOCOL_ERROR)]
    assert (client.requests, client.has_ended(3), is_well(client)) == ([3], False, True)


@pytest.mark.parametrize("value", [b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"])
def test_b11_rfc9113_8_2_1_blanks_around_a_value(value: bytes) -> None:
    client = Client()
    client.send(get(1, (b"x-a", value)), post(3), headers(3, [(b"x-a", value)]))
    assert client.resets == [(1, PROTOCOL_ERROR), (3, PROTOCOL_ERROR)]
    assert (client.requests, client.has_ended(3)) == ([3], False)


@pytest.mark.parametrize("value", [b"", b"a b", b"a\tb", bytes(range(0x21, 0x7F)), bytes(range(0x80, 0x100))])
def test_b11_rfc9113_8_2_1_every_other_byte_is_left_as_it_is(value: bytes) -> None:
    client = Client()
    client.send(headers(1, fields(b"POST", b"/", (b"x-a", value)), ended=False), headers(1, [(b"x-b", value)]))
    assert [event.headers for event in client.events if isinstance(event, Request)] == [[(b"host", b"a"), (b"x-a", value)]]
    assert client.events[-1] == Trailers(1, [(b"x-b", value)])


@pytest.mark.parametrize(
    "field",
    [
        (b"connection", b"close"),
        (b"connection", b"x-a"),
        (b"keep-alive", b"5"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers, gzip"),
        (b"X-A", b"a"),
        (b"x\x00a", b"a"),
        (b"x a", b"a"),
        (b"x:a", b"a"),
        (b"x\xe9", b"a"),
        (b"", b"a"),
        (b":", b"a"),
        (b":path", b"/"),
        (b":status", b"200"),
        (b":unknown", b"a"),
    ],
    ids=str,
)
def test_b12_rfc9113_8_2_fields_that_neither_heads_nor_trailers_may_have(field: tuple[bytes, bytes]) -> None:
    client = Client()
    client.send(get(1, field), post(3), headers(3, [(b"x-a", b"a"), field]))
    assert client.resets == [(1, PROTOCOL_ERROR), (3, PROTOCOL_ERROR)]
    assert (client.requests, client.has_ended(3), is_well(client)) == ([3], False, True)
    assert client.works


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
