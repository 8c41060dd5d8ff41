"""HTTP/2 flow control, both ways, and who goes first (RFC 9113 §5.2, §6.9; RFC 9218)."""

from collections.abc import Iterable

import pytest

from termserver.wire import h2frames as f
from termserver.wire.events import Ending
from wire.h2driving import (
    ACK,
    ANSWERED_EARLY,
    FLOW_CONTROL_ERROR,
    HALF_CLOSED,
    HELLO,
    LARGEST,
    PROTOCOL_ERROR,
    RESET_BY_US,
    TE,
    Client,
    breaks,
    busy,
    data,
    every_way,
    get,
    headers,
    ping,
    post,
    priority_update,
    read_frames,
    reset,
    settings,
    window,
)

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


def test_rfc9113_6_9_what_the_client_may_send_on_all_streams_together() -> None:
    client = Client(http2_window=65_535)
    assert client.engine.open_window == 65_535
    client.send(post(1), data(1, bytes(16_384)), data(1, bytes(16_384)), data(1, bytes(100)))
    assert client.engine.open_window == 65_535 - 32_868
    client.engine.consumed(1, 32_868)
    assert (client.opened(0), client.engine.open_window) == (32_868, 65_535)


@every_way
def test_rfc9113_6_9_what_an_answer_gave_back_is_not_given_back_again(way: str) -> None:
    client = Client(way, request_body=30_000, http2_window=65_535)
    client.send(settings((4, 0)))  # the answers wait, so the streams go on
    for stream in (1, 3, 5, 7):
        client.send(post(stream), data(stream, bytes(16_384)), data(stream, bytes(13_617)))
        client.engine.consumed(stream, 16_384)  # the application takes what it was handed before
    assert client.opened(0) <= 4 * 30_001
    assert [client.opened(stream) for stream in (1, 3, 5, 7)] == [0, 0, 0, 0]  # nobody wants more of these
    assert client.resets == client.goaways == []


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


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("body", [b"", b"ok", bytes(20_000)], ids=len)
def test_rfc9113_8_1_an_interim_response_that_waited_for_the_transport_comes_first(body: bytes, before: bool) -> None:
    client = Client()
    client.send(get(1), get(3))
    if before:  # a response went before it
        client.respond(1)
        client.take()
    client.engine.sender.blocked = True
    client.engine.interim(3, 103, [(b"link", b"</a>")])
    client.engine.sender.blocked = False
    client.respond(3, body)
    answer = client.answer(3)
    assert (answer.interims, answer.status, answer.body, answer.ended) == ([103], 200, body, True)


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


@every_way
@pytest.mark.parametrize("open_streams", [0, 1, 3])
def test_rfc9218_7_1_no_more_streams_have_a_priority_than_there_may_be(way: str, open_streams: int) -> None:
    client = Client(way, http2_streams=3)
    client.send(priority_update(1, b"u=0"), get(5), reset(5))  # that one was passed over: it never opens
    client.engine.calls = 0
    client.send(*[get(stream) for stream in (7, 9, 11)[:open_streams]])
    client.send(*[priority_update(stream, b"u=1") for stream in (21, 23, 25)[open_streams:]])
    client.send(priority_update(25, b"u=2") if open_streams < 3 else priority_update(7, b"u=2"))  # known already
    assert client.goaways == []
    client.send(priority_update(99, b"u=1"))
    assert [code for _, code in client.goaways] == [PROTOCOL_ERROR]


def test_rfc9218_10_urgent_ones_without_a_window_let_others_pass() -> None:
    client = Client()
    client.send(get(1, urgency(b"u=0")), get(3, urgency(b"u=7")), window(0, 100_000))
    client.respond(1, bytes(70_000))
    client.respond(3, bytes(100))
    assert len(client.answer(1).body) == 65_535
    assert client.answer(3).ended
