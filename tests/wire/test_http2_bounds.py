"""What an HTTP/2 client may make the engine hold, and do: spec attacks C4 to C8, C16, E8; spec limits L4 to L6, L9, L31, L33 to L35.

Memory is measured by tracemalloc, work by counting calls: nothing depends on how fast the machine is.
"""

import sys
import tracemalloc
from collections.abc import Callable

import pytest

from termserver.wire import h2frames as f
from termserver.wire.events import Aborted, Body, Ending, Rejected, Request, Trailers
from wire.driving import SLOWER
from wire.h2driving import (
    COMPRESSION_ERROR,
    CONNECT,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Client,
    Sent,
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
    numbers,
    ping,
    post,
    priority_update,
    reset,
    settings,
    window,
)

MIB = 1 << 20
SOME = block(fields())


def calls(play: Callable[[], object]) -> int:
    """Count the calls of functions, Python's and C's: work that does not depend on the machine."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        play()
    finally:
        sys.setprofile(before)
    return count


def peak(play: Callable[[], object]) -> int:
    """Give the most bytes that were held at a time, beside what is held already."""
    tracemalloc.start()
    try:
        play()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


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
    piece = post(1) + headers(1, bomb) if trailers else headers(1, SOME + bomb)
    assert peak(lambda: client.send(piece)) < MIB // 2 * SLOWER
    assert is_cut(client, ENHANCE_YOUR_CALM)
    assert not client.has_ended(1)
    assert sum(len(each.payload) for each in client.sent) < 200


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(lambda count: b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4_000 + b"\xbe" * count, id="C4"),
        pytest.param(lambda count: b"\x40\x01x\x00" + b"\xbe" * count, id="C5"),
        pytest.param(lambda count: b"\x66\x01a" + b"\xbe" * count, id="C5 Host"),
        pytest.param(lambda count: b"\xff" * count, id="C6"),
        pytest.param(lambda count: b"\x00\x01x\x7f" + b"\xff" * count, id="C6 a length"),
    ],
)
def test_c4_c5_c6_a_bigger_bomb_is_no_more_work(bomb: Callable[[int], bytes]) -> None:
    def work(count: int) -> int:
        client, piece = Client(), headers(1, SOME + bomb(count))
        return calls(lambda: client.send(piece))

    assert work(12_000) <= work(3_000) * 1.1


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
    assert is_cut(some(401), ENHANCE_YOUR_CALM)


@every_way
def test_c5_l5_a_list_that_is_refused_keeps_the_table_in_step(way: str) -> None:
    client = Client(way)
    client.send(headers(1, SOME + b"\x00\x01x\x01y" * 100 + b"\x40\x03x-a\x05first"))
    assert (client.answer(1).status, client.requests) == (431, [])
    client.send(headers(3, b"\x82\x87\x84\x01\x01a\xbe"))
    request = client.events[-1]
    assert isinstance(request, Request)
    assert request.headers == [(b"host", b"a"), (b"x-a", b"first")]


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
    assert is_cut(some(4 * 32_768 + 1), ENHANCE_YOUR_CALM)


def test_c6_an_integer_that_does_not_end() -> None:
    client = Client()
    client.send(headers(1, b"\xff" * 16_384, whole=False), continuation(1, b"\xff" * 16_384))
    assert is_cut(client, COMPRESSION_ERROR)


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


@pytest.mark.parametrize("shut", ["streams", "the connection"])
def test_c8_streams_that_wait_cost_no_work(shut: str) -> None:
    def work(streams: int) -> int:
        client = Client(http2_streams=1_000)
        client.send(settings((4, 0 if shut == "streams" else MIB)), *[get(stream) for stream in numbers(streams)])
        for stream in numbers(streams):
            client.respond(stream, bytes(100_000))
        client.take()
        return calls(lambda: [(client.engine.receive(ping(), 1.0), client.engine.output()) for _ in range(100)])

    few, many = work(10), work(1_000)
    assert many <= (few * 1.1 if shut == "streams" else few * 100)


def test_c8_a_window_of_one_byte_at_a_time() -> None:
    def work(size: int) -> int:
        client = Client(http2_window_updates=0)
        client.send(settings((4, 0)), get(1))
        client.respond(1, bytes(size))
        before = calls(lambda: [(client.engine.receive(window(1, 1), 1.0), client.engine.output()) for _ in range(500)])
        assert client.engine.unsent(1) == size - 500
        return before

    assert work(10 * MIB) <= work(1_000) * 1.1


def test_c8_l35_progress_is_what_was_sent_of_a_body() -> None:
    client = Client()
    client.send(settings((4, 0)), get(1))
    client.respond(1, bytes(1_000))
    client.take()
    stream = client.engine.streams[1]
    assert (client.engine.sender.sent, stream.sent, client.engine.unsent(1)) == (0, 0, 1_000)
    client.send(ping(), window(0, 10), settings())  # which let nothing go
    client.take()
    assert (client.engine.sender.sent, stream.sent, client.engine.unsent(1)) == (0, 0, 1_000)
    client.send(window(1, 240))
    client.take()
    assert (client.engine.sender.sent, stream.sent, client.engine.unsent(1)) == (240, 240, 760)


def test_c5_c8_l20_refusals_that_wait_for_a_window_are_streams() -> None:
    client = Client()
    client.send(settings((4, 0)))
    refused = [headers(stream, fields(b"BREW")) for stream in numbers(300)]
    assert peak(lambda: client.send(*refused)) < MIB // 2 * SLOWER
    assert len(client.engine.streams) == 100
    assert client.resets == [(stream, REFUSED_STREAM) for stream in numbers(200, 201)]
    client.send(settings((4, 100)))
    assert [client.answer(stream).status for stream in numbers(100)] == [501] * 100
    assert client.works


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


@pytest.mark.parametrize("gap", [2, 4])
def test_c16_l33_streams_that_come_and_go(gap: int) -> None:
    client = Client(http2_overhead=0, http2_faults=0, http2_resets=0)
    engine, count = client.engine, 16_384 // SLOWER

    def play() -> None:
        for i in range(count):
            engine.receive(headers(i * gap + 1, b"\x82" if i & 1 else SOME, ended=False), 1.0)  # the half of them is malformed
            engine.reset(i * gap + 1)
            engine.calls = 0
            engine.output()

    assert peak(play) < MIB // 3
    assert (engine.ending, engine.opened, engine.streams) == (Ending.OPEN, (count + 1) // 2, {})


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


# ---------------------------------------------------------------------- work


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
        pytest.param(lambda i: post(2 * i + 1) + data(2 * i + 1, b"x") + headers(2 * i + 1, [(b":a", b"")]), id="malformed trailers"),
    ],
)
@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
def test_floods_are_work_in_proportion(flood: Callable[[int], bytes], pieces: str) -> None:
    off = ("resets", "faults", "overhead", "settings", "pings", "window_updates", "control_frames", "control_bytes", "small_data")

    def work(count: int) -> int:
        client = Client(http2_streams=100_000, **{f"http2_{name}": 0 for name in off})
        flooding = b"".join(flood(i) for i in range(count))
        step = 4_096 if pieces == "whole" else 1
        receive, output = client.engine.receive, client.engine.output
        count = calls(lambda: [(receive(flooding[i : i + step], 1.0), output()) for i in range(0, len(flooding), step)])
        assert client.engine.ending is Ending.OPEN
        return count

    assert work(2_000) <= 2.2 * work(1_000)


def test_settings_that_change_a_thousand_windows() -> None:
    client = Client(http2_streams=1_000)
    client.send(*[get(stream) for stream in numbers(1_000)])
    many = b"".join(settings(*[(4, i) for i in range(16)]) for _ in range(13))
    assert calls(lambda: client.send(many)) < 13 * 16 * 1_000 * 3
    assert is_well(client)
    assert client.sent == [Sent(f.SETTINGS, f.ACK, 0)] * 13


def test_e8_a_body_in_single_bytes() -> None:
    def work(size: int) -> int:
        client = Client()
        receive = client.engine.receive
        client.send(post(1))
        count = 0
        for _ in range(0, size, 8_192):
            piece = data(1, bytes(8_192))
            count += calls(lambda: [client.events.extend(receive(piece[i : i + 1], 1.0)) for i in range(len(piece))])  # noqa: B023 - at once
            client.engine.consumed(1, 8_192)
        assert len(client.body(1)) == size
        return count

    assert work(131_072) <= 2.1 * work(65_536)
    assert work(65_536) < 65_536 * 8
